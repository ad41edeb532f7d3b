//! Rebuild of the read model from the log, beside the old one.
//!
//! The fold is made in memory from a snapshot while appends go on, then compared
//! with the stored rows. Under the append lock only the tail is folded and the
//! rows are written that differ, in one transaction: readers see the old read
//! model or the new one, and appends wait for the differences alone. No right to
//! create tables is needed.

use std::collections::{BTreeSet, HashSet};

use catrust_domain::read_model::ReadModel;
use catrust_domain::{CaCertificate, Instance};

use crate::columns::corrupt;
use crate::comparison::Differing;
use crate::rows::Rows;
use crate::walk::{self, LogWalk};
use crate::{RebuildReport, StoreError, verify};

/// Rounds of catching up before the lock is taken; each leaves a shorter tail
/// unless the log grows faster than it folds.
const MAX_ROUNDS: u32 = 8;

/// A tail that is short enough to be folded under the append lock (about 50 ms).
const SHORT_TAIL: u64 = 5_000;

/// Rows written by one statement.
const CHUNK: usize = 256;

/// A connection that can hold the append lock and write the read model.
pub(crate) trait Repair: Rows {
    /// Begins a transaction and takes the append lock.
    fn begin(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;
    fn put_instances(&mut self, rows: &[&Instance]) -> impl Future<Output = Result<(), StoreError>> + Send;
    fn put_certificates(
        &mut self,
        rows: &[&CaCertificate],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
    fn put_spent_codes(
        &mut self,
        rows: &[(&str, &str, u64)],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
    fn delete_instances(&mut self, ids: &[&str]) -> impl Future<Output = Result<(), StoreError>> + Send;
    fn delete_certificates(
        &mut self,
        keys: &[(&str, &str)],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
    fn delete_spent_codes(
        &mut self,
        keys: &[(&str, &str)],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
    fn commit(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Rebuilds: `snapshot` sees one snapshot of the database, `repair` its present.
pub(crate) async fn rebuild(
    mut snapshot: impl Rows,
    repair: &mut impl Repair,
) -> Result<RebuildReport, StoreError> {
    let (mut walk, comparison) = verify::inspect(&mut snapshot).await?;
    drop(snapshot);
    refuse_damage(&walk)?;
    // What the tail touches is written anew as well: those rows may have been equal
    // before, and were then written from a read model that is in doubt.
    walk.touched = Some(comparison.differing);
    for _ in 0..MAX_ROUNDS {
        let before = walk.head.position;
        walk = walk::walk_on(repair, walk).await?;
        if walk.head.position - before < SHORT_TAIL {
            break;
        }
    }
    repair.begin().await?;
    let walk = walk::walk_on(repair, walk).await?;
    refuse_damage(&walk)?;
    let (Some(model), Some(differing)) = (walk.model, walk.touched) else {
        return Err(corrupt("events", &[], "the log does not fold".into()));
    };
    let (instances, certificates) = write(repair, &model, &differing).await?;
    repair.commit().await?;
    Ok(RebuildReport {
        events: walk.events,
        instances,
        certificates,
        differing_instances: differing.digests.into_iter().collect(),
    })
}

fn refuse_damage(walk: &LogWalk) -> Result<(), StoreError> {
    match walk.damage.first() {
        Some(damage) => {
            let position = damage.position.map(|position| position.to_string()).unwrap_or_default();
            Err(corrupt("events", &[Ok(position)], damage.description.clone()))
        }
        None => Ok(()),
    }
}

/// Replaces the differing rows by what the fold has; gives how many instances and
/// CA certificates were written.
///
/// All deletions come first: a wrong row may hold a registration position that a
/// right one needs.
async fn write(
    repair: &mut impl Repair,
    model: &ReadModel,
    differing: &Differing,
) -> Result<(u64, u64), StoreError> {
    let ids: Vec<&str> = differing.instances.iter().map(String::as_str).collect();
    for chunk in ids.chunks(CHUNK) {
        repair.delete_instances(chunk).await?;
    }
    for chunk in pairs(&differing.certificates).chunks(CHUNK) {
        repair.delete_certificates(chunk).await?;
    }
    for chunk in pairs(&differing.spent_codes).chunks(CHUNK) {
        repair.delete_spent_codes(chunk).await?;
    }
    let instances: Vec<&Instance> = ids.iter().filter_map(|id| model.instance(&id.parse().ok()?)).collect();
    for chunk in instances.chunks(CHUNK) {
        repair.put_instances(chunk).await?;
    }
    let find = |(id, sn): &(String, String)| model.certificate(&id.parse().ok()?, &sn.parse().ok()?);
    let certificates: Vec<&CaCertificate> = differing.certificates.iter().filter_map(find).collect();
    for chunk in certificates.chunks(CHUNK) {
        repair.put_certificates(chunk).await?;
    }
    let wanted: HashSet<(&str, &str)> = pairs(&differing.spent_codes).into_iter().collect();
    let codes: Vec<(&str, &str, u64)> = model
        .spent_register_codes()
        .map(|(id, code, position)| (id.as_str(), code, position))
        .filter(|(id, code, _)| wanted.contains(&(*id, *code)))
        .collect();
    for chunk in codes.chunks(CHUNK) {
        repair.put_spent_codes(chunk).await?;
    }
    Ok((instances.len() as u64, certificates.len() as u64))
}

fn pairs(keys: &BTreeSet<(String, String)>) -> Vec<(&str, &str)> {
    keys.iter().map(|(left, right)| (left.as_str(), right.as_str())).collect()
}
