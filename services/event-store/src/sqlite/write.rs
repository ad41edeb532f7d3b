//! Writes what a batch came to, in statements of several rows.

use std::borrow::Cow;

use catrust_domain::batch::Writes;
use catrust_domain::command::StoredReply;
use catrust_domain::{BrokerState, CaCertificate, Instance, RecordedEvent, SerialNumber, Timestamp};
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments as _, AssertSqlSafe, SqliteConnection};

use super::error::store_error;
use crate::StoreError;
use crate::columns::{edition_text, enforcement_text, outcome_text, state_texts, stored};
use crate::error::BoxError;
use crate::queries::{broker_columns, certificate_columns, event_columns, instance_columns};
use crate::replies;

/// Rows per statement, the largest first. Three sizes, so that each table has three
/// prepared statements and not one for every size of a batch.
const ROWS_PER_STATEMENT: [usize; 3] = [64, 8, 1];

/// A value to write.
enum Value<'a> {
    Null,
    Number(i64),
    Text(Cow<'a, str>),
    Octets(Cow<'a, [u8]>),
}

/// A table to write to.
struct Table {
    name: &'static str,
    columns: &'static str,
    /// What to do about a row that is there.
    conflict: &'static str,
}

// Never ON CONFLICT: a taken position or version MUST fail the batch.
const EVENTS: Table = Table { name: "events", columns: event_columns!(""), conflict: "" };

const INSTANCES: Table = Table {
    name: "instances",
    columns: instance_columns!(""),
    conflict: " ON CONFLICT (instance_id) DO UPDATE SET region_id = excluded.region_id, \
        owner_account_id = excluded.owner_account_id, edition = excluded.edition, \
        revision = excluded.revision, trust_position = excluded.trust_position, \
        bundle_digest = excluded.bundle_digest, set_hash = excluded.set_hash, \
        certificate_count = excluded.certificate_count, \
        unspent_register_codes = excluded.unspent_register_codes, \
        registered_at = excluded.registered_at, registered_position = excluded.registered_position, \
        updated_at = excluded.updated_at, updated_position = excluded.updated_position, \
        stream_version = excluded.stream_version",
};

const CERTIFICATES: Table = Table {
    name: "ca_certificates",
    columns: certificate_columns!(""),
    conflict: " ON CONFLICT (instance_id, sn) DO UPDATE SET sha256 = excluded.sha256, \
        spki_sha256 = excluded.spki_sha256, subject = excluded.subject, \
        subject_key_id = excluded.subject_key_id, issuer = excluded.issuer, \
        not_before = excluded.not_before, not_after = excluded.not_after, \
        ca_content = excluded.ca_content, ca_name = excluded.ca_name, \
        register_code = excluded.register_code, state = excluded.state, \
        inactivation_scope = excluded.inactivation_scope, registered_at = excluded.registered_at, \
        registered_position = excluded.registered_position, \
        state_changed_at = excluded.state_changed_at, state_changed_by = excluded.state_changed_by, \
        state_reason = excluded.state_reason, revision = excluded.revision, \
        position = excluded.position, stream_version = excluded.stream_version",
};

const SPENT_CODES: Table =
    Table { name: "spent_register_codes", columns: "instance_id, register_code, position", conflict: "" };

const REPLIES: Table = Table {
    name: "replies",
    columns: "account_id, request_id, fingerprint, reply, created_at",
    conflict: "",
};

const BROKERS: Table = Table {
    name: "broker_receipts",
    columns: broker_columns!(""),
    conflict: " ON CONFLICT (instance_id, broker_id) DO UPDATE SET revision = excluded.revision, \
        digest = excluded.digest, applied_at = excluded.applied_at, \
        sessions_cut = excluded.sessions_cut, refused_revision = excluded.refused_revision, \
        refusal = excluded.refusal, refused_at = excluded.refused_at, outcome = excluded.outcome, \
        enforcement = excluded.enforcement, sessions_open = excluded.sessions_open, \
        received_at = excluded.received_at",
};

/// Writes a batch.
pub(super) async fn write(
    connection: &mut SqliteConnection,
    writes: &Writes,
    now: Timestamp,
) -> Result<(), StoreError> {
    put(connection, &EVENTS, writes.events.iter().map(event)).await?;
    put(connection, &INSTANCES, writes.instances.iter().map(instance)).await?;
    let gone: Vec<(&str, &str)> =
        writes.deleted_certificates.iter().map(|(id, sn)| (id.as_str(), sn.as_str())).collect();
    delete_certificates(connection, &gone).await?;
    put(connection, &CERTIFICATES, writes.certificates.iter().map(certificate)).await?;
    let codes = writes.spent_register_codes.iter();
    put(connection, &SPENT_CODES, codes.map(|(id, code, at)| spent_code((id.as_str(), code, *at)))).await?;
    let replies = writes.replies.iter().map(|stored| reply(stored, now)).collect::<Result<Vec<_>, _>>();
    put(connection, &REPLIES, replies.map_err(StoreError::Internal)?.into_iter()).await
}

/// Inserts or replaces instances.
pub(super) async fn put_instances(
    connection: &mut SqliteConnection,
    rows: &[&Instance],
) -> Result<(), StoreError> {
    put(connection, &INSTANCES, rows.iter().map(|row| instance(row))).await
}

/// Inserts or replaces CA certificates.
pub(super) async fn put_certificates(
    connection: &mut SqliteConnection,
    rows: &[&CaCertificate],
) -> Result<(), StoreError> {
    put(connection, &CERTIFICATES, rows.iter().map(|row| certificate(row))).await
}

/// Inserts spent register codes.
pub(super) async fn put_spent_codes(
    connection: &mut SqliteConnection,
    rows: &[(&str, &str, u64)],
) -> Result<(), StoreError> {
    put(connection, &SPENT_CODES, rows.iter().map(|row| spent_code(*row))).await
}

/// Inserts or replaces brokers.
pub(super) async fn put_brokers(
    connection: &mut SqliteConnection,
    rows: &[BrokerState],
) -> Result<(), StoreError> {
    put(connection, &BROKERS, rows.iter().map(broker)).await
}

/// Deletes instances.
pub(super) async fn delete_instances(
    connection: &mut SqliteConnection,
    ids: &[&str],
) -> Result<(), StoreError> {
    for id in ids {
        let delete = sqlx::query("DELETE FROM instances WHERE instance_id = $1").bind(*id);
        delete.execute(&mut *connection).await.map_err(store_error)?;
    }
    Ok(())
}

/// Deletes CA certificates by instance and serial number.
pub(super) async fn delete_certificates(
    connection: &mut SqliteConnection,
    keys: &[(&str, &str)],
) -> Result<(), StoreError> {
    for (id, sn) in keys {
        let delete = sqlx::query("DELETE FROM ca_certificates WHERE instance_id = $1 AND sn = $2");
        delete.bind(*id).bind(*sn).execute(&mut *connection).await.map_err(store_error)?;
    }
    Ok(())
}

/// Deletes spent register codes.
pub(super) async fn delete_spent_codes(
    connection: &mut SqliteConnection,
    keys: &[(&str, &str)],
) -> Result<(), StoreError> {
    for (id, code) in keys {
        let delete =
            sqlx::query("DELETE FROM spent_register_codes WHERE instance_id = $1 AND register_code = $2");
        delete.bind(*id).bind(*code).execute(&mut *connection).await.map_err(store_error)?;
    }
    Ok(())
}

/// Writes rows, as many per statement as fit.
async fn put<'a>(
    connection: &mut SqliteConnection,
    table: &Table,
    rows: impl ExactSizeIterator<Item = Vec<Value<'a>>>,
) -> Result<(), StoreError> {
    let mut left = rows.len();
    let mut rows = rows;
    for size in ROWS_PER_STATEMENT {
        while left >= size {
            put_chunk(connection, table, rows.by_ref().take(size).collect()).await?;
            left -= size;
        }
    }
    Ok(())
}

