//! Waiting for the brokers, on both ways to run catrust. The change is committed first,
//! and the call succeeds whatever the brokers do.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use catrust_proto::v1::{
    CaCertificateState, DeleteCaCertificateRequest, InactivateCaCertificateRequest,
    InactivateCaCertificateResponse, Propagation, Wait, wait,
};
use catrust_tests::certificates::request_id;
use catrust_tests::client::{refused as refused_call, refused_field};
use catrust_tests::deployment::Plan;
use catrust_tests::instance::TestInstance;
use futures::future::join_all;
use tonic::{Code, Request, Status};

use super::broker::{applied, apply_when_there, counts, refused, report, report_applied, wait_for};
use crate::site::{Site, on_both_sites};

on_both_sites!(
    nobody_is_waited_for_where_there_are_no_brokers,
    a_wait_for_all_ends_when_all_have_applied,
    a_wait_for_a_quorum_ends_at_more_than_half,
    when_time_is_up_the_call_succeeds_and_names_who_is_missing,
    an_unchanged_inactivation_waits_too,
    a_repetition_waits_anew_and_may_wait_otherwise,
    every_change_can_wait,
    the_callers_deadline_ends_the_wait_in_time_for_the_answer,
    a_wait_without_sense_is_refused_before_anything_changes,
);

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(300);
/// Well below `LONG`: the wait was ended by what it waited for.
const SOON: Duration = Duration::from_secs(10);

async fn inactivate(
    instance: &TestInstance,
    sn: &str,
    wait: Option<Wait>,
) -> Result<InactivateCaCertificateResponse, Status> {
    let request = InactivateCaCertificateRequest { wait, ..instance.inactivation(sn) };
    Ok(instance.caller.ca.clone().inactivate_ca_certificate(request).await?.into_inner())
}

fn found(reply: InactivateCaCertificateResponse) -> anyhow::Result<Propagation> {
    reply.propagation.context("a wait without an answer")
}

/// An instance at revision 1 with brokers that have applied it, and its certificate.
async fn fleet(site: &Site, brokers: &[&str]) -> anyhow::Result<(TestInstance, String)> {
    let instance = site.instance().await?;
    let ca = instance.new_ca().await?;
    for name in brokers {
        report_applied(&instance, name, 1).await?;
    }
    Ok((instance, ca.sn))
}

async fn nobody_is_waited_for_where_there_are_no_brokers(site: &Site) -> anyhow::Result<()> {
    for target in [wait::Target::AppliedByAll, wait::Target::AppliedByQuorum] {
        let (instance, sn) = fleet(site, &[]).await?;
        let started = Instant::now();
        let reply = inactivate(&instance, &sn, wait_for(target, LONG)).await?;
        assert!(reply.changed && started.elapsed() < SOON);
        let found = found(reply)?;
        assert_eq!((found.revision, counts(&found)), (2, [0; 4]));
    }
    Ok(())
}

async fn a_wait_for_all_ends_when_all_have_applied(site: &Site) -> anyhow::Result<()> {
    let (instance, sn) = fleet(site, &["a", "b", "c"]).await?;
    let started = Instant::now();
    let wait = wait_for(wait::Target::AppliedByAll, LONG);
    let others = async {
        apply_when_there(&instance, &["c"], 2).await?;
        // A refusal is no end: the broker does better with the next bundle.
        report(&instance, &refused(&instance, "a", 2, "not now")).await?;
        report_applied(&instance, "b", 2).await?;
        instance.get(&sn).await?;
        report_applied(&instance, "a", 2).await
    };
    let (reply, said) = tokio::join!(inactivate(&instance, &sn, wait), others);
    said?;
    assert_eq!(counts(&found(reply?)?), [3, 0, 0, 0]);
    assert!(started.elapsed() < SOON);
    Ok(())
}

async fn a_wait_for_a_quorum_ends_at_more_than_half(site: &Site) -> anyhow::Result<()> {
    let (instance, sn) = fleet(site, &["a", "b", "c", "d"]).await?;
    report_applied(&instance, "a", 1).await?;
    let half = inactivate(&instance, &sn, wait_for(wait::Target::AppliedByQuorum, SHORT));
    let (half, said) = tokio::join!(half, apply_when_there(&instance, &["a", "b"], 2));
    said?;
    assert_eq!(counts(&found(half?)?), [2, 2, 0, 0], "half is no quorum: the time was up");
    let started = Instant::now();
    let more = inactivate(&instance, &sn, wait_for(wait::Target::AppliedByQuorum, LONG));
    let (more, said) = tokio::join!(more, report_applied(&instance, "d", 2));
    said?;
    let more = found(more?)?;
    assert_eq!((counts(&more), more.pending_broker_ids), ([3, 1, 0, 0], vec!["c".to_owned()]));
    assert!(started.elapsed() < SOON);
    Ok(())
}

