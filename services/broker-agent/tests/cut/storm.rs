//! Races: connects and resumptions against changes, and bystanders during many of
//! them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Waker};

use catrust_broker_agent::{BrokerTrust, Session};
use catrust_trust_feed::agent::Enforcer as _;
use rustls::HandshakeKind;
use tokio::task::JoinSet;

use crate::broker::FakeBroker;
use crate::fixtures::{ACTIVE, Ca, INACTIVE, trust};
use crate::harness::{Client, Connection, Gate, VERSIONS, until};

const ROUNDS: u64 = 15;
const DEVICES: usize = 8;

/// The receipt stands: none may be alive, whatever was under way. What may be there for
/// a moment is a connection that has registered and not looked at the trust again: it
/// has not been admitted. One that was admitted would stay.
async fn none_below(trust: &BrokerTrust, ca: &Ca) {
    let open = || trust.registry().open_below(&ca.sha256());
    until("nobody is below the inactive CA", open, |open| *open == 0).await;
}

/// Connects again and again until told to stop; gives what was accepted.
async fn keep_connecting(client: Client, stop: Arc<AtomicBool>, resumed: Arc<AtomicU64>) -> Vec<Connection> {
    let mut accepted = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        if let Ok(connection) = client.connect().await {
            resumed.fetch_add(u64::from(connection.kind() == HandshakeKind::Resumed), Ordering::SeqCst);
            accepted.push(connection);
        }
    }
    accepted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_connect_slips_past_a_change() {
    let (broker, a, b) = (FakeBroker::tcp().await, Ca::new("A"), Ca::new("B"));
    let gate = Gate::start(&broker.address, &[]).await;
    gate.apply(&trust(1, &[(&a, ACTIVE), (&b, ACTIVE)])).await;
    let mut bystander = gate.client(&b.device("b1"), VERSIONS[1]).must_connect().await;
    let (mut total, resumed) = (0, Arc::new(AtomicU64::new(0)));
    for round in 1..=ROUNDS {
        gate.apply(&trust(round * 2, &[(&a, ACTIVE), (&b, ACTIVE)])).await;
        let (stop, mut tasks, before) = (Arc::new(AtomicBool::new(false)), JoinSet::new(), total);
        for index in 0..DEVICES {
            let client = gate.client(&a.device(&format!("a{index}")), VERSIONS[index % 2]);
            tasks.spawn(keep_connecting(client, Arc::clone(&stop), Arc::clone(&resumed)));
        }
        // In the middle of the storm: another number of sessions each round.
        let wanted = DEVICES + usize::try_from(round).unwrap() * 3;
        until("the storm is on", || gate.trust.registry().open_below(&a.sha256()), |open| *open >= wanted)
            .await;
        gate.apply(&trust(round * 2 + 1, &[(&a, INACTIVE), (&b, ACTIVE)])).await;
        none_below(&gate.trust, &a).await;
        stop.store(true, Ordering::SeqCst);
        for mut connection in tasks.join_all().await.into_iter().flatten() {
            connection.closed().await;
            total += 1;
        }
        // Fewer than were open: some had no answer yet when they were cut.
        assert!(total > before, "round {round}: {total}");
        assert_eq!(gate.trust.registry().open(), 1, "round {round}");
        bystander.must_live().await;
    }
    assert!(resumed.load(Ordering::SeqCst) > ROUNDS, "hardly any resumption: {resumed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn devices_of_other_cas_lose_nothing_during_200_random_switches() {
    let (broker, stable) = (FakeBroker::tcp().await, Ca::new("stable"));
    let others: Vec<Ca> = (0..4).map(|index| Ca::new(&format!("other {index}"))).collect();
    let gate = Gate::start(&broker.address, &[]).await;
    let mut states = [ACTIVE; 4];
    let trust_of = |revision, states: &[_; 4]| {
        let entries: Vec<_> = others.iter().zip(states.iter().copied()).chain([(&stable, ACTIVE)]).collect();
        trust(revision, &entries)
    };
    gate.apply(&trust_of(1, &states)).await;
    let (stop, mut bystanders, mut noise) =
        (Arc::new(AtomicBool::new(false)), JoinSet::new(), JoinSet::new());
    for index in 0..20 {
        let client = gate.client(&stable.device(&format!("s{index}")), VERSIONS[index % 2]);
        let (mut connection, stop) = (client.must_connect().await, Arc::clone(&stop));
        bystanders.spawn(async move {
            let mut pings = 0_u64;
            loop {
                let last = stop.load(Ordering::SeqCst);
                connection.must_live().await;
                pings += 1;
                if last {
                    return pings;
                }
            }
        });
    }
    for (index, ca) in others.iter().enumerate() {
        let client = gate.client(&ca.device("o"), VERSIONS[index % 2]);
        noise.spawn(keep_connecting(client, Arc::clone(&stop), Arc::default()));
    }
    // xorshift32: the same sequence each time.
    let mut random = 0x9e37_79b9_u32;
    for revision in 2..202 {
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        let index = (random >> 8) as usize % states.len();
        states[index] = if states[index] == ACTIVE { INACTIVE } else { ACTIVE };
        gate.apply(&trust_of(revision, &states)).await;
        for (ca, _) in others.iter().zip(&states).filter(|(_, state)| **state != ACTIVE) {
            none_below(&gate.trust, ca).await;
        }
        assert_eq!(gate.trust.registry().open_below(&stable.sha256()), 20, "revision {revision}");
    }
    stop.store(true, Ordering::SeqCst);
    noise.join_all().await;
    let pings = bystanders.join_all().await;
    assert!(pings.iter().all(|pings| *pings > 0), "{pings:?}");
}

/// The same race without TLS around it, so that thousands of admissions meet each
/// change and not tens.
#[tokio::test(flavor = "multi_thread")]
async fn no_admission_by_many_threads_outlives_a_change() {
    let (trust_of_broker, a) = (Arc::new(BrokerTrust::default()), Ca::new("A"));
    let (stop, chain) = (Arc::new(AtomicBool::new(false)), a.device("a1").chain);
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (trust, stop, chain) = (Arc::clone(&trust_of_broker), Arc::clone(&stop), chain.clone());
            std::thread::spawn(move || {
                let (mut sessions, mut admitted) = (Vec::new(), 0_u64);
                while !stop.load(Ordering::SeqCst) {
                    sessions.extend(trust.admit(Some(&chain)));
                    let mut cx = Context::from_waker(Waker::noop());
                    sessions.retain_mut(|session: &mut Session| session.poll_cut(&mut cx).is_pending());
                    // Room for the next ones.
                    admitted += u64::from(sessions.len() > 8);
                    sessions.truncate(8);
                }
                admitted
            })
        })
        .collect();
    for revision in (1..400).step_by(2) {
        trust_of_broker.apply(&trust(revision, &[(&a, ACTIVE)])).await.unwrap();
        let registry = trust_of_broker.registry();
        until("somebody is admitted", || registry.open(), |open| *open > 0).await;
        trust_of_broker.apply(&trust(revision + 1, &[(&a, INACTIVE)])).await.unwrap();
        none_below(&trust_of_broker, &a).await;
    }
    stop.store(true, Ordering::SeqCst);
    let admitted: u64 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
    assert!(admitted > 1_000, "{admitted} admissions");
}
