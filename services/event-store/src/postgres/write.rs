//! Writes what a batch came to, in one round trip.
//!
//! One statement with a part per table. The parts touch different rows and see
//! the same snapshot, so that their order does not matter. The events are never
//! written with ON CONFLICT: a taken position or version MUST fail the batch.

use std::time::Duration;

use catrust_domain::batch::Writes;
use catrust_domain::{CaCertificate, Instance, LogHead, RecordedEvent, Timestamp};
use sqlx::PgConnection;
use sqlx::Row as _;

use super::error::store_error;
use super::shape::{CA_CERTIFICATE_CHANGE, INSTANCE_CHANGE, NEW_EVENT, NEW_REPLY, change_values};
use super::statement::StatementBuilder;
use crate::StoreError;
#[cfg(feature = "contract")]
use crate::row::Column;
use crate::row::{StoredRow, corrupt, upsert};
use crate::tables::{ReplyRow, SpentRegisterCode};
use crate::value::Value;

/// Channel of the hint that the log has grown; the payload is the new head.
pub(super) const CHANNEL: &str = "catrust_log";

/// How long a write may take before its connection counts as lost.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a write came to.
pub(super) struct WriteOutcome {
    /// Id of the transaction, by which a lost commit is settled.
    pub(super) xid: String,
    /// Replies stored. Fewer than there are to be stored: the requests of the others are
    /// repeats, the batch MUST be rolled back.
    pub(super) replies: usize,
}

/// A batch as it is sent: the values of the rows of each part.
#[derive(Debug)]
struct Batch<'a> {
    new_events: Vec<Vec<Value<'a>>>,
    new_instances: Vec<Vec<Value<'a>>>,
    changed_instances: Vec<Vec<Value<'a>>>,
    new_certificates: Vec<Vec<Value<'a>>>,
    changed_certificates: Vec<Vec<Value<'a>>>,
    gone_certificates: Vec<Vec<Value<'a>>>,
    spent_codes: Vec<Vec<Value<'a>>>,
    new_replies: Vec<Vec<Value<'a>>>,
    /// Where the log ends afterwards; `None` where readers of it have nothing to learn.
    grown_to: Option<u64>,
}

/// Writes a batch that began after `before` and ends at `after`.
pub(super) async fn write(
    connection: &mut PgConnection,
    writes: &Writes,
    before: &LogHead,
    after: &LogHead,
    now: Timestamp,
) -> Result<WriteOutcome, StoreError> {
    let codes: Vec<SpentRegisterCode> = writes.spent_register_codes.iter().map(Into::into).collect();
    let replies = ReplyRow::of_all(&writes.replies, now)?;
    let new = |registered_position: u64| registered_position > before.position;
    let (new_instances, instances): (Vec<&Instance>, Vec<&Instance>) =
        writes.instances.iter().partition(|instance| new(instance.registered_position));
    let (new_certificates, certificates): (Vec<&CaCertificate>, Vec<&CaCertificate>) =
        writes.certificates.iter().partition(|certificate| new(certificate.registered_position));
    let batch = Batch {
        new_events: writes.events.iter().map(|entry| entry.row.values()).collect(),
        new_instances: new_instances.into_iter().map(StoredRow::values).collect(),
        changed_instances: instances.into_iter().map(change_values).collect(),
        new_certificates: new_certificates.into_iter().map(StoredRow::values).collect(),
        changed_certificates: certificates.into_iter().map(change_values).collect(),
        gone_certificates: writes
            .deleted_certificates
            .iter()
            .map(|(id, sn)| vec![id.into(), sn.into()])
            .collect(),
        spent_codes: codes.iter().map(StoredRow::values).collect(),
        new_replies: replies.iter().map(StoredRow::values).collect(),
        grown_to: Some(after.position).filter(|end| *end > before.position),
    };
    let rows = batch.statement().fetch(connection).await?;
    let row = rows.first().ok_or_else(|| StoreError::Internal("the write gave no row".into()))?;
    expect_count("instances", row.try_get(1).map_err(store_error)?, batch.changed_instances.len())?;
    expect_count("ca_certificates", row.try_get(2).map_err(store_error)?, batch.changed_certificates.len())?;
    let stored: i64 = row.try_get(3).map_err(store_error)?;
    let xid = row.try_get(0).map_err(store_error)?;
    Ok(WriteOutcome { xid, replies: usize::try_from(stored).unwrap_or(0) })
}

