//! Trust bundles, now and as they were, each checked against its recorded digest.

use std::sync::Arc;

use catrust_domain::set_hash::SetHash;
use catrust_domain::{CaCertificate, InstanceId, Timestamp, TrustBundle, TrustEntry};

use crate::epochs;
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
        BundleAt::Revision(revision) => load_revision(db, id, revision).await,
        BundleAt::Time(time) => load_time(db, id, time).await,
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
    id: &InstanceId,
    revision: u64,
) -> Result<Option<TrustBundle>, StoreError> {
    let instance = [id.into()];
    if db.row(&queries::REGISTERED_AT, &instance).await?.is_none() {
        return Ok(None);
    }
    if revision == 0 {
        return Ok(Some(empty(id)));
    }
    if reads::number(db, &queries::LAST_REVISION, &instance).await?.unwrap_or(0) < revision {
        return Ok(None);
    }
    fold(db, id, revision).await.map(Some)
}

async fn load_time(
    db: &mut impl Rows,
    id: &InstanceId,
    time: Timestamp,
) -> Result<Option<TrustBundle>, StoreError> {
    let Some(row) = db.row(&queries::REGISTERED_AT, &[id.into()]).await? else {
        return Ok(None);
    };
    let broken = |reason| corrupt("instances", &[Ok(id.to_string())], reason);
    if row.time(0).map_err(broken)? > time {
        return Ok(None);
    }
    let binds = [id.into(), time.into()];
    match reads::number(db, &queries::REVISION_AT_TIME, &binds).await?.unwrap_or(0) {
        0 => Ok(Some(empty(id))),
        revision => fold(db, id, revision).await.map(Some),
    }
}

/// The bundle that the last trust change of each CA certificate up to `revision` makes.
async fn fold(db: &mut impl Rows, id: &InstanceId, revision: u64) -> Result<TrustBundle, StoreError> {
    let binds = [id.into(), revision.into()];
    let events = reads::events(db, &queries::BUNDLE_AT_REVISION, &binds).await?;
    let missing = || corrupt("events", &[Ok(format!("{id} revision {revision}"))], "no such row".into());
    let last = events.iter().find(|event| event.revision == Some(revision)).ok_or_else(missing)?;
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

fn empty(id: &InstanceId) -> TrustBundle {
    let digest = SetHash::empty().digest();
    TrustBundle { instance_id: id.clone(), revision: 0, position: 0, digest, entries: Vec::new() }
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
