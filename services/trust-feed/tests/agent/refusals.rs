//! What is refused, and what the control plane hears about it.

use std::sync::atomic::Ordering;

use catrust_proto::v1 as proto;
use catrust_proto::v1::trust_message::Message as Body;
use catrust_trust_feed::agent::AgentSettings;

use crate::world::{Broker, GrpcServer, World};

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

    let next = world.toggle();
    world.receipt(next, proto::ReceiptOutcome::Applied).await;
    let status = broker.agent.status();
    assert_eq!(status.refusals, 2, "{status:?}");
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
