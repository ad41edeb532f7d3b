//! A primary with a standby: which of them is used, what is acknowledged, what is called
//! current, and what a server costs that is gone without a word.

use std::sync::Arc;
use std::time::{Duration, Instant};

use catrust_domain::{CommandEnvelope, InstanceId, Timestamp};
use catrust_event_store::contract::commands::{
    activate, append_all, inactivate, instance, populate, unique_id, with_request_id,
};
use catrust_event_store::contract::{PATIENCE, TestClock};
use catrust_event_store::postgres::{PgEventStore, migrate};
use catrust_event_store::{
    Clock, CommandStore as _, EventLog as _, FreshnessLease, Maintenance as _, ReadModelStore as _,
    StoreError,
};
use catrust_test_harness::eventually::eventually;
use catrust_test_harness::postgres::{Durability, Postgres};
use catrust_test_harness::proxy::{Passage, Proxy};

/// What a host that is gone without a reset may cost a call.
const LONGEST_CALL: Duration = Duration::from_secs(10);

fn url(ports: &[u16]) -> String {
    let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    format!("postgres://postgres@{}/catrust?sslmode=disable", hosts.join(","))
}

/// A migrated primary and its standby `one`, which commits wait for where `synchronous`.
async fn pair(synchronous: bool) -> (Postgres, Postgres) {
    let primary = Postgres::start(Durability::Relaxed).await.unwrap();
    migrate(&primary.url()).await.unwrap();
    let standby = primary.standby("one").await.unwrap();
    if synchronous {
        primary.wait_for_standbys("one").await.unwrap();
    }
    (primary, standby)
}

async fn open(url: &str) -> PgEventStore {
    PgEventStore::connect(url, TestClock::new().reader()).await.unwrap()
}

/// An instance with one active certificate, and a command to inactivate that.
async fn populated(store: &PgEventStore) -> (InstanceId, CommandEnvelope, CommandEnvelope) {
    let id = instance("served");
    let sn = populate(store, &id, &["a"]).await.remove(0);
    let (off, on) = (inactivate(&id, &sn), activate(&id, &sn));
    (id, with_request_id(off, unique_id(), "off"), with_request_id(on, unique_id(), "on"))
}

async fn lease(store: &PgEventStore) -> FreshnessLease {
    let mut leases = store.freshness();
    let valid = |lease: &Option<FreshnessLease>| lease.as_ref().is_some_and(FreshnessLease::is_valid);
    tokio::time::timeout(PATIENCE, leases.wait_for(valid)).await.unwrap().unwrap().clone().unwrap()
}

async fn until_confirmed(store: &PgEventStore, after_turn: u64) {
    let mut primary = store.primary();
    let other = primary.wait_for(|primary| primary.turn > after_turn && primary.confirmed);
    tokio::time::timeout(PATIENCE, other).await.unwrap().unwrap();
}

/// Ground rule 19: `database.url` takes several hosts; every connection checks that it takes
/// writes and has the same log; another server is another turn, confirmed by a commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_hosts_the_one_that_takes_writes_is_used_also_after_a_failover() {
    let (mut primary, standby) = pair(true).await;
    // The standby first: the order decides nothing.
    let store = open(&url(&[standby.port(), primary.port()])).await;
    let (id, off, _) = populated(&store).await;
    until_confirmed(&store, 0).await;
    let turn = store.primary().borrow().turn;
    let before = append_all(&store, std::slice::from_ref(&off)).await.remove(0).unwrap();

    primary.kill();
    standby.promote().await.unwrap();
    eventually(PATIENCE, "the promoted standby is read", async || store.head().await).await.unwrap();
    until_confirmed(&store, turn).await;
    assert_eq!(store.find_instance(&id).await.unwrap().unwrap().instance_id, id);
    let repeated = append_all(&store, &[off]).await.remove(0).unwrap();
    assert_eq!(repeated, before, "what was acknowledged is there");
    let end = store.head().await.unwrap();
    assert_eq!(lease(&store).await.end, end);
}

/// Ground rule 19: same log_id. Another log behind an address is refused, not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_another_log_is_refused() {
    let (one, other) = (
        Postgres::start(Durability::Relaxed).await.unwrap(),
        Postgres::start(Durability::Relaxed).await.unwrap(),
    );
    migrate(&one.url()).await.unwrap();
    migrate(&other.url()).await.unwrap();
    let proxy = Proxy::start(one.port()).await.unwrap();
    let store = open(&url(&[proxy.port()])).await;
    let (id, ..) = populated(&store).await;
    proxy.cut();
    proxy.lead_to(other.port());
    proxy.mend();
    let refused =
        eventually(PATIENCE, "the other log is noticed", async || match store.find_instance(&id).await {
            Err(error @ StoreError::Unsuitable(_)) => Ok(error.to_string()),
            Err(error) => Err(error.to_string()),
            Ok(found) => panic!("the other log was read: {found:?}"),
        });
    assert!(refused.await.unwrap().contains(&store.log_id().to_string()));
    proxy.cut();
    proxy.lead_to(one.port());
    proxy.mend();
    eventually(PATIENCE, "the log is back", async || store.find_instance(&id).await).await.unwrap();
}

