//! The schema of a Postgres database: which version it has, and its migration.

use std::sync::LazyLock;

use sqlx::migrate::Migrator;
use sqlx::{Connection as _, PgConnection, Row as _};

use super::error::store_error;
use super::servers::DatabaseServers;
use super::{PgAddress, session};
use crate::{MigrationReport, StoreError, schema};

static MIGRATOR: LazyLock<Migrator> = LazyLock::new(|| {
    schema::migrator(&[
        (1, "event log", include_str!("../../../../migrations/postgres/0001_event_log.sql")),
        (
            2,
            "history and pruning",
            include_str!("../../../../migrations/postgres/0002_history_and_pruning.sql"),
        ),
        (3, "receipts", include_str!("../../../../migrations/postgres/0003_receipts.sql")),
        (4, "rebuild count", include_str!("../../../../migrations/postgres/0004_rebuild_count.sql")),
        (
            5,
            "instances by owner",
            include_str!("../../../../migrations/postgres/0005_instances_by_owner.sql"),
        ),
        (6, "evidence", include_str!("../../../../migrations/postgres/0006_evidence.sql")),
        (7, "refusals", include_str!("../../../../migrations/postgres/0007_refusals.sql")),
        (8, "batch rows", include_str!("../../../../migrations/postgres/0008_batch_rows.sql")),
        (9, "log epochs", include_str!("../../../../migrations/postgres/0009_log_epochs.sql")),
        (
            10,
            "schema compatibility",
            include_str!("../../../../migrations/postgres/0010_schema_compatibility.sql"),
        ),
    ])
});

/// Held while migrating, so that of two replicas one waits and then finds nothing to do.
const MIGRATION_LOCK: i64 = i64::from_be_bytes(*b"catrustM");

/// Brings the database at `address` to the schema of this program.
///
/// Never done by connecting: the role that may change tables is not the one that
/// serves, and an operator chooses the moment. Several may run at once.
///
/// # Errors
/// [`StoreError::SchemaMismatch`] when the database is newer than this program;
/// [`StoreError::Unsuitable`] when a migration was applied with another text, or for an
/// address that [`PgAddress`] refuses.
/// [`StoreError::Unavailable`] where a table is in use for longer than appends may be held up by
/// a migration that waits for it: try again.
/// Each migration is one transaction (one that begins with `-- no-transaction`, to build an index
/// concurrently, is none): the ones before a failed one stay.
pub async fn migrate(address: impl Into<PgAddress>) -> Result<MigrationReport, StoreError> {
    let servers = DatabaseServers::new(address.into().options()?);
    let mut connection = session::open(&servers).await?;
    session::refuse_pooler(&mut connection, &servers).await?;
    session::check_server(&mut connection).await?;
    let lock = sqlx::query("SELECT pg_advisory_lock($1)").bind(MIGRATION_LOCK);
    lock.execute(&mut connection).await.map_err(store_error)?;
    let from = found(&mut connection).await?;
    // A change of a table queues behind whoever reads it, and everybody else behind the change:
    // it gives up soon, and the operator tries again.
    let limit = sqlx::raw_sql("SET lock_timeout = '3s'").execute(&mut connection).await;
    limit.map_err(store_error)?;
    // `run` would make this future unusable in a spawned task (its `Acquire` bound).
    let migrated = MIGRATOR.run_direct(None, &mut connection, false).await;
    migrated.map_err(|error| schema::migrate_error(error, store_error, from, needed()))?;
    connection.close().await.map_err(store_error)?;
    Ok(MigrationReport { from, to: needed() })
}

/// Refuses a database of an older schema version, and one of a newer version that programs of
/// this one may not use.
pub(super) async fn check(connection: &mut PgConnection) -> Result<(), StoreError> {
    let found = found(connection).await?;
    let oldest = if found > needed() { oldest(connection).await? } else { found };
    schema::check(found, needed(), oldest)
}

/// The oldest version whose programs may use the database.
async fn oldest(connection: &mut PgConnection) -> Result<i64, StoreError> {
    let question = sqlx::query("SELECT oldest_schema_version FROM log_identity");
    let row = question.fetch_one(connection).await.map_err(store_error)?;
    row.try_get(0).map_err(store_error)
}

fn needed() -> i64 {
    schema::version(&MIGRATOR)
}

/// The version that the database has; 0 where nothing was ever migrated.
async fn found(connection: &mut PgConnection) -> Result<i64, StoreError> {
    let exists = sqlx::query("SELECT to_regclass('_sqlx_migrations') IS NOT NULL");
    let exists = exists.fetch_one(&mut *connection).await.map_err(store_error)?;
    if !exists.try_get::<bool, _>(0).map_err(store_error)? {
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
    schema::assert_is_folder(&MIGRATOR, "postgres").await;
}