async fn put_chunk(
    connection: &mut SqliteConnection,
    table: &Table,
    rows: Vec<Vec<Value<'_>>>,
) -> Result<(), StoreError> {
    let width = rows.first().map_or(0, Vec::len);
    let places = format!("({})", vec!["?"; width].join(", "));
    let places = vec![places; rows.len()].join(", ");
    let sql = format!("INSERT INTO {} ({}) VALUES {places}{}", table.name, table.columns, table.conflict);
    let mut arguments = SqliteArguments::default();
    for value in rows.into_iter().flatten() {
        let added = match value {
            Value::Null => arguments.add(None::<i64>),
            Value::Number(number) => arguments.add(number),
            Value::Text(text) => arguments.add(text.into_owned()),
            Value::Octets(octets) => arguments.add(octets.into_owned()),
        };
        added.map_err(StoreError::Internal)?;
    }
    // Safe: the text is made of this file's constants alone.
    let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
    query.execute(connection).await.map_err(store_error).map(drop)
}

fn text(text: &str) -> Value<'_> {
    Value::Text(text.into())
}

fn number(number: u64) -> Value<'static> {
    Value::Number(stored(number))
}

fn time(time: Timestamp) -> Value<'static> {
    Value::Number(time.micros())
}

fn octets(octets: &[u8]) -> Value<'_> {
    Value::Octets(octets.into())
}

