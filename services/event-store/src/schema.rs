//! Schema versions: what a database has been migrated to, and what is needed.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};

use crate::StoreError;

/// A migrator of what it is given: version, description and text of each migration. sqlx
/// has a macro for that, which compiles all of sqlx a second time, for the compiler to run.
pub(crate) fn migrator(migrations: &[(i64, &'static str, &'static str)]) -> Migrator {
    let migration = |&(version, description, text): &(i64, &'static str, &'static str)| {
        // As sqlx reads it in a file.
        let no_tx = text.starts_with("-- no-transaction");
        Migration::new(version, description.into(), MigrationType::Simple, text.into_sql_str(), no_tx)
    };
    Migrator::with_migrations(migrations.iter().map(migration).collect())
}

/// The version that the migrations lead to.
pub(crate) fn version(migrator: &Migrator) -> i64 {
    migrator.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// Refuses a schema of version `found`, which names `oldest` as the oldest version whose programs
/// may use it, to a program of version `needed`.
pub(crate) fn check(found: i64, needed: i64, oldest: i64) -> Result<(), StoreError> {
    if found == needed || (found > needed && oldest <= needed) {
        return Ok(());
    }
    Err(StoreError::SchemaMismatch { found, needed })
}

/// The last of the applied versions, each given with the checksum of its text,
/// ascending; refuses a text that is not this program's.
pub(crate) fn last_applied(migrator: &Migrator, applied: &[(i64, Vec<u8>)]) -> Result<i64, StoreError> {
    for migration in migrator.iter() {
        let other = |(version, checksum): &(i64, Vec<u8>)| {
            *version == migration.version && *checksum != *migration.checksum
        };
        if applied.iter().any(other) {
            return Err(other_text(migration.version));
        }
    }
    Ok(applied.last().map_or(0, |(version, _)| *version))
}

/// Says what an error of the migrator means.
pub(crate) fn migrate_error(
    error: MigrateError,
    store_error: fn(sqlx::Error) -> StoreError,
    found: i64,
    needed: i64,
) -> StoreError {
    match error {
        MigrateError::VersionMissing(_) | MigrateError::VersionTooNew(..) => {
            StoreError::SchemaMismatch { found, needed }
        }
        MigrateError::VersionMismatch(version) => other_text(version),
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => store_error(error),
        other => StoreError::Internal(other.into()),
    }
}

fn other_text(version: i64) -> StoreError {
    StoreError::Unsuitable(format!("migration {version} was applied with another text than this program's"))
}

/// Ground rule 24: a schema names the oldest program that may use it.
#[test]
fn a_newer_schema_is_used_as_long_as_it_says_so() {
    assert!(check(10, 10, 10).is_ok());
    assert!(check(11, 10, 10).is_ok(), "it only adds");
    assert!(check(12, 10, 9).is_ok());
    for (found, oldest) in [(9, 9), (0, 0), (12, 11), (11, 11)] {
        let refused = check(found, 10, oldest);
        assert!(matches!(refused, Err(StoreError::SchemaMismatch { needed: 10, .. })), "{found}, {oldest}");
    }
}

/// Checks a migrator against what sqlx reads in a folder of `migrations/`.
#[cfg(test)]
pub(crate) async fn assert_is_folder(migrator: &Migrator, name: &str) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations").join(name);
    let read = Migrator::new(folder).await.expect("a folder of migrations");
    let told = |migrator: &Migrator| -> Vec<_> {
        let told =
            migrator.iter().map(|m| (m.version, m.description.to_string(), m.checksum.to_vec(), m.no_tx));
        told.collect()
    };
    assert_eq!(told(migrator), told(&read));
}
