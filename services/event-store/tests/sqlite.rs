//! [`SqliteEventStore`] keeps the contract of every event store, and its own promises.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use catrust_domain::Notary;
use catrust_event_store::contract::commands::{append_all, inactivate, instance, populate};
use catrust_event_store::contract::{CommitStep, Fixture, TestClock};
use catrust_event_store::sqlite::{SqliteEventStore, migrate};
use catrust_event_store::{
    CommandStore as _, EventLog as _, Maintenance as _, MigrationReport, ReadModelStore as _, SearchScope,
    StoreError, TrustChangeSearch, contract_suite, statements,
};
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, SqlSafeStr as _, SqliteConnection,
};
use tempfile::TempDir;

/// Schema version of this program.
const NEWEST: i64 = 10;

struct SqliteFixture {
    clock: TestClock,
    directory: TempDir,
}

impl SqliteFixture {
    fn path(&self) -> PathBuf {
        self.directory.path().join("catrust.db")
    }

    /// Opens the file as `sqlite3` would, at whatever schema version.
    async fn connect(&self) -> SqliteConnection {
        let options = SqliteConnectOptions::new().filename(self.path()).create_if_missing(true);
        options.connect().await.unwrap()
    }

    fn empty() -> Self {
        Self { clock: TestClock::new(), directory: tempfile::tempdir().unwrap() }
    }
}

#[async_trait]
impl Fixture for SqliteFixture {
    type Store = SqliteEventStore;
    const PAYLOAD_TYPE: &'static str = "text";

    async fn create() -> Self {
        let fixture = Self::empty();
        migrate(&fixture.path()).await.unwrap();
        fixture
    }

    fn clock(&self) -> &TestClock {
        &self.clock
    }

    async fn open(&self) -> SqliteEventStore {
        SqliteEventStore::open(&self.path(), self.clock.reader()).await.unwrap()
    }

    async fn open_with(&self, notary: Arc<dyn Notary>) -> SqliteEventStore {
        self.open().await.with_notary(notary)
    }

    fn crash_at(store: &SqliteEventStore, step: CommitStep) {
        store.crash_at(step);
    }

    async fn execute(&self, sql: &str) -> Result<(), String> {
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connect().await).await;
        done.map(drop).map_err(|error| error.to_string())
    }

    async fn drop_guards(&self) {
        let sql = "DROP TRIGGER IF EXISTS events_no_update; DROP TRIGGER IF EXISTS events_no_delete;";
        self.execute(sql).await.unwrap();
    }
}

contract_suite!(SqliteFixture);

#[tokio::test]
async fn a_taken_position_is_refused_even_by_insert_or_replace() {
    let fixture = SqliteFixture::create().await;
    let store = fixture.open().await;
    populate(&store, &instance("replace"), &["a"]).await;
    let sql = "INSERT OR REPLACE INTO events SELECT * FROM events WHERE position = 2";
    let refused = fixture.execute(sql).await;
    assert!(refused.as_ref().is_err_and(|text| text.contains("append-only")), "{refused:?}");
}

#[tokio::test]
async fn the_file_has_a_write_ahead_log() {
    let fixture = SqliteFixture::create().await;
    drop(fixture.open().await);
    let mode: String =
        sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut fixture.connect().await).await.unwrap();
    assert_eq!(mode, "wal");
}

