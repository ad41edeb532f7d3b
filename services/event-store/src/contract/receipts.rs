//! Promises about what brokers say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use catrust_domain::{
    BrokerId, BrokerState, Enforcement, InstanceId, Outcome, OutcomeKind, Receipt, Sha256, Timestamp,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Handle;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::time::timeout;

use super::Fixture;
use super::appending::assert_clean;
use super::commands::{append_all, inactivate, instance, populate};
use crate::{
    BundleAt, EventStore, FleetStore as _, MAX_BROKERS, MAX_RECEIPTS, Maintenance as _, ReadModelStore as _,
    StoreError,
};

/// A success of broker `name` at `revision`, heard at `second`.
pub(super) fn applied(id: &InstanceId, name: &str, revision: u64, digest: Sha256, second: i64) -> Receipt {
    Receipt {
        instance_id: id.clone(),
        broker_id: name.parse().expect("a name"),
        revision,
        outcome: Outcome::Applied { digest, sessions_cut: 1, applied_at: Some(Timestamp::from_micros(1)) },
        enforcement: Enforcement::Tls,
        sessions_open: 2,
        received_at: Timestamp::from_micros(0).plus_seconds(second),
        origin: None,
    }
}

/// A success of broker `name` at `revision`, with some digest.
///
/// # Panics
/// When it is not a name.
#[must_use]
pub fn receipt(id: &InstanceId, name: &str, revision: u64) -> Receipt {
    applied(id, name, revision, Sha256::ZERO, 0)
}

/// Broker, revision, whether it was applied, particulars, second.
type Spoken = (u8, u64, bool, u8, i64);

/// A receipt, from numbers that leave much room for late and repeated ones.
fn random_receipt() -> impl Strategy<Value = Spoken> {
    (0..3_u8, 0..5_u64, any::<bool>(), 0..4_u8, 0..50_i64)
}

fn spelled(
    id: &InstanceId,
    (broker, revision, success, detail, second): (u8, u64, bool, u8, i64),
) -> Receipt {
    let outcome = match success {
        true => Outcome::Applied {
            digest: Sha256::of(&[detail]),
            sessions_cut: detail.into(),
            applied_at: (detail != 0).then(|| Timestamp::from_micros(detail.into())),
        },
        false => Outcome::Refused { reason: format!("reason {detail}") },
    };
    Receipt {
        outcome,
        enforcement: if detail % 2 == 0 { Enforcement::Tls } else { Enforcement::Connect },
        sessions_open: u64::from(detail) * 7,
        ..applied(id, &format!("b{broker}"), revision, Sha256::ZERO, second)
    }
}

/// Whatever brokers say, in whatever batches, on whichever connection: what is stored
/// is what the domain folds.
pub async fn brokers_are_what_their_receipts_fold_to<F: Fixture>(fixture: &F) {
    let stores = Arc::new([fixture.open().await, fixture.open().await]);
    let runtime = Handle::current();
    let cases = AtomicU64::new(0);
    let run = tokio::task::spawn_blocking(move || {
        let scripts = prop::collection::vec(prop::collection::vec(random_receipt(), 1..12), 1..8);
        let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
        TestRunner::new(config).run(&scripts, |script| {
            let id = instance(&format!("fold-{}", cases.fetch_add(1, Ordering::Relaxed)));
            runtime.block_on(run_script(&stores, &id, script));
            Ok(())
        })
    });
    run.await.expect("the runner").expect("every script");
}

async fn run_script<S: EventStore>(stores: &[S; 2], id: &InstanceId, script: Vec<Vec<Spoken>>) {
    let mut folded: BTreeMap<BrokerId, BrokerState> = BTreeMap::new();
    for (turn, batch) in script.into_iter().enumerate() {
        let batch: Vec<Receipt> = batch.into_iter().map(|receipt| spelled(id, receipt)).collect();
        let taken = stores[turn % 2].record_receipts(&batch).await.expect("the receipts");
        assert_eq!(taken, batch.len() as u64);
        for receipt in &batch {
            match folded.get_mut(&receipt.broker_id) {
                Some(broker) => broker.take(receipt),
                None => {
                    folded.insert(receipt.broker_id.clone(), BrokerState::first(receipt));
                }
            }
        }
        let stored = stores[1].list_brokers(id).await.expect("the brokers");
        let stored: Vec<&BrokerState> = stored.iter().map(|member| &member.broker).collect();
        assert_eq!(stored, folded.values().collect::<Vec<_>>());
    }
}

