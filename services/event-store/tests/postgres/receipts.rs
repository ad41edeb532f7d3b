//! Receipts between replicas: each hears of what another one took.

use catrust_event_store::FleetStore as _;
use std::time::Duration;

use catrust_event_store::contract::commands::instance;
use catrust_event_store::contract::receipts::receipt;
use catrust_event_store::contract::{Fixture as _, TestClock};
use catrust_event_store::postgres::{PgEventStore, migrate};
use catrust_test_harness::postgres::{Durability, Postgres};
use sqlx::{Connection as _, PgConnection};
use tokio::time::timeout;

use crate::PgFixture;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receipts_of_another_replica_are_hinted_at() {
    let fixture = PgFixture::create().await;
    let (one, other) = (fixture.open().await, fixture.open().await);
    let id = instance("hint");
    let mut changes = other.fleet_changes();
    let told = async {
        // A hint before the other one listens is lost; each of these is news.
        for revision in 0.. {
            one.record_receipts(&[receipt(&id, "b", revision)]).await.unwrap();
            if let Ok(told) = timeout(Duration::from_millis(200), changes.recv()).await {
                return told.unwrap();
            }
        }
        unreachable!("revisions do not end")
    };
    assert_eq!(timeout(Duration::from_secs(10), told).await.unwrap(), id);
}

/// A batch of receipts whose flush hangs: here because a standby that has to confirm it is not there.
/// The log's commits notify, and one that does is through in the meantime.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_commit_of_the_log_queues_behind_the_flush_of_receipts() {
    let postgres = Postgres::start(Durability::Relaxed).await.unwrap();
    let mut other = PgConnection::connect(&postgres.url()).await.unwrap();
    migrate(&postgres.url()).await.unwrap();
    let store = PgEventStore::connect(&postgres.url(), TestClock::new().reader()).await.unwrap();
    let id = instance("hang");
    store.record_receipts(&[receipt(&id, "b", 1)]).await.unwrap();
    for sql in ["ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()"] {
        sqlx::raw_sql(sql).execute(&mut other).await.unwrap();
    }
    let taking = tokio::spawn(async move { store.record_receipts(&[receipt(&id, "b", 2)]).await });
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    catrust_test_harness::eventually::eventually(Duration::from_secs(20), "the flush hangs", async || {
        match sqlx::query_scalar::<_, i64>(waits).fetch_one(&mut other).await.unwrap() {
            0 => Err("nobody waits".to_owned()),
            _ => Ok(()),
        }
    })
    .await
    .unwrap();
    let notify = "BEGIN; SET LOCAL synchronous_commit = local; NOTIFY catrust_events, '1'; COMMIT";
    let committed = timeout(Duration::from_secs(5), sqlx::raw_sql(notify).execute(&mut other)).await;
    committed.expect("a commit that notifies waits for the receipts").unwrap();
    assert!(!taking.is_finished(), "the receipts are not stated before they are safe");
    for sql in ["ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()"] {
        sqlx::raw_sql(sql).execute(&mut other).await.unwrap();
    }
    assert_eq!(timeout(Duration::from_secs(20), taking).await.unwrap().unwrap().unwrap(), 1);
}
