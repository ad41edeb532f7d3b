//! Servers whose key and key set do not fit.

use anyhow::Context as _;
use catrust_proto::v1::trust_message::Message;
use catrust_proto::v1::{GetTrustBundleRequest, WatchTrustRequest};
use catrust_tests::deployment::Plan;
use catrust_tests::eventually::eventually;
use catrust_tests::http;
use catrust_tests::process::Launcher;
use catrust_tests::program::free_port;

use super::desk::Desk;
use super::rotation::takes;
use super::site::SOON;

/// What a server says that does not come up.
async fn refusal(launcher: Launcher) -> anyhow::Result<String> {
    let process = launcher.start()?;
    let status = process.ended(SOON).await?;
    anyhow::ensure!(status.code() == Some(1), "it ended with {status}");
    Ok(process.output().text())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_outside_the_set_does_not_start_and_says_what_to_do() -> anyhow::Result<()> {
    let desk = Desk::new().await?;
    let (good, _) = (desk.key("good").await?, desk.key("outside").await?);
    desk.vouch("keys.json", &["--add", "good.pub.pem"]).await?;
    let deployment = desk.deploy().await?;
    let (config, _) = deployment.configuration("a")?;
    let start = |key: &str, set: &str| desk.launcher(&config, key, set, 0);
    let said = refusal(start("outside", "keys.json")?).await?;
    assert!(said.contains("no agent would believe this server"), "{said}");
    assert!(said.contains("catrust keys vouch --add PUBLIC_KEY"), "{said}");
    desk.keep("keys.json", "revoked.json")?;
    desk.vouch("revoked.json", &["--revoke", &good]).await?;
    let said = refusal(start("good", "revoked.json")?).await?;
    assert!(said.contains("is revoked"), "{said}");
    let said = refusal(start("good", "missing.json")?).await?;
    assert!(said.contains("signing.key_set_file: cannot read"), "{said}");
    // And as it is meant to be.
    desk.replica(&deployment, "good", "keys.json").await?;
    Ok(())
}

/// Without NATS, the stream of gRPC is the only way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_gets_the_set_before_the_rest_and_each_newer_one() -> anyhow::Result<()> {
    let desk = Desk::new().await?;
    desk.key("event").await?;
    let first = desk.vouch("keys.json", &["--add", "event.pub.pem"]).await?;
    let deployment = Plan { nats: None, ..Plan::default() }.deploy().await?;
    let replica = desk.replica(&deployment, "event", "keys.json").await?;
    let instance = replica.instance().await?;
    let request = GetTrustBundleRequest { mqtt_instance_id: instance.id.clone(), at: None };
    let reply = instance.caller.trust.clone().get_trust_bundle(request).await?.into_inner();
    assert_eq!(reply.key_set.as_ref(), Some(&first));
    let request = WatchTrustRequest { mqtt_instance_id: instance.id.clone(), ..Default::default() };
    let mut feed = instance.caller.trust.clone().watch_trust(request).await?.into_inner();
    let mut next = async || {
        let message = tokio::time::timeout(SOON, feed.message()).await??.context("the stream ended")?;
        message.message.context("an empty message")
    };
    assert_eq!(next().await?, Message::KeySet(first));
    assert!(matches!(next().await?, Message::Bundle(_)));
    let second = desk.vouch("keys.json", &[]).await?;
    let newer = loop {
        match next().await? {
            Message::Head(_) => {}
            other => break other,
        }
    };
    assert_eq!(newer, Message::KeySet(second));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_server_keeps_the_last_good_set_and_says_so() -> anyhow::Result<()> {
    let desk = Desk::new().await?;
    let good = desk.key("good").await?;
    desk.vouch("keys.json", &["--add", "good.pub.pem", "--expires-days", "5"]).await?;
    let deployment = desk.deploy().await?;
    let replica = desk.replica_on(&deployment, ("good", "keys.json"), free_port()?).await?;
    let says = async |text: &str| {
        eventually(SOON, &format!("the server says {text:?}"), async || {
            let said = replica.server.output().text();
            if said.contains(text) { Ok(()) } else { Err(format!("it has said:\n{said}")) }
        })
        .await
    };
    says("expires soon").await?;
    desk.keep("keys.json", "before.json")?;
    desk.vouch("keys.json", &["--drop", &good]).await?;
    says("cannot be used; what was in force stays").await?;
    let metric = async |name: &str, expected: &str| {
        let name = format!("catrust_signing_key_set_{name}{{");
        eventually(SOON, &format!("{name} is {expected}"), async || {
            let page = http::get(&replica.admin, "/metrics").await.map(|(_, page)| page).unwrap_or_default();
            let line = page.lines().find(|line| line.starts_with(&name)).unwrap_or("no such line");
            if line.ends_with(&format!(" {expected}")) { Ok(()) } else { Err(line.to_owned()) }
        })
        .await
    };
    metric("refused", "1").await?;
    let instance = replica.instance().await?;
    let served = instance.bundle().await?;
    assert_eq!(served.signature.map(|signature| signature.key_id), Some(good));
    desk.keep("before.json", "keys.json")?;
    says("holds again what is in force").await?;
    desk.vouch("keys.json", &["--version", "7"]).await?;
    takes(&replica, 7).await?;
    metric("version", "7").await?;
    metric("refused", "0").await
}
