//! NATS and gRPC, and each in place of the other.

use std::sync::atomic::Ordering;
use std::time::Duration;

use catrust_proto::v1 as proto;
use catrust_test_harness::eventually::eventually;
use catrust_test_harness::nats::NatsServer;
use catrust_trust_feed::agent::{AgentSettings, Freshness, SourceKind};
use catrust_trust_feed::{NatsSettings, subject};
use futures::StreamExt as _;
use tokio::time::Instant;

use crate::world::{Broker, GrpcServer, NatsPublisher, PATIENCE, SOFT, World};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_comes_by_nats_and_its_receipt_goes_back_there_with_the_trace() {
    let world = World::new();
    let (grpc, nats) = (GrpcServer::start(&world).await, NatsServer::start().await.unwrap());
    let _publisher = NatsPublisher::start(&world, &nats).await;
    let client = async_nats::connect(nats.url()).await.unwrap();
    let on = subject::receipt(&world.instance, &"broker-1".parse().unwrap());
    let mut receipts = client.subscribe(on).await.unwrap();
    client.flush().await.unwrap();
    let settings = world.settings(&grpc.url);
    let broker = Broker::start(AgentSettings { nats: Some(NatsSettings::new(nats.url())), ..settings }).await;
    broker.until("NATS is leaned on", |status| status.source == SourceKind::Nats).await;
    eventually(PATIENCE, "the gRPC stream is closed", async || match world.watchers.load(Ordering::SeqCst) {
        0 => Ok(()),
        watchers => Err(format!("{watchers} watchers")),
    })
    .await
    .unwrap();

    let revision = world.toggle();
    broker.recorder.reached(revision).await;
    let last = broker.recorder.applied().pop().unwrap();
    assert_eq!((&*last.reason, last.freshness), ("a test", Freshness::Fresh));
    let receipt = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let message = receipts.next().await.unwrap();
            let receipt: proto::ReportReceiptRequest = serde_json::from_slice(&message.payload).unwrap();
            if receipt.revision == revision {
                break (receipt, message.headers.unwrap_or_default());
            }
        }
    });
    let (receipt, headers) = receipt.await.expect("a receipt on NATS");
    assert_eq!(receipt.outcome(), proto::ReceiptOutcome::Applied);
    assert_eq!(receipt.bundle_digest, last.bundle.digest.to_string());
    assert_eq!((&*receipt.broker_id, receipt.sessions_cut), ("broker-1", 1));
    let trace = headers.get("traceparent").map(async_nats::HeaderValue::as_str);
    assert!(trace.is_some_and(|trace| trace.starts_with("00-")), "{headers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_takes_over_within_the_soft_budget_when_nats_is_killed_and_nats_comes_back() {
    let world = World::new();
    let (grpc, mut nats) = (GrpcServer::start(&world).await, NatsServer::start().await.unwrap());
    let _publisher = NatsPublisher::start(&world, &nats).await;
    let settings = world.settings(&grpc.url);
    let broker = Broker::start(AgentSettings { nats: Some(NatsSettings::new(nats.url())), ..settings }).await;
    broker.until("NATS is leaned on", |status| status.source == SourceKind::Nats).await;

    nats.kill();
    let killed = Instant::now();
    let revision = world.toggle();
    broker.recorder.reached(revision).await;
    let took = killed.elapsed();
    assert!(took <= SOFT, "the change took {took:?}");
    assert_eq!(broker.agent.status().source, SourceKind::Grpc);
    world.receipt(revision, proto::ReceiptOutcome::Applied).await;

    nats.restart().await.unwrap();
    broker.until("NATS is leaned on again", |status| status.source == SourceKind::Nats).await;
    let revision = world.toggle();
    broker.recorder.reached(revision).await;
    let stale = broker
        .recorder
        .applied()
        .iter()
        .any(|trust| trust.bundle.revision > 1 && trust.freshness == Freshness::HardStale);
    assert!(!stale, "trust was never in doubt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_finds_no_server_follows_nats_from_its_saved_state() {
    let world = World::new();
    let (grpc, nats) = (GrpcServer::start(&world).await, NatsServer::start().await.unwrap());
    let _publisher = NatsPublisher::start(&world, &nats).await;
    let directory = tempfile::tempdir().unwrap();
    let settings = AgentSettings {
        nats: Some(NatsSettings::new(nats.url())),
        state_directory: Some(directory.path().to_owned()),
        ..world.settings(&grpc.url)
    };
    let broker = Broker::start(settings.clone()).await;
    broker.ready().await;
    broker.agent.stop().await;
    drop(grpc);

    let broker = Broker::start(settings).await;
    broker.until("NATS is leaned on", |status| status.source == SourceKind::Nats).await;
    for _ in 0..3 {
        let revision = world.toggle();
        broker.recorder.reached(revision).await;
    }
    assert_eq!(broker.agent.status().freshness, Freshness::Fresh);
}
