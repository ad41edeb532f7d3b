//! Keys and sets whose time is over, or that are taken back.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use catrust_tests::deployment::Deployment;
use catrust_tests::instance::TestInstance;
use catrust_tests::nats::STREAM;
use catrust_tests::program::free_port;

use super::desk::{Desk, from_now};
use super::rotation::takes;
use super::site::{Kind, SOON, Site};
use crate::feed::nats::agrees_with_log;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_set_lets_nobody_new_in_and_cuts_nobody() -> anyhow::Result<()> {
    let desk = Desk::new().await?;
    desk.key("event").await?;
    desk.vouch("keys.json", &["--add", "event.pub.pem"]).await?;
    let mut deployment = desk.deploy().await?;
    deployment.agent_arguments = ["--clock-skew", "0.5", "--soft-budget", "60"].map(str::to_owned).to_vec();
    let replica = desk.replica(&deployment, "event", "keys.json").await?;
    let site = Site::new(&deployment, &replica, Kind::Gate).await?;
    let session = site.admits(&site.steady).await?;
    let soon = from_now(Duration::from_secs(12))?;
    desk.vouch("keys.json", &["--expires-at", &soon]).await?;
    site.agent_says("a newer key set is in force version=2 ").await?;
    site.admits(&site.steady).await?;

    site.refuses(&site.steady).await?;
    site.agent_says("key_set_expired").await?;
    // The server goes on with what it has, and says that something is wrong.
    assert!(replica.server.output().text().contains("expires soon"));
    let alive = tokio::spawn(session.closed());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!alive.is_finished(), "a session of before was cut");
    assert!(site.steady.connect(&site.broker.address).await.is_err());

    desk.vouch("keys.json", &[]).await?;
    takes(&replica, 3).await?;
    site.admits(&site.steady).await?;
    Ok(())
}

/// The key in use is stolen, and there was no time to rotate: as `deploy/README.md` says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_key_in_use_is_replaced_in_one_step_and_the_stream_is_signed_again() -> anyhow::Result<()> {
    let desk = Desk::new().await?;
    let stolen = desk.key("stolen").await?;
    let next = desk.key("next").await?;
    desk.vouch("keys.json", &["--add", "stolen.pub.pem"]).await?;
    let mut deployment = desk.deploy().await?;
    deployment.agent_arguments = ["--soft-budget", "60"].map(str::to_owned).to_vec();
    let port = free_port()?;
    let replica = desk.replica_on(&deployment, ("stolen", "keys.json"), port).await?;
    let site = Site::new(&deployment, &replica, Kind::Gate).await?;
    site.switches(&replica).await?;
    let session = tokio::spawn(site.admits(&site.steady).await?.closed());
    desk.vouch("keys.json", &["--add", "next.pub.pem", "--revoke", &stolen]).await?;
    replica.server.kill();
    let replica = desk.replica_on(&deployment, ("next", "keys.json"), port).await?;
    site.agent_says("a newer key set is in force version=2 ").await?;
    site.switches(&replica).await?;
    site.admits(&site.steady).await?;
    assert!(!session.is_finished(), "a session of another CA was cut");

    // Whoever reads the stream finds messages by the stolen key, until it is signed again.
    assert!(signers(&deployment).await?.contains(&stolen));
    let wire = async_nats::jetstream::new(deployment.nats().client().await?);
    wire.delete_stream(STREAM).await?;
    agrees_with_log(deployment.nats(), &deployment.postgres).await?;
    assert_eq!(signers(&deployment).await?, BTreeSet::from([next]));
    let Site { broker, instance, steady, switched, switched_sn } = site;
    let broker = broker.restarted_gate(&deployment, &replica, &instance.id).await?;
    let site = Site { broker, instance, steady, switched, switched_sn };
    site.switches(&replica).await?;
    site.agent_was_content()
}

/// Names of the keys that signed what the stream keeps.
async fn signers(deployment: &Deployment) -> anyhow::Result<BTreeSet<String>> {
    let stream = deployment.nats().stream().await?;
    let mut found = BTreeSet::new();
    for sequence in 1..=deployment.nats().last_sequence().await? {
        // One message of each subject is kept.
        let Ok(message) = stream.get_raw_message(sequence).await else { continue };
        let body: serde_json::Value = serde_json::from_slice(&message.payload)?;
        found.insert(body["signature"]["keyId"].as_str().context("no signature")?.to_owned());
    }
    Ok(found)
}

/// One replica has lost its key to somebody, and does not know: it goes on signing with it,
/// as the thief would.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_by_a_revoked_key_are_refused_and_another_replica_is_believed() -> anyhow::Result<()> {
    let desk = Desk::new().await?;
    let stolen = desk.key("stolen").await?;
    desk.key("good").await?;
    desk.vouch("stale.json", &["--add", "stolen.pub.pem", "--add", "good.pub.pem"]).await?;
    desk.keep("stale.json", "keys.json")?;
    desk.vouch("keys.json", &["--revoke", &stolen]).await?;
    let mut deployment = desk.deploy().await?;
    // It was there first, so that it leads, and its heads are those on NATS.
    let thief = desk.replica(&deployment, "stolen", "stale.json").await?;
    let port = free_port()?;
    let replica = desk.replica_on(&deployment, ("good", "keys.json"), port).await?;
    deployment.agent_arguments = ["--soft-budget", "60"].map(str::to_owned).to_vec();
    let site = Site::new(&deployment, &replica, Kind::Gate).await?;
    site.agent_says("a newer key set is in force version=2 ").await?;
    site.agent_says("key_revoked").await?;
    site.switches(&replica).await?;
    site.switches(&thief).await?;

    // Alone, the revoked key makes nobody believe anything.
    let session = tokio::spawn(site.admits(&site.switched).await?.closed());
    replica.server.kill();
    let instance = TestInstance { caller: thief.owner()?, id: site.instance.id.clone() };
    instance.inactivate(&site.switched_sn).await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!session.is_finished(), "a change by the revoked key was applied");
    let _replica = desk.replica_on(&deployment, ("good", "keys.json"), port).await?;
    tokio::time::timeout(SOON, session).await??;
    site.refuses(&site.switched).await
}
