//! The reads of [`crate::EventStore`], the same for both engines.
//!
//! Each is one statement, and therefore sees one snapshot; where it takes two,
//! the second one only reads rows of the log that can no longer change.

use catrust_domain::set_hash::SetHash;
use catrust_domain::{
    BrokerId, FleetMember, Instance, InstanceId, LogHead, RecordedEvent, Reply, RequestKey, SerialNumber,
    Sha256,
};
use uuid::Uuid;

use crate::columns::{self, Columns, corrupt, stored};
use crate::queries::{self, BROKER_WIDTH, CERTIFICATE_WIDTH};
use crate::replies;
use crate::rows::{Bind, Rows};
use crate::{CertificateView, Page, StateFilter, StoreError};

pub(crate) async fn log_id(db: &mut impl Rows) -> Result<Uuid, StoreError> {
    let missing = || corrupt("log_identity", &[], "the one row is missing".into());
    let row = db.row(queries::LOG_ID, &[]).await?.ok_or_else(missing)?;
    row.uuid(0).map_err(|reason| corrupt("log_identity", &[], reason))
}

pub(crate) async fn head(db: &mut impl Rows) -> Result<LogHead, StoreError> {
    match db.row(queries::HEAD, &[]).await? {
        Some(row) => head_of(&row, 0),
        None => Ok(LogHead::EMPTY),
    }
}

/// Reads `position, hash, occurred_at` from `at` on.
pub(crate) fn head_of(row: &impl Columns, at: usize) -> Result<LogHead, StoreError> {
    let read = || {
        Ok(LogHead { position: row.count(at)?, hash: row.digest(at + 1)?, occurred_at: row.time(at + 2)? })
    };
    read().map_err(|reason| corrupt("events", &[Ok("last".into())], reason))
}

pub(crate) async fn events_after(
    db: &mut impl Rows,
    after: u64,
    limit: u32,
) -> Result<Vec<RecordedEvent>, StoreError> {
    events(db, queries::EVENTS_AFTER, &[Bind::Number(stored(after)), Bind::Number(limit.into())]).await
}

pub(crate) async fn find_instance(
    db: &mut impl Rows,
    id: &InstanceId,
) -> Result<Option<Instance>, StoreError> {
    let row = db.row(queries::INSTANCE, &[Bind::Text(id.as_str())]).await?;
    row.map(|row| columns::instance(&row, 0)).transpose()
}

pub(crate) async fn list_instances(
    db: &mut impl Rows,
    after: u64,
    limit: u32,
) -> Result<Page<Instance>, StoreError> {
    let binds = [Bind::Number(stored(after)), Bind::Number(limit.into())];
    let rows = db.rows(queries::INSTANCES_PAGE, &binds).await?;
    page(&rows, "instances", |row| columns::instance(row, 1))
}

pub(crate) async fn find_certificate(
    db: &mut impl Rows,
    id: &InstanceId,
    sn: &SerialNumber,
) -> Result<Option<CertificateView>, StoreError> {
    let row = db.row(queries::CERTIFICATE, &[Bind::Text(id.as_str()), Bind::Text(sn.as_str())]).await?;
    row.map(|row| certificate_view(&row, 0)).transpose()
}

pub(crate) async fn list_certificates(
    db: &mut impl Rows,
    id: &InstanceId,
    state: StateFilter,
    after: u64,
    limit: u32,
) -> Result<Page<CertificateView>, StoreError> {
    let state = match state {
        StateFilter::Any => "",
        StateFilter::Active => "ACTIVE",
        StateFilter::Inactive => "INACTIVE",
    };
    let binds =
        [Bind::Text(id.as_str()), Bind::Number(stored(after)), Bind::Number(limit.into()), Bind::Text(state)];
    let rows = db.rows(queries::CERTIFICATES_PAGE, &binds).await?;
    page(&rows, "ca_certificates", |row| certificate_view(row, 1))
}

pub(crate) async fn read_trust_changes(
    db: &mut impl Rows,
    id: &InstanceId,
    after_revision: u64,
    limit: u32,
) -> Result<Vec<RecordedEvent>, StoreError> {
    let binds = [Bind::Text(id.as_str()), Bind::Number(stored(after_revision)), Bind::Number(limit.into())];
    events(db, queries::TRUST_CHANGES_AFTER_REVISION, &binds).await
}

pub(crate) async fn find_reply(db: &mut impl Rows, key: &RequestKey) -> Result<Option<Reply>, StoreError> {
    let Some(row) = db.row(queries::REPLY, &Bind::request_key(key)).await? else { return Ok(None) };
    let reply = row.text(0).and_then(|json| replies::decode(json, &row, 1));
    reply.map(Some).map_err(|reason| {
        corrupt("replies", &[Ok(key.account_id.to_string()), Ok(key.request_id.to_string())], reason)
    })
}

