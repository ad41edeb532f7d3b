//! A signing key that changes in the middle of the stream.

use std::time::Duration;

use catrust_proto::v1::{KeySet, TrustBundle};
use catrust_tests::deployment::Replica;
use catrust_tests::eventually::eventually;
use catrust_tests::instance::TestInstance;
use catrust_tests::process::Signal;
use catrust_tests::program::free_port;

use super::desk::Desk;
use super::site::{Kind, Regular, SOON, Site};
use crate::feed::nats::agrees_with_log;

/// Waits until a replica hands out `version`.
pub async fn takes(replica: &Replica, version: u64) -> anyhow::Result<()> {
    let text = format!("a newer key set is in force version={version} ");
    eventually(SOON, &text, async || {
        let said = replica.server.output().text();
        if said.contains(&text) { Ok(()) } else { Err(format!("it has said:\n{said}")) }
    })
    .await
}

async fn stop(replica: Replica) -> anyhow::Result<()> {
    replica.server.signal(Signal::TERM);
    replica.server.ended(SOON).await.map(drop)
}

/// Two replicas, one after the other from the old key to the new one, under traffic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_never_loses_trust_and_the_stream_is_not_rebuilt() -> anyhow::Result<()> {
    let desk = Desk::new().await?;
    let (old, new) = (desk.key("old").await?, desk.key("new").await?);
    desk.vouch("keys.json", &["--add", "old.pub.pem"]).await?;
    let mut deployment = desk.deploy().await?;
    let (first_port, second_port) = (free_port()?, free_port()?);
    let first = desk.replica_on(&deployment, ("old", "keys.json"), first_port).await?;
    let second = desk.replica_on(&deployment, ("old", "keys.json"), second_port).await?;
    // Budgets for a machine that is busy with other tests: what is tested is whom the agent
    // believes, not how fast a replica starts.
    let others = format!("http://127.0.0.1:{second_port}");
    deployment.agent_arguments = ["--soft-budget", "60", "--server", &others].map(str::to_owned).to_vec();
    let site = Site::new(&deployment, &first, Kind::Gate).await?;
    let session = site.admits(&site.steady).await?;
    let regular = Regular::begin(&site);
    site.switches(&first).await?;

    desk.vouch("keys.json", &["--add", "new.pub.pem"]).await?;
    takes(&first, 2).await?;
    takes(&second, 2).await?;
    site.agent_says("a newer key set is in force version=2 ").await?;
    stop(second).await?;
    let second = desk.replica_on(&deployment, ("new", "keys.json"), second_port).await?;
    // One signs with the old key, the other with the new one.
    site.switches(&first).await?;
    site.switches(&second).await?;
    agrees_with_log(deployment.nats(), &deployment.postgres).await?;
    stop(first).await?;
    site.switches(&second).await?;
    let first = desk.replica_on(&deployment, ("new", "keys.json"), first_port).await?;
    site.switches(&first).await?;

    desk.vouch("keys.json", &["--drop", &old]).await?;
    takes(&first, 3).await?;
    takes(&second, 3).await?;
    site.agent_says("a newer key set is in force version=3 ").await?;
    site.switches(&second).await?;
    agrees_with_log(deployment.nats(), &deployment.postgres).await?;

    let times = regular.end().await?;
    assert!(times > 20, "{times} connections are too few to tell");
    site.agent_was_content()?;
    for replica in [&first, &second] {
        let said = replica.server.output().text();
        assert!(!said.contains("filling it again"), "the stream was rebuilt:\n{said}");
    }
    // The session of before the rotation is alive, and goes with its agent.
    let closed = tokio::spawn(session.closed());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!closed.is_finished());

    // On disk there is nothing left by the old key.
    let state = site.broker.gate_state();
    eventually(SOON, "the bundle on disk is by the new key", async || {
        let read = |name: &str| std::fs::read_to_string(state.join(name)).map_err(|error| error.to_string());
        let bundle: TrustBundle = serde_json::from_str(&read("bundle.json")?).map_err(|e| e.to_string())?;
        let set: KeySet = serde_json::from_str(&read("keys.json")?).map_err(|e| e.to_string())?;
        let by = bundle.signature.map(|signature| signature.key_id).unwrap_or_default();
        let changes = read("changes.jsonl")?;
        let done = set.version == 3 && by == new && !changes.contains(&old);
        if done {
            Ok(())
        } else {
            Err(format!("version {}, bundle by {by}, changes {changes:?}", set.version))
        }
    })
    .await?;

    // A cold start without anybody to ask.
    let instance = TestInstance { caller: first.owner()?, id: site.instance.id.clone() };
    instance.inactivate(&site.switched_sn).await?;
    site.refuses(&site.switched).await?;
    deployment.nats_mut().kill();
    first.server.kill();
    second.server.kill();
    let Site { broker, instance, steady, switched, switched_sn } = site;
    let broker = broker.restarted_gate(&deployment, &first, &instance.id).await?;
    let site = Site { broker, instance, steady, switched, switched_sn };
    site.admits(&site.steady).await?;
    assert!(site.switched.connect(&site.broker.address).await.is_err());
    Ok(())
}

/// The plugin inside Mosquitto hears of trust alone; its driver believes whom it should.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mosquitto_goes_on_with_the_new_key() -> anyhow::Result<()> {
    let desk = Desk::new().await?;
    let old = desk.key("old").await?;
    desk.key("new").await?;
    desk.vouch("keys.json", &["--add", "old.pub.pem", "--add", "new.pub.pem"]).await?;
    let mut deployment = desk.deploy().await?;
    deployment.agent_arguments = ["--soft-budget", "60"].map(str::to_owned).to_vec();
    let port = free_port()?;
    let replica = desk.replica_on(&deployment, ("old", "keys.json"), port).await?;
    let site = Site::new(&deployment, &replica, Kind::Mosquitto).await?;
    site.switches(&replica).await?;
    stop(replica).await?;
    let replica = desk.replica_on(&deployment, ("new", "keys.json"), port).await?;
    site.switches(&replica).await?;
    desk.vouch("keys.json", &["--revoke", &old]).await?;
    takes(&replica, 2).await?;
    site.agent_says("a newer key set is in force version=2 ").await?;
    site.switches(&replica).await?;
    site.agent_was_content()
}
