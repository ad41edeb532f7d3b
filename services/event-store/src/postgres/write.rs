//! Writes what a batch came to, in one round trip.
//!
//! One statement with a part per table. The parts touch different rows and see
//! the same snapshot, so that their order does not matter. The events are never
//! written with ON CONFLICT: a taken position or version MUST fail the batch.

use std::time::Duration;

use catrust_domain::batch::Writes;
use catrust_domain::command::StoredReply;
use catrust_domain::{CaCertificate, Instance, LogHead, RecordedEvent, SerialNumber, Timestamp};
use sqlx::PgConnection;
use sqlx::Row as _;

use super::error::store_error;
use super::statement::{Column, Statement, column};
use crate::StoreError;
use crate::columns::{corrupt, edition_text, state_texts, stored};
use crate::error::BoxError;
use crate::replies;

/// Channel of the hint that the log has grown; the payload is the new head.
pub(super) const CHANNEL: &str = "catrust_log";

/// How long a write may take before its connection counts as lost.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a write came to.
pub(super) struct Written {
    /// Id of the transaction, by which a lost commit is settled.
    pub(super) xid: String,
    /// Replies stored. Fewer than there are to be stored: the requests of the others are
    /// repeats, the batch MUST be rolled back.
    pub(super) replies: usize,
}

/// Writes a batch that began after `before` and ends at `after`.
pub(super) async fn write(
    connection: &mut PgConnection,
    writes: &Writes,
    before: &LogHead,
    after: &LogHead,
    now: Timestamp,
) -> Result<Written, StoreError> {
    let replies = encode_replies(&writes.replies).map_err(StoreError::Internal)?;
    let new = |registered_position: u64| registered_position > before.position;
    let (new_instances, instances): (Vec<&Instance>, Vec<&Instance>) =
        writes.instances.iter().partition(|instance| new(instance.registered_position));
    let (new_certificates, certificates): (Vec<&CaCertificate>, Vec<&CaCertificate>) =
        writes.certificates.iter().partition(|certificate| new(certificate.registered_position));
    let gone: Vec<(&str, &str)> =
        writes.deleted_certificates.iter().map(|(id, sn)| (id.as_str(), sn.as_str())).collect();
    let codes: Vec<(&str, &str, u64)> = writes
        .spent_register_codes
        .iter()
        .map(|(id, code, position)| (id.as_str(), code.as_str(), *position))
        .collect();

    let mut parts = Parts::default();
    parts.add("new_events", &writes.events, |statement| put_events(statement, &writes.events));
    parts.add("new_instances", &new_instances, |statement| put_instances(statement, &new_instances));
    parts.add("changed_instances", &instances, |statement| change_instances(statement, &instances));
    parts.add("new_certificates", &new_certificates, |statement| {
        put_certificates(statement, &new_certificates);
    });
    parts.add("changed_certificates", &certificates, |statement| {
        change_certificates(statement, &certificates);
    });
    parts.add("gone_certificates", &gone, |statement| delete_certificates(statement, &gone));
    parts.add("spent_codes", &codes, |statement| put_spent_codes(statement, &codes));
    parts.add("new_replies", &replies, |statement| put_replies(statement, &replies, now));
    let mut statement = parts.statement;
    statement.push(" SELECT pg_current_xact_id()::text, ");
    push_count(&mut statement, "changed_instances", instances.is_empty());
    push_count(&mut statement, "changed_certificates", certificates.is_empty());
    push_count(&mut statement, "new_replies", replies.is_empty());
    // A batch of replies alone has nothing to tell readers of the log.
    if after.position > before.position {
        statement.push("pg_notify('").push(CHANNEL).push("', ").bind(after.position.to_string()).push(")");
    } else {
        statement.push("NULL");
    }
    let rows = statement.fetch(connection).await?;
    let row = rows.first().ok_or_else(|| StoreError::Internal("the write gave no row".into()))?;
    expect_count("instances", row.try_get(1).map_err(store_error)?, instances.len())?;
    expect_count("ca_certificates", row.try_get(2).map_err(store_error)?, certificates.len())?;
    let stored: i64 = row.try_get(3).map_err(store_error)?;
    let xid = row.try_get(0).map_err(store_error)?;
    Ok(Written { xid, replies: usize::try_from(stored).unwrap_or(0) })
}

/// Parts of a statement, each `name AS (…)`.
#[derive(Default)]
struct Parts {
    statement: Statement,
    any: bool,
}

impl Parts {
    fn add<T>(&mut self, name: &str, rows: &[T], part: impl FnOnce(&mut Statement)) {
        if rows.is_empty() {
            return;
        }
        self.statement.push(if self.any { ", " } else { "WITH " }).push(name).push(" AS (");
        part(&mut self.statement);
        self.statement.push(" RETURNING 1)");
        self.any = true;
    }
}

