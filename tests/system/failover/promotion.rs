//! The standby that has every commit is promoted after the primary is gone.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use catrust_proto::v1::CaCertificateState;
use catrust_tests::broker::{Broker, Device};
use catrust_tests::certificates::Ca;
use catrust_tests::eventually::eventually;
use catrust_tests::instance::TestInstance;
use tokio::time::timeout;

use super::pair::Pair;
use crate::crash::{all_unavailable, insist};
use crate::feed::nats::agrees_with_log;

/// From the promotion until changes are taken and reads are answered again.
const BACK_WITHIN: Duration = Duration::from_secs(10);
/// How long a device may take to be let in, and to be cut.
const ENFORCED: Duration = Duration::from_secs(10);

/// Flips a CA for as long as `load`; gives its serial number, whether it is off, and the positions
/// that were acknowledged, each with when.
async fn flip(instance: TestInstance, load: Duration) -> anyhow::Result<(String, bool, Vec<(u64, Instant)>)> {
    let ca = instance.new_ca().await?;
    let (started, mut off, mut acknowledged) = (Instant::now(), false, Vec::new());
    while started.elapsed() < load {
        off = !off;
        let (position, refusals) = insist(&instance, &ca.sn, off).await?;
        all_unavailable(&refusals)?;
        acknowledged.push((position, Instant::now()));
    }
    Ok((ca.sn, off, acknowledged))
}

/// Ground rule 19: another server is found without a restart; ground rule 17: what is signed as
/// current after it is. Nothing that was acknowledged is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_promotion_of_a_synchronous_standby_under_load_loses_nothing() -> anyhow::Result<()> {
    let mut pair = Pair::deploy().await?;
    let (first, second) = (pair.instances[0].clone(), pair.instances[1].clone());
    let servers = Ca::root("the broker's CA")?;
    let ca = first.new_ca().await?;
    let gate = Broker::gate(&pair.deployment, &pair.replicas[0], &first.id, &servers).await?;
    let device = Device::new("device", &ca, &servers)?;
    let session = eventually(ENFORCED, "the device is let in", async || {
        device.connect(&gate.address).await.map_err(|error| error.to_string())
    })
    .await?;

    let load = Duration::from_secs(12);
    let callers: Vec<_> =
        (0..8).map(|n| tokio::spawn(flip([&first, &second][n % 2].clone(), load))).collect();
    tokio::time::sleep(Duration::from_secs(3)).await;
    pair.deployment.postgres.kill();
    pair.standby.promote().await?;
    let promoted = Instant::now();
    let (read_first, read_second) = tokio::join!(
        eventually(BACK_WITHIN, "the first replica reads", async || first.get(&ca.sn).await),
        eventually(BACK_WITHIN, "the second replica reads", async || second.get(&ca.sn).await),
    );
    read_first.and(read_second)?;
    // What is turned off now comes to the gate through all of it.
    insist(&second, &ca.sn, true).await?;
    assert!(promoted.elapsed() < BACK_WITHIN, "a change took {:?}", promoted.elapsed());
    timeout(ENFORCED, session.closed()).await.context("the gate does not follow")?;

    let mut all = Vec::new();
    for caller in futures::future::join_all(callers).await {
        let (sn, off, acknowledged) = caller??;
        let after = acknowledged.iter().find(|(_, at)| *at > promoted).context("nothing after it")?;
        assert!(after.1 - promoted < BACK_WITHIN, "a caller waited {:?}", after.1 - promoted);
        let before = acknowledged.iter().filter(|(_, at)| *at < promoted).count();
        assert!(before > 0, "no load before it");
        all.extend(acknowledged.into_iter().map(|(position, _)| position));
        let expected = if off { CaCertificateState::Inactive } else { CaCertificateState::Active };
        for instance in [&first, &second] {
            assert_eq!(instance.get(&sn).await?.state(), expected);
        }
    }
    all.sort_unstable();
    let count = all.len();
    all.dedup();
    assert_eq!(all.len(), count, "no position was told twice");
    // Both sign again, and neither took it for a set-back.
    for instance in [&first, &second] {
        eventually(BACK_WITHIN, "a bundle is signed", async || instance.bundle().await).await?;
    }
    std::mem::swap(&mut pair.deployment.postgres, &mut pair.standby);
    pair.deployment.command(&["verify"]).await?.success()?;
    let head = agrees_with_log(pair.deployment.nats(), &pair.deployment.postgres).await?;
    assert!(all.last().is_some_and(|last| *last <= head));
    println!("{count} changes acknowledged, head {head}");
    Ok(())
}