/// The digest of the log comes with each broker, of the revision that it enforces.
pub async fn each_broker_comes_with_the_digest_of_the_log<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("digests");
    let sns = populate(&store, &id, &["a"]).await;
    append_all(&store, &[inactivate(&id, &sns[0])]).await;
    let digest = async |revision| {
        let bundle = store.load_bundle(&id, BundleAt::Revision(revision)).await.expect("a bundle");
        bundle.expect("the revision").digest
    };
    let mut refused = applied(&id, "refusing", 2, Sha256::ZERO, 0);
    refused.outcome = Outcome::Refused { reason: "no\u{2028}reason".into() };
    let receipts = [
        applied(&id, "at-0", 0, digest(0).await, 0),
        applied(&id, "at-1", 1, digest(1).await, 0),
        applied(&id, "at-2", 2, digest(2).await, 0),
        applied(&id, "differs", 2, digest(1).await, 0),
        applied(&id, "elsewhere", 3, digest(2).await, 0),
        refused,
    ];
    assert_eq!(store.record_receipts(&receipts).await.expect("the receipts"), 6);
    let fleet = store.list_brokers(&id).await.expect("the brokers");
    let agreeing: Vec<&str> =
        fleet.iter().filter(|m| m.digest_agrees()).map(|m| m.broker.broker_id.as_str()).collect();
    assert_eq!(agreeing, ["at-0", "at-1", "at-2"]);
    let of = |name: &str| fleet.iter().find(|m| m.broker.broker_id.as_str() == name).expect("the broker");
    assert_eq!(of("differs").log_digest, Some(digest(2).await));
    assert_eq!((of("elsewhere").log_digest, of("refusing").log_digest), (None, None));
    assert_eq!(of("refusing").broker.refused.as_ref().map(|r| r.reason.as_str()), Some("no\u{2028}reason"));
    assert_clean(&store).await;
    store.rebuild().await.expect("a rebuild");
    assert_eq!(store.list_brokers(&id).await.expect("the brokers"), fleet, "not part of the rebuild");
}

/// New brokers, revisions and refusals are hinted at; signs of life are not.
pub async fn news_are_hinted_at_and_signs_of_life_are_not<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let mut changes = store.fleet_changes();
    // Postgres listens in the background: until it does, hints are lost.
    let probe = instance("probe");
    for revision in 0.. {
        store.record_receipts(&[receipt(&probe, "b", revision)]).await.expect("the receipt");
        if timeout(Duration::from_millis(500), changes.recv()).await.is_ok() {
            break;
        }
        assert!(revision < 20, "no hint within 10 s");
    }
    let (id, end) = (instance("hinted"), instance("end"));
    let mut refused = receipt(&id, "b", 2);
    refused.outcome = Outcome::Refused { reason: "no".into() };
    for news in [receipt(&id, "b", 0), receipt(&id, "b", 1), refused, receipt(&id, "b", 1)] {
        store.record_receipts(&[news]).await.expect("the receipt");
        let told = timeout(Duration::from_secs(10), changes.recv()).await.expect("a hint within 10 s");
        assert_eq!(told.expect("a change"), id);
    }
    let signs = [applied(&id, "b", 1, Sha256::ZERO, 5), receipt(&id, "b", 0)];
    store.record_receipts(&signs).await.expect("the receipts");
    store.record_receipts(&[receipt(&end, "b", 0)]).await.expect("the receipt");
    let told = timeout(Duration::from_secs(10), changes.recv()).await.expect("a hint within 10 s");
    assert_eq!(told.expect("a change"), end, "no hint in between");
    assert_eq!(changes.try_recv(), Err(TryRecvError::Empty));
}

