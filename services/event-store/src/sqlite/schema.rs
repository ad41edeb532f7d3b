//! The schema of a SQLite file: which version it has, and its migration.

use std::path::Path;
use std::sync::LazyLock;

use sqlx::migrate::Migrator;
use sqlx::{Connection as _, Row as _, SqliteConnection};

use super::error::store_error;
use super::{file_lock, session};
use crate::{MigrationReport, StoreError, schema};

static MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| {
    schema::migrator(&[
        (1, "event log", include_str!("../../../../migrations/sqlite/0001_event_log.sql")),
        (
            2,
            "history and pruning",
            include_str!("../../../../migrations/sqlite/0002_history_and_pruning.sql"),
        ),
        (3, "receipts", include_str!("../../../../migrations/sqlite/0003_receipts.sql")),
        (5, "instances by owner", include_str!("../../../../migrations/sqlite/0005_instances_by_owner.sql")),
        (6, "evidence", include_str!("../../../../migrations/sqlite/0006_evidence.sql")),
        (7, "refusals", include_str!("../../../../migrations/sqlite/0007_refusals.sql")),
        (9, "log epochs", include_str!("../../../../migrations/sqlite/0009_log_epochs.sql")),
        (
            10,
            "schema compatibility",
            include_str!("../../../../migrations/sqlite/0010_schema_compatibility.sql"),
        ),
    ])
});

/// Brings the file at `path` to the schema of this program; makes it where there is
/// none. Its directory MUST exist. Several processes may do so at once.
///
/// # Errors
/// [`StoreError::SchemaMismatch`] when the file is newer than this program;
/// [`StoreError::Unsuitable`] when it cannot be opened, or a migration was applied
/// with another text. Each migration is one transaction: the ones before a failed
/// one stay.
pub async fn migrate(path: &Path) -> Result<MigrationReport, StoreError> {
    let lock = file_lock::lock_migration(path).await?;
    let mut connection = session::open(&session::options(path).create_if_missing(true)).await?;
    let from = found(&mut connection).await?;
    // `run` would make this future unusable in a spawned task (its `Acquire` bound).
    let migrated = MIGRATOR.run_direct(None, &mut connection, false).await;
    migrated.map_err(|error| schema::migrate_error(error, store_error, from, needed()))?;
    connection.close().await.map_err(store_error)?;
    drop(lock);
    Ok(MigrationReport { from, to: needed() })
}

/// Refuses a file of an older schema version, and one of a newer version that programs of this
/// one may not use.
pub(super) async fn check(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let found = found(connection).await?;
    let oldest = if found > needed() { oldest(connection).await? } else { found };
    schema::check(found, needed(), oldest)
}

/// The oldest version whose programs may use the file.
async fn oldest(connection: &mut SqliteConnection) -> Result<i64, StoreError> {
    let question = sqlx::query("SELECT oldest_schema_version FROM log_identity");
    let row = question.fetch_one(connection).await.map_err(store_error)?;
    row.try_get(0).map_err(store_error)
}

pub(super) fn needed() -> i64 {
    schema::version(&MIGRATOR)
}

/// The version that the file has; 0 where nothing was ever migrated.
async fn found(connection: &mut SqliteConnection) -> Result<i64, StoreError> {
    let exists = sqlx::query("SELECT count(*) FROM sqlite_schema WHERE name = '_sqlx_migrations'");
    let exists = exists.fetch_one(&mut *connection).await.map_err(store_error)?;
    if exists.try_get::<i64, _>(0).map_err(store_error)? == 0 {
        return Ok(0);
    }
    let applied =
        sqlx::query("SELECT version, checksum FROM _sqlx_migrations WHERE success ORDER BY version");
    let rows = applied.fetch_all(connection).await.map_err(store_error)?;
    let applied =
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<Vec<_>, _>>();
    schema::last_applied(&MIGRATOR, &applied.map_err(store_error)?)
}

#[tokio::test]
async fn every_migration_of_the_folder_is_compiled_in() {
    schema::assert_is_folder(&MIGRATOR, "sqlite").await;
}