fn push_count(statement: &mut Statement, part: &str, empty: bool) {
    if empty {
        statement.push("0::bigint, ");
    } else {
        statement.push("(SELECT count(*) FROM ").push(part).push("), ");
    }
}

/// A row that was loaded under the lock cannot be gone: somebody changed the read
/// model behind the store's back.
fn expect_count(table: &'static str, changed: i64, expected: usize) -> Result<(), StoreError> {
    if usize::try_from(changed) == Ok(expected) {
        return Ok(());
    }
    Err(corrupt(table, &[], format!("{changed} of {expected} rows were there to be changed")))
}

fn encode_replies(replies: &[StoredReply]) -> Result<Vec<(&StoredReply, String)>, BoxError> {
    replies.iter().map(|stored| Ok((stored, replies::encode(&stored.reply)?))).collect()
}

fn put_events(statement: &mut Statement, events: &[RecordedEvent]) {
    let smallest = |version: u16| i16::try_from(version).unwrap_or(i16::MAX);
    let columns = vec![
        ("position", column!(Number, events, e => stored(e.position))),
        ("event_id", column!(Uuid, events, e => e.event_id)),
        ("stream_id", column!(Text, events, e => e.stream_id.as_str())),
        ("stream_version", column!(Number, events, e => stored(e.stream_version))),
        ("instance_id", column!(Text, events, e => e.instance_id.as_str())),
        ("revision", column!(OptionalNumber, events, e => e.revision.map(stored))),
        (
            "bundle_digest",
            column!(OptionalOctets, events, e => e.bundle_digest.as_ref().map(|d| d.as_bytes().as_slice())),
        ),
        ("sn", column!(OptionalText, events, e => e.sn.as_ref().map(SerialNumber::as_str))),
        ("event_type", column!(Text, events, e => e.event_type.as_str())),
        ("schema_version", column!(SmallNumber, events, e => smallest(e.schema_version))),
        ("payload", column!(Json, events, e => e.payload.as_str())),
        ("actor", column!(Text, events, e => e.actor.as_str())),
        ("account_id", column!(Text, events, e => e.account_id.as_str())),
        ("policy_version", column!(Text, events, e => e.policy_version.as_str())),
        ("source_address", column!(Text, events, e => e.source_address.as_str())),
        ("request_id", column!(Uuid, events, e => e.request_id)),
        ("traceparent", column!(Text, events, e => e.traceparent.as_str())),
        ("occurred_at", column!(Time, events, e => e.occurred_at)),
        ("hash", column!(Octets, events, e => e.hash.as_bytes().as_slice())),
    ];
    statement.insert_records("events", "new_event", &columns);
}

/// Columns of instances that change.
fn instance_changes<'a>(rows: &[&'a Instance]) -> Vec<(&'static str, Column<'a>)> {
    vec![
        ("owner_account_id", column!(Text, rows, i => i.owner_account_id.as_str())),
        ("edition", column!(Text, rows, i => edition_text(i.edition))),
        ("revision", column!(Number, rows, i => stored(i.revision))),
        ("trust_position", column!(Number, rows, i => stored(i.trust_position))),
        ("bundle_digest", column!(Octets, rows, i => i.bundle_digest.as_bytes().as_slice())),
        ("set_hash", column!(OwnedOctets, rows, i => i.set_hash.to_bytes())),
        ("certificate_count", column!(Number, rows, i => i64::from(i.certificate_count))),
        ("unspent_register_codes", column!(OwnedText, rows, i => i.unspent_register_codes.join(" "))),
        ("updated_at", column!(Time, rows, i => i.updated_at)),
        ("updated_position", column!(Number, rows, i => stored(i.updated_position))),
        ("stream_version", column!(Number, rows, i => stored(i.stream_version))),
    ]
}

/// Inserts instances that are not there.
pub(super) fn put_instances(statement: &mut Statement, rows: &[&Instance]) {
    let mut columns = instance_changes(rows);
    columns.extend([
        ("instance_id", column!(Text, rows, i => i.instance_id.as_str())),
        ("region_id", column!(Text, rows, i => i.region_id.as_str())),
        ("registered_at", column!(Time, rows, i => i.registered_at)),
        ("registered_position", column!(Number, rows, i => stored(i.registered_position))),
    ]);
    statement.insert("instances", columns);
}

fn change_instances(statement: &mut Statement, rows: &[&Instance]) {
    let mut columns = instance_changes(rows);
    push_changes(statement, "instances", &columns);
    columns.push(("instance_id", column!(Text, rows, i => i.instance_id.as_str())));
    statement.unnest_records("instance_change", &columns).push(" WHERE t.instance_id = u.instance_id");
}

