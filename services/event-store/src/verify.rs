//! Verification: the log against itself, and the read model against the log.

use crate::comparison::{self, Comparison};
use crate::rows::Rows;
use crate::walk::{self, LogWalk, MAX_DAMAGE};
use crate::{StoreError, VerifyReport};

/// Verifies what `db` sees, which MUST be one snapshot.
pub(crate) async fn verify(db: &mut impl Rows) -> Result<VerifyReport, StoreError> {
    let (walk, comparison) = inspect(db).await?;
    let mut damage = walk.damage;
    damage.sort_by_key(|piece| piece.position);
    damage.extend(comparison.damage);
    damage.truncate(MAX_DAMAGE);
    Ok(VerifyReport {
        events: walk.events,
        head_position: walk.head.position,
        head_hash: walk.head.hash.to_string(),
        instances: comparison.instances,
        certificates: comparison.certificates,
        damage,
    })
}

/// Walks the log and compares; without a whole fold there is nothing to compare with.
pub(crate) async fn inspect(db: &mut impl Rows) -> Result<(LogWalk, Comparison), StoreError> {
    let walk = walk::walk_on(db, LogWalk::new()).await?;
    let comparison = match &walk.model {
        Some(model) => comparison::compare(db, model).await?,
        None => Comparison::default(),
    };
    Ok((walk, comparison))
}
