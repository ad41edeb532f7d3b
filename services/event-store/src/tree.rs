//! What a Merkle tree over the log is made of: hashes of rows, and nodes that were kept.

use catrust_domain::{RecordedEvent, Sha256};
use uuid::Uuid;

use crate::known::KnownLog;
use crate::row::{Row, corrupt};
use crate::rows::Rows;
use crate::{StoreError, queries, reads};

pub(crate) async fn hashes_after(
    db: &mut impl Rows,
    after: u64,
    limit: u32,
) -> Result<Vec<Sha256>, StoreError> {
    let rows = db.rows(&queries::HASHES_AFTER, &[after.into(), limit.into()]).await?;
    dense(&rows, after + 1)
        .map_err(|(position, reason)| corrupt("events", &[Ok(position.to_string())], reason))
}

pub(crate) async fn find_event(
    db: &mut impl Rows,
    known: &KnownLog,
    event_id: Uuid,
) -> Result<Option<RecordedEvent>, StoreError> {
    Ok(reads::log(db, known, &queries::EVENT_BY_ID, &[event_id.into()]).await?.pop())
}

pub(crate) async fn count_nodes(db: &mut impl Rows, level: u32) -> Result<u64, StoreError> {
    let count = reads::number(db, &queries::COUNT_TREE_NODES, &[level.into()]).await?;
    Ok(count.unwrap_or(0))
}

pub(crate) async fn nodes(
    db: &mut impl Rows,
    level: u32,
    first: u64,
    limit: u32,
) -> Result<Vec<Sha256>, StoreError> {
    let rows = db.rows(&queries::TREE_NODES, &[level.into(), first.into(), limit.into()]).await?;
    let whole = rows.iter().zip(first..).take_while(|(row, number)| row.get(0) == Ok(*number)).count();
    let key = |number: u64| [Ok(level.to_string()), Ok(number.to_string())];
    dense(&rows[..whole], first).map_err(|(number, reason)| corrupt("tree_nodes", &key(number), reason))
}

/// Keeps nodes of `level` from number `first` on; those that are kept already stay.
pub(crate) async fn keep_nodes(
    db: &mut impl Rows,
    level: u32,
    first: u64,
    nodes: &[Sha256],
) -> Result<(), StoreError> {
    for (node, number) in nodes.iter().zip(first..) {
        db.execute(&queries::KEEP_TREE_NODE, &[level.into(), number.into(), node.into()]).await?;
    }
    Ok(())
}

/// Reads `number, hash` of rows that are numbered from `first` on without gaps.
fn dense<R: Row>(rows: &[R], first: u64) -> Result<Vec<Sha256>, (u64, String)> {
    let read = |(row, number): (&R, u64)| {
        let found: u64 = row.get(0).map_err(|reason| (number, reason))?;
        if found != number {
            return Err((number, "the row is missing".to_owned()));
        }
        row.get(1).map_err(|reason| (number, reason))
    };
    rows.iter().zip(first..).map(read).collect()
}
