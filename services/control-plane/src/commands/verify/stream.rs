//! The log against the messages of the streams: the one in use, and those that were set aside.
//!
//! The message of position `p` is kept at sequence `p` until a later one of its subject
//! replaces it, and it names the hash of its row. So a log that lost its end is behind
//! its stream, and a log that was changed and chained anew has other hashes than were
//! published. A stream that is short, or gone, says nothing: it is filled from the log.
//!
//! One that was set aside has something foreign in it, or the past of another log, or was a
//! witness of an end that this log lost. What it holds is damage of the log where a key of this
//! server signed it; the rest is counted.

use anyhow::Context as _;
use catrust_domain::LogEpoch;
use catrust_event_store::EventLog;
use catrust_event_store::report::{Damage, DamageKind};
use catrust_publisher::KnownKeys;
use catrust_trust_feed::nats::stream_name;
use catrust_trust_feed::{KeptMessage, NatsFeed, StreamOutline, StreamUse};
use serde_json::{Value, json};

use crate::recovery::answer;

/// Most pieces of damage that are told.
const MAX_DAMAGE: usize = 100;

/// The streams, and how far each was when they were listed.
pub(super) struct StreamsToCompare {
    feed: NatsFeed,
    streams: Vec<StreamOutline>,
    keys: Option<KnownKeys>,
}

/// What the streams say about the log.
pub(super) struct StreamReport {
    streams: Vec<ComparedStream>,
    /// Damage of the log, by position.
    pub(super) damage: Vec<Damage>,
}

/// What was found in one stream.
struct ComparedStream {
    outline: StreamOutline,
    /// Messages of this log, held against it.
    compared: u64,
    /// Messages that say nothing about this log: of another one, foreign, or by no key that is believed.
    foreign: u64,
    /// Messages of a log epoch that has ended, which the log need not have.
    ended: u64,
}

/// What a message says about the log.
enum PublishedClaim {
    /// The log has it so.
    Agrees,
    /// It is not of this log.
    Foreign(String),
    /// It is of a log epoch that has ended, and lost with it.
    Ended,
    /// The log does not have it so.
    Differs(String),
}

impl StreamsToCompare {
    /// Connects, and notes how far the streams are. `keys` tell what is signed in those that were set
    /// aside; without any, all that claims to be of this log is held against it.
    pub(super) async fn open(feed: Option<NatsFeed>, keys: Option<KnownKeys>) -> anyhow::Result<Self> {
        let feed = feed.context("there is no stream to compare with: nats.url is not set")?;
        let mut streams = answer(&feed).await.context("the streams cannot be read")?;
        streams.retain(|stream| !matches!(stream.role, StreamUse::Foreign(_)));
        Ok(Self { feed, streams, keys })
    }

    /// Compares every message that the streams keep with its row of the log, which ends
    /// at `head`.
    pub(super) async fn compare(self, store: &dyn EventLog, head: u64) -> anyhow::Result<StreamReport> {
        let mut report = StreamReport { streams: Vec::new(), damage: Vec::new() };
        for outline in &self.streams {
            let compared = self.compare_stream(store, head, outline, &mut report.damage).await?;
            report.streams.push(compared);
        }
        Ok(report)
    }

    async fn compare_stream(
        &self,
        store: &dyn EventLog,
        head: u64,
        outline: &StreamOutline,
        damage: &mut Vec<Damage>,
    ) -> anyhow::Result<ComparedStream> {
        let mut stream = ComparedStream { outline: outline.clone(), compared: 0, foreign: 0, ended: 0 };
        let (in_use, name) = (outline.role == StreamUse::InUse, stream_name(outline.number));
        let mut sequence = 0;
        let mut beyond = None;
        while let Some(kept) = self.feed.kept_in(outline.number, sequence).await? {
            sequence = kept.sequence;
            if sequence > outline.last_sequence || damage.len() >= MAX_DAMAGE {
                break;
            }
            if sequence > head && in_use {
                beyond = Some(outline.last_sequence);
                break;
            }
            if sequence > head && self.witness(store, &kept) == Witness::ThisLog {
                beyond = Some(sequence);
                continue;
            }
            match self.claim(store, &kept, in_use).await? {
                PublishedClaim::Agrees => stream.compared += 1,
                PublishedClaim::Ended => stream.ended += 1,
                PublishedClaim::Foreign(_) if !in_use => stream.foreign += 1,
                PublishedClaim::Foreign(text) | PublishedClaim::Differs(text) => {
                    stream.compared += 1;
                    damage.push(Damage {
                        kind: DamageKind::NotAsPublished,
                        position: Some(sequence),
                        description: format!("{name}: {text}"),
                    });
                }
            }
        }
        if let Some(last) = beyond {
            damage.push(Damage {
                kind: DamageKind::TailCut,
                position: Some(head + 1),
                description: format!("{name}: the log ends at {head}, and was published up to {last}"),
            });
        }
        Ok(stream)
    }

