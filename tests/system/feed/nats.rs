//! The JetStream stream: sequence == position, on Debian's NATS and a newer one.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use catrust_tests::deployment::Plan;
use catrust_tests::foreign::newer_nats;
use catrust_tests::instance::TestInstance;
use catrust_tests::nats::{Nats, Version};
use catrust_tests::postgres::Postgres;
use futures::StreamExt as _;
use sqlx::{Connection as _, PgConnection, Row as _};

/// One message as it came from the stream.
#[derive(Debug)]
pub struct StreamMessage {
    pub subject: String,
    pub sequence: u64,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl StreamMessage {
    /// `position` in the body: ProtoJSON writes 64 bit integers as strings.
    pub fn position(&self) -> anyhow::Result<u64> {
        let body: serde_json::Value = serde_json::from_str(&self.body)?;
        Ok(body["position"].as_str().context("no position")?.parse()?)
    }
}

/// Every message that the stream holds now.
pub async fn collect(nats: &Nats) -> anyhow::Result<Vec<StreamMessage>> {
    let mut stream = nats.stream().await?;
    let wanted = stream.info().await?.state.messages;
    let config = pull::OrderedConfig { deliver_policy: DeliverPolicy::All, ..Default::default() };
    let mut messages = stream.create_consumer(config).await?.messages().await?;
    let mut collected = Vec::new();
    while (collected.len() as u64) < wanted {
        let message = tokio::time::timeout(Duration::from_secs(20), messages.next());
        let message = message.await.context("the consumer is silent")?.context("the consumer ended")??;
        let info = message.info().map_err(|error| anyhow::anyhow!("{error}"))?;
        let headers = message.headers.clone().unwrap_or_default();
        let headers = headers
            .iter()
            .filter_map(|(name, values)| Some((name.to_string(), values.first()?.as_str().to_owned())));
        collected.push(StreamMessage {
            subject: message.subject.to_string(),
            sequence: info.stream_sequence,
            headers: headers.collect(),
            body: String::from_utf8(message.payload.to_vec())?,
        });
    }
    Ok(collected)
}

/// Compares every message that the stream holds with the log, once the stream has
/// come to the log's end.
pub async fn agrees_with_log(nats: &Nats, postgres: &Postgres) -> anyhow::Result<u64> {
    agrees_within(nats, postgres, Duration::from_secs(40)).await
}

/// As [`agrees_with_log`], with another bound for coming to the end.
pub async fn agrees_within(nats: &Nats, postgres: &Postgres, within: Duration) -> anyhow::Result<u64> {
    let mut connection = PgConnection::connect(&postgres.url()).await?;
    let rows = sqlx::query("SELECT position, event_id, event_type FROM events ORDER BY position");
    let rows = rows.fetch_all(&mut connection).await?;
    let mut log = BTreeMap::new();
    for row in rows {
        let event_id: uuid::Uuid = row.try_get("event_id")?;
        log.insert(
            u64::try_from(row.try_get::<i64, _>("position")?)?,
            (event_id.to_string(), row.try_get::<String, _>("event_type")?),
        );
    }
    let last = *log.keys().next_back().context("an empty log")?;
    anyhow::ensure!(last == log.len() as u64, "positions are not dense: {} rows up to {last}", log.len());
    nats.reaches(last, within).await?;
    for message in collect(nats).await? {
        let position = message.position()?;
        anyhow::ensure!(position == message.sequence, "position {position} at sequence {}", message.sequence);
        let (event_id, event_type) = log.get(&position).context("a message beyond the log")?;
        let body: serde_json::Value = serde_json::from_str(&message.body)?;
        anyhow::ensure!(body["eventId"] == event_id.as_str(), "another event at {position}: {body}");
        anyhow::ensure!(body["eventType"] == event_type.as_str(), "another type at {position}: {body}");
    }
    Ok(last)
}

/// A few changes of every kind.
pub async fn change_a_little(instance: &TestInstance) -> anyhow::Result<()> {
    let (ca, gone) = (instance.new_ca().await?, instance.new_ca().await?);
    instance.inactivate(&ca.sn).await?;
    instance.activate(&ca.sn).await?;
    instance.delete(&gone.sn).await?;
    Ok(())
}

async fn sequences_are_positions_on(version: Version) -> anyhow::Result<()> {
    let plan = Plan { nats: Some(version), ..Plan::default() };
    let deployment = plan.deploy().await?;
    let replicas = [deployment.replica("a").await?, deployment.replica("b").await?];
    for replica in &replicas {
        change_a_little(&replica.instance().await?).await?;
    }
    let last = agrees_with_log(deployment.nats(), &deployment.postgres).await?;
    assert_eq!(last, 16);
    // One subject per certificate, and the last message of each is kept.
    let messages = collect(deployment.nats()).await?;
    let mut subjects: Vec<_> = messages.iter().map(|message| message.subject.as_str()).collect();
    subjects.sort_unstable();
    let count = subjects.len();
    subjects.dedup();
    assert_eq!(subjects.len(), count, "one message a subject");
    assert!(subjects.iter().all(|s| s.starts_with("catrust.v1.trust.") || s.starts_with("catrust.v1.log.")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequences_are_positions_on_the_nats_of_debian() -> anyhow::Result<()> {
    sequences_are_positions_on(Version::Installed).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequences_are_positions_on_a_newer_nats() -> anyhow::Result<()> {
    sequences_are_positions_on(Version::At(newer_nats()?)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_are_on_core_nats() -> anyhow::Result<()> {
    let deployment = Plan::default().deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    instance.new_ca().await?;
    let bundle = instance.bundle().await?;
    let subject = format!("catrust.v1.head.{}", instance.id);
    let mut heads = deployment.nats().client().await?.subscribe(subject).await?;
    for _ in 0..2 {
        let head = tokio::time::timeout(Duration::from_secs(15), heads.next()).await?.context("no head")?;
        let head: serde_json::Value = serde_json::from_slice(&head.payload)?;
        assert_eq!(head["mqttInstanceId"], instance.id.as_str());
        assert_eq!(
            (&head["revision"], &head["bundleDigest"]),
            (&"1".into(), &bundle.bundle_digest.as_str().into())
        );
        assert!(head["signature"]["value"].is_string());
    }
    Ok(())
}
