//! Following an instance.
//!
//! The stream keeps one message per CA certificate, so a consumer of it skips those that
//! were replaced before it came to them. What is live is therefore read from core NATS,
//! on the same subjects, where every message passes; the stream serves to catch up, and
//! then has no consumer that it must carry for each reader.
//!
//! ```text
//! catch up (last state of each CA certificate, from the stream)
//!    │  ▲ the connection was renewed, messages were dropped, or a head
//!    ▼  │ tells of a change that does not come
//! live (changes, heads and key sets, core NATS)
//! ```

use std::collections::VecDeque;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, DeliverPolicy};
use async_nats::{Client, Subscriber};
use catrust_domain::InstanceId;
use catrust_proto::v1::{Head, KeySet, TrustChange};
use futures::StreamExt as _;
use futures::stream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::ANSWER_TIMEOUT;
use super::stream::Streams;
use crate::feed::{BoxError, FeedError, FeedItem, FeedStream, GapReason};
use crate::subject;

/// Messages that a subscription may hold before NATS drops some.
pub const SUBSCRIPTION_BUFFER: usize = 1_024;
/// Items between the stream_reader and its reader.
const READER_BUFFER: usize = 64;
/// Messages remembered, so that what comes from stream and core comes once.
const REMEMBERED: usize = 2 * SUBSCRIPTION_BUFFER;
/// How long a change may come after the head that tells of it.
const HEAD_GRACE: Duration = Duration::from_secs(1);
/// Shortest time from one catching up to the next.
const BETWEEN_CATCHING_UP: Duration = Duration::from_secs(1);
const RETRY_PAUSE: Duration = Duration::from_millis(250);
/// How long the server keeps a consumer that its stream_reader could not delete.
const CONSUMER_LIFE: Duration = Duration::from_secs(10);

/// Starts a stream_reader. `interruptions` changes whenever messages may have been lost on
/// the connection.
pub async fn subscribe(
    client: &Client,
    jetstream: &Context,
    streams: Arc<Streams>,
    instance_id: &InstanceId,
    interruptions: watch::Receiver<u64>,
) -> Result<FeedStream, FeedError> {
    let heads = client.subscribe(subject::head(instance_id)).await.map_err(FeedError::unavailable)?;
    let keys = client.subscribe(subject::KEYS).await.map_err(FeedError::unavailable)?;
    let filter = subject::trust_of_instance(instance_id);
    let changes = client.subscribe(filter.clone()).await.map_err(FeedError::unavailable)?;
    let early = client.subscribe(subject::live(instance_id)).await.map_err(FeedError::unavailable)?;
    let (items, reader) = mpsc::channel(READER_BUFFER);
    let stream_reader = StreamReader {
        jetstream: jetstream.clone(),
        streams,
        filter,
        items,
        keys,
        heads,
        changes,
        early,
        interruptions,
        recent: RecentMessages::default(),
        last: None,
        caught_up_at: Instant::now(),
        interrupted: false,
        awaited: None,
    };
    // Ends when the reader is dropped.
    tokio::spawn(stream_reader.run());
    Ok(stream::unfold(reader, |mut reader| async move { Some((reader.recv().await?, reader)) }).boxed())
}

struct StreamReader {
    jetstream: Context,
    streams: Arc<Streams>,
    filter: String,
    items: mpsc::Sender<FeedItem>,
    keys: Subscriber,
    heads: Subscriber,
    changes: Subscriber,
    /// Changes that come by the stream later, too.
    early: Subscriber,
    interruptions: watch::Receiver<u64>,
    recent: RecentMessages,
    /// Log and highest position of the changes passed on. Not verified: good enough to
    /// notice a loss, and never a reason to drop anything.
    last: Option<(String, u64)>,
    caught_up_at: Instant,
    /// Whether messages may have been lost since then.
    interrupted: bool,
    /// What a head told of, and until when it may take to come.
    awaited: Option<(Head, Instant)>,
}

/// The reader was dropped.
struct ReaderGone;

impl StreamReader {
    async fn run(mut self) {
        // The only way out is that the reader has gone.
        let _ = self.follow_for_ever().await;
    }

    async fn follow_for_ever(&mut self) -> Result<(), ReaderGone> {
        loop {
            self.interruptions.borrow_and_update();
            (self.interrupted, self.awaited) = (false, None);
            while let Err(error) = self.catch_up().await? {
                tracing::debug!(error, "cannot catch up with the feed yet");
                tokio::select! {
                    () = self.items.closed() => return Err(ReaderGone),
                    () = tokio::time::sleep(RETRY_PAUSE) => {}
                }
            }
            self.caught_up_at = Instant::now();
            self.follow().await?;
            self.send(FeedItem::Gap(GapReason::Interrupted)).await?;
        }
    }

    /// Passes the last state of each CA certificate on. Live messages wait meanwhile.
    async fn catch_up(&mut self) -> Result<Result<(), BoxError>, ReaderGone> {
        let consumer = match self.consumer().await {
            Ok(consumer) => consumer,
            Err(error) => return Ok(Err(error)),
        };
        let caught_up = self.drain(&consumer).await;
        let consumer = consumer.cached_info();
        if let Err(error) =
            self.jetstream.delete_consumer_from_stream(&consumer.name, &consumer.stream_name).await
        {
            tracing::debug!(%error, "the server will drop the consumer by itself");
        }
        caught_up
    }