#[tokio::test]
async fn a_file_of_the_previous_schema_version_is_migrated_with_its_data() {
    let full = SqliteFixture::create().await;
    let store = full.open().await;
    let id = instance("old");
    let sns = populate(&store, &id, &["a", "b"]).await;
    append_all(&store, &[inactivate(&id, &sns[0])]).await;
    let old = SqliteFixture::empty();
    let mut connection = old.connect().await;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations/sqlite");
    Migrator::new(folder).await.unwrap().run_to(1, &mut connection).await.unwrap();
    let attach = format!("ATTACH DATABASE '{}' AS full", full.path().display());
    sqlx::raw_sql(AssertSqlSafe(attach)).execute(&mut connection).await.unwrap();
    sqlx::raw_sql("DELETE FROM log_identity").execute(&mut connection).await.unwrap();
    let identity =
        "INSERT INTO main.log_identity (log_id, only_row) SELECT log_id, only_row FROM full.log_identity";
    sqlx::raw_sql(identity).execute(&mut connection).await.unwrap();
    for table in ["events", "instances", "ca_certificates", "spent_register_codes", "replies"] {
        let copy = format!("INSERT INTO main.{table} SELECT * FROM full.{table}");
        sqlx::raw_sql(AssertSqlSafe(copy)).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
    let refused = SqliteEventStore::open(&old.path(), old.clock.reader()).await;
    assert!(matches!(refused, Err(StoreError::SchemaMismatch { found: 1, needed: NEWEST })), "{refused:?}");
    assert_eq!(migrate(&old.path()).await.unwrap(), MigrationReport { from: 1, to: NEWEST });
    let migrated = old.open().await;
    let report = migrated.verify().await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.events, migrated.log_id()), (6, store.log_id()));
    let search = TrustChangeSearch::all(SearchScope::Certificate(id, sns[0].clone()));
    assert_eq!(migrated.search_trust_changes(&search, 0, 10).await.unwrap().events.len(), 2);
}

#[tokio::test]
async fn every_statement_fits_the_schema() {
    let fixture = SqliteFixture::create().await;
    let mut connection = fixture.connect().await;
    for statement in statements::of_sqlite() {
        let prepared = connection.prepare(AssertSqlSafe(statement.clone()).into_sql_str()).await;
        assert!(prepared.is_ok(), "{statement}: {prepared:?}");
    }
}

#[tokio::test]
async fn every_file_is_a_log_of_its_own() {
    let (one, other) = (SqliteFixture::create().await, SqliteFixture::create().await);
    assert_ne!(one.open().await.log_id(), other.open().await.log_id());
}

/// Under a running process, whose connections still lead to the file that nobody finds any
/// more: the log was set back, and nothing is acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_copied_back_is_a_set_back() {
    let fixture = SqliteFixture::create().await;
    let store = fixture.open().await;
    let id = instance("copied");
    let sns = populate(&store, &id, &["a", "b"]).await;
    let copy = fixture.directory.path().join("copy.db");
    fixture.execute(&format!("VACUUM INTO '{}'", copy.display())).await.unwrap();
    append_all(&store, &[inactivate(&id, &sns[0])]).await;
    for log in ["catrust.db-wal", "catrust.db-shm"] {
        drop(std::fs::remove_file(fixture.directory.path().join(log)));
    }
    std::fs::rename(&copy, fixture.path()).unwrap();
    for _ in 0..2 {
        let refused = store.append(&[inactivate(&id, &sns[1])]).await;
        assert!(matches!(refused, Err(StoreError::SetBack { .. })), "{refused:?}");
        assert_eq!(store.head().await.unwrap().position, 5, "readers see the file that is there");
    }
}

#[tokio::test]
async fn a_newer_file_and_a_missing_one_are_refused() {
    let fixture = SqliteFixture::create().await;
    fixture.execute("INSERT INTO _sqlx_migrations SELECT 99, 'newer', installed_on, true, x'00', 0 FROM _sqlx_migrations LIMIT 1").await.unwrap();
    SqliteEventStore::open(&fixture.path(), fixture.clock.reader()).await.unwrap();
    fixture.execute("UPDATE log_identity SET oldest_schema_version = 99").await.unwrap();
    let refused = SqliteEventStore::open(&fixture.path(), fixture.clock.reader()).await;
    assert!(matches!(refused, Err(StoreError::SchemaMismatch { found: 99, needed: NEWEST })), "{refused:?}");
    let refused = migrate(&fixture.path()).await;
    assert!(matches!(refused, Err(StoreError::SchemaMismatch { found: 99, needed: NEWEST })), "{refused:?}");
    let missing = SqliteEventStore::open(&SqliteFixture::empty().path(), fixture.clock.reader()).await;
    assert!(matches!(missing, Err(StoreError::SchemaMismatch { found: 0, needed: NEWEST })), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_migrations_at_once_one_does_it() {
    let fixture = SqliteFixture::empty();
    let path = fixture.path();
    let reports = futures::future::join_all((0..4).map(|_| migrate(&path))).await;
    let mut from: Vec<i64> = reports.into_iter().map(|report| report.unwrap().from).collect();
    from.sort_unstable();
    assert_eq!(from, [0, NEWEST, NEWEST, NEWEST]);
}
