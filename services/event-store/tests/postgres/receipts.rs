//! Receipts between replicas: each hears of what another one took.

use catrust_event_store::FleetStore as _;
use std::time::Duration;

use catrust_event_store::contract::Fixture as _;
use catrust_event_store::contract::commands::instance;
use catrust_event_store::contract::receipts::receipt;
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