/// Columns of CA certificates that change.
fn certificate_changes<'a>(rows: &[&'a CaCertificate]) -> Vec<(&'static str, Column<'a>)> {
    vec![
        ("state", column!(Text, rows, c => state_texts(c.state).0)),
        ("inactivation_scope", column!(OptionalText, rows, c => state_texts(c.state).1)),
        ("state_changed_at", column!(Time, rows, c => c.state_changed_at)),
        ("state_changed_by", column!(Text, rows, c => c.state_changed_by.as_str())),
        ("state_reason", column!(Text, rows, c => c.state_reason.as_str())),
        ("revision", column!(Number, rows, c => stored(c.revision))),
        ("position", column!(Number, rows, c => stored(c.position))),
        ("stream_version", column!(Number, rows, c => stored(c.stream_version))),
    ]
}

/// Inserts CA certificates; one that was deleted and registered anew within the
/// batch is still there, and is replaced.
pub(super) fn put_certificates(statement: &mut Statement, rows: &[&CaCertificate]) {
    let mut columns = certificate_changes(rows);
    columns.extend([
        ("sha256", column!(Octets, rows, c => c.facts.sha256.as_bytes().as_slice())),
        ("spki_sha256", column!(Octets, rows, c => c.facts.spki_sha256.as_bytes().as_slice())),
        ("subject", column!(Text, rows, c => c.facts.subject.as_str())),
        ("subject_key_id", column!(Text, rows, c => c.facts.subject_key_id.as_str())),
        ("issuer", column!(Text, rows, c => c.facts.issuer.as_str())),
        ("not_before", column!(Time, rows, c => c.facts.not_before)),
        ("not_after", column!(Time, rows, c => c.facts.not_after)),
        ("ca_content", column!(Text, rows, c => c.facts.ca_content.as_str())),
        ("ca_name", column!(Text, rows, c => c.ca_name.as_str())),
        ("register_code", column!(Text, rows, c => c.register_code.as_str())),
        ("registered_at", column!(Time, rows, c => c.registered_at)),
        ("registered_position", column!(Number, rows, c => stored(c.registered_position))),
    ]);
    let sets: Vec<String> = columns.iter().map(|(name, _)| format!("{name} = excluded.{name}")).collect();
    columns.extend([
        ("instance_id", column!(Text, rows, c => c.instance_id.as_str())),
        ("sn", column!(Text, rows, c => c.facts.sn.as_str())),
    ]);
    statement.insert("ca_certificates", columns);
    statement.push(" ON CONFLICT (instance_id, sn) DO UPDATE SET ").push(&sets.join(", "));
}

/// The certificate itself stays: only its state is sent and replaced.
fn change_certificates(statement: &mut Statement, rows: &[&CaCertificate]) {
    let mut columns = certificate_changes(rows);
    push_changes(statement, "ca_certificates", &columns);
    columns.extend([
        ("instance_id", column!(Text, rows, c => c.instance_id.as_str())),
        ("sn", column!(Text, rows, c => c.facts.sn.as_str())),
    ]);
    statement
        .unnest_records("ca_certificate_change", &columns)
        .push(" WHERE t.instance_id = u.instance_id AND t.sn = u.sn");
}

fn push_changes(statement: &mut Statement, table: &str, columns: &[(&str, Column<'_>)]) {
    let sets: Vec<String> = columns.iter().map(|(name, _)| format!("{name} = u.{name}")).collect();
    statement.push("UPDATE ").push(table).push(" AS t SET ").push(&sets.join(", ")).push(" FROM ");
}

/// Deletes CA certificates by instance and serial number.
pub(super) fn delete_certificates(statement: &mut Statement, keys: &[(&str, &str)]) {
    statement.push("DELETE FROM ca_certificates AS t USING ").unnest(vec![
        ("instance_id", column!(Text, keys, (id, _) => *id)),
        ("sn", column!(Text, keys, (_, sn) => *sn)),
    ]);
    statement.push(" WHERE t.instance_id = u.instance_id AND t.sn = u.sn");
}

/// Inserts spent register codes.
pub(super) fn put_spent_codes(statement: &mut Statement, codes: &[(&str, &str, u64)]) {
    let columns = vec![
        ("instance_id", column!(Text, codes, (id, _, _) => *id)),
        ("register_code", column!(Text, codes, (_, code, _) => *code)),
        ("position", column!(Number, codes, (_, _, position) => stored(*position))),
    ];
    statement.insert("spent_register_codes", columns);
}

fn put_replies(statement: &mut Statement, replies: &[(&StoredReply, String)], now: Timestamp) {
    let columns = vec![
        ("account_id", column!(Text, replies, (r, _) => r.key.account_id.as_str())),
        ("request_id", column!(Uuid, replies, (r, _) => r.key.request_id)),
        ("fingerprint", column!(Octets, replies, (r, _) => r.fingerprint.as_bytes().as_slice())),
        ("reply", column!(Json, replies, (_, json) => json.as_str())),
        ("created_at", column!(Time, replies, _ => now)),
    ];
    statement
        .insert_records("replies", "new_reply", &columns)
        .push(" ON CONFLICT (account_id, request_id) DO NOTHING");
}
