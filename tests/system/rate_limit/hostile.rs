//! Gossip from those who should not send it, and gossip of yesterday.

use std::time::Duration;

use anyhow::Context as _;
use catrust_tests::deployment::{ACCOUNT, Deployment, Identity, Plan, Replica};
use catrust_tests::eventually::eventually;
use futures::StreamExt as _;

use super::load::metric;

const SUBJECT: &str = "catrust.v1.internal.spending";
/// Large compared with the rate of 2 per second: what a message takes out of a bucket is
/// still missing when the test looks.
const BURST: u32 = 20;

async fn deployed() -> anyhow::Result<(Deployment, [Replica; 2])> {
    let plan = Plan::default()
        .identity(Identity::with_token("user", ACCOUNT, &["mq:*"]))
        .set("rate_limit.per_user_per_second", "2")
        .set("rate_limit.burst", &BURST.to_string());
    let deployment = plan.deploy().await?;
    let replicas = [deployment.replica("a").await?, deployment.replica("b").await?];
    for replica in &replicas {
        hears(replica, 2.0).await?;
    }
    Ok((deployment, replicas))
}

async fn hears(replica: &Replica, wanted: f64) -> anyhow::Result<()> {
    eventually(Duration::from_secs(20), "the replicas hear each other", async || {
        match metric(replica, "catrust_rate_limiter_replicas", "heard").await {
            Ok(heard) if heard >= wanted => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

async fn gossip(replica: &Replica, outcome: &str) -> anyhow::Result<f64> {
    metric(replica, "catrust_rate_limiter_gossip_total", &format!("outcome=\"{outcome}\"")).await
}

/// Calls that would pass at once, as the reply to one says.
async fn remaining(replica: &Replica) -> anyhow::Result<u32> {
    let user = replica.server.caller(Some("user"))?;
    let request = catrust_proto::v1::GetInstanceRequest { mqtt_instance_id: "absent".to_owned() };
    let refused = user.instances.clone().get_instance(request).await.expect_err("there is no such instance");
    let standing = refused.metadata().get("ratelimit").context("no standing")?.to_str()?.to_owned();
    let found = standing.split(';').find_map(|part| part.strip_prefix("r=")).context("no r")?;
    Ok(found.parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_huge_and_recorded_messages_charge_nobody() -> anyhow::Result<()> {
    let (deployment, [a, b]) = deployed().await?;
    let nats = deployment.nats().client().await?;
    let mut wire = nats.subscribe(SUBJECT).await?;
    // News of five calls at `a`, recorded on their way to `b`.
    for _ in 0..5 {
        remaining(&a).await?;
    }
    let mut recorded = Vec::new();
    while recorded.len() < 40 {
        let message = tokio::time::timeout(Duration::from_secs(10), wire.next()).await?;
        recorded.push(message.context("the wire ended")?.payload);
    }
    eventually(Duration::from_secs(20), "the bucket of `b` is empty again", async || {
        // Looking spends a call, so look rarely: more drains in between.
        tokio::time::sleep(Duration::from_secs(3)).await;
        match remaining(&b).await {
            Ok(found) if found == BURST - 1 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;

    let hostile = [vec![], vec![0; 31], vec![0xff; 64], vec![0; 900_000], b"{\"users\":[1]}".to_vec()];
    let invalid = gossip(&b, "invalid").await? + hostile.len() as f64;
    let repeated = gossip(&b, "repeated").await?;
    for message in hostile {
        nats.publish(SUBJECT, message.into()).await?;
    }
    for message in &recorded {
        nats.publish(SUBJECT, message.clone()).await?;
    }
    nats.flush().await?;
    eventually(Duration::from_secs(10), "all of it is seen for what it is", async || {
        match (gossip(&b, "invalid").await, gossip(&b, "repeated").await) {
            (Ok(found), Ok(seen)) if found == invalid && seen >= repeated + 10.0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    // Two calls at most were taken out: this one, and the one before unless it has drained.
    assert!(remaining(&b).await? >= BURST - 2);
    assert_eq!(metric(&b, "catrust_rate_limiter_share", "").await?, 1.0);

    // Their sender has gone: it does not answer a replica that was started later.
    drop(b);
    let c = deployment.replica("c").await?;
    hears(&c, 2.0).await?;
    let unanswering = gossip(&c, "unanswering").await?;
    for message in &recorded {
        nats.publish(SUBJECT, message.clone()).await?;
    }
    nats.flush().await?;
    eventually(Duration::from_secs(10), "the recorded ones have come", async || {
        match (gossip(&c, "unanswering").await, gossip(&c, "repeated").await) {
            (Ok(found), Ok(seen)) if found + seen >= unanswering + 30.0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    assert!(remaining(&c).await? >= BURST - 2);
    let known = metric(&c, "catrust_rate_limiter_replicas", "known").await?;
    assert_eq!(known, 2.0, "a dead replica is not raised");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_replica_admits_the_other_one_knows() -> anyhow::Result<()> {
    let (_deployment, [a, b]) = deployed().await?;
    let spent = BURST * 3 / 4;
    for _ in 0..spent {
        remaining(&a).await?;
    }
    // Looking spends a call, so look seldom enough that the looks alone cannot empty `b`.
    let mut looks = 0;
    eventually(Duration::from_secs(5), "`b` has heard of the calls at `a`", async || {
        looks += 1;
        match remaining(&b).await {
            Ok(found) if found <= BURST - spent && looks < BURST / 2 => Ok(()),
            other => Err(format!("{other:?} at look {looks}")),
        }
    })
    .await
}
