//! Loads what a batch has to see, in one round trip.
//!
//! The parts are put together by UNION ALL over one list of columns: the kind of
//! the row, those of `ca_certificates`, those of `instances`, and a few for the
//! small tables. The others of a row are NULL, which costs four octets each and
//! no parsing; the same as JSON takes three times as long to read.

use catrust_domain::batch::{Needs, WorkingSet};
use catrust_domain::read_model::ReadModel;
use catrust_domain::{LogHead, Timestamp};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

use super::statement::{Statement, column};
use crate::StoreError;
use crate::columns::{self, Columns, corrupt};
use crate::queries::{CERTIFICATE_WIDTH, INSTANCE_WIDTH, certificate_columns, instance_columns};
use crate::reads::head_of;

const HEAD: i64 = 0;
const INSTANCE: i64 = 1;
const CERTIFICATE: i64 = 2;
const REGISTER_CODE: i64 = 3;
const STREAM: i64 = 4;
const REPLY: i64 = 5;

const AT_CERTIFICATE: usize = 1;
const AT_INSTANCE: usize = AT_CERTIFICATE + CERTIFICATE_WIDTH;
/// `name text, request_id uuid, fingerprint bytea, body text`.
const AT_NAME: usize = AT_INSTANCE + INSTANCE_WIDTH;
const AT_BODY: usize = AT_NAME + 3;
/// `number bigint, hash bytea, occurred_at timestamptz`.
const AT_NUMBER: usize = AT_NAME + 4;
/// `event_type text, schema_version smallint, payload json`.
const AT_EVENT: usize = AT_NAME + 7;

/// No columns of `ca_certificates`; the first part also says their types.
const NO_CERTIFICATE: &str = "NULL::text, NULL::text, NULL::bytea, NULL::bytea, NULL::text, NULL::text, \
    NULL::text, NULL::timestamptz, NULL::timestamptz, NULL::text, NULL::text, NULL::text, NULL::text, \
    NULL::text, NULL::timestamptz, NULL::bigint, NULL::timestamptz, NULL::text, NULL::text, NULL::bigint, \
    NULL::bigint, NULL::bigint";
/// No columns of `instances`.
const NO_INSTANCE: &str = "NULL::text, NULL::text, NULL::text, NULL::text, NULL::bigint, NULL::bigint, \
    NULL::bytea, NULL::bytea, NULL::bigint, NULL::text, NULL::timestamptz, NULL::bigint, NULL::timestamptz, \
    NULL::bigint, NULL::bigint";
/// Nothing of the small tables.
const NO_OTHER: &str = "NULL::text, NULL::uuid, NULL::bytea, NULL::text, NULL::bigint, NULL::bytea, \
    NULL::timestamptz, NULL::text, NULL::smallint, NULL::json";
/// No event.
const NO_EVENT: &str = "NULL::text, NULL::smallint, NULL::json";

/// Loads the head of the log and what `needs` names, ready to run commands on; `model` is
/// what is known already.
/// MUST be called under the append lock, in a statement after the one that took it.
pub(super) async fn load(
    connection: &mut PgConnection,
    needs: &Needs,
    mut model: ReadModel,
    now: Timestamp,
) -> Result<(LogHead, WorkingSet), StoreError> {
    let rows = statement(needs).fetch(connection).await?;
    let mut head = LogHead::EMPTY;
    let mut streams = Vec::new();
    let mut replies = Vec::new();
    for row in &rows {
        let broken = |reason| corrupt("events", &[], reason);
        match row.number(0).map_err(broken)? {
            HEAD => head = head_of(row, AT_NUMBER)?,
            INSTANCE => model.insert_instance(columns::instance(row, AT_INSTANCE)?),
            CERTIFICATE => model.insert_certificate(columns::certificate(row, AT_CERTIFICATE)?),
            REGISTER_CODE => insert_register_code(&mut model, row)?,
            STREAM => {
                streams.push((row.owned(AT_NAME).map_err(broken)?, row.count(AT_NUMBER).map_err(broken)?));
            }
            REPLY => replies.push(columns::stored_reply(row, AT_NAME, AT_EVENT)?),
            kind => return Err(StoreError::Internal(format!("a row of kind {kind}").into())),
        }
    }
    let mut set = WorkingSet::new(head, now, model);
    streams.into_iter().for_each(|(stream_id, version)| set.insert_stream_version(stream_id, version));
    replies.into_iter().for_each(|reply| set.insert_reply(reply));
    Ok((head, set))
}

fn insert_register_code(model: &mut ReadModel, row: &PgRow) -> Result<(), StoreError> {
    let mut insert = || {
        let (id, code) = (row.parsed(AT_NAME)?, row.owned(AT_BODY)?);
        model.insert_spent_register_code(id, code, row.count(AT_NUMBER)?);
        Ok(())
    };
    insert()
        .map_err(|reason| corrupt("spent_register_codes", &[row.owned(AT_NAME), row.owned(AT_BODY)], reason))
}

