//! NATS away, emptied, rolled back, ahead: the stream comes back by itself, and
//! nothing else waits for it.

use std::time::Duration;

use catrust_proto::v1::CaCertificateState;
use catrust_tests::deployment::{Deployment, Plan, Replica};
use catrust_tests::eventually::eventually;
use catrust_tests::foreign::newer_nats;
use catrust_tests::nats::Version;

use super::nats::{agrees_with_log, agrees_within, change_a_little};
use super::watch::Watch;

async fn deployed(version: Version) -> anyhow::Result<(Deployment, Replica)> {
    let deployment = Plan { nats: Some(version), ..Plan::default() }.deploy().await?;
    let replica = deployment.replica("a").await?;
    Ok((deployment, replica))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_and_watches_go_on_while_nats_is_away() -> anyhow::Result<()> {
    let (mut deployment, replica) = deployed(Version::Installed).await?;
    let instance = replica.instance().await?;
    let ca = instance.new_ca().await?;
    agrees_with_log(deployment.nats(), &deployment.postgres).await?;
    let mut watch = Watch::open(&instance, None).await?;
    watch.next_bundle().await?;

    deployment.nats_mut().kill();
    for round in 0..20 {
        instance.inactivate(&ca.sn).await?;
        assert_eq!(watch.next_change().await?.revision, 2 * round + 2);
        instance.activate(&ca.sn).await?;
        assert_eq!(watch.next_change().await?.revision, 2 * round + 3);
    }
    assert_eq!(instance.get(&ca.sn).await?.state(), CaCertificateState::Active);
    deployment.nats_mut().restart().await?;
    agrees_with_log(deployment.nats(), &deployment.postgres).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_starts_without_nats_and_publishes_later() -> anyhow::Result<()> {
    let mut deployment = Plan::default().deploy().await?;
    deployment.nats_mut().kill();
    let replica = deployment.replica("a").await?;
    change_a_little(&replica.instance().await?).await?;
    deployment.nats_mut().restart().await?;
    agrees_with_log(deployment.nats(), &deployment.postgres).await?;
    Ok(())
}

async fn a_wiped_stream_is_rebuilt_on(version: Version) -> anyhow::Result<()> {
    let (mut deployment, replica) = deployed(version).await?;
    let instance = replica.instance().await?;
    change_a_little(&instance).await?;
    let before = agrees_with_log(deployment.nats(), &deployment.postgres).await?;
    deployment.nats_mut().wipe().await?;
    change_a_little(&instance).await?;
    let after = agrees_with_log(deployment.nats(), &deployment.postgres).await?;
    assert!(after > before);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_stream_is_rebuilt_on_the_nats_of_debian() -> anyhow::Result<()> {
    a_wiped_stream_is_rebuilt_on(Version::Installed).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_stream_is_rebuilt_on_a_newer_nats() -> anyhow::Result<()> {
    a_wiped_stream_is_rebuilt_on(Version::At(newer_nats()?)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_lost_its_tail_gets_it_again() -> anyhow::Result<()> {
    let (mut deployment, replica) = deployed(Version::Installed).await?;
    let instance = replica.instance().await?;
    change_a_little(&instance).await?;
    let kept = agrees_with_log(deployment.nats(), &deployment.postgres).await?;
    let backup = deployment.nats_mut().back_up().await?;
    change_a_little(&instance).await?;
    agrees_with_log(deployment.nats(), &deployment.postgres).await?;
    deployment.nats_mut().roll_back(&backup).await?;
    // With no further call: an idle server notices, too.
    let whole = agrees_with_log(deployment.nats(), &deployment.postgres).await?;
    assert!(whole > kept);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_somebody_else_wrote_into_is_rebuilt_and_told() -> anyhow::Result<()> {
    let (deployment, replica) = deployed(Version::Installed).await?;
    let instance = replica.instance().await?;
    change_a_little(&instance).await?;
    agrees_with_log(deployment.nats(), &deployment.postgres).await?;
    let context = async_nats::jetstream::new(deployment.nats().client().await?);
    let mut certificates = Vec::new();
    for _ in 0..16 {
        certificates.push(instance.new_ca().await?.sn);
    }
    agrees_with_log(deployment.nats(), &deployment.postgres).await?;
    context.publish("catrust.v1.log.forged.InstanceRegistered", "{}".into()).await?.await?;
    // Many at once, so that the publisher has several in flight: the second of them
    // finds the sequence that it expects right behind the forged one.
    futures::future::try_join_all(certificates.iter().map(|sn| instance.inactivate(sn))).await?;
    eventually(Duration::from_secs(60), "the forged message is gone", async || {
        let agrees = agrees_within(deployment.nats(), &deployment.postgres, Duration::from_secs(5)).await;
        agrees.map_err(|error| format!("{error:#}"))
    })
    .await?;
    let said = replica.server.output().text();
    assert!(said.contains("WARN") || said.contains("ERROR"), "it says so in the log:\n{said}");
    Ok(())
}
