//! The log against the messages of the stream.
//!
//! The message of position `p` is kept at sequence `p` until a later one of its subject
//! replaces it, and it names the hash of its row. So a log that lost its end is behind
//! its stream, and a log that was changed and chained anew has other hashes than were
//! published. A stream that is short, or gone, says nothing: it is filled from the log.

use std::time::Duration;

use anyhow::Context as _;
use catrust_event_store::EventLog;
use catrust_event_store::report::{Damage, DamageKind};
use catrust_trust_feed::{FeedError, KeptMessage, NatsFeed, StreamExtent};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// How long the connection to NATS may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Most pieces of damage that are told.
const MAX_DAMAGE: usize = 100;

/// A stream, and how far it was when it was opened.
pub(super) struct StreamToCompare {
    feed: NatsFeed,
    extent: Option<StreamExtent>,
}

/// What the stream says about the log.
pub(super) struct StreamReport {
    extent: Option<StreamExtent>,
    compared: u64,
    /// Damage of the log, by position.
    pub(super) damage: Vec<Damage>,
}

impl StreamToCompare {
    /// Connects, and notes how far the stream is.
    pub(super) async fn open(feed: Option<NatsFeed>) -> anyhow::Result<Self> {
        let feed = feed.context("there is no stream to compare with: nats.url is not set")?;
        let deadline = Instant::now() + CONNECT_LIMIT;
        loop {
            match feed.extent().await {
                Ok(extent) => return Ok(Self { feed, extent }),
                Err(FeedError::Unavailable(_)) if Instant::now() < deadline => {
                    sleep(Duration::from_millis(50)).await;
                }
                Err(error) => return Err(error).context("the stream cannot be read"),
            }
        }
    }

    /// Compares every message that the stream keeps with its row of the log, which ends
    /// at `head`.
    pub(super) async fn compare(self, store: &dyn EventLog, head: u64) -> anyhow::Result<StreamReport> {
        let mut report = StreamReport { extent: self.extent, compared: 0, damage: Vec::new() };
        let last = self.extent.map_or(0, |extent| extent.last_sequence);
        let mut sequence = 0;
        while let Some(kept) = self.feed.kept_after(sequence).await? {
            sequence = kept.sequence;
            if sequence > last.min(head) || report.damage.len() >= MAX_DAMAGE {
                break;
            }
            report.compared += 1;
            if let Some(description) = difference(store, &kept).await? {
                report.damage.push(Damage {
                    kind: DamageKind::NotAsPublished,
                    position: Some(sequence),
                    description,
                });
            }
        }
        if last > head {
            report.damage.push(Damage {
                kind: DamageKind::TailCut,
                position: Some(head + 1),
                description: format!("the log ends at {head}, and was published up to {last}"),
            });
        }
        Ok(report)
    }
}

/// What a message and its row disagree about.
async fn difference(store: &dyn EventLog, kept: &KeptMessage) -> anyhow::Result<Option<String>> {
    let Some(published) = kept.row else {
        return Ok(Some("the stream holds something foreign here".to_owned()));
    };
    if published.log_id != store.log_id() {
        return Ok(Some(format!("the stream holds the log {}", published.log_id)));
    }
    // A row that is missing or cannot be read is told by the walk over the log.
    let Ok(rows) = store.read(kept.sequence - 1, 1).await else { return Ok(None) };
    let Some(row) = rows.first().filter(|row| row.position == kept.sequence) else { return Ok(None) };
    let differs = row.hash != published.event_hash;
    Ok(differs.then(|| format!("the log has the hash {}, published was {}", row.hash, published.event_hash)))
}

impl StreamReport {
    /// For people.
    pub(super) fn text(&self) -> String {
        match self.extent {
            None => "stream: there is none; it says nothing about the log".to_owned(),
            Some(extent) => format!(
                "stream: {} of {} messages compared, published up to {}",
                self.compared, extent.messages, extent.last_sequence
            ),
        }
    }

    /// For scripts.
    pub(super) fn json(&self) -> Value {
        json!({
            "lastSequence": self.extent.map(|extent| extent.last_sequence),
            "messages": self.extent.map_or(0, |extent| extent.messages),
            "compared": self.compared,
        })
    }
}