/// Ground rule 19: the same server, started again, is another one: what was read before may
/// have been lost with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_started_again_is_another_turn() {
    let mut primary = Postgres::start(Durability::Relaxed).await.unwrap();
    migrate(&primary.url()).await.unwrap();
    let store = open(&url(&[primary.port()])).await;
    until_confirmed(&store, 0).await;
    let turn = store.primary().borrow().turn;
    primary.restart().await.unwrap();
    until_confirmed(&store, turn).await;
    store.head().await.unwrap();
}

/// Ground rule 19: a host gone without a reset costs at most 10 s, for appends and for reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_gone_without_a_reset_costs_ten_seconds_at_most() {
    let (primary, standby) = pair(true).await;
    let (there, elsewhere) =
        (Proxy::start(primary.port()).await.unwrap(), Proxy::start(standby.port()).await.unwrap());
    let store = open(&url(&[there.port(), elsewhere.port()])).await;
    let (id, off, on) = populated(&store).await;
    // Connections of both pools lie idle, to be found dead.
    append_all(&store, &[off]).await;
    let looked = futures::future::join_all((0..8).map(|_| store.find_instance(&id))).await;
    assert!(looked.into_iter().all(|found| found.is_ok()));

    there.set_both(Passage::BlackHole);
    standby.promote().await.unwrap();
    // One call of each kind after another: whatever it comes to, it comes to it in time.
    let slow = async |what: &str, call: &mut (dyn Future<Output = Result<(), StoreError>> + Unpin)| {
        let started = Instant::now();
        let outcome = call.await;
        assert!(started.elapsed() <= LONGEST_CALL, "{what}: {:?}, {outcome:?}", started.elapsed());
    };
    for _ in 0..3 {
        slow("a read", &mut Box::pin(async { store.find_instance(&id).await.map(drop) })).await;
        slow("an append", &mut Box::pin(async { store.append(std::slice::from_ref(&on)).await.map(drop) }))
            .await;
        slow("readiness", &mut Box::pin(async { store.ping().await })).await;
    }
    eventually(PATIENCE, "the promoted standby takes writes", async || {
        store.append(std::slice::from_ref(&on)).await
    })
    .await
    .unwrap();
    assert!(store.verify().await.unwrap().is_clean());
}

/// Ground rule 17: only an acknowledged commit makes a lease. A primary whose synchronous
/// standby does not acknowledge still answers reads, and confirms nothing as current.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_whose_standby_does_not_acknowledge_gives_no_freshness_lease() {
    let (primary, standby) = pair(true).await;
    let store = open(&url(&[primary.port()])).await;
    let (id, ..) = populated(&store).await;
    let end = store.head().await.unwrap();
    let is_at_end = |lease: &Option<FreshnessLease>| lease.as_ref().is_some_and(|lease| lease.end == end);
    tokio::time::timeout(PATIENCE, store.freshness().wait_for(is_at_end)).await.unwrap().unwrap();
    standby.pause();
    let leases = store.freshness();
    eventually(PATIENCE, "the lease runs out", async || {
        if leases.borrow().as_ref().is_some_and(FreshnessLease::is_valid) {
            Err("it is valid")
        } else {
            Ok(())
        }
    })
    .await
    .unwrap();
    assert!(store.find_instance(&id).await.unwrap().is_some(), "reads go on");
    standby.resume();
    lease(&store).await;
}

/// Ground rule 17: its time is that of the database, and grows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_has_the_time_of_the_database() {
    let primary = Postgres::start(Durability::Relaxed).await.unwrap();
    migrate(&primary.url()).await.unwrap();
    // The store's own clock stands in the past.
    let store = open(&url(&[primary.port()])).await;
    let first = lease(&store).await;
    let micros = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let now: i64 = primary.ask(micros).await.unwrap().parse().unwrap();
    assert!((0..5_000_000).contains(&(now - first.issued_at.micros())), "{first:?}, {now}");
    let later = |lease: &Option<FreshnessLease>| {
        lease
            .as_ref()
            .is_some_and(|lease| lease.issued_at > first.issued_at && lease.taken_at > first.taken_at)
    };
    tokio::time::timeout(PATIENCE, store.freshness().wait_for(later)).await.unwrap().unwrap();
}

