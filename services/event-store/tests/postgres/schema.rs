//! Migration of databases with data in them, and refusal of other versions.

use std::path::Path;

use catrust_event_store::contract::Fixture as _;
use catrust_event_store::contract::commands::{
    append_all, inactivate, instance, populate, unique_id, with_request_id,
};
use catrust_event_store::postgres::{PgEventStore, migrate};
use catrust_event_store::{
    EventLog as _, Maintenance as _, MigrationReport, ReadModelStore as _, SearchScope, StoreError,
    TrustChangeSearch, statements,
};
use futures::TryStreamExt as _;
use sqlx::migrate::Migrator;
use sqlx::postgres::PgPoolCopyExt as _;
use sqlx::{AssertSqlSafe, Executor as _, PgPool, SqlSafeStr as _};

use crate::PgFixture;

/// Schema version of this program.
const NEWEST: i64 = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_of_the_previous_schema_version_is_migrated_with_its_data() {
    let full = PgFixture::create().await;
    let store = full.open().await;
    let id = instance("old");
    let sns = populate(&store, &id, &["a", "b"]).await;
    append_all(&store, &[with_request_id(inactivate(&id, &sns[0]), unique_id(), "off")]).await;
    let old = PgFixture::empty().await;
    let pool = PgPool::connect(&old.url()).await.unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations/postgres");
    Migrator::new(folder).await.unwrap().run_to(1, &pool).await.unwrap();
    copy(&PgPool::connect(&full.url()).await.unwrap(), &pool).await;

    let refused = PgEventStore::connect(&old.url(), old.clock.reader()).await;
    assert!(matches!(refused, Err(StoreError::SchemaMismatch { found: 1, needed: NEWEST })), "{refused:?}");
    assert_eq!(migrate(&old.url()).await.unwrap(), MigrationReport { from: 1, to: NEWEST });
    let migrated = old.open().await;
    let report = migrated.verify().await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.events, migrated.log_id()), (6, store.log_id()));
    let search = TrustChangeSearch::all(SearchScope::Certificate(id, sns[0].clone()));
    assert_eq!(migrated.search_trust_changes(&search, 0, 10).await.unwrap().events.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_statement_fits_the_schema() {
    let fixture = PgFixture::create().await;
    let mut connection = fixture.connect().await;
    for statement in statements::of_postgres() {
        let prepared = connection.prepare(AssertSqlSafe(statement.clone()).into_sql_str()).await;
        assert!(prepared.is_ok(), "{statement}: {prepared:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shape_in_another_order_is_refused() {
    let fixture = PgFixture::create().await;
    let swapped = "ALTER TYPE new_reply RENAME ATTRIBUTE account_id TO x; \
                   ALTER TYPE new_reply RENAME ATTRIBUTE request_id TO account_id; \
                   ALTER TYPE new_reply RENAME ATTRIBUTE x TO request_id";
    fixture.execute(swapped).await.unwrap();
    let refused = PgEventStore::connect(&fixture.url(), fixture.clock.reader()).await;
    assert!(
        matches!(&refused, Err(StoreError::Unsuitable(text)) if text.contains("new_reply")),
        "{refused:?}"
    );
}

/// Copies the rows of every table, as far as schema version 1 has them.
async fn copy(from: &PgPool, to: &PgPool) {
    sqlx::raw_sql("DELETE FROM log_identity").execute(to).await.unwrap();
    let identity = "log_identity (log_id, only_row)";
    for table in [identity, "events", "instances", "ca_certificates", "spent_register_codes", "replies"] {
        let rows = from.copy_out_raw(&format!("COPY {table} TO STDOUT")).await.unwrap();
        let rows = rows.try_collect::<Vec<_>>().await.unwrap().concat();
        let mut copy = to.copy_in_raw(&format!("COPY {table} FROM STDIN")).await.unwrap();
        copy.send(rows).await.unwrap();
        copy.finish().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newer_unmigrated_and_altered_schemas_are_refused() {
    let fixture = PgFixture::empty().await;
    let connect = async || PgEventStore::connect(&fixture.url(), fixture.clock.reader()).await;
    let refused = connect().await;
    assert!(matches!(refused, Err(StoreError::SchemaMismatch { found: 0, needed: NEWEST })), "{refused:?}");
    migrate(&fixture.url()).await.unwrap();
    let migrated = connect().await.unwrap();
    assert_ne!(migrated.log_id(), PgFixture::create().await.open().await.log_id());
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (99, 'newer', true, '', 0); UPDATE log_identity SET oldest_schema_version = 99";
    fixture.execute(newer).await.unwrap();
    for refused in [connect().await.map(drop), migrate(&fixture.url()).await.map(drop)] {
        assert!(
            matches!(refused, Err(StoreError::SchemaMismatch { found: 99, needed: NEWEST })),
            "{refused:?}"
        );
    }
    let altered = "DELETE FROM _sqlx_migrations WHERE version = 99; \
                   UPDATE _sqlx_migrations SET checksum = '' WHERE version = 1";
    fixture.execute(altered).await.unwrap();
    let refused = connect().await;
    assert!(
        matches!(&refused, Err(StoreError::Unsuitable(text)) if text.contains("migration 1")),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_migrations_at_once_one_does_it() {
    let fixture = PgFixture::empty().await;
    let url = fixture.url();
    let reports = futures::future::join_all((0..4).map(|_| migrate(&url))).await;
    let mut from: Vec<i64> = reports.into_iter().map(|report| report.unwrap().from).collect();
    from.sort_unstable();
    assert_eq!(from, [0, NEWEST, NEWEST, NEWEST]);
}

/// Ground rule 24: `migrate` with `lock_timeout`: behind a long read it gives up instead of
/// holding up everybody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_behind_a_long_read_gives_up_and_goes_through_later() {
    let fixture = PgFixture::empty().await;
    let pool = PgPool::connect(&fixture.url()).await.unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations/postgres");
    Migrator::new(folder).await.unwrap().run_to(NEWEST - 1, &pool).await.unwrap();
    let mut reading = pool.begin().await.unwrap();
    sqlx::raw_sql("SELECT * FROM log_identity").execute(&mut *reading).await.unwrap();
    let behind = migrate(&fixture.url()).await;
    assert!(matches!(behind, Err(StoreError::Unavailable(_))), "{behind:?}");
    reading.rollback().await.unwrap();
    assert_eq!(migrate(&fixture.url()).await.unwrap(), MigrationReport { from: NEWEST - 1, to: NEWEST });
}
