//! The reads of the [`crate::store`], the same for both engines.
//!
//! Each is one statement, and therefore sees one snapshot; where it takes two,
//! the second one only reads rows of the log that can no longer change.

use catrust_domain::set_hash::SetHash;
use catrust_domain::{
    BrokerId, BrokerState, CaCertificate, FleetMember, Instance, InstanceId, LogHead, RecordedEvent, Reply,
    RequestKey, SerialNumber, Sha256, Timestamp,
};
use uuid::Uuid;

use crate::epochs;
use crate::known::KnownLog;
use crate::queries::{self, Query};
use crate::replies;
use crate::row::{Row, StoredRow as _, corrupt, parsed};
use crate::rows::Rows;
use crate::value::Value;
use crate::{CertificateView, Page, StateFilter, StoreError};

/// Where the registration position stands among the columns of an instance.
const REGISTERED_POSITION: usize = 3;

pub(crate) async fn log_id(db: &mut impl Rows) -> Result<Uuid, StoreError> {
    let missing = || corrupt("log_identity", &[], "the one row is missing".into());
    let row = db.row(&queries::LOG_ID, &[]).await?.ok_or_else(missing)?;
    row.uuid(0).map_err(|reason| corrupt("log_identity", &[], reason))
}

pub(crate) async fn head(db: &mut impl Rows) -> Result<LogHead, StoreError> {
    match db.row(&queries::HEAD, &[]).await? {
        Some(row) => LogHead::read(&row, 0),
        None => Ok(LogHead::EMPTY),
    }
}

pub(crate) async fn events_after(
    db: &mut impl Rows,
    after: u64,
    limit: u32,
) -> Result<Vec<RecordedEvent>, StoreError> {
    events(db, &queries::EVENTS_AFTER, &[after.into(), limit.into()]).await
}

/// Rows after position `after`, each with the epoch that it belongs to.
pub(crate) async fn log_after(
    db: &mut impl Rows,
    known: &KnownLog,
    after: u64,
    limit: u32,
) -> Result<Vec<RecordedEvent>, StoreError> {
    let rows = log(db, known, &queries::LOG_AFTER, &[after.into(), limit.into()]).await?;
    known.memory.read(&rows);
    Ok(rows)
}