/// Ground rule 17: a superseded primary with synchronous standbys cannot be used to call
/// anything current, and of two that take writes the one on the higher timeline is used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_superseded_primary_is_left_although_it_answers() {
    let (primary, standby) = pair(true).await;
    let store = open(&url(&[primary.port(), standby.port()])).await;
    let (id, off, _) = populated(&store).await;
    until_confirmed(&store, 0).await;
    let turn = store.primary().borrow().turn;
    standby.promote().await.unwrap();
    until_confirmed(&store, turn).await;
    let reply = append_all(&store, &[off]).await.remove(0).unwrap();
    let known = standby.ask("SELECT max(position) FROM events").await.unwrap();
    assert_eq!(known, reply.position.to_string(), "it was appended to the promoted server");
    assert_eq!(store.find_instance(&id).await.unwrap().unwrap().instance_id, id);
    // The old one alone: it is not gone back to.
    drop(standby);
    eventually(PATIENCE, "nothing is read of the superseded one", async || {
        match store.find_instance(&id).await {
            Err(StoreError::Unavailable(why)) if why.to_string().contains("superseded") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
}

/// Ground rule 18: after a lost COMMIT, one more commit of full durability before the
/// acknowledgement. A commit whose wait for the standby was broken off is on the primary alone:
/// it is not acknowledged from the row that is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_no_standby_has_is_not_settled_as_committed() {
    let (primary, standby) = pair(true).await;
    let store = open(&url(&[primary.port()])).await;
    let (_, off, _) = populated(&store).await;
    let before = store.head().await.unwrap().position;
    standby.pause();
    let waiting = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                   WHERE wait_event = 'SyncRep' AND query = 'COMMIT'";
    let broken_off =
        eventually(PATIENCE, "the commit waits for the standby", async || match primary.ask(waiting).await {
            Ok(count) if count == "1" => Ok(()),
            other => Err(format!("{other:?}")),
        });
    let (outcome, broken_off) = tokio::join!(store.append(std::slice::from_ref(&off)), broken_off);
    broken_off.unwrap();
    assert!(matches!(outcome, Err(StoreError::Ambiguous(_))), "{outcome:?}");
    assert_eq!(primary.ask("SELECT max(position) FROM events").await.unwrap(), (before + 1).to_string());
    standby.resume();
    let repeated = eventually(PATIENCE, "the repeat is answered", async || {
        store.append(std::slice::from_ref(&off)).await
    });
    let reply = repeated.await.unwrap().remove(0).unwrap();
    assert!(reply.changed && reply.position == before + 1, "{reply:?}");
}

/// Ground rule 18: `database.durability = "synchronous"` needs every named standby to answer, or
/// `database.failover_fences = true`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_standbys_do_not_acknowledge_is_not_called_synchronous() {
    let (primary, standby) = pair(false).await;
    let store = open(&url(&[primary.port()])).await;
    let refusal = async |fences| match store.check_standbys(fences).await {
        Err(StoreError::Unsuitable(text)) => text,
        other => panic!("{other:?}"),
    };
    for fences in [false, true] {
        assert!(refusal(fences).await.contains("synchronous_standby_names is empty"));
    }
    primary.wait_for_standbys("one").await.unwrap();
    store.check_standbys(false).await.unwrap();
    primary.wait_for_standbys("ANY 1 (one, other)").await.unwrap();
    assert!(refusal(false).await.contains("1 of 2"));
    store.check_standbys(true).await.unwrap();
    primary.wait_for_standbys("ANY 1 (other)").await.unwrap();
    assert!(refusal(false).await.contains("other does not follow"));
    assert!(refusal(true).await.contains("do not acknowledge a commit"));
    primary.wait_for_standbys("one").await.unwrap();
    standby.pause();
    assert!(refusal(false).await.contains("do not acknowledge a commit"));
    standby.resume();
    eventually(PATIENCE, "the standby answers again", async || store.check_standbys(false).await)
        .await
        .unwrap();
}

/// Ground rule 23: `occurred_at` is the database's clock, read under the append lock: a replica a
/// year ahead dates its events as the others do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_a_year_ahead_dates_events_as_the_others_do() {
    let primary = Postgres::start(Durability::Relaxed).await.unwrap();
    migrate(&primary.url()).await.unwrap();
    let year = 365 * 86_400 * 1_000_000;
    let micros = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let before: i64 = primary.ask(micros).await.unwrap().parse().unwrap();
    let ahead: Clock = Arc::new(move || Timestamp::from_micros(before + year));
    let store = PgEventStore::connect(&primary.url(), ahead).await.unwrap().dated_by_the_database();
    let (_, off, _) = populated(&store).await;
    append_all(&store, &[off]).await;
    let after: i64 = primary.ask(micros).await.unwrap().parse().unwrap();
    let end = store.head().await.unwrap().occurred_at.micros();
    assert!((before..=after).contains(&end), "{before} <= {end} <= {after}");
}