async fn when_time_is_up_the_call_succeeds_and_names_who_is_missing(site: &Site) -> anyhow::Result<()> {
    let (instance, sn) = fleet(site, &["quick", "slow", "unwilling", "other"]).await?;
    let wait = wait_for(wait::Target::AppliedByAll, Duration::from_secs(2));
    let others = async {
        apply_when_there(&instance, &["quick"], 2).await?;
        report(&instance, &refused(&instance, "unwilling", 2, "no")).await?;
        let mut wrong = applied(&instance, "other", 2).await?;
        wrong.bundle_digest = "0".repeat(64);
        anyhow::Ok(report(&instance, &wrong).await?)
    };
    let started = Instant::now();
    let (reply, said) = tokio::join!(inactivate(&instance, &sn, wait), others);
    said?;
    let reply = reply?;
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
    assert!(reply.changed);
    assert_eq!(instance.get(&sn).await?.state(), CaCertificateState::Inactive);
    let found = found(reply)?;
    assert_eq!((found.revision, counts(&found)), (2, [1, 1, 2, 0]));
    assert_eq!(found.pending_broker_ids, ["slow"]);
    assert_eq!(found.refused_broker_ids, ["other", "unwilling"]);
    Ok(())
}

async fn an_unchanged_inactivation_waits_too(site: &Site) -> anyhow::Result<()> {
    let (instance, sn) = fleet(site, &["b"]).await?;
    instance.inactivate(&sn).await?;
    instance.new_ca().await?;
    let wait = wait_for(wait::Target::AppliedByAll, SHORT);
    let started = Instant::now();
    let reply = inactivate(&instance, &sn, wait).await?;
    assert!(!reply.changed && started.elapsed() >= SHORT);
    let late = found(reply)?;
    assert_eq!((late.revision, counts(&late)), (2, [0, 1, 0, 0]), "the revision that made the state");
    report_applied(&instance, "b", 2).await?;
    let reply = inactivate(&instance, &sn, wait_for(wait::Target::AppliedByAll, LONG)).await?;
    assert_eq!(counts(&found(reply)?), [1, 0, 0, 0]);
    Ok(())
}

async fn a_repetition_waits_anew_and_may_wait_otherwise(site: &Site) -> anyhow::Result<()> {
    let (instance, sn) = fleet(site, &["b"]).await?;
    let mut client = instance.caller.ca.clone();
    let mut request = InactivateCaCertificateRequest {
        wait: wait_for(wait::Target::AppliedByAll, SHORT),
        request_id: request_id(),
        ..instance.inactivation(&sn)
    };
    let first = client.inactivate_ca_certificate(request.clone()).await?.into_inner();
    assert_eq!(counts(&found(first.clone())?), [0, 1, 0, 0]);
    // Somebody else's change in between does not move what is waited for.
    instance.activate(&sn).await?;
    request.wait = wait_for(wait::Target::AppliedByQuorum, LONG);
    let again = client.inactivate_ca_certificate(request.clone());
    let (again, said) = tokio::join!(again, report_applied(&instance, "b", 2));
    said?;
    let again = again?.into_inner();
    assert!(again.changed, "the stored reply");
    assert_eq!((again.position, again.revision), (first.position, 2));
    assert_eq!(counts(&found(again)?), [1, 0, 0, 0], "and a fresh propagation");
    request.wait = None;
    let unwaited = client.inactivate_ca_certificate(request.clone()).await?.into_inner();
    assert_eq!(unwaited.propagation, None);
    request.reason = "another one".to_owned();
    refused_call(client.inactivate_ca_certificate(request).await, Code::InvalidArgument, "RequestIdReused")?;
    Ok(())
}

async fn every_change_can_wait(site: &Site) -> anyhow::Result<()> {
    let (instance, sn) = fleet(site, &["b"]).await?;
    let mut client = instance.caller.ca.clone();
    instance.inactivate(&sn).await?;
    let mut activation = instance.activation(&sn);
    activation.wait = wait_for(wait::Target::AppliedByAll, LONG);
    let activated = client.activate_ca_certificate(activation);
    let (activated, said) = tokio::join!(activated, apply_when_there(&instance, &["b"], 3));
    said?;
    let found = activated?.into_inner().propagation.context("a wait without an answer")?;
    assert_eq!((found.revision, counts(&found)), (3, [1, 0, 0, 0]));
    let mut client = instance.caller.ca.clone();
    let deleted = client.delete_ca_certificate(DeleteCaCertificateRequest {
        mqtt_instance_id: instance.id.clone(),
        sn,
        wait: wait_for(wait::Target::AppliedByAll, LONG),
        ..Default::default()
    });
    let (deleted, said) = tokio::join!(deleted, apply_when_there(&instance, &["b"], 4));
    said?;
    let found = deleted?.into_inner().propagation.context("a wait without an answer")?;
    assert_eq!((found.revision, counts(&found)), (4, [1, 0, 0, 0]));
    Ok(())
}