/// In the order of `event_columns!`.
fn event(e: &RecordedEvent) -> Vec<Value<'_>> {
    vec![
        number(e.position),
        Value::Text(e.event_id.to_string().into()),
        text(&e.stream_id),
        number(e.stream_version),
        text(e.instance_id.as_str()),
        e.revision.map_or(Value::Null, number),
        e.bundle_digest.as_ref().map_or(Value::Null, |digest| octets(digest.as_bytes())),
        e.sn.as_ref().map(SerialNumber::as_str).map_or(Value::Null, text),
        text(&e.event_type),
        Value::Number(e.schema_version.into()),
        text(&e.payload),
        text(&e.actor),
        text(e.account_id.as_str()),
        text(&e.policy_version),
        text(&e.source_address),
        Value::Text(e.request_id.to_string().into()),
        text(&e.traceparent),
        time(e.occurred_at),
        octets(e.hash.as_bytes()),
    ]
}

/// In the order of `instance_columns!`.
fn instance(i: &Instance) -> Vec<Value<'_>> {
    vec![
        text(i.instance_id.as_str()),
        text(i.region_id.as_str()),
        text(i.owner_account_id.as_str()),
        text(edition_text(i.edition)),
        number(i.revision),
        number(i.trust_position),
        octets(i.bundle_digest.as_bytes()),
        Value::Octets(i.set_hash.to_bytes().into()),
        number(i.certificate_count.into()),
        Value::Text(i.unspent_register_codes.join(" ").into()),
        time(i.registered_at),
        number(i.registered_position),
        time(i.updated_at),
        number(i.updated_position),
        number(i.stream_version),
    ]
}

/// In the order of `certificate_columns!`.
fn certificate(c: &CaCertificate) -> Vec<Value<'_>> {
    let (state, scope) = state_texts(c.state);
    vec![
        text(c.instance_id.as_str()),
        text(c.facts.sn.as_str()),
        octets(c.facts.sha256.as_bytes()),
        octets(c.facts.spki_sha256.as_bytes()),
        text(&c.facts.subject),
        text(&c.facts.subject_key_id),
        text(&c.facts.issuer),
        time(c.facts.not_before),
        time(c.facts.not_after),
        text(&c.facts.ca_content),
        text(&c.ca_name),
        text(&c.register_code),
        text(state),
        scope.map_or(Value::Null, text),
        time(c.registered_at),
        number(c.registered_position),
        time(c.state_changed_at),
        text(&c.state_changed_by),
        text(&c.state_reason),
        number(c.revision),
        number(c.position),
        number(c.stream_version),
    ]
}

/// In the order of `broker_columns!`.
fn broker(b: &BrokerState) -> Vec<Value<'_>> {
    let (applied, refused) = (b.applied.as_ref(), b.refused.as_ref());
    vec![
        text(b.instance_id.as_str()),
        text(b.broker_id.as_str()),
        applied.map_or(Value::Null, |applied| number(applied.revision)),
        applied.map_or(Value::Null, |applied| octets(applied.digest.as_bytes())),
        applied.and_then(|applied| applied.applied_at).map_or(Value::Null, time),
        applied.map_or(Value::Null, |applied| number(applied.sessions_cut)),
        refused.map_or(Value::Null, |refused| number(refused.revision)),
        refused.map_or(Value::Null, |refused| text(&refused.reason)),
        refused.map_or(Value::Null, |refused| time(refused.refused_at)),
        text(outcome_text(b.outcome)),
        text(enforcement_text(b.enforcement)),
        number(b.sessions_open),
        time(b.received_at),
    ]
}

fn spent_code((id, code, position): (&str, &str, u64)) -> Vec<Value<'static>> {
    vec![Value::Text(id.to_owned().into()), Value::Text(code.to_owned().into()), number(position)]
}

fn reply(stored: &StoredReply, now: Timestamp) -> Result<Vec<Value<'_>>, BoxError> {
    Ok(vec![
        text(stored.key.account_id.as_str()),
        Value::Text(stored.key.request_id.to_string().into()),
        octets(stored.fingerprint.as_bytes()),
        Value::Text(replies::encode(&stored.reply)?.into()),
        time(now),
    ])
}
