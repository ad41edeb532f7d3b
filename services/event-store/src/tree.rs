//! What a Merkle tree over the log is made of: hashes of rows, and nodes that were kept.

use catrust_domain::{RecordedEvent, Sha256};
use uuid::Uuid;

use crate::columns::{Columns, corrupt, stored};
use crate::rows::{Bind, Rows};
use crate::{StoreError, queries, reads};

pub(crate) async fn hashes_after(
    db: &mut impl Rows,
    after: u64,
    limit: u32,
) -> Result<Vec<Sha256>, StoreError> {
    let binds = [Bind::Number(stored(after)), Bind::Number(limit.into())];
    let rows = db.rows(queries::HASHES_AFTER, &binds).await?;
    dense(&rows, after + 1)
        .map_err(|(position, reason)| corrupt("events", &[Ok(position.to_string())], reason))
}

pub(crate) async fn find_event(
    db: &mut impl Rows,
    event_id: Uuid,
) -> Result<Option<RecordedEvent>, StoreError> {
    Ok(reads::events(db, queries::EVENT_BY_ID, &[Bind::Uuid(event_id)]).await?.pop())
}

pub(crate) async fn count_nodes(db: &mut impl Rows, level: u32) -> Result<u64, StoreError> {
    let count = reads::number(db, queries::COUNT_TREE_NODES, &[Bind::Number(level.into())]).await?;
    Ok(count.unwrap_or(0))
}

pub(crate) async fn nodes(
    db: &mut impl Rows,
    level: u32,
    first: u64,
    limit: u32,
) -> Result<Vec<Sha256>, StoreError> {
    let binds = [Bind::Number(level.into()), Bind::Number(stored(first)), Bind::Number(limit.into())];
    let rows = db.rows(queries::TREE_NODES, &binds).await?;
    let whole =
        rows.iter().zip(first..).take_while(|(row, number)| row.count(0).ok() == Some(*number)).count();
    let key = |number: u64| [Ok(level.to_string()), Ok(number.to_string())];
    dense(&rows[..whole], first).map_err(|(number, reason)| corrupt("tree_nodes", &key(number), reason))
}

/// Reads `number, hash` of rows that are numbered from `first` on without gaps.
fn dense<R: Columns>(rows: &[R], first: u64) -> Result<Vec<Sha256>, (u64, String)> {
    let read = |(row, number): (&R, u64)| {
        let found = row.count(0).map_err(|reason| (number, reason))?;
        if found != number {
            return Err((number, "the row is missing".to_owned()));
        }
        row.digest(1).map_err(|reason| (number, reason))
    };
    rows.iter().zip(first..).map(read).collect()
}