/// Runs a statement that gives rows of the log, each with the newest begin of an epoch.
pub(crate) async fn log(
    db: &mut impl Rows,
    known: &KnownLog,
    query: &'static Query,
    binds: &[Value<'_>],
) -> Result<Vec<RecordedEvent>, StoreError> {
    let rows = db.rows(query, binds).await?;
    let Some(first) = rows.first() else { return Ok(Vec::new()) };
    let newest = newest_begin(first, RecordedEvent::WIDTH)?;
    let mut events = rows.iter().map(|row| RecordedEvent::read(row, 0)).collect::<Result<Vec<_>, _>>()?;
    known.epoch(db, newest).await?;
    known.epochs.assign(&mut events);
    Ok(events)
}

/// Hash of the newest row that begins an epoch.
pub(crate) async fn newest_begin_of_log(db: &mut impl Rows) -> Result<Option<Sha256>, StoreError> {
    match db.row(&queries::NEWEST_BEGIN, &[]).await? {
        Some(row) => newest_begin(&row, 0),
        None => Ok(None),
    }
}

/// Hash of the newest row that begins an epoch, in the column `at`.
pub(crate) fn newest_begin(row: &impl Row, at: usize) -> Result<Option<Sha256>, StoreError> {
    row.get(at).map_err(|reason| corrupt("events", &[], reason))
}

/// The time by the clock of the database.
pub(crate) async fn present<D: Rows>(db: &mut D) -> Result<Timestamp, StoreError> {
    let missing = || StoreError::Internal("the database tells no time".into());
    let row = db.row(D::present(), &[]).await?.ok_or_else(missing)?;
    let micros = row.number(0).map_err(|reason| StoreError::Internal(reason.into()))?;
    Ok(Timestamp::from_micros(micros))
}

pub(crate) async fn find_instance(
    db: &mut impl Rows,
    known: &KnownLog,
    id: &InstanceId,
) -> Result<Option<Instance>, StoreError> {
    let Some(row) = db.row(&queries::INSTANCE, &[id.into()]).await? else { return Ok(None) };
    let mut instance = Instance::read(&row, 0)?;
    let newest = newest_begin(&row, Instance::WIDTH)?;
    epochs::lift(&mut instance, known.epoch(db, newest).await?);
    Ok(Some(instance))
}

pub(crate) async fn list_instances(
    db: &mut impl Rows,
    known: &KnownLog,
    after: u64,
    limit: u32,
) -> Result<Page<Instance>, StoreError> {
    let mut whole = Page { items: Vec::new(), total: 0 };
    let mut after = after;
    loop {
        let missing = limit - u32::try_from(whole.items.len()).unwrap_or(limit).min(limit);
        let rows = db.rows(&queries::INSTANCES_PAGE, &[after.into(), missing.into()]).await?;
        let page = page(&rows, Instance::TABLE, |row| Ok(Instance::read(row, 1)))?;
        if let Some(first) = rows.first() {
            let newest = newest_begin(first, 1 + Instance::WIDTH)?;
            known.epoch(db, newest).await?;
        }
        let found = page.items.len();
        whole.total = page.total;
        let readable = page.items.into_iter().filter_map(|row| {
            // One that is damaged must not keep the others from being served.
            row.inspect_err(|error| {
                known.damage.tell(error);
            })
            .ok()
        });
        let before = whole.items.len();
        whole.items.extend(readable);
        if whole.items.len() - before == found {
            break;
        }
        // The places of those that were left out are taken by the ones behind.
        let Some(last) = rows.last() else { break };
        after = last.get(1 + REGISTERED_POSITION).map_err(|reason| corrupt(Instance::TABLE, &[], reason))?;
    }
    let in_force = known.epochs.in_force();
    whole.items.iter_mut().for_each(|instance| epochs::lift(instance, in_force));
    Ok(whole)
}

pub(crate) async fn find_certificate(
    db: &mut impl Rows,
    id: &InstanceId,
    sn: &SerialNumber,
) -> Result<Option<CertificateView>, StoreError> {
    let row = db.row(&queries::CERTIFICATE, &[id.into(), sn.into()]).await?;
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
    let binds = [id.into(), after.into(), limit.into(), state.into()];
    let rows = db.rows(&queries::CERTIFICATES_PAGE, &binds).await?;
    page(&rows, CaCertificate::TABLE, |row| certificate_view(row, 1))
}

pub(crate) async fn read_trust_changes(
    db: &mut impl Rows,
    id: &InstanceId,
    after_revision: u64,
    limit: u32,
) -> Result<Vec<RecordedEvent>, StoreError> {
    let binds = [id.into(), after_revision.into(), limit.into()];
    events(db, &queries::TRUST_CHANGES_AFTER_REVISION, &binds).await
}

pub(crate) async fn find_reply(db: &mut impl Rows, key: &RequestKey) -> Result<Option<Reply>, StoreError> {
    let binds = [Value::from(&key.account_id), key.request_id.into()];
    let Some(row) = db.row(&queries::REPLY, &binds).await? else { return Ok(None) };
    let reply = row.text(0).and_then(|json| replies::decode(json, &row, 1));
    reply.map(Some).map_err(|reason| {
        corrupt("replies", &[Ok(key.account_id.to_string()), Ok(key.request_id.to_string())], reason)
    })
}

pub(crate) async fn list_brokers(
    db: &mut impl Rows,
    id: &InstanceId,
) -> Result<Vec<FleetMember>, StoreError> {
    fleet(db, &queries::BROKERS, &[id.into()]).await
}

pub(crate) async fn list_all_brokers(
    db: &mut impl Rows,
    after: Option<(&InstanceId, &BrokerId)>,
    limit: u32,
) -> Result<Vec<FleetMember>, StoreError> {
    let (instance, broker) =
        after.map_or(("", ""), |(instance, broker)| (instance.as_str(), broker.as_str()));
    fleet(db, &queries::ALL_BROKERS, &[instance.into(), broker.into(), limit.into()]).await
}

/// Runs a statement that gives brokers, each with the log's digest.
async fn fleet(
    db: &mut impl Rows,
    query: &'static Query,
    binds: &[Value<'_>],
) -> Result<Vec<FleetMember>, StoreError> {
    db.rows(query, binds).await?.iter().map(fleet_member).collect()
}

fn fleet_member(row: &impl Row) -> Result<FleetMember, StoreError> {
    let broker = BrokerState::read(row, 0)?;
    let log_digest = match broker.applied {
        // Before the first change there is no event to ask.
        Some(applied) if applied.revision == 0 => Some(SetHash::empty().digest()),
        _ => row
            .get(BrokerState::WIDTH)
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

/// Runs a statement that gives events.
pub(crate) async fn events(
    db: &mut impl Rows,
    query: &'static Query,
    binds: &[Value<'_>],
) -> Result<Vec<RecordedEvent>, StoreError> {
    db.rows(query, binds).await?.iter().map(|row| RecordedEvent::read(row, 0)).collect()
}

/// Runs a statement that gives at most one number, never negative.
pub(crate) async fn number(
    db: &mut impl Rows,
    query: &'static Query,
    binds: &[Value<'_>],
) -> Result<Option<u64>, StoreError> {
    let row = db.row(query, binds).await?;
    row.map(|row| row.get(0).map_err(|reason| corrupt("events", &[], reason))).transpose()
}

fn certificate_view(row: &impl Row, at: usize) -> Result<CertificateView, StoreError> {
    let certificate = CaCertificate::read(row, at)?;
    let broken = |reason| corrupt(CaCertificate::TABLE, &[Ok(certificate.instance_id.to_string())], reason);
    let twins: Option<Vec<String>> = row.get(at + CaCertificate::WIDTH).map_err(broken)?;
    let twins = twins.unwrap_or_default();
    let sns = twins.iter().map(|sn| parsed(sn)).collect::<Result<Vec<SerialNumber>, _>>();
    let mut same_key_sns = sns.map_err(broken)?;
    same_key_sns.sort_unstable();
    Ok(CertificateView { certificate, same_key_sns })
}

/// Takes a page apart whose first column is the total, and whose second one is
/// NULL where the page is empty.
fn page<R: Row, T>(
    rows: &[R],
    table: &'static str,
    read: impl Fn(&R) -> Result<T, StoreError>,
) -> Result<Page<T>, StoreError> {
    let whole = |reason| corrupt(table, &[], reason);
    let mut page = Page { items: Vec::with_capacity(rows.len()), total: 0 };
    for row in rows {
        page.total = row.get(0).map_err(whole)?;
        if !row.is_null(1).map_err(whole)? {
            page.items.push(read(row)?);
        }
    }
    Ok(page)
}
