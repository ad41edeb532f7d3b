//! What is refused, and what the control plane hears about it.

use std::sync::atomic::Ordering;

use catrust_proto::v1 as proto;
use catrust_proto::v1::trust_message::Message as Body;
use catrust_test_harness::eventually::eventually;
use catrust_trust_feed::agent::AgentSettings;
use catrust_trust_feed::{Signed as _, TrustKeys};

use crate::world::{Broker, GrpcServer, PATIENCE, World};

fn planted(body: Body) -> Option<proto::TrustMessage> {
    Some(proto::TrustMessage { message: Some(body), request_id: String::new() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_and_an_old_bundle_are_refused_with_a_receipt_and_the_agent_goes_on() {
    let world = World::new();
    let old = world.bundle();
    let grpc = GrpcServer::start(&world).await;
    let broker = Broker::start(world.settings(&grpc.url)).await;
    broker.ready().await;
    let revision = world.toggle();
    broker.recorder.reached(revision).await;

    let forged = proto::TrustBundle { revision: 77, position: 77, ..world.bundle() };
    *world.planted.lock().unwrap() = planted(Body::Bundle(forged));
    let receipt = world.receipt(77, proto::ReceiptOutcome::Refused).await;
    assert!(receipt.refusal.contains("signature does not match"), "{}", receipt.refusal);
    assert_eq!(receipt.bundle_digest, world.bundle().bundle_digest, "what is enforced all the same");

    *world.planted.lock().unwrap() = planted(Body::Bundle(old));
    let receipt = world.receipt(1, proto::ReceiptOutcome::Refused).await;
    assert!(receipt.refusal.contains("revision 1, and this is revision 2"), "{}", receipt.refusal);

    // Ground rule 5: who is shown less than it has shows its signed head with a next receipt.
    let head = eventually(PATIENCE, "evidence", async || {
        let receipts = world.receipts();
        let shown = receipts.into_iter().find_map(|(receipt, _)| receipt.newest_head);
        shown.ok_or_else(|| "no receipt with a head".to_owned())
    });
    let head = head.await.unwrap();
    assert_eq!((head.revision, &head.bundle_digest), (2, &world.bundle().bundle_digest));
    assert!(head.signature.is_some());

    let next = world.toggle();
    world.receipt(next, proto::ReceiptOutcome::Applied).await;
    let status = broker.agent.status();
    assert_eq!(status.refusals, 2, "{status:?}");
    // One process, and each of its receipts in its order.
    let receipts: Vec<_> = world.receipts().into_iter().map(|(receipt, _)| receipt).collect();
    assert!(receipts.iter().all(|receipt| receipt.incarnation == receipts[0].incarnation));
    assert_eq!(receipts[0].incarnation.len(), 16);
    assert!(receipts.windows(2).all(|pair| pair[0].sequence < pair[1].sequence), "{receipts:?}");
}

/// Ground rule 24: an unknown message stops no agent and is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_of_message_that_this_version_does_not_know_is_told_and_stops_nothing() {
    let world = World::new();
    let grpc = GrpcServer::start(&world).await;
    let broker = Broker::start(world.settings(&grpc.url)).await;
    broker.ready().await;
    *world.planted.lock().unwrap() = Some(proto::TrustMessage { message: None, request_id: String::new() });
    let receipt = world.receipt(0, proto::ReceiptOutcome::Refused).await;
    assert_eq!(receipt.refusal, "a message cannot be read");
    let next = world.toggle();
    world.receipt(next, proto::ReceiptOutcome::Applied).await;
    assert_eq!(broker.agent.status().freshness, catrust_trust_feed::agent::Freshness::Fresh);
}

/// A bundle that is asked for is the one on disk, as it was signed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_asks_for_the_bundle_gets_the_saved_one() {
    let world = World::new();
    world.wants_bundle.store(true, Ordering::SeqCst);
    let grpc = GrpcServer::start(&world).await;
    let directory = tempfile::tempdir().unwrap();
    let state_directory = Some(directory.path().join("state"));
    let broker = Broker::start(AgentSettings { state_directory, ..world.settings(&grpc.url) }).await;
    broker.ready().await;
    let bundle = eventually(PATIENCE, "the bundle", async || {
        let receipts = world.receipts();
        let sent = receipts.into_iter().find_map(|(receipt, _)| receipt.newest_bundle);
        sent.ok_or_else(|| "no receipt with a bundle".to_owned())
    });
    let bundle = bundle.await.unwrap();
    assert_eq!((bundle.revision, bundle.entries.len()), (1, 1));
    assert!(bundle.verify(&TrustKeys::from(&*world.key)).is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_away_is_reported_until_it_is_back() {
    let world = World::new();
    let grpc = GrpcServer::start(&world).await;
    let broker = Broker::start(world.settings(&grpc.url)).await;
    broker.ready().await;
    broker.recorder.fails.store(true, Ordering::SeqCst);
    let revision = world.toggle();
    let receipt = world.receipt(revision, proto::ReceiptOutcome::Refused).await;
    assert_eq!(receipt.refusal, "the broker is away");
    broker.recorder.fails.store(false, Ordering::SeqCst);
    world.receipt(revision, proto::ReceiptOutcome::Applied).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_pin_no_key_are_refused() {
    let world = World::new();
    let settings = AgentSettings {
        keys: catrust_trust_feed::KeyRing::default(),
        ..world.settings("http://127.0.0.1:9")
    };
    let recorder = std::sync::Arc::new(crate::world::Recorder::default());
    let refused = catrust_trust_feed::agent::Agent::start(settings, recorder).await;
    let error = refused.expect_err("unusable settings");
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("pinned"), "{error:?}");
}