    /// Whether a message of a stream that was set aside says anything about this log.
    fn witness(&self, store: &dyn EventLog, kept: &KeptMessage) -> Witness {
        let row = match &self.keys {
            Some(keys) => keys.signed_row(&kept.body).map(|row| (row.log_id, LogEpoch(row.epoch))),
            None => kept.row.map(|row| (row.log_id, LogEpoch(u32::MAX))),
        };
        match row {
            Some((log_id, epoch)) if log_id == store.log_id() && epoch < store.epoch().borrow().epoch => {
                Witness::EndedEpoch
            }
            Some((log_id, _)) if log_id == store.log_id() => Witness::ThisLog,
            _ => Witness::Nothing,
        }
    }

    async fn claim(
        &self,
        store: &dyn EventLog,
        kept: &KeptMessage,
        in_use: bool,
    ) -> anyhow::Result<PublishedClaim> {
        let Some(published) = kept.row else {
            return Ok(PublishedClaim::Foreign("the stream holds something foreign here".to_owned()));
        };
        if published.log_id != store.log_id() {
            return Ok(PublishedClaim::Foreign(format!("the stream holds the log {}", published.log_id)));
        }
        // A row that cannot be read is told by the walk over the log, as is one that is missing before its
        // end.
        let Ok(rows) = store.read(kept.sequence - 1, 1).await else { return Ok(PublishedClaim::Agrees) };
        let found = rows.first().filter(|row| row.position == kept.sequence).map(|row| row.hash);
        if found == Some(published.event_hash) {
            return Ok(PublishedClaim::Agrees);
        }
        let text = match found {
            Some(hash) => format!("the log has the hash {hash}, published was {}", published.event_hash),
            None => format!("the log has nothing, published was {}", published.event_hash),
        };
        Ok(match self.witness(store, kept) {
            Witness::EndedEpoch => PublishedClaim::Ended,
            Witness::Nothing if !in_use => PublishedClaim::Foreign(text),
            // The walk tells what is missing.
            _ if found.is_none() => PublishedClaim::Agrees,
            _ => PublishedClaim::Differs(text),
        })
    }
}

/// What a message may testify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Witness {
    /// The log had a row: a server signed it.
    ThisLog,
    /// The log had it, in an epoch that has ended.
    EndedEpoch,
    /// Nothing: anybody may have written it.
    Nothing,
}

impl StreamReport {
    /// For people.
    pub(super) fn text(&self) -> String {
        if self.streams.is_empty() {
            return "stream: there is none; it says nothing about the log".to_owned();
        }
        let lines = self.streams.iter().map(|stream| {
            let ComparedStream { outline, compared, foreign, ended } = stream;
            let aside = match outline.role {
                StreamUse::InUse => String::new(),
                _ => format!(
                    " (set aside, with {foreign} messages that say nothing about this log, and {ended} of an epoch \
                     that has ended)"
                ),
            };
            format!(
                "stream {}: {compared} of {} messages compared, published up to {}{aside}",
                stream_name(outline.number),
                outline.messages,
                outline.last_sequence
            )
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// For scripts: the stream in use, and those that were set aside.
    pub(super) fn json(&self) -> Value {
        let (in_use, aside): (Vec<_>, Vec<_>) =
            self.streams.iter().partition(|stream| stream.outline.role == StreamUse::InUse);
        let in_use = in_use.first();
        let aside: Vec<Value> = aside
            .into_iter()
            .map(|stream| {
                json!({
                    "name": stream_name(stream.outline.number),
                    "lastSequence": stream.outline.last_sequence,
                    "messages": stream.outline.messages,
                    "compared": stream.compared,
                    "foreign": stream.foreign,
                    "ended": stream.ended,
                })
            })
            .collect();
        json!({
            "lastSequence": in_use.map(|stream| stream.outline.last_sequence),
            "messages": in_use.map_or(0, |stream| stream.outline.messages),
            "compared": in_use.map_or(0, |stream| stream.compared),
            "setAside": aside,
        })
    }
}
