//! Changes while devices come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::task::JoinSet;

use crate::device::{Attempt, Device, Session, TLS12, TLS13};
use crate::eventually::{LIMIT, eventually};
use crate::mosquitto::{Broker, Settings};
use crate::mqtt::Connect;
use crate::stage::Stage;
use crate::trust::{ACTIVE, INACTIVE};

/// Connects again and again until told to stop; gives the sessions of the last moments.
async fn storm(
    broker: Arc<Broker>,
    device: Device,
    worker: usize,
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicU64>,
) -> Vec<Session> {
    let mut sessions = Vec::new();
    for number in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let connect = Connect::new(&format!("{}-{worker}-{number}", device.name));
        if let Attempt::Connected(session) = device.attempt_with(&broker, &connect).await {
            accepted.fetch_add(1, Ordering::Relaxed);
            sessions.push(*session);
        }
    }
    sessions
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_connect_slips_past_a_change() {
    let settings = Settings { options: "plugin_opt_resumption on".to_owned(), ..Settings::default() };
    let Stage { broker, mut agent, a, b, mut revision } = Stage::with(settings).await;
    let broker = Arc::new(broker);
    let (accepted, mut resumed) = (Arc::new(AtomicU64::new(0)), 0);
    // Half of them resume: they share a device, and with it the tickets.
    let devices: Vec<_> = [TLS12, TLS13]
        .into_iter()
        .flat_map(|tls| {
            let shared = Device::tls(&broker, &a, "shared", tls);
            [shared.clone(), shared, Device::tls(&broker, &a, "own", tls)]
        })
        .collect();
    for _ in 0..15 {
        let states = [(&a, ACTIVE), (&b, ACTIVE)];
        revision += 1;
        agent.apply(crate::trust::bundle(revision, &states)).await;
        let (stop, before) = (Arc::new(AtomicBool::new(false)), accepted.load(Ordering::Relaxed));
        let mut workers = JoinSet::new();
        for (worker, device) in devices.iter().enumerate() {
            let (broker, device) = (Arc::clone(&broker), device.clone());
            workers.spawn(storm(broker, device, worker, Arc::clone(&stop), Arc::clone(&accepted)));
        }
        eventually(LIMIT, "the storm is on", async || {
            let count = accepted.load(Ordering::Relaxed) - before;
            if count >= 60 { Ok(()) } else { Err(format!("{count} accepted")) }
        })
        .await
        .unwrap();
        revision += 1;
        let response = agent.apply(crate::trust::bundle(revision, &[(&a, INACTIVE), (&b, ACTIVE)])).await;
        assert_eq!(response.open, 0);
        stop.store(true, Ordering::Relaxed);
        for session in workers.join_all().await.into_iter().flatten() {
            resumed += u64::from(session.is_resumed());
            session.closed().await;
        }
        revision += 1;
        let response = agent.apply(crate::trust::bundle(revision, &[(&a, INACTIVE), (&b, ACTIVE)])).await;
        assert_eq!((response.kicked, response.open), (0, 0), "a session slipped past");
    }
    assert!(resumed > 100, "only {resumed} sessions were resumed: nothing to test");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_customers_lose_nothing_during_200_random_switches_under_load() {
    let mut stage = Stage::new().await;
    let mut kept = Vec::new();
    for number in 0..20 {
        let tls = if number % 2 == 0 { TLS12 } else { TLS13 };
        let device = Device::tls(&stage.broker, &stage.b, &format!("b{number}"), tls);
        kept.push(device.connect(&stage.broker).await);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut pings = JoinSet::new();
    for mut session in kept {
        let stop = Arc::clone(&stop);
        pings.spawn(async move {
            let mut count = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                session.assert_alive().await;
                count += 1;
            }
            count
        });
    }
    let device = stage.device_a("a1");
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..200 {
        // xorshift: random, and the same in every run.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let active = random.is_multiple_of(2);
        stage.set_a(if active { ACTIVE } else { INACTIVE }).await;
        let accepted = matches!(device.attempt(&stage.broker).await, Attempt::Connected(_));
        assert_eq!(accepted, active);
    }
    stop.store(true, Ordering::Relaxed);
    let counts = pings.join_all().await;
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}
