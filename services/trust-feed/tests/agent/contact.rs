//! With and without a server: the first bundle, restarts, servers that die or hang.

use std::sync::atomic::Ordering;
use std::time::Duration;

use catrust_proto::v1 as proto;
use catrust_test_harness::eventually::eventually;
use catrust_trust_feed::agent::{AgentSettings, Freshness, GrpcSettings, StartError};
use tokio::time::Instant;

use crate::proxy::Proxy;
use crate::world::{Broker, GrpcServer, PATIENCE, SOFT, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_then_changes_come_by_grpc_and_each_has_its_receipt() {
    let world = World::new();
    let grpc = GrpcServer::start(&world).await;
    let broker = Broker::start(world.settings(&grpc.url)).await;
    broker.ready().await;
    for _ in 0..3 {
        let revision = world.toggle();
        let receipt = world.receipt(revision, proto::ReceiptOutcome::Applied).await;
        assert_eq!(receipt.enforcement(), proto::Enforcement::Tls);
        assert_eq!(broker.recorder.applied().last().unwrap().bundle.revision, revision);
    }
    let traced = world.receipts().iter().filter(|(_, trace)| trace.starts_with("00-")).count();
    assert!(traced >= 3, "{:?}", world.receipts());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_receipt_is_repeated_as_the_sign_of_life() {
    let world = World::new();
    let grpc = GrpcServer::start(&world).await;
    let broker = Broker::start(world.settings(&grpc.url)).await;
    broker.ready().await;
    broker.recorder.open.store(42, Ordering::SeqCst);
    let receipt = eventually(PATIENCE, "a sign of life", async || {
        let receipts = world.receipts();
        let repeated =
            receipts.iter().map(|(receipt, _)| receipt).find(|receipt| receipt.sessions_open == 42);
        repeated.cloned().ok_or_else(|| format!("{receipts:?}"))
    });
    let receipt = receipt.await.unwrap();
    assert_eq!((receipt.revision, receipt.outcome()), (1, proto::ReceiptOutcome::Applied));
    assert_eq!(receipt.sessions_cut, 1, "it says again what it said");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_without_contact_serves_the_saved_state_and_goes_on_from_it() {
    let world = World::new();
    let grpc = GrpcServer::start(&world).await;
    let directory = tempfile::tempdir().unwrap();
    let state_directory = Some(directory.path().join("state"));
    let settings = AgentSettings { state_directory, ..world.settings(&grpc.url) };
    let broker = Broker::start(settings.clone()).await;
    broker.ready().await;
    let revision = (0..3).map(|_| world.toggle()).next_back().unwrap();
    world.receipt(revision, proto::ReceiptOutcome::Applied).await;
    broker.agent.stop().await;
    drop(grpc);

    let broker = Broker::start(settings.clone()).await;
    let applied = broker.recorder.applied();
    assert_eq!(applied[0].bundle.revision, revision, "enforced before anything else");
    assert!(applied[0].freshness.admits());
    broker.ready().await;
    broker.agent.stop().await;

    // With a server again, it goes on with the change after it, not with a bundle.
    let again = GrpcServer::start(&world).await;
    let grpc = GrpcSettings::new(&again.url);
    let broker = Broker::start(AgentSettings { grpc, ..settings }).await;
    let next = world.toggle();
    broker.recorder.reached(next).await;
    assert_eq!(broker.recorder.applied().last().unwrap().reason, "a test");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saved_state_that_was_tampered_with_is_put_aside_and_nothing_is_trusted() {
    let world = World::new();
    let grpc = GrpcServer::start(&world).await;
    let directory = tempfile::tempdir().unwrap();
    let settings =
        AgentSettings { state_directory: Some(directory.path().to_owned()), ..world.settings(&grpc.url) };
    let broker = Broker::start(settings.clone()).await;
    broker.ready().await;
    world.toggle();
    world.receipt(2, proto::ReceiptOutcome::Applied).await;
    broker.agent.stop().await;
    drop(grpc);
    let bundle = directory.path().join("bundle.json");
    let changes = directory.path().join("changes.jsonl");
    let good = [std::fs::read_to_string(&bundle).unwrap(), std::fs::read_to_string(&changes).unwrap()];

    // Still JSON, but not what was signed; and not JSON at all.
    let active_again = good[1].replace("STATE_INACTIVE", "STATE_ACTIVE");
    assert_ne!(active_again, good[1]);
    for (file, text) in [(&changes, active_again), (&bundle, good[0][1..].to_owned())] {
        std::fs::write(&bundle, &good[0]).unwrap();
        std::fs::write(&changes, &good[1]).unwrap();
        std::fs::write(file, &text).unwrap();
        let broker = Broker::start(settings.clone()).await;
        assert_eq!(broker.recorder.applied(), []);
        assert_eq!(broker.agent.status().freshness, Freshness::HardStale);
        assert_eq!(broker.agent.status().revision, None);
        broker.agent.stop().await;
        let mut kept = file.clone().into_os_string();
        kept.push(".refused");
        assert_eq!(std::fs::read_to_string(kept).unwrap(), text);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_directory_in_use_is_a_failure_to_start() {
    let world = World::new();
    let directory = tempfile::tempdir().unwrap();
    let state_directory = Some(directory.path().to_owned());
    let settings = AgentSettings { state_directory, ..world.settings("http://127.0.0.1:9") };
    let first = Broker::start(settings.clone()).await;
    let second = catrust_trust_feed::agent::Agent::start(settings, first.recorder.clone()).await;
    assert!(matches!(second, Err(StartError::Store(_))), "{second:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_left_for_the_next_one() {
    let world = World::new();
    let (first, second) = (GrpcServer::start(&world).await, GrpcServer::start(&world).await);
    let proxy = Proxy::start(&first.url).await;
    let settings = AgentSettings {
        grpc: GrpcSettings {
            servers: vec![proxy.url.clone(), second.url.clone()],
            ..GrpcSettings::new(&proxy.url)
        },
        // Longer than a server may hang: it is the pings that find out.
        soft_budget: SOFT * 10,
        ..world.settings(&proxy.url)
    };
    let broker = Broker::start(settings).await;
    broker.ready().await;
    proxy.freeze();
    let frozen = Instant::now();
    let revision = world.toggle();
    broker.recorder.reached(revision).await;
    let took = frozen.elapsed();
    assert!(took < Duration::from_secs(5), "the change took {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_everything_is_told_and_ends_by_itself() {
    let world = World::new();
    let grpc = GrpcServer::start(&world).await;
    let proxy = Proxy::start(&grpc.url).await;
    let settings = AgentSettings { hard_budget: SOFT * 2, ..world.settings(&proxy.url) };
    let broker = Broker::start(settings).await;
    broker.ready().await;
    proxy.freeze();
    broker.until("it is stale", |status| status.freshness == Freshness::HardStale).await;
    let revision = world.toggle();
    proxy.thaw();
    broker.recorder.reached(revision).await;
    broker.until("it is fresh", |status| status.freshness == Freshness::Fresh).await;
    let mut told: Vec<Freshness> = broker.recorder.applied().iter().map(|trust| trust.freshness).collect();
    told.dedup();
    assert!(told.contains(&Freshness::SoftStale), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_read_again_for_each_connection() {
    let world = World::new();
    *world.token.lock().unwrap() = Some("hunter2".to_owned());
    let grpc = GrpcServer::start(&world).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "wrong\n").unwrap();
    let grpc = GrpcSettings { token_file: Some(file.clone()), ..GrpcSettings::new(&grpc.url) };
    let broker = Broker::start(AgentSettings { grpc, ..world.settings("http://127.0.0.1:9") }).await;
    assert!(tokio::time::timeout(Duration::from_millis(300), broker.agent.ready()).await.is_err());
    std::fs::write(&file, "hunter2\n").unwrap();
    broker.ready().await;
}

/// Ground rule 16: without saved state an agent asks every server that it knows (2 s) and takes the
/// highest; a server that does not know that its log epoch has ended changes nothing afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_saved_state_every_server_is_asked_and_the_highest_counts() {
    const EPOCH: u64 = 1;
    let ended = World::new();
    let world = ended.in_epoch(EPOCH);
    for _ in 0..5 {
        ended.toggle();
    }
    let (late, current) = (GrpcServer::start(&ended).await, GrpcServer::start(&world).await);
    let silent = Proxy::start(&current.url).await;
    silent.freeze();
    let mut settings = world.settings(&late.url);
    settings.grpc.servers = vec![late.url.clone(), silent.url.clone(), current.url.clone()];
    let started = Instant::now();
    let broker = Broker::start(settings).await;
    broker.recorder.reached(1).await;
    assert!(started.elapsed() >= Duration::from_millis(1_900), "the silent one may have known more");
    let first = broker.recorder.applied().swap_remove(0);
    assert_eq!(first.bundle.revision, (EPOCH << 32) | 1, "nothing of the ended epoch was enforced");
    // The late server answers on, and is left for one that knows of the epoch.
    broker.ready().await;
    let revision = world.toggle();
    broker.recorder.reached(revision).await;
    let lowest = broker.recorder.applied().iter().map(|trust| trust.bundle.revision).min();
    assert_eq!(lowest, Some((EPOCH << 32) | 1));
}
