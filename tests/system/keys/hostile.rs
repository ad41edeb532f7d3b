//! Whoever may publish on NATS, and has no key: replays, mixtures, old sets.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use catrust_proto::v1::{Head, KeySet};
use catrust_tests::deployment::{Deployment, Replica};
use futures::StreamExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::desk::Desk;
use super::site::{Kind, SOON, Site};

const KEYS: &str = "catrust.v1.keys";

async fn one_key(arguments: &[&str]) -> anyhow::Result<(Desk, Deployment, Replica)> {
    let desk = Desk::new().await?;
    desk.key("event").await?;
    desk.vouch("keys.json", &["--add", "event.pub.pem"]).await?;
    let mut deployment = desk.deploy().await?;
    deployment.agent_arguments = arguments.iter().map(|text| (*text).to_owned()).collect();
    let replica = desk.replica(&deployment, "event", "keys.json").await?;
    Ok((desk, deployment, replica))
}

/// The next message on a subject.
async fn overheard<M: DeserializeOwned>(wire: &async_nats::Client, subject: &str) -> anyhow::Result<M> {
    let mut heard = wire.subscribe(subject.to_owned()).await?;
    let message = tokio::time::timeout(SOON, heard.next()).await?.context("the wire ended")?;
    Ok(serde_json::from_slice(&message.payload)?)
}

async fn say(wire: &async_nats::Client, subject: &str, message: &impl Serialize) -> anyhow::Result<()> {
    wire.publish(subject.to_owned(), serde_json::to_vec(message)?.into()).await?;
    Ok(wire.flush().await?)
}

fn head_subject(instance: &str) -> String {
    format!("catrust.v1.head.{instance}")
}

/// Everything true is held back, and the last head comes again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_freeze_with_old_heads_ends_in_nobody_new_within_the_budget() -> anyhow::Result<()> {
    let arguments = ["--soft-budget", "6", "--hard-budget", "12"];
    let (_desk, deployment, replica) = one_key(&arguments).await?;
    let site = Site::new(&deployment, &replica, Kind::Gate).await?;
    let session = site.admits(&site.steady).await?;
    let wire = deployment.nats().client().await?;
    let subject = head_subject(&site.instance.id);
    let head: Head = overheard(&wire, &subject).await?;
    replica.server.kill();
    let frozen = Instant::now();
    let replay = tokio::spawn(async move {
        loop {
            say(&wire, &subject, &head).await?;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        #[expect(unreachable_code, reason = "names the type of the block")]
        anyhow::Ok(())
    });
    site.refuses(&site.steady).await?;
    let after = frozen.elapsed();
    // The budget runs from the last head that counted, a head's interval before at most.
    assert!(after >= Duration::from_secs(8), "{after:?}: the budget was not used");
    site.agent_says("no head within the hard budget").await?;
    let alive = tokio::spawn(session.closed());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!alive.is_finished(), "a session of before was cut");
    assert!(!replay.is_finished());
    replay.abort();
    Ok(())
}

/// Parts of true messages under each other's signatures, and true messages of another
/// instance.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mixed_messages_are_refused_and_change_nothing() -> anyhow::Result<()> {
    let (_desk, deployment, replica) = one_key(&["--soft-budget", "60"]).await?;
    let site = Site::new(&deployment, &replica, Kind::Gate).await?;
    let other = replica.instance().await?;
    other.new_ca().await?;
    let wire = deployment.nats().client().await?;
    let mine = head_subject(&site.instance.id);
    let head: Head = overheard(&wire, &mine).await?;
    let theirs: Head = overheard(&wire, &head_subject(&other.id)).await?;
    let set: KeySet = overheard(&wire, KEYS).await?;
    let bundle = site.instance.bundle().await?;

    let cases: [(&str, Head); 4] = [
        // Newer by the word of another signature of the same key.
        ("bad_signature", Head { revision: head.revision + 1, ..head.clone() }),
        ("bad_signature", Head { signature: theirs.signature.clone(), ..head.clone() }),
        ("bad_signature", Head { signature: bundle.signature.clone(), ..head.clone() }),
        ("wrong_instance", theirs.clone()),
    ];
    for (kind, mixture) in cases {
        let before = told(&site, kind);
        // One kind is told every five seconds at most.
        catrust_tests::eventually::eventually(SOON, &format!("{kind} is told"), async || {
            say(&wire, &mine, &mixture).await.map_err(|error| error.to_string())?;
            if told(&site, kind) > before { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await?;
    }
    // The set under the signature of a head, which is by an event key.
    let forged = KeySet { version: set.version + 1, signature: head.signature.clone(), ..set };
    say(&wire, KEYS, &forged).await?;
    site.agent_says("key_set_not_vouched_for").await?;
    site.switches(&replica).await?;
    assert!(site.broker.agent_runs());
    Ok(())
}

fn told(site: &Site, kind: &str) -> usize {
    site.broker.agent_output().text().matches(&format!("kind=\"{kind}\"")).count()
}

/// A set that was true once: whoever stole a key since would like it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolled_back_key_set_is_refused_also_after_a_restart() -> anyhow::Result<()> {
    let (desk, deployment, replica) = one_key(&["--soft-budget", "60"]).await?;
    let site = Site::new(&deployment, &replica, Kind::Gate).await?;
    let wire = deployment.nats().client().await?;
    let before: KeySet = overheard(&wire, KEYS).await?;
    desk.key("next").await?;
    desk.vouch("keys.json", &["--add", "next.pub.pem"]).await?;
    site.agent_says("a newer key set is in force version=2 ").await?;
    say(&wire, KEYS, &before).await?;
    // What follows it on the wire has come, and nothing has changed.
    site.switches(&replica).await?;
    let kept: KeySet =
        serde_json::from_str(&std::fs::read_to_string(site.broker.gate_state().join("keys.json"))?)?;
    assert_eq!(kept.version, 2);

    let Site { broker, instance, steady, switched, switched_sn } = site;
    let broker = broker.restarted_gate(&deployment, &replica, &instance.id).await?;
    let site = Site { broker, instance, steady, switched, switched_sn };
    catrust_tests::eventually::eventually(SOON, "the old set is refused", async || {
        say(&wire, KEYS, &before).await.map_err(|error| error.to_string())?;
        if told(&site, "key_set_rollback") > 0 { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await?;
    site.agent_says("the key set is version 1, and version 2 is in force").await?;
    site.switches(&replica).await
}