fn statement(needs: &Needs) -> Statement {
    let mut statement = Statement::default();
    statement.push("(SELECT 0::bigint, ").push(NO_CERTIFICATE).push(", ").push(NO_INSTANCE);
    statement.push(", NULL::text, NULL::uuid, NULL::bytea, NULL::text, position, hash, occurred_at, ");
    statement.push(NO_EVENT).push(" FROM events ORDER BY position DESC LIMIT 1)");
    instances(&mut statement, needs);
    if !(needs.certificates.is_empty() && needs.keys.is_empty()) {
        certificates(&mut statement, needs);
    }
    if !needs.register_codes.is_empty() {
        register_codes(&mut statement, needs);
    }
    if !needs.streams.is_empty() {
        streams(&mut statement, needs);
    }
    if !needs.replies.is_empty() {
        replies(&mut statement, needs);
    }
    statement
}

fn instances(statement: &mut Statement, needs: &Needs) {
    let ids = column!(Text, needs.instances, id => id.as_str());
    statement.push(" UNION ALL SELECT 1, ").push(NO_CERTIFICATE);
    statement.push(concat!(", ", instance_columns!("i."), ", ")).push(NO_OTHER);
    statement.push(" FROM ").unnest(vec![("instance_id", ids)]);
    statement.push(" JOIN instances AS i ON i.instance_id = u.instance_id");
}

/// Every certificate with one of the wanted keys, or with the key of a wanted one:
/// a reply names the twins.
fn certificates(statement: &mut Statement, needs: &Needs) {
    let by_sn = vec![
        ("instance_id", column!(Text, needs.certificates, (id, _) => id.as_str())),
        ("sn", column!(Text, needs.certificates, (_, sn) => sn.as_str())),
    ];
    statement.push(concat!(" UNION ALL SELECT 2, ", certificate_columns!("c."), ", "));
    statement.push(NO_INSTANCE).push(", ").push(NO_OTHER);
    statement.push(" FROM (SELECT known.instance_id, known.spki_sha256 FROM ").unnest(by_sn);
    statement.push(" JOIN ca_certificates AS known ON known.instance_id = u.instance_id AND known.sn = u.sn");
    if !needs.keys.is_empty() {
        let by_key = vec![
            ("instance_id", column!(Text, needs.keys, (id, _) => id.as_str())),
            ("spki_sha256", column!(Octets, needs.keys, (_, key) => key.as_bytes().as_slice())),
        ];
        statement.push(" UNION ALL SELECT u.instance_id, u.spki_sha256 FROM ").unnest(by_key);
    }
    statement.push(
        " GROUP BY 1, 2) AS wanted JOIN ca_certificates AS c \
         ON c.instance_id = wanted.instance_id AND c.spki_sha256 = wanted.spki_sha256",
    );
}

fn register_codes(statement: &mut Statement, needs: &Needs) {
    let codes = vec![
        ("instance_id", column!(Text, needs.register_codes, (id, _) => id.as_str())),
        ("register_code", column!(Text, needs.register_codes, (_, code) => code.as_str())),
    ];
    statement.push(" UNION ALL SELECT 3, ").push(NO_CERTIFICATE).push(", ").push(NO_INSTANCE);
    statement
        .push(", s.instance_id, NULL, NULL, s.register_code, s.position, NULL, NULL, NULL, NULL, NULL FROM ")
        .unnest(codes);
    statement.push(
        " JOIN spent_register_codes AS s \
         ON s.instance_id = u.instance_id AND s.register_code = u.register_code",
    );
}

fn streams(statement: &mut Statement, needs: &Needs) {
    let ids = column!(Text, needs.streams, id => id.as_str());
    statement.push(" UNION ALL SELECT 4, ").push(NO_CERTIFICATE).push(", ").push(NO_INSTANCE);
    statement
        .push(", u.stream_id, NULL, NULL, NULL, last.stream_version, NULL, NULL, NULL, NULL, NULL FROM ");
    statement.unnest(vec![("stream_id", ids)]).push(
        " CROSS JOIN LATERAL (SELECT e.stream_version FROM events AS e WHERE e.stream_id = u.stream_id \
         ORDER BY e.stream_version DESC LIMIT 1) AS last",
    );
}

fn replies(statement: &mut Statement, needs: &Needs) {
    let keys = vec![
        ("account_id", column!(Text, needs.replies, key => key.account_id.as_str())),
        ("request_id", column!(Uuid, needs.replies, key => key.request_id)),
    ];
    statement.push(" UNION ALL SELECT 5, ").push(NO_CERTIFICATE).push(", ").push(NO_INSTANCE);
    statement
        .push(", r.account_id, r.request_id, r.fingerprint, r.reply::text, NULL, NULL, NULL, e.event_type, ");
    statement.push("e.schema_version, e.payload FROM ").unnest(keys).push(
        " JOIN replies AS r ON r.account_id = u.account_id AND r.request_id = u.request_id \
         LEFT JOIN events AS e ON e.position = CAST(r.reply ->> 'position' AS bigint)",
    );
}