impl Batch<'_> {
    fn statement(&self) -> StatementBuilder {
        let mut parts = Parts::default();
        parts.add("new_events", &self.new_events, |statement, rows| {
            statement.insert::<RecordedEvent>().unnest_rows(&NEW_EVENT, rows);
        });
        parts.add("new_instances", &self.new_instances, |statement, rows| {
            statement.insert::<Instance>().unnest(Instance::COLUMNS, rows);
        });
        parts.add("changed_instances", &self.changed_instances, |statement, rows| {
            statement.update::<Instance>().unnest_rows(&INSTANCE_CHANGE, rows).where_key_is::<Instance>();
        });
        // One that was deleted and registered anew within the batch is still there, and is
        // replaced.
        parts.add("new_certificates", &self.new_certificates, |statement, rows| {
            statement.insert::<CaCertificate>().unnest(CaCertificate::COLUMNS, rows);
            statement.push(&upsert::<CaCertificate>());
        });
        // The certificate itself stays: only its state is sent and replaced.
        parts.add("changed_certificates", &self.changed_certificates, |statement, rows| {
            statement.update::<CaCertificate>().unnest_rows(&CA_CERTIFICATE_CHANGE, rows);
            statement.where_key_is::<CaCertificate>();
        });
        parts.add("gone_certificates", &self.gone_certificates, |statement, keys| {
            statement.delete::<CaCertificate>(keys);
        });
        parts.add("spent_codes", &self.spent_codes, |statement, rows| {
            statement.insert::<SpentRegisterCode>().unnest(SpentRegisterCode::COLUMNS, rows);
        });
        parts.add("new_replies", &self.new_replies, |statement, rows| {
            statement.insert::<ReplyRow>().unnest_rows(&NEW_REPLY, rows);
            statement.push(" ON CONFLICT (account_id, request_id) DO NOTHING");
        });
        let mut statement = parts.statement;
        statement.push(" SELECT pg_current_xact_id()::text, ");
        push_count(&mut statement, "changed_instances", self.changed_instances.is_empty());
        push_count(&mut statement, "changed_certificates", self.changed_certificates.is_empty());
        push_count(&mut statement, "new_replies", self.new_replies.is_empty());
        match self.grown_to {
            Some(end) => {
                statement.push("pg_notify('").push(CHANNEL).push("', ").bind(end.to_string()).push(")");
            }
            None => {
                statement.push("NULL");
            }
        }
        statement
    }
}

/// Parts of a statement, each `name AS (…)`.
#[derive(Default)]
struct Parts {
    statement: StatementBuilder,
    any: bool,
}

impl Parts {
    fn add(
        &mut self,
        name: &str,
        rows: &[Vec<Value<'_>>],
        part: impl FnOnce(&mut StatementBuilder, &[Vec<Value<'_>>]),
    ) {
        if rows.is_empty() {
            return;
        }
        self.statement.push(if self.any { ", " } else { "WITH " }).push(name).push(" AS (");
        part(&mut self.statement, rows);
        self.statement.push(" RETURNING 1)");
        self.any = true;
    }
}

fn push_count(statement: &mut StatementBuilder, part: &str, empty: bool) {
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

/// The statement with all its parts.
#[cfg(feature = "contract")]
pub(crate) fn whole_statement() -> String {
    let row = |columns: &[Column]| vec![vec![Value::Null; columns.len()]];
    let batch = Batch {
        new_events: row(RecordedEvent::COLUMNS),
        new_instances: row(Instance::COLUMNS),
        changed_instances: row(&INSTANCE_CHANGE.columns),
        new_certificates: row(CaCertificate::COLUMNS),
        changed_certificates: row(&CA_CERTIFICATE_CHANGE.columns),
        gone_certificates: row(CaCertificate::KEY),
        spent_codes: row(SpentRegisterCode::COLUMNS),
        new_replies: row(ReplyRow::COLUMNS),
        grown_to: Some(1),
    };
    batch.statement().into_text()
}
