//! Trust bundles, now and as they were, each checked against its recorded digest.

use std::sync::Arc;

use catrust_domain::log_epoch::revision_count;
use catrust_domain::set_hash::SetHash;
use catrust_domain::{CaCertificate, InstanceId, LogEpoch, Timestamp, TrustBundle, TrustEntry};

use crate::epochs::{self, EpochEnd};
use crate::known::KnownLog;
use crate::row::{Row as _, StoredRow as _, corrupt};
use crate::rows::Rows;
use crate::{BundleAt, StoreError, queries, reads};

pub(crate) async fn load(
    db: &mut impl Rows,
    known: &KnownLog,
    id: &InstanceId,
    at: BundleAt,
) -> Result<Option<TrustBundle>, StoreError> {
    match at {
        BundleAt::Now => load_now(db, known, id).await,
        BundleAt::Revision(revision) => load_revision(db, known, id, revision).await,
        BundleAt::Time(time) => load_time(db, known, id, time).await,
    }
}

async fn load_now(
    db: &mut impl Rows,
    known: &KnownLog,
    id: &InstanceId,
) -> Result<Option<TrustBundle>, StoreError> {
    let rows = db.rows(&queries::BUNDLE_NOW, &[id.into()]).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let broken = |reason| corrupt("instances", &[Ok(id.to_string())], reason);
    let mut bundle = TrustBundle {
        instance_id: id.clone(),
        revision: first.get(0).map_err(broken)?,
        position: first.get(1).map_err(broken)?,
        digest: first.get(2).map_err(broken)?,
        entries: Vec::with_capacity(rows.len()),
    };
    for row in &rows {
        let is_empty = row.is_null(3).map_err(|reason| corrupt(CaCertificate::TABLE, &[], reason))?;
        if !is_empty {
            let CaCertificate { facts, state, .. } = CaCertificate::read(row, 3)?;
            bundle.entries.push(TrustEntry { facts, state });
        }
    }
    let newest = reads::newest_begin(first, 3 + CaCertificate::WIDTH)?;
    bundle.revision = epochs::current(bundle.revision, known.epoch(db, newest).await?);
    check(bundle, "instances").map(Some)
}

async fn load_revision(
    db: &mut impl Rows,
    known: &KnownLog,
    id: &InstanceId,
    revision: u64,
) -> Result<Option<TrustBundle>, StoreError> {
    if registered_at(db, known, id).await?.is_none() {
        return Ok(None);
    }
    let (epoch, count) = (LogEpoch::of_revision(revision), revision_count(revision));
    if !known.epochs.has(epoch) {
        return Ok(None);
    }
    if count == 0 {
        return Ok(Some(empty(id, revision)));
    }
    let Some((made, position)) = find_change(db, known, id, epoch, count).await? else {
        return known.epochs.end_of(epoch).map_or(Ok(None), |end| Err(lost(epoch, end)));
    };
    match known.epochs.end_of(epoch) {
        // The one that was acknowledged had the same number, and may have been another.
        Some(end) if position > end.fork_position => Err(lost(epoch, end)),
        _ => fold(db, id, made, revision).await.map(Some),
    }
}

/// Revision and position of the change of an instance that made the revision with this count,
/// in `epoch` or one before. A count is dense along the log: there is one at most.
async fn find_change(
    db: &mut impl Rows,
    known: &KnownLog,
    id: &InstanceId,
    epoch: LogEpoch,
    count: u64,
) -> Result<Option<(u64, u64)>, StoreError> {
    for epoch in known.epochs.up_to(epoch) {
        let made = epoch.revision(count);
        let binds = [id.into(), made.into()];
        if let Some(position) = reads::number(db, &queries::POSITION_OF_REVISION, &binds).await? {
            return Ok(Some((made, position)));
        }
    }
    Ok(None)
}

async fn load_time(
    db: &mut impl Rows,
    known: &KnownLog,
    id: &InstanceId,
    time: Timestamp,
) -> Result<Option<TrustBundle>, StoreError> {
    let Some(registered_at) = registered_at(db, known, id).await? else { return Ok(None) };
    for end in known.epochs.losses_after(time) {
        let row = db.row(&queries::TIME_AT_POSITION, &[end.fork_position.into()]).await?;
        let forked_at = row
            .map(|row| row.time(0))
            .transpose()
            .map_err(|reason| corrupt("events", &[Ok(end.fork_position.to_string())], reason))?;
        if forked_at.is_none_or(|forked_at| forked_at <= time) {
            return Err(lost(known.epochs.at_time(time), end));
        }
    }
    if registered_at > time {
        return Ok(None);
    }
    let epoch = known.epochs.at_time(time);
    let binds = [id.into(), time.into()];
    match reads::number(db, &queries::REVISION_AT_TIME, &binds).await?.unwrap_or(0) {
        0 => Ok(Some(empty(id, epoch.revision(0)))),
        made => fold(db, id, made, epoch.lift(made).max(made)).await.map(Some),
    }
}

async fn registered_at(
    db: &mut impl Rows,
    known: &KnownLog,
    id: &InstanceId,
) -> Result<Option<Timestamp>, StoreError> {
    let Some(row) = db.row(&queries::REGISTERED_AT, &[id.into()]).await? else { return Ok(None) };
    known.epoch(db, reads::newest_begin(&row, 1)?).await?;
    row.time(0).map(Some).map_err(|reason| corrupt("instances", &[Ok(id.to_string())], reason))
}

const fn lost(ended: LogEpoch, end: EpochEnd) -> StoreError {
    StoreError::EpochEnded { ended, fork_position: end.fork_position, next: end.next }
}

/// The bundle that the last trust change of each CA certificate up to the revision `made`
/// makes, which is called `revision`.
async fn fold(
    db: &mut impl Rows,
    id: &InstanceId,
    made: u64,
    revision: u64,
) -> Result<TrustBundle, StoreError> {
    let binds = [id.into(), made.into()];
    let events = reads::events(db, &queries::BUNDLE_AT_REVISION, &binds).await?;
    let missing = || corrupt("events", &[Ok(format!("{id} revision {made}"))], "no such row".into());
    let last = events.iter().find(|event| event.revision == Some(made)).ok_or_else(missing)?;
    let mut bundle = TrustBundle {
        instance_id: id.clone(),
        revision,
        position: last.position,
        digest: last.bundle_digest.ok_or_else(missing)?,
        entries: Vec::with_capacity(events.len()),
    };
    for event in &events {
        let broken = |error: catrust_domain::event::UndecodableEvent| {
            corrupt("events", &[Ok(event.position.to_string())], error.to_string())
        };
        let decoded = event.decode().map_err(broken)?;
        if let Some(effect) = decoded.trust_effect()
            && let Some(state) = effect.state
        {
            bundle.entries.push(TrustEntry { facts: Arc::clone(effect.certificate), state });
        }
    }
    bundle.entries.sort_unstable_by_key(|entry| entry.facts.sha256);
    check(bundle, "events")
}

fn empty(id: &InstanceId, revision: u64) -> TrustBundle {
    let digest = SetHash::empty().digest();
    TrustBundle { instance_id: id.clone(), revision, position: 0, digest, entries: Vec::new() }
}

fn check(bundle: TrustBundle, table: &'static str) -> Result<TrustBundle, StoreError> {
    let computed = TrustBundle::compute_digest(&bundle.entries);
    if computed == bundle.digest {
        return Ok(bundle);
    }
    let row = format!("{} revision {}", bundle.instance_id, bundle.revision);
    let reason = format!("its entries have the digest {computed}, recorded is {}", bundle.digest);
    Err(StoreError::Corrupt { table, row, reason })
}
