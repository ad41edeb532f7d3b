//! Writes what a batch came to, in statements of several rows.

use catrust_domain::batch::Writes;
use catrust_domain::{CaCertificate, Timestamp};
use sqlx::{AssertSqlSafe, SqliteConnection};

use super::error::store_error;
use super::row::arguments;
use crate::StoreError;
use crate::row::{StoredRow, names, upsert};
use crate::tables::{ReplyRow, SpentRegisterCode};
use crate::value::Value;

/// Rows per statement, the largest first. Three sizes, so that each table has three
/// prepared statements and not one for every size of a batch.
const ROWS_PER_STATEMENT: [usize; 3] = [64, 8, 1];

/// Writes a batch.
pub(super) async fn write(
    connection: &mut SqliteConnection,
    writes: &Writes,
    now: Timestamp,
) -> Result<(), StoreError> {
    // A taken position or version MUST fail the batch, and so must a taken code or reply.
    insert(connection, writes.events.iter().map(|entry| &entry.row)).await?;
    put(connection, writes.instances.iter()).await?;
    for (id, sn) in &writes.deleted_certificates {
        delete::<CaCertificate>(connection, &[id.into(), sn.into()]).await?;
    }
    put(connection, writes.certificates.iter()).await?;
    let codes: Vec<SpentRegisterCode> = writes.spent_register_codes.iter().map(Into::into).collect();
    insert(connection, codes.iter()).await?;
    insert(connection, ReplyRow::of_all(&writes.replies, now)?.iter()).await
}

/// Inserts rows; fails where one is there.
pub(super) async fn insert<'a, R: StoredRow + Sync + 'a>(
    connection: &mut SqliteConnection,
    rows: impl ExactSizeIterator<Item = &'a R>,
) -> Result<(), StoreError> {
    write_rows(connection, rows, "").await
}

/// Inserts rows, or replaces those that are there.
pub(super) async fn put<'a, R: StoredRow + Sync + 'a>(
    connection: &mut SqliteConnection,
    rows: impl ExactSizeIterator<Item = &'a R>,
) -> Result<(), StoreError> {
    write_rows(connection, rows, &upsert::<R>()).await
}

/// Deletes the row with this key, where it is there.
pub(super) async fn delete<R: StoredRow>(
    connection: &mut SqliteConnection,
    key: &[Value<'_>],
) -> Result<(), StoreError> {
    run(connection, delete_text::<R>(), key).await
}

/// Writes rows, as many per statement as fit.
async fn write_rows<'a, R: StoredRow + Sync + 'a>(
    connection: &mut SqliteConnection,
    mut rows: impl ExactSizeIterator<Item = &'a R>,
    conflict: &str,
) -> Result<(), StoreError> {
    for size in ROWS_PER_STATEMENT {
        while rows.len() >= size {
            let values: Vec<Value<'_>> = rows.by_ref().take(size).flat_map(StoredRow::values).collect();
            run(connection, insert_text::<R>(size, conflict), &values).await?;
        }
    }
    Ok(())
}

async fn run(connection: &mut SqliteConnection, sql: String, values: &[Value<'_>]) -> Result<(), StoreError> {
    // Safe: the text is made of constants of this crate alone.
    let query = sqlx::query_with(AssertSqlSafe(sql), arguments(values)?);
    query.execute(connection).await.map_err(store_error).map(drop)
}

fn insert_text<R: StoredRow>(rows: usize, conflict: &str) -> String {
    let places = format!("({})", vec!["?"; R::WIDTH].join(", "));
    let places = vec![places; rows].join(", ");
    format!("INSERT INTO {} ({}) VALUES {places}{conflict}", R::TABLE, names(R::COLUMNS, ""))
}

fn delete_text<R: StoredRow>() -> String {
    let key: Vec<String> = R::KEY.iter().map(|column| format!("{} = ?", column.name)).collect();
    format!("DELETE FROM {} WHERE {}", R::TABLE, key.join(" AND "))
}

/// The statements that write and delete rows of a table.
#[cfg(feature = "contract")]
pub(crate) fn statements<R: StoredRow>() -> Vec<String> {
    vec![insert_text::<R>(2, ""), insert_text::<R>(2, &upsert::<R>()), delete_text::<R>()]
}