    async fn consumer(&self) -> Result<Consumer<Config>, BoxError> {
        let config = Config {
            filter_subject: self.filter.clone(),
            deliver_policy: DeliverPolicy::LastPerSubject,
            ack_policy: AckPolicy::None,
            inactive_threshold: CONSUMER_LIFE,
            memory_storage: true,
            num_replicas: 1,
            ..Config::default()
        };
        self.streams.find(&self.jetstream).await?.ok_or("there is no stream")?;
        let stream = self.jetstream.get_stream_no_info(self.streams.name()).await?;
        Ok(stream.create_consumer(config).await?)
    }

    /// Reads a consumer until it has nothing pending.
    async fn drain(&mut self, consumer: &Consumer<Config>) -> Result<Result<(), BoxError>, ReaderGone> {
        let mut pending = consumer.cached_info().num_pending;
        if pending == 0 {
            return Ok(Ok(()));
        }
        let mut messages = match consumer.stream().expires(ANSWER_TIMEOUT).messages().await {
            Ok(messages) => messages,
            Err(error) => return Ok(Err(error.into())),
        };
        while pending > 0 {
            let message = match tokio::time::timeout(ANSWER_TIMEOUT, messages.next()).await {
                Ok(Some(Ok(message))) => message,
                Ok(Some(Err(error))) => return Ok(Err(error.into())),
                Ok(None) => return Ok(Err("the consumer ended".into())),
                Err(_) => return Ok(Err("the consumer is silent".into())),
            };
            pending = match message.info() {
                Ok(info) => info.pending,
                Err(error) => return Ok(Err(error)),
            };
            // Not remembered as known: after a gap, everything comes again.
            self.recent.insert(&message.payload);
            self.pass_change(&message.payload).await?;
        }
        Ok(Ok(()))
    }

    /// Passes on what comes, until it is time to catch up again.
    async fn follow(&mut self) -> Result<(), ReaderGone> {
        loop {
            let due = if self.interrupted {
                Some(self.caught_up_at + BETWEEN_CATCHING_UP)
            } else {
                self.awaited.as_ref().map(|(_, until)| *until)
            };
            // Keys first: what follows may be signed with them. Then changes: a head is
            // weighed after those that came before it.
            tokio::select! {
                biased;
                () = self.items.closed() => return Err(ReaderGone),
                Some(message) = self.keys.next() => {
                    if let Ok(set) = serde_json::from_slice::<KeySet>(&message.payload) {
                        self.send(FeedItem::KeySet(Arc::new(set))).await?;
                    }
                }
                Some(message) = self.changes.next() => {
                    if self.recent.insert(&message.payload) {
                        self.pass_change(&message.payload).await?;
                    }
                }
                Some(message) = self.early.next() => {
                    if self.recent.insert(&message.payload) {
                        self.pass_change(&message.payload).await?;
                    }
                }
                Ok(()) = self.interruptions.changed() => self.interrupted = true,
                Some(message) = self.heads.next() => self.pass_head(&message.payload),
                () = until(due) => return Ok(()),
            }
        }
    }

    async fn pass_change(&mut self, payload: &[u8]) -> Result<(), ReaderGone> {
        let Ok(change) = serde_json::from_slice::<TrustChange>(payload) else {
            return self.send(FeedItem::Gap(GapReason::Unreadable)).await;
        };
        match &mut self.last {
            Some((log_id, position)) if *log_id == change.log_id => {
                *position = change.position.max(*position);
            }
            last => *last = Some((change.log_id.clone(), change.position)),
        }
        if self.awaited.as_ref().is_some_and(|(head, _)| self.has(head)) {
            self.awaited = None;
        }
        self.send(FeedItem::Change(Arc::new(change))).await
    }

    fn pass_head(&mut self, payload: &[u8]) {
        let Ok(head) = serde_json::from_slice::<Head>(payload) else { return };
        if self.has(&head) {
            self.awaited = None;
        } else if self.awaited.is_none() {
            let grace = Instant::now() + HEAD_GRACE;
            self.awaited = Some((head.clone(), grace.max(self.caught_up_at + BETWEEN_CATCHING_UP)));
        }
        // A reader that is busy with changes needs no head.
        let _ = self.items.try_send(FeedItem::Head(Arc::new(head)));
    }

    /// Whether the change that made the head's revision was passed on.
    fn has(&self, head: &Head) -> bool {
        head.position == 0
            || self
                .last
                .as_ref()
                .is_some_and(|(log_id, position)| *log_id == head.log_id && *position >= head.position)
    }

    async fn send(&self, item: FeedItem) -> Result<(), ReaderGone> {
        self.items.send(item).await.map_err(|_| ReaderGone)
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// The last messages, by a keyed hash of their bytes: two messages are the same when
/// every byte is, so that a forged one can't stand in the way of the real one.
#[derive(Default)]
struct RecentMessages {
    hasher: RandomState,
    order: VecDeque<u64>,
    known: std::collections::HashSet<u64>,
}

impl RecentMessages {
    /// Remembers a message; gives whether it was unknown.
    fn insert(&mut self, payload: &[u8]) -> bool {
        let hash = self.hasher.hash_one(payload);
        if !self.known.insert(hash) {
            return false;
        }
        self.order.push_back(hash);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_known_until_enough_others_came() {
        let mut recent = RecentMessages::default();
        assert!(recent.insert(b"one"));
        assert!(!recent.insert(b"one"));
        for number in 0..REMEMBERED {
            assert!(recent.insert(&number.to_le_bytes()));
        }
        assert!(recent.insert(b"one"));
        assert_eq!(recent.known.len(), REMEMBERED);
    }
}
