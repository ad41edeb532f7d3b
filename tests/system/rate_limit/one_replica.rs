//! 500 requests per second and user, from outside.

use std::time::{Duration, Instant};

use catrust_proto::v1::{GetInstanceRequest, GetInstanceResponse};
use catrust_tests::client::{Caller, Refusal, refused};
use catrust_tests::deployment::{ACCOUNT, Deployment, Identity, Plan, Replica};
use catrust_tests::eventually::eventually;
use tonic::{Code, Status};

/// The limit under test, and its burst.
const LIMIT: u32 = 500;
const BURST: u32 = 100;
/// A limit that any machine can go over at once, where not the limit itself is under test.
const LOW_LIMIT: u32 = 50;

async fn deployed(limit: u32) -> anyhow::Result<(Deployment, Replica)> {
    let plan = Plan { nats: None, ..Plan::default() }
        .identity(Identity::with_token("busy-token", ACCOUNT, &["mq:*"]))
        .identity(Identity::with_token("calm-token", ACCOUNT, &["mq:*"]))
        .set("rate_limit.per_user_per_second", &limit.to_string())
        .set("rate_limit.burst", &BURST.to_string());
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    Ok((deployment, replica))
}

/// A call about an unknown instance: cheap, and counted by the limiter.
async fn call(caller: &Caller) -> Result<GetInstanceResponse, Status> {
    let request = GetInstanceRequest { mqtt_instance_id: "absent".to_owned() };
    Ok(caller.instances.clone().get_instance(request).await?.into_inner())
}

fn admitted(reply: &Result<GetInstanceResponse, Status>) -> bool {
    !matches!(reply, Err(status) if status.code() == Code::ResourceExhausted)
}

/// Sends at an even pace, whatever the answers are, and counts the admitted ones.
async fn pace(caller: &Caller, per_second: u32, duration: Duration) -> (u32, u32, Vec<Status>) {
    let started = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    let mut sent = 0;
    while started.elapsed() < duration {
        let due = (started.elapsed().as_secs_f64() * f64::from(per_second)) as u32;
        for _ in sent..due {
            let caller = caller.clone();
            calls.spawn(async move { call(&caller).await });
        }
        sent = sent.max(due);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (mut passed, mut refusals) = (0, Vec::new());
    for reply in calls.join_all().await {
        if admitted(&reply) {
            passed += 1;
        } else {
            refusals.extend(reply.err());
        }
    }
    (sent, passed, refusals)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_at_three_times_the_limit_gets_the_limit_and_another_is_not_touched() -> anyhow::Result<()> {
    let (_deployment, replica) = deployed(LIMIT).await?;
    let (busy, calm) =
        (replica.server.caller(Some("busy-token"))?, replica.server.caller(Some("calm-token"))?);
    call(&busy).await.expect_err("there is no such instance");
    call(&calm).await.expect_err("there is no such instance");
    let duration = Duration::from_secs(5);
    let ((sent, passed, refusals), (calm_sent, calm_passed, _), health) = tokio::join!(
        pace(&busy, 3 * LIMIT, duration),
        pace(&calm, LIMIT / 5, duration),
        healthy(&calm, duration)
    );
    println!("sent {sent}, admitted {passed} in {duration:?}; the other user {calm_passed} of {calm_sent}");
    let expected = f64::from(LIMIT) * duration.as_secs_f64() + f64::from(BURST);
    let share = f64::from(passed) / expected;
    assert!(f64::from(sent) > 2.0 * expected, "the machine could not send 3 × the limit: {sent}");
    assert!((0.9..=1.1).contains(&share), "admitted {passed}, expected about {expected}");
    assert_eq!(calm_passed, calm_sent, "another user is not touched");
    assert!(health? > 50, "health is never limited");
    for status in refusals.iter().take(200) {
        let refusal = Refusal::of(status)?;
        assert_eq!(refusal.code, "RateLimitExceeded");
        let wait = refusal.retry_after.expect("RetryInfo");
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        let pushback: u64 =
            status.metadata().get("grpc-retry-pushback-ms").expect("pushback").to_str()?.parse()?;
        assert!(Duration::from_millis(pushback) >= wait, "{pushback} ms, {wait:?}");
    }
    Ok(())
}

/// Calls health and reflection in a row; gives the number of calls.
async fn healthy(caller: &Caller, duration: Duration) -> anyhow::Result<u32> {
    let started = Instant::now();
    let mut calls = 0;
    while started.elapsed() < duration {
        caller.health.clone().check(tonic_health::pb::HealthCheckRequest::default()).await?;
        calls += 1;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(calls)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_exactly_as_long_as_told_lets_the_next_call_pass() -> anyhow::Result<()> {
    let (_deployment, replica) = deployed(LOW_LIMIT).await?;
    let caller = replica.server.caller(Some("busy-token"))?;
    for _ in 0..20 {
        let refusal = exhaust(&caller).await?;
        let wait = refusal.retry_after.expect("RetryInfo");
        tokio::time::sleep(wait).await;
        refused(call(&caller).await, Code::NotFound, "MqttInstanceNotFound")?;
    }
    Ok(())
}

/// Sends many calls at once, then one alone, until that one is refused. No other call is
/// then under way, so that the time it is given stays true.
async fn exhaust(caller: &Caller) -> anyhow::Result<Refusal> {
    eventually(Duration::from_secs(20), "a call is refused", async || {
        let calls = (0..2 * BURST).map(|_| call(caller));
        futures::future::join_all(calls).await;
        match call(caller).await {
            Err(status) if status.code() == Code::ResourceExhausted => {
                Refusal::of(&status).map_err(|error| format!("{error:#}"))
            }
            other => Err(format!("the call after them: {other:?}")),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_counts_but_those_of_health_and_reflection() -> anyhow::Result<()> {
    let (_deployment, replica) = deployed(LOW_LIMIT).await?;
    let caller = replica.server.caller(Some("busy-token"))?;
    exhaust(&caller).await?;
    let started = Instant::now();
    for _ in 0..3 * BURST {
        caller.health.clone().check(tonic_health::pb::HealthCheckRequest::default()).await?;
    }
    println!("{} health checks in {:?}", 3 * BURST, started.elapsed());
    // Refused before its fields are looked at.
    exhaust(&caller).await?;
    let request = GetInstanceRequest { mqtt_instance_id: "not.an.id".to_owned() };
    let calls = (0..2 * BURST).map(|_| {
        let (mut client, request) = (caller.instances.clone(), request.clone());
        async move { client.get_instance(request).await }
    });
    let replies = futures::future::join_all(calls).await;
    assert!(replies.iter().any(|r| matches!(r, Err(s) if s.code() == Code::ResourceExhausted)));
    Ok(())
}
