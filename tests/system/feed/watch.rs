//! WatchTrust and GetTrustBundle.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use catrust_proto::v1::get_trust_bundle_request::At;
use catrust_proto::v1::trust_message::Message;
use catrust_proto::v1::{
    CaCertificateState, GetTrustBundleRequest, ListCaCertificateEventsRequest, TrustBundle, TrustChange,
    WatchTrustRequest,
};
use catrust_tests::client::refused;
use catrust_tests::deployment::Plan;
use catrust_tests::instance::TestInstance;
use tonic::{Code, Status, Streaming};

use crate::site::{Site, on_both_sites};

on_both_sites!(
    a_watch_starts_with_a_bundle_and_goes_on_with_every_change,
    heads_come_about_every_two_seconds,
    a_watch_goes_on_after_the_last_applied_revision,
    bundles_of_the_past_are_told_by_revision_and_time,
);

/// A watch, read message by message within a bound.
pub struct Watch(Streaming<catrust_proto::v1::TrustMessage>);

impl Watch {
    /// Opens one.
    pub async fn open(instance: &TestInstance, after_revision: Option<u64>) -> Result<Self, Status> {
        let request = WatchTrustRequest {
            mqtt_instance_id: instance.id.clone(),
            broker_id: "broker-1".to_owned(),
            after_revision,
            ..Default::default()
        };
        Ok(Self(instance.caller.trust.clone().watch_trust(request).await?.into_inner()))
    }

    /// The next message; an error where none comes within 15 s.
    pub async fn next(&mut self) -> anyhow::Result<Message> {
        let message = tokio::time::timeout(Duration::from_secs(15), self.0.message());
        let message = message.await.context("no message of the watch")??.context("the watch ended")?;
        message.request_id.parse::<uuid::Uuid>()?;
        message.message.context("an empty message")
    }

    /// The next message that is no head.
    pub async fn next_news(&mut self) -> anyhow::Result<Message> {
        loop {
            match self.next().await? {
                Message::Head(_) => {}
                news => return Ok(news),
            }
        }
    }

    /// The next change; an error where a bundle comes first.
    pub async fn next_change(&mut self) -> anyhow::Result<TrustChange> {
        match self.next_news().await? {
            Message::Change(change) => Ok(change),
            other => anyhow::bail!("expected a change, got {other:?}"),
        }
    }

    /// The next bundle; an error where a change comes first.
    pub async fn next_bundle(&mut self) -> anyhow::Result<TrustBundle> {
        match self.next_news().await? {
            Message::Bundle(bundle) => Ok(bundle),
            other => anyhow::bail!("expected a bundle, got {other:?}"),
        }
    }
}

async fn a_watch_starts_with_a_bundle_and_goes_on_with_every_change(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let ca = instance.new_ca().await?;
    let mut watch = Watch::open(&instance, None).await?;
    let bundle = watch.next_bundle().await?;
    assert_eq!((bundle.mqtt_instance_id.as_str(), bundle.revision), (instance.id.as_str(), 1));
    assert_eq!(bundle.entries.len(), 1);
    assert_eq!(bundle.entries[0].state(), CaCertificateState::Active);

    let off = instance.inactivate(&ca.sn).await?;
    let on = instance.activate(&ca.sn).await?;
    let other = instance.new_ca().await?;
    let gone = instance.delete(&other.sn).await?;
    let mut changes = Vec::new();
    for _ in 0..4 {
        changes.push(watch.next_change().await?);
    }
    assert_eq!(changes.iter().map(|change| change.revision).collect::<Vec<_>>(), [2, 3, 4, 5]);
    assert!(changes.iter().all(|change| change.previous_revision + 1 == change.revision));
    assert_eq!((changes[0].position, changes[1].position), (off.position, on.position));
    assert_eq!(changes[0].event_type, "CaCertificateInactivated");
    assert_eq!(changes[0].reason, "a test");
    let entry = changes[0].entry.as_ref().context("no entry")?;
    assert_eq!((entry.sn.as_str(), entry.state()), (ca.sn.as_str(), CaCertificateState::Inactive));
    assert_eq!(changes[1].bundle_digest, bundle.bundle_digest, "equal trust, equal digest");
    assert!(!changes[2].deleted && changes[3].deleted);
    assert_eq!(changes[3].position, gone.position);
    assert_eq!(changes[3].bundle_digest, bundle.bundle_digest);

    let now = instance.bundle().await?;
    assert_eq!((now.revision, &now.bundle_digest), (5, &changes[3].bundle_digest));
    assert_eq!(now.log_id, bundle.log_id);
    // Changes of another instance stay there.
    let elsewhere = site.instance().await?;
    elsewhere.new_ca().await?;
    instance.inactivate(&ca.sn).await?;
    assert_eq!(watch.next_change().await?.revision, 6);
    Ok(())
}

async fn heads_come_about_every_two_seconds(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    instance.new_ca().await?;
    let mut watch = Watch::open(&instance, None).await?;
    let bundle = watch.next_bundle().await?;
    let mut heads = Vec::new();
    while heads.len() < 4 {
        if let Message::Head(head) = watch.next().await? {
            assert_eq!((head.revision, &head.bundle_digest), (1, &bundle.bundle_digest));
            assert_eq!(head.position, bundle.position);
            heads.push((Instant::now(), head));
        }
    }
    // The first comes at once, the others on the beat.
    for pair in heads[1..].windows(2) {
        let pause = pair[1].0 - pair[0].0;
        assert!((1_000..=3_500).contains(&pause.as_millis()), "{pause:?} between two heads");
    }
    let (issued, until) = (&heads[3].1.issued_at, &heads[3].1.valid_until);
    let lifetime = until.context("no end")?.seconds - issued.context("no start")?.seconds;
    assert_eq!(lifetime, 10);
    Ok(())
}