async fn the_callers_deadline_ends_the_wait_in_time_for_the_answer(site: &Site) -> anyhow::Result<()> {
    let (instance, sn) = fleet(site, &["b"]).await?;
    let deadline = Duration::from_secs(2);
    let wait = wait_for(wait::Target::AppliedByAll, LONG);
    let request = InactivateCaCertificateRequest { wait, ..instance.inactivation(&sn) };
    let mut request = Request::new(request);
    request.set_timeout(deadline);
    let started = Instant::now();
    let reply = instance.caller.ca.clone().inactivate_ca_certificate(request).await?.into_inner();
    let took = started.elapsed();
    assert!(took > deadline / 2 && took < deadline, "{took:?}");
    assert_eq!(counts(&found(reply)?), [0, 1, 0, 0]);
    Ok(())
}

async fn a_wait_without_sense_is_refused_before_anything_changes(site: &Site) -> anyhow::Result<()> {
    let (instance, sn) = fleet(site, &[]).await?;
    let all = wait::Target::AppliedByAll.into();
    let seconds = |seconds, nanos| Some(pbjson_types::Duration { seconds, nanos });
    for (wait, field) in [
        (Wait { target: 9, timeout: None }, "wait.target"),
        (Wait { target: all, timeout: seconds(61, 0) }, "wait.timeout"),
        (Wait { target: all, timeout: seconds(0, 999_999) }, "wait.timeout"),
        (Wait { target: all, timeout: seconds(-1, 0) }, "wait.timeout"),
    ] {
        refused_field(inactivate(&instance, &sn, Some(wait)).await, field)?;
    }
    assert_eq!(instance.get(&sn).await?.state(), CaCertificateState::Active);
    let reply = inactivate(&instance, &sn, Some(Wait::default())).await?;
    assert!(reply.changed && reply.propagation.is_none(), "an unspecified target does not wait");
    Ok(())
}

/// `grpc.default_deadline_ms` is for calls that bring none, and would cut a longer wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_servers_default_deadline_makes_way_for_a_wait() -> anyhow::Result<()> {
    let plan = Plan { nats: None, ..Plan::default() }.set("grpc.default_deadline_ms", "500");
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    let ca = instance.new_ca().await?;
    report_applied(&instance, "b", 1).await?;
    let wait = wait_for(wait::Target::AppliedByAll, Duration::from_secs(2));
    let started = Instant::now();
    let reply = inactivate(&instance, &ca.sn, wait).await?;
    assert!(started.elapsed() >= Duration::from_secs(2));
    assert_eq!(counts(&found(reply)?), [0, 1, 0, 0]);
    Ok(())
}

/// Of eight places two may wait: others are answered at once, and other calls have room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_calls_never_take_the_places_of_the_others() -> anyhow::Result<()> {
    let plan = Plan { nats: None, ..Plan::default() }.set("grpc.max_concurrent_requests", "8");
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    let mut sns = Vec::new();
    for _ in 0..3 {
        sns.push(instance.new_ca().await?.sn);
    }
    report_applied(&instance, "b", 3).await?;
    let wait = || wait_for(wait::Target::AppliedByAll, LONG);
    let waiting = join_all(sns[..2].iter().map(|sn| inactivate(&instance, sn, wait())));
    let others = async {
        apply_when_there(&instance, &[], 5).await?;
        let started = Instant::now();
        let third = inactivate(&instance, &sns[2], wait()).await?;
        assert!(third.changed && started.elapsed() < SOON, "it does not wait");
        assert_eq!(counts(&found(third)?), [0, 1, 0, 0]);
        for _ in 0..20 {
            instance.bundle().await?;
        }
        report_applied(&instance, "b", 6).await
    };
    let started = Instant::now();
    let (waited, said) = tokio::join!(waiting, others);
    said?;
    for reply in waited {
        assert_eq!(counts(&found(reply?)?), [1, 0, 0, 0]);
    }
    assert!(started.elapsed() < SOON);
    Ok(())
}
