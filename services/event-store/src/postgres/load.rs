//! Loads what a batch has to see, in one round trip.
//!
//! The parts are put together by UNION ALL over one list of columns: the kind of the row,
//! and those of each of the `TABLES`. All but one table's are NULL, which costs four bytes
//! each and no parsing; the same as JSON takes three times as long to read.

use catrust_domain::batch::{Needs, WorkingSet};
use catrust_domain::read_model::ReadModel;
use catrust_domain::{CaCertificate, Instance, LogEpoch, LogHead, Timestamp};
use sqlx::PgConnection;

use super::statement::StatementBuilder;
use crate::StoreError;
use crate::replies;
use crate::row::{Column, Row as _, StoredRow, corrupt};
use crate::tables::{ReplyRow, SpentRegisterCode, StreamEnd};
use crate::value::Kind;

/// Tables of the union; the number of one is the kind of its rows.
const HEAD: usize = 0;
const INSTANCE: usize = 1;
const CERTIFICATE: usize = 2;
const REGISTER_CODE: usize = 3;
const STREAM: usize = 4;
const REPLY: usize = 5;
const TABLES: [&[Column]; 7] = [
    LogHead::COLUMNS,
    Instance::COLUMNS,
    CaCertificate::COLUMNS,
    SpentRegisterCode::COLUMNS,
    StreamEnd::COLUMNS,
    ReplyRow::COLUMNS,
    EVENT,
];

/// The event that a reply tells of, beside it.
const EVENT: &[Column] = &[
    Column { name: "event_type", kind: Kind::Text },
    Column { name: "schema_version", kind: Kind::SmallNumber },
    Column { name: "payload", kind: Kind::Json },
];

/// Where the columns of a table begin; the kind is before all of them.
const fn start_of(table: usize) -> usize {
    let (mut at, mut before) = (1, 0);
    while before < table {
        at += TABLES[before].len();
        before += 1;
    }
    at
}

/// Loads the head of the log and what `needs` names, ready to run commands on; `model` is
/// what is known already.
/// MUST be called under the append lock, in a statement after the one that took it.
pub(super) async fn load(
    connection: &mut PgConnection,
    needs: &Needs,
    mut model: ReadModel,
    epoch: LogEpoch,
    now: Timestamp,
) -> Result<(LogHead, WorkingSet), StoreError> {
    let rows = statement(needs).fetch(connection).await?;
    let mut head = LogHead::EMPTY;
    let mut streams = Vec::new();
    let mut stored = Vec::new();
    for row in &rows {
        let kind: u64 = row.get(0).map_err(|reason| corrupt("events", &[], reason))?;
        match usize::try_from(kind).unwrap_or(usize::MAX) {
            HEAD => head = LogHead::read(row, const { start_of(HEAD) })?,
            INSTANCE => model.insert_instance(Instance::read(row, const { start_of(INSTANCE) })?),
            CERTIFICATE => {
                model.insert_certificate(CaCertificate::read(row, const { start_of(CERTIFICATE) })?);
            }
            REGISTER_CODE => {
                let code = SpentRegisterCode::read(row, const { start_of(REGISTER_CODE) })?;
                model.insert_spent_register_code(code.instance_id, code.register_code, code.position);
            }
            STREAM => streams.push(StreamEnd::read(row, const { start_of(STREAM) })?),
            REPLY => {
                let (at, at_event) = const { (start_of(REPLY), start_of(REPLY + 1)) };
                stored.push(replies::read(row, at, at_event)?);
            }
            _ => return Err(StoreError::Internal(format!("a row of kind {kind}").into())),
        }
    }
    let mut set = WorkingSet::new(head, epoch, now, model);
    streams.into_iter().for_each(|end| set.insert_stream_version(end.stream_id, end.stream_version));
    stored.into_iter().for_each(|reply| set.insert_reply(reply));
    Ok((head, set))
}

/// Appends `SELECT` of a table's rows, as `alias`; a reply has its event as `e` beside it.
fn select(statement: &mut StatementBuilder, table: usize, alias: &str) {
    statement.push("SELECT ").push(&table.to_string()).push("::bigint");
    for (other, columns) in TABLES.iter().enumerate() {
        for Column { name, kind } in *columns {
            if other == table {
                statement.push(", ").push(alias).push(".").push(name);
            } else if other == REPLY + 1 && table == REPLY {
                statement.push(", e.").push(name);
            } else {
                statement.push(", NULL::").push(kind.type_name());
            }
        }
    }
    statement.push(" FROM ");
}