/// Replicas hear the same brokers at once: nobody waits for ever, and the highest
/// revision stays.
pub async fn many_replicas_take_receipts_of_the_same_brokers_at_once<F: Fixture>(fixture: &F) {
    let id = instance("crowd");
    let names: Vec<String> = (0..40).map(|number| format!("b{number:02}")).collect();
    let writers = (0..4_u64).map(async |writer| {
        let store = fixture.open().await;
        for revision in 0..15_u64 {
            let mut batch: Vec<Receipt> =
                names.iter().map(|name| applied(&id, name, revision, Sha256::ZERO, 0)).collect();
            if writer % 2 == 0 {
                batch.reverse();
            }
            store.record_receipts(&batch).await.expect("the receipts");
        }
    });
    futures::future::join_all(writers).await;
    let fleet = fixture.open().await.list_brokers(&id).await.expect("the brokers");
    let found: Vec<&str> = fleet.iter().map(|m| m.broker.broker_id.as_str()).collect();
    assert_eq!(found, names, "ascending by name");
    for member in &fleet {
        assert_eq!(member.broker.applied.map(|applied| applied.revision), Some(14));
        assert_eq!(member.broker.outcome, OutcomeKind::Applied);
    }
}

/// All brokers are listed page by page, and those that were silent for long are removed.
pub async fn brokers_of_all_instances_are_listed_in_pages_and_forgotten_by_age<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let (one, two) = (instance("page-1"), instance("page-2"));
    let heard = [(&one, "a", 10), (&one, "b", 20), (&two, "a", 30), (&two, "c", 10)];
    let receipts: Vec<Receipt> =
        heard.iter().map(|(id, name, at)| applied(id, name, 0, Sha256::ZERO, *at)).collect();
    store.record_receipts(&receipts).await.expect("the receipts");
    let mut found: Vec<(InstanceId, BrokerId)> = Vec::new();
    loop {
        let after = found.last().map(|(id, broker)| (id, broker));
        let page = store.list_all_brokers(after, 3).await.expect("a page");
        if page.is_empty() {
            break;
        }
        found.extend(page.into_iter().map(|m| (m.broker.instance_id, m.broker.broker_id)));
    }
    let expected: Vec<(InstanceId, BrokerId)> =
        heard.iter().map(|(id, name, _)| ((*id).clone(), name.parse().expect("a name"))).collect();
    assert_eq!(found, expected);
    let before = Timestamp::from_micros(0).plus_seconds(20);
    assert_eq!(store.forget_brokers(before).await.expect("forgotten"), 2);
    assert_eq!(store.list_all_brokers(None, 10).await.expect("a page").len(), 2);
}

/// Names come from outside: a batch and a fleet are bounded. Known brokers are heard
/// in a full fleet, new ones are not.
pub async fn batches_and_fleets_are_bounded<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("full");
    let many = vec![applied(&id, "b", 0, Sha256::ZERO, 0); MAX_RECEIPTS + 1];
    let refused = store.record_receipts(&many).await;
    assert!(matches!(refused, Err(StoreError::Internal(_))), "{refused:?}");
    assert_eq!(store.record_receipts(&[]).await.expect("nothing"), 0);

    store.record_receipts(&[applied(&id, "known", 0, Sha256::ZERO, 0)]).await.expect("the receipt");
    let fill = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) \
         INSERT INTO broker_receipts (instance_id, broker_id, outcome, enforcement, sessions_open, received_at) \
         SELECT b.instance_id, 'x' || n.i, 'REFUSED', 'TLS', 0, b.received_at FROM broker_receipts AS b, n",
        MAX_BROKERS - 1
    );
    fixture.execute(&fill).await.expect("a full fleet");
    let next = [applied(&id, "known", 1, Sha256::ZERO, 1), applied(&id, "new", 1, Sha256::ZERO, 1)];
    assert_eq!(store.record_receipts(&next).await.expect("the receipts"), 1);
    let fleet = store.list_brokers(&id).await.expect("the brokers");
    assert_eq!(fleet.len(), MAX_BROKERS);
    let known = fleet.iter().find(|m| m.broker.broker_id.as_str() == "known").expect("the broker");
    assert_eq!(known.broker.applied.map(|applied| applied.revision), Some(1));
}
