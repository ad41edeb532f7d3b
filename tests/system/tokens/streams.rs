//! Streams end with the token that opened them, and say so.

use std::time::{Duration, Instant};

use catrust_proto::v1::{
    Enforcement, ReceiptOutcome, ReportReceiptRequest, WatchPropagationRequest, WatchTrustRequest,
};
use catrust_tests::deployment::{ACCOUNT, Plan};
use catrust_tests::issuer::{self, Key, Publisher, claims, now};
use serde_json::json;
use tonic::{Code, Status, Streaming};

/// How long the token lives: the streams are open well before that.
const LIFE: i64 = 8;

/// The error that ends a stream.
async fn end_of<T>(mut messages: Streaming<T>) -> anyhow::Result<Status> {
    let reading = async {
        loop {
            match messages.message().await {
                Ok(Some(_)) => {}
                Ok(None) => anyhow::bail!("the stream ended without a word"),
                Err(status) => return Ok(status),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reading).await?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_when_its_token_does_and_says_so() -> anyhow::Result<()> {
    let key = Key::es256("k")?;
    let publisher = Publisher::start(&[&key]).await?;
    let deployment = issuer::plan(Plan { nats: None, ..Plan::default() })
        .policy(
            &format!("{ACCOUNT}/alice.cedar"),
            "permit(principal == Principal::\"alice\", action, resource);",
        )
        .set("auth.jwt.key_set_url", &format!("{:?}", publisher.url()))
        .set("auth.jwt.clock_skew_seconds", "0")
        .set("fleet.lost_after_seconds", "600")
        .deploy()
        .await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    // A broker that is behind keeps the watch of a revision open.
    let receipt = ReportReceiptRequest {
        mqtt_instance_id: instance.id.clone(),
        broker_id: "gate-1".to_owned(),
        outcome: ReceiptOutcome::Refused.into(),
        refusal: "a test".to_owned(),
        enforcement: Enforcement::Tls.into(),
        ..ReportReceiptRequest::default()
    };
    instance.caller.trust.clone().report_receipt(receipt).await?;
    instance.new_ca().await?;

    let mut short = claims("alice");
    let (opened, expires) = (Instant::now(), now() + LIFE);
    short["exp"] = json!(expires);
    let mut long = claims("alice");
    long["exp"] = json!(now() + 600);
    let by = |claims| replica.server.caller(Some(&key.token(claims)));
    let (short, long) = (by(&short)?, by(&long)?);
    let request = WatchTrustRequest { mqtt_instance_id: instance.id.clone(), ..WatchTrustRequest::default() };
    let trust = short.trust.clone().watch_trust(request.clone()).await?.into_inner();
    let mut lasting = long.trust.clone().watch_trust(request).await?.into_inner();
    let request = WatchPropagationRequest { mqtt_instance_id: instance.id.clone(), revision: 0 };
    let propagation = short.fleet.clone().watch_propagation(request).await?.into_inner();

    let (trust, propagation) = tokio::join!(end_of(trust), end_of(propagation));
    for status in [trust?, propagation?] {
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        assert!(status.message().contains("has expired"), "{status:?}");
    }
    assert!(
        now() >= expires && opened.elapsed() >= Duration::from_secs(LIFE as u64 - 1),
        "not before its end"
    );
    assert!(lasting.message().await?.is_some(), "a stream by another token goes on");
    Ok(())
}
