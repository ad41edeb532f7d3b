//! Two replicas: what one hears, the other one answers for and waits for.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use catrust_proto::v1::{
    ActivateCaCertificateRequest, InactivateCaCertificateRequest, WatchPropagationRequest, wait,
};
use catrust_tests::deployment::Plan;
use catrust_tests::instance::TestInstance;
use catrust_tests::process::Signal;
use tonic::Code;

use super::broker::{
    applied, apply_when_there, brokers, counts, publish, reaches, report_applied, wait_for, wire,
};

/// How long a receipt may take to be known everywhere.
const KNOWN: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_to_one_replica_is_known_to_the_other() -> anyhow::Result<()> {
    let deployment = Plan::default().deploy().await?;
    let (a, b) = (deployment.replica("a").await?, deployment.replica("b").await?);
    let at_a = a.instance().await?;
    at_a.new_ca().await?;
    let at_b = TestInstance { caller: b.owner()?, id: at_a.id.clone() };
    report_applied(&at_a, "by-grpc", 1).await?;
    assert_eq!(counts(&reaches(&at_b, 1, [1, 0, 0, 0], KNOWN).await?), [1, 0, 0, 0]);

    // NATS gives each of them to one of the two.
    let nats = wire(&deployment).await?;
    for number in 0..20 {
        publish(&nats, &applied(&at_a, &format!("by-nats-{number:02}"), 1).await?).await?;
    }
    for instance in [&at_a, &at_b] {
        reaches(instance, 1, [21, 0, 0, 0], KNOWN).await?;
    }
    assert_eq!(brokers(&at_a).await?, brokers(&at_b).await?);
    Ok(())
}

/// Without the hint this would take up to a second each: the interval of looking anyway.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_at_one_replica_is_woken_by_receipts_to_the_other() -> anyhow::Result<()> {
    const ROUNDS: u64 = 10;
    let deployment = Plan::default().deploy().await?;
    let (a, b) = (deployment.replica("a").await?, deployment.replica("b").await?);
    let at_a = a.instance().await?;
    let ca = at_a.new_ca().await?;
    let at_b = TestInstance { caller: b.owner()?, id: at_a.id.clone() };
    for name in ["x", "y"] {
        report_applied(&at_b, name, 1).await?;
    }
    let started = Instant::now();
    for round in 1..=ROUNDS {
        let change = async {
            let mut client = at_a.caller.ca.clone();
            let wait = wait_for(wait::Target::AppliedByAll, Duration::from_secs(30));
            let reply = if round % 2 == 1 {
                let request = InactivateCaCertificateRequest { wait, ..at_a.inactivation(&ca.sn) };
                client.inactivate_ca_certificate(request).await?.into_inner().propagation
            } else {
                let request = ActivateCaCertificateRequest { wait, ..at_a.activation(&ca.sn) };
                client.activate_ca_certificate(request).await?.into_inner().propagation
            };
            anyhow::Ok(reply)
        };
        let (reply, said) = tokio::join!(change, apply_when_there(&at_b, &["x", "y"], round + 1));
        said?;
        let found = reply?.context("a wait without an answer")?;
        assert_eq!((found.revision, counts(&found)), (round + 1, [2, 0, 0, 0]));
    }
    let average = started.elapsed() / u32::try_from(ROUNDS)?;
    println!("change, receipts at the other replica, answer: {average:?} on average");
    assert!(average < Duration::from_millis(500), "{average:?}: the hint does not work");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_server_ends_watches_and_answers_who_waits() -> anyhow::Result<()> {
    let deployment = Plan { nats: None, ..Plan::default() }.deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    let ca = instance.new_ca().await?;
    report_applied(&instance, "b", 1).await?;
    let waiting = tokio::spawn({
        let wait = wait_for(wait::Target::AppliedByAll, Duration::from_secs(60));
        let request = InactivateCaCertificateRequest { wait, ..instance.inactivation(&ca.sn) };
        let mut client = instance.caller.ca.clone();
        async move { client.inactivate_ca_certificate(request).await }
    });
    apply_when_there(&instance, &[], 2).await?;
    let request = WatchPropagationRequest { mqtt_instance_id: instance.id.clone(), revision: 2 };
    let mut stream = instance.caller.fleet.clone().watch_propagation(request).await?.into_inner();
    assert!(stream.message().await?.is_some());

    replica.server.signal(Signal::TERM);
    let answered = tokio::time::timeout(Duration::from_secs(10), waiting).await???.into_inner();
    assert!(answered.changed);
    let found = answered.propagation.context("a wait without an answer")?;
    assert_eq!((counts(&found), found.pending_broker_ids), ([0, 1, 0, 0], vec!["b".to_owned()]));
    let end = tokio::time::timeout(Duration::from_secs(10), stream.message()).await?;
    assert_eq!(end.map_err(|status| status.code()), Err(Code::Unavailable));
    let status = replica.server.ended(Duration::from_secs(15)).await?;
    assert!(status.success(), "{status}");
    Ok(())
}