pub(crate) async fn list_brokers(
    db: &mut impl Rows,
    id: &InstanceId,
) -> Result<Vec<FleetMember>, StoreError> {
    fleet(db, queries::BROKERS, &[Bind::Text(id.as_str())]).await
}

pub(crate) async fn list_all_brokers(
    db: &mut impl Rows,
    after: Option<(&InstanceId, &BrokerId)>,
    limit: u32,
) -> Result<Vec<FleetMember>, StoreError> {
    let (instance, broker) =
        after.map_or(("", ""), |(instance, broker)| (instance.as_str(), broker.as_str()));
    let binds = [Bind::Text(instance), Bind::Text(broker), Bind::Number(limit.into())];
    fleet(db, queries::ALL_BROKERS, &binds).await
}

/// Runs a statement that gives `broker_columns!` and the log's digest.
async fn fleet(
    db: &mut impl Rows,
    sql: &'static str,
    binds: &[Bind<'_>],
) -> Result<Vec<FleetMember>, StoreError> {
    db.rows(sql, binds).await?.iter().map(fleet_member).collect()
}

fn fleet_member(row: &impl Columns) -> Result<FleetMember, StoreError> {
    let broker = columns::broker(row, 0)?;
    let log_digest = match broker.applied {
        // Before the first change there is no event to ask.
        Some(applied) if applied.revision == 0 => Some(SetHash::empty().digest()),
        _ => row
            .optional(BROKER_WIDTH, Columns::digest)
            .map_err(|reason| corrupt("events", &[Ok(broker.instance_id.to_string())], reason))?,
    };
    Ok(FleetMember { broker, log_digest })
}

/// Whether a commit with this last event, or with this reply, is in the database:
/// the evidence that settles a commit whose answer was lost.
pub(crate) async fn is_recorded(
    db: &mut impl Rows,
    event: Option<(u64, Sha256)>,
    reply: Option<&RequestKey>,
) -> Result<bool, StoreError> {
    if let Some((position, hash)) = event {
        let found = events_after(db, position - 1, 1).await?;
        return Ok(found.first().is_some_and(|found| found.position == position && found.hash == hash));
    }
    match reply {
        Some(key) => Ok(find_reply(db, key).await?.is_some()),
        None => Ok(true),
    }
}

/// Runs a statement that gives `event_columns!`.
pub(crate) async fn events(
    db: &mut impl Rows,
    sql: &'static str,
    binds: &[Bind<'_>],
) -> Result<Vec<RecordedEvent>, StoreError> {
    db.rows(sql, binds).await?.iter().map(|row| columns::event(row, 0)).collect()
}

/// Runs a statement that gives at most one number, never negative.
pub(crate) async fn number(
    db: &mut impl Rows,
    sql: &'static str,
    binds: &[Bind<'_>],
) -> Result<Option<u64>, StoreError> {
    let row = db.row(sql, binds).await?;
    row.map(|row| row.count(0).map_err(|reason| corrupt("events", &[], reason))).transpose()
}

fn certificate_view(row: &impl Columns, at: usize) -> Result<CertificateView, StoreError> {
    let certificate = columns::certificate(row, at)?;
    let twins = row.optional(at + CERTIFICATE_WIDTH, |row, index| {
        let parse = |sn: &str| sn.parse().map_err(|error| format!("{sn:?} {error}"));
        row.text(index)?.split(' ').map(parse).collect::<Result<Vec<SerialNumber>, String>>()
    });
    let mut same_key_sns = twins
        .map_err(|reason| corrupt("ca_certificates", &[Ok(certificate.instance_id.to_string())], reason))?
        .unwrap_or_default();
    same_key_sns.sort_unstable();
    Ok(CertificateView { certificate, same_key_sns })
}

/// Takes a page apart whose first column is the total, and whose second one is
/// NULL where the page is empty.
fn page<R: Columns, T>(
    rows: &[R],
    table: &'static str,
    read: impl Fn(&R) -> Result<T, StoreError>,
) -> Result<Page<T>, StoreError> {
    let whole = |reason| corrupt(table, &[], reason);
    let mut page = Page { items: Vec::with_capacity(rows.len()), total: 0 };
    for row in rows {
        page.total = row.count(0).map_err(whole)?;
        if !row.is_null(1).map_err(whole)? {
            page.items.push(read(row)?);
        }
    }
    Ok(page)
}