async fn a_watch_goes_on_after_the_last_applied_revision(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let ca = instance.new_ca().await?;
    for _ in 0..3 {
        instance.inactivate(&ca.sn).await?;
        instance.activate(&ca.sn).await?;
    }
    let mut watch = Watch::open(&instance, Some(2)).await?;
    for revision in 3..=7 {
        assert_eq!(watch.next_change().await?.revision, revision);
    }
    instance.inactivate(&ca.sn).await?;
    assert_eq!(watch.next_change().await?.revision, 8);

    let mut up_to_date = Watch::open(&instance, Some(8)).await?;
    instance.activate(&ca.sn).await?;
    assert_eq!(up_to_date.next_change().await?.revision, 9, "nothing again, nothing lost");
    // From a future that this log does not have, only a bundle leads back.
    let mut ahead = Watch::open(&instance, Some(1_000)).await?;
    assert_eq!(ahead.next_bundle().await?.revision, 9);
    Ok(())
}

async fn bundle_at(instance: &TestInstance, at: At) -> Result<TrustBundle, Status> {
    let request = GetTrustBundleRequest { mqtt_instance_id: instance.id.clone(), at: Some(at) };
    let reply = instance.caller.trust.clone().get_trust_bundle(request).await?.into_inner();
    reply.bundle.ok_or_else(|| Status::internal("no bundle"))
}

async fn bundles_of_the_past_are_told_by_revision_and_time(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let mut digests = vec![instance.bundle().await?.bundle_digest];
    let ca = instance.new_ca().await?;
    digests.push(instance.bundle().await?.bundle_digest);
    instance.inactivate(&ca.sn).await?;
    digests.push(instance.bundle().await?.bundle_digest);
    instance.delete(&ca.sn).await?;
    digests.push(instance.bundle().await?.bundle_digest);
    assert_eq!(digests[0], digests[3], "both empty");

    for (revision, digest) in digests.iter().enumerate() {
        let bundle = bundle_at(&instance, At::Revision(revision as u64)).await?;
        assert_eq!((bundle.revision, &bundle.bundle_digest), (revision as u64, digest));
        assert_eq!(bundle.entries.len(), usize::from((1..=2).contains(&revision)));
    }
    refused(bundle_at(&instance, At::Revision(4)).await, Code::OutOfRange, "RevisionNotFound")?;
    refused(bundle_at(&instance, At::Revision(u64::MAX)).await, Code::OutOfRange, "RevisionNotFound")?;

    let request =
        ListCaCertificateEventsRequest { mqtt_instance_id: instance.id.clone(), ..Default::default() };
    let events = instance.caller.ca.clone().list_ca_certificate_events(request).await?.into_inner().events;
    for event in events {
        let at = event.occurred_at.context("no time")?;
        let bundle = bundle_at(&instance, At::AsOf(at)).await?;
        assert_eq!(bundle.revision, event.revision);
        assert_eq!(bundle.bundle_digest, digests[usize::try_from(event.revision)?]);
        let before = catrust_proto::Timestamp { seconds: at.seconds, nanos: at.nanos };
        let before = earlier(before);
        let bundle = bundle_at(&instance, At::AsOf(before)).await;
        if event.revision > 1 {
            assert_eq!(bundle?.revision, event.revision - 1);
        }
    }
    Ok(())
}

/// One microsecond earlier: the precision of times.
fn earlier(at: catrust_proto::Timestamp) -> catrust_proto::Timestamp {
    match at.nanos {
        0..1_000 => catrust_proto::Timestamp { seconds: at.seconds - 1, nanos: 999_999_000 },
        nanos => catrust_proto::Timestamp { seconds: at.seconds, nanos: nanos - 1_000 },
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_on_one_replica_sees_changes_made_on_another() -> anyhow::Result<()> {
    for nats in [Plan::default().nats, None] {
        let deployment = Plan { nats, ..Plan::default() }.deploy().await?;
        let (a, b) = (deployment.replica("a").await?, deployment.replica("b").await?);
        let instance = a.instance().await?;
        let ca = instance.new_ca().await?;
        let on_b = TestInstance { caller: b.owner()?, id: instance.id.clone() };
        let mut watch = Watch::open(&on_b, None).await?;
        assert_eq!(watch.next_bundle().await?.revision, 1);
        let started = Instant::now();
        let off = instance.inactivate(&ca.sn).await?;
        let change = watch.next_change().await?;
        assert_eq!((change.revision, change.position), (off.revision, off.position));
        assert!(started.elapsed() < Duration::from_secs(5), "{:?} to the other replica", started.elapsed());
        assert_eq!(on_b.get(&ca.sn).await?.state(), CaCertificateState::Inactive, "a read on b sees it");
        assert_eq!(instance.bundle().await?.bundle_digest, on_b.bundle().await?.bundle_digest);
    }
    Ok(())
}
