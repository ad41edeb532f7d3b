//! Rebuild of the read model from the log, beside the old one.
//!
//! The fold is made in memory from a snapshot while appends go on, then compared
//! with the stored rows. Under the append lock only the tail is folded and the
//! rows are written that differ, in one transaction: readers see the old read
//! model or the new one, and appends wait for the differences alone. No right to
//! create tables is needed.

use std::collections::HashSet;

use catrust_domain::batch::Writes;
use catrust_domain::read_model::ReadModel;
use catrust_domain::{CaCertificate, Instance, LogHead, Timestamp};

use crate::comparison::Differing;
use crate::row::{StoredRow, corrupt};
use crate::rows::Rows;
use crate::tables::SpentRegisterCode;
use crate::value::Value;
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
    /// Shows that the server still commits, with full durability.
    fn confirm(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Begins a transaction and takes the append lock.
    fn begin(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Inserts rows.
    fn insert<R: StoredRow + Sync>(
        &mut self,
        rows: &[&R],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Deletes the rows with these keys, where they are there.
    fn delete<R: StoredRow>(
        &mut self,
        keys: &[Vec<Value<'_>>],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Writes what a batch came to that began after `before` and ends at `after`.
    fn write(
        &mut self,
        writes: &Writes,
        before: &LogHead,
        after: &LogHead,
        now: Timestamp,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Commits a rebuild, so that servers forget the rows which they remember.
    fn commit(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Commits anything else.
    fn end(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;
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
    delete::<Instance>(repair, differing.instances.iter().map(|id| vec![id.into()])).await?;
    delete::<CaCertificate>(repair, differing.certificates.iter().map(pair)).await?;
    delete::<SpentRegisterCode>(repair, differing.spent_codes.iter().map(pair)).await?;
    let instances: Vec<&Instance> =
        differing.instances.iter().filter_map(|id| model.instance(&id.parse().ok()?)).collect();
    insert(repair, &instances).await?;
    let find = |(id, sn): &(String, String)| model.certificate(&id.parse().ok()?, &sn.parse().ok()?);
    let certificates: Vec<&CaCertificate> = differing.certificates.iter().filter_map(find).collect();
    insert(repair, &certificates).await?;
    let wanted: HashSet<(&str, &str)> =
        differing.spent_codes.iter().map(|(id, code)| (id.as_str(), code.as_str())).collect();
    let codes: Vec<SpentRegisterCode> = model
        .spent_register_codes()
        .filter(|(id, code, _)| wanted.contains(&(id.as_str(), *code)))
        .map(|(id, code, position)| SpentRegisterCode {
            instance_id: id.clone(),
            register_code: code.to_owned(),
            position,
        })
        .collect();
    insert(repair, &codes.iter().collect::<Vec<_>>()).await?;
    Ok((instances.len() as u64, certificates.len() as u64))
}

async fn insert<R: StoredRow + Sync>(repair: &mut impl Repair, rows: &[&R]) -> Result<(), StoreError> {
    for chunk in rows.chunks(CHUNK) {
        repair.insert(chunk).await?;
    }
    Ok(())
}

async fn delete<R: StoredRow>(
    repair: &mut impl Repair,
    keys: impl Iterator<Item = Vec<Value<'_>>>,
) -> Result<(), StoreError> {
    for chunk in keys.collect::<Vec<_>>().chunks(CHUNK) {
        repair.delete::<R>(chunk).await?;
    }
    Ok(())
}

fn pair((left, right): &(String, String)) -> Vec<Value<'_>> {
    vec![left.into(), right.into()]
}