fn statement(needs: &Needs) -> StatementBuilder {
    let mut statement = StatementBuilder::default();
    statement.push("(");
    select(&mut statement, HEAD, "h");
    statement.push("events AS h ORDER BY h.position DESC LIMIT 1)");
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
        stored_replies(&mut statement, needs);
    }
    statement
}

fn instances(statement: &mut StatementBuilder, needs: &Needs) {
    let ids: Vec<_> = needs.instances.iter().map(|id| vec![id.into()]).collect();
    statement.push(" UNION ALL ");
    select(statement, INSTANCE, "i");
    statement.unnest(Instance::KEY, &ids).push(" JOIN instances AS i ON i.instance_id = u.instance_id");
}

/// Every certificate with one of the wanted keys, or with the key of a wanted one:
/// a reply names the twins.
fn certificates(statement: &mut StatementBuilder, needs: &Needs) {
    const BY_KEY: &[Column] = &[
        Column { name: "instance_id", kind: Kind::Text },
        Column { name: "spki_sha256", kind: Kind::Bytes },
    ];
    let by_sn: Vec<_> = needs.certificates.iter().map(|(id, sn)| vec![id.into(), sn.into()]).collect();
    let by_key: Vec<_> = needs.keys.iter().map(|(id, key)| vec![id.into(), key.into()]).collect();
    statement.push(" UNION ALL ");
    select(statement, CERTIFICATE, "c");
    statement.push("(SELECT known.instance_id, known.spki_sha256 FROM ").unnest(CaCertificate::KEY, &by_sn);
    statement.push(" JOIN ca_certificates AS known ON known.instance_id = u.instance_id AND known.sn = u.sn");
    if !by_key.is_empty() {
        statement.push(" UNION ALL SELECT u.instance_id, u.spki_sha256 FROM ").unnest(BY_KEY, &by_key);
    }
    statement.push(
        " GROUP BY 1, 2) AS wanted JOIN ca_certificates AS c \
         ON c.instance_id = wanted.instance_id AND c.spki_sha256 = wanted.spki_sha256",
    );
}

fn register_codes(statement: &mut StatementBuilder, needs: &Needs) {
    let codes: Vec<_> = needs.register_codes.iter().map(|(id, code)| vec![id.into(), code.into()]).collect();
    statement.push(" UNION ALL ");
    select(statement, REGISTER_CODE, "s");
    statement.unnest(SpentRegisterCode::KEY, &codes).push(
        " JOIN spent_register_codes AS s \
         ON s.instance_id = u.instance_id AND s.register_code = u.register_code",
    );
}

fn streams(statement: &mut StatementBuilder, needs: &Needs) {
    let ids: Vec<_> = needs.streams.iter().map(|id| vec![id.into()]).collect();
    statement.push(" UNION ALL ");
    select(statement, STREAM, "last");
    statement.unnest(StreamEnd::KEY, &ids).push(
        " CROSS JOIN LATERAL (SELECT e.stream_id, e.stream_version FROM events AS e \
         WHERE e.stream_id = u.stream_id ORDER BY e.stream_version DESC LIMIT 1) AS last",
    );
}

fn stored_replies(statement: &mut StatementBuilder, needs: &Needs) {
    let keys: Vec<_> =
        needs.replies.iter().map(|key| vec![(&key.account_id).into(), key.request_id.into()]).collect();
    statement.push(" UNION ALL ");
    select(statement, REPLY, "r");
    statement.unnest(ReplyRow::KEY, &keys).push(
        " JOIN replies AS r ON r.account_id = u.account_id AND r.request_id = u.request_id \
         LEFT JOIN events AS e ON e.position = CAST(r.reply ->> 'position' AS bigint)",
    );
}

/// The statement with all its parts.
#[cfg(feature = "contract")]
pub(crate) fn whole_statement() -> String {
    let id: catrust_domain::InstanceId = "i".parse().expect("a name");
    let account_id = "a".parse().expect("a name");
    let needs = Needs {
        instances: [id.clone()].into(),
        certificates: [(id.clone(), "7A".parse().expect("a serial number"))].into(),
        keys: [(id.clone(), catrust_domain::Sha256::ZERO)].into(),
        register_codes: [(id, String::new())].into(),
        streams: [String::new()].into(),
        replies: [catrust_domain::RequestKey { account_id, request_id: uuid::Uuid::nil() }].into(),
    };
    statement(&needs).into_text()
}
