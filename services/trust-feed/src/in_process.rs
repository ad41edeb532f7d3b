//! A feed in memory: for the embedded server, and for tests.
//!
//! Same meaning as JetStream's: sequence equals position, one message kept per
//! subject. Nothing survives the process; the publisher fills it from the log.
//! Memory is bounded by the number of CA certificates and, for each instance that
//! somebody follows, by [`BUFFER`] changes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use catrust_domain::{InstanceId, LogHead, RecordedEvent, Timestamp};
use catrust_proto::v1::{Head, KeySet, TrustChange};
use futures::StreamExt as _;
use futures::stream;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;

use crate::feed::{FeedError, FeedItem, FeedStream, FeedTail, GapReason, TailMessage, TrustFeed, remaining};
use crate::message::{FeedBody, FeedMessage};

/// Items that a reader may fall behind before it gets a gap.
pub const BUFFER: usize = 1_024;

/// The feed; clones share it.
#[derive(Clone, Debug, Default)]
pub struct InProcessFeed {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    sequence: u64,
    last: Option<TailMessage>,
    /// How often it was set aside: stands in for the time of creation.
    set_aside: i64,
    /// Subjects with the position of their last message.
    subjects: HashMap<String, u64>,
    instances: HashMap<InstanceId, InstanceFeed>,
}

#[derive(Debug, Default)]
struct InstanceFeed {
    /// Last change of each CA certificate, by position.
    changes: BTreeMap<u64, Arc<TrustChange>>,
    /// Present while somebody follows.
    live: Option<broadcast::Sender<FeedItem>>,
}

impl InProcessFeed {
    /// Makes an empty feed.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a feed that goes on after `head`, as if it had held the messages up to
    /// there and lost them: for readers that bring themselves up to date from the log.
    #[must_use]
    pub fn starting_after(log_id: Uuid, head: &LogHead) -> Self {
        let feed = Self::new();
        let mut state = feed.lock();
        state.sequence = head.position;
        state.last = (head.position > 0).then_some(TailMessage { log_id, event_hash: head.hash });
        drop(state);
        feed
    }

    /// Whether somebody follows the instance.
    #[must_use]
    pub fn is_followed(&self, instance_id: &InstanceId) -> bool {
        let mut state = self.lock();
        let Some(instance) = state.instances.get_mut(instance_id) else { return false };
        let followed = instance.live.as_ref().is_some_and(|live| live.receiver_count() > 0);
        if !followed {
            // Nobody would read what was kept for them.
            state.instances.remove(instance_id);
        }
        followed
    }

    /// Passes over the event that follows the tail without storing its message: for
    /// events of instances that nobody follows, which then need no signature.
    pub fn advance(&self, log_id: Uuid, event: &RecordedEvent) {
        let mut state = self.lock();
        state.sequence = event.position;
        state.last = Some(TailMessage { log_id, event_hash: event.hash });
    }

    /// Goes on after `head`, wherever the feed was: the log was set back, or an epoch has begun.
    /// What is kept is forgotten, and whoever follows an instance gets a gap.
    pub fn go_on_after(&self, log_id: Uuid, head: &LogHead) {
        let mut state = self.lock();
        state.sequence = head.position;
        state.last = (head.position > 0).then_some(TailMessage { log_id, event_hash: head.hash });
        state.subjects.clear();
        for instance in state.instances.values_mut() {
            instance.changes.clear();
            instance.send(FeedItem::Gap(GapReason::Interrupted));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the state whole, so that a panic in one
        // does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last states of an instance, and a receiver for what comes after them.
    fn join(&self, instance_id: &InstanceId) -> (Vec<FeedItem>, broadcast::Receiver<FeedItem>) {
        let mut state = self.lock();
        let instance = state.instances.entry(instance_id.clone()).or_default();
        let last = instance.changes.values().cloned().map(FeedItem::Change).collect();
        let live = instance.live.get_or_insert_with(|| broadcast::channel(BUFFER).0);
        (last, live.subscribe())
    }
}

impl State {
    fn tail(&self) -> FeedTail {
        FeedTail {
            sequence: self.sequence,
            last: self.last,
            messages: self.subjects.len() as u64,
            created_at: Timestamp::from_micros(self.set_aside),
        }
    }

    fn store(&mut self, message: &FeedMessage) {
        self.sequence = message.position;
        self.last = Some(TailMessage { log_id: message.log_id, event_hash: message.event_hash });
        let previous = self.subjects.insert(message.subject.clone(), message.position);
        if let FeedBody::Change(change) = &message.body {
            let instance = self.instances.entry(message.instance_id.clone()).or_default();
            if let Some(previous) = previous {
                instance.changes.remove(&previous);
            }
            instance.changes.insert(message.position, Arc::clone(change));
            instance.send(FeedItem::Change(Arc::clone(change)));
        }
    }
}

impl InstanceFeed {
    fn send(&mut self, item: FeedItem) {
        // An error means that the last reader has gone.
        if self.live.as_ref().is_some_and(|live| live.send(item).is_err()) {
            self.live = None;
        }
    }
}

#[async_trait]
impl TrustFeed for InProcessFeed {
    async fn tail(&self) -> Result<FeedTail, FeedError> {
        Ok(self.lock().tail())
    }

    /// Nobody else can put a message here: any of them tells whose it is.
    async fn oldest(&self) -> Result<Option<TailMessage>, FeedError> {
        Ok(self.lock().tail().last)
    }

    async fn publish(&self, messages: &[FeedMessage]) -> Result<(), FeedError> {
        let mut state = self.lock();
        for message in remaining(messages, &state.tail())? {
            if message.position != state.sequence + 1 {
                return Err(FeedError::OutOfSequence { expected: message.position, found: state.sequence });
            }
            state.store(message);
        }
        Ok(())
    }

    async fn publish_head(&self, head: &Head) -> Result<(), FeedError> {
        if let Ok(instance_id) = head.mqtt_instance_id.parse::<InstanceId>()
            && let Some(instance) = self.lock().instances.get_mut(&instance_id)
        {
            instance.send(FeedItem::Head(Arc::new(head.clone())));
        }
        Ok(())
    }

    async fn publish_key_set(&self, set: &KeySet) -> Result<(), FeedError> {
        let set = Arc::new(set.clone());
        for instance in self.lock().instances.values_mut() {
            instance.send(FeedItem::KeySet(Arc::clone(&set)));
        }
        Ok(())
    }

    async fn publish_live(&self, message: &FeedMessage) -> Result<(), FeedError> {
        if let FeedBody::Change(change) = &message.body
            && let Some(instance) = self.lock().instances.get_mut(&message.instance_id)
        {
            instance.send(FeedItem::Change(Arc::clone(change)));
        }
        Ok(())
    }

    /// Nobody else can write here, so that nothing is worth keeping.
    async fn set_aside(&self, made_at: Timestamp) -> Result<(), FeedError> {
        let mut state = self.lock();
        if state.tail().created_at != made_at {
            return Ok(());
        }
        state.sequence = 0;
        state.last = None;
        state.set_aside += 1;
        state.subjects.clear();
        for instance in state.instances.values_mut() {
            instance.changes.clear();
            instance.send(FeedItem::Gap(GapReason::Interrupted));
        }
        Ok(())
    }

    async fn subscribe(&self, instance_id: &InstanceId) -> Result<FeedStream, FeedError> {
        let (last, live) = self.join(instance_id);
        let reader = Reader { feed: self.clone(), instance_id: instance_id.clone(), last: last.into(), live };
        Ok(stream::unfold(reader, |mut reader| async move { Some((reader.next().await, reader)) }).boxed())
    }
}

/// One reader: the last states first, then live; after a lag, from the start.
struct Reader {
    feed: InProcessFeed,
    instance_id: InstanceId,
    last: std::collections::VecDeque<FeedItem>,
    live: broadcast::Receiver<FeedItem>,
}

impl Reader {
    async fn next(&mut self) -> FeedItem {
        if let Some(item) = self.last.pop_front() {
            return item;
        }
        match self.live.recv().await {
            Ok(item) => item,
            // A closed channel was dropped when nobody seemed to listen; join again.
            Err(RecvError::Lagged(_) | RecvError::Closed) => {
                let (last, live) = self.feed.join(&self.instance_id);
                self.last = last.into();
                self.live = live;
                FeedItem::Gap(GapReason::Lagged)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::feed_contract!(async { (Arc::new(InProcessFeed::new()) as Arc<dyn TrustFeed>, ()) });

    // Ground rule 13: a new epoch appears, and whoever follows an instance takes a bundle again.
    #[tokio::test]
    async fn a_feed_that_goes_on_elsewhere_gives_its_readers_a_gap_and_nothing_of_before() {
        let feed = InProcessFeed::new();
        let mut log = crate::contract::SampleLog::new();
        let key = crate::contract::key();
        let instance = log.register_instance("set-back");
        log.register_certificate(&instance);
        let mut reader = feed.subscribe(&instance).await.unwrap();
        let messages = log.messages(&key);
        feed.publish(&messages).await.unwrap();
        assert!(matches!(reader.next().await, Some(FeedItem::Change(_))));
        let head = LogHead { position: 1, hash: log.events()[0].hash, ..LogHead::EMPTY };
        feed.go_on_after(log.log_id(), &head);
        assert_eq!(reader.next().await, Some(FeedItem::Gap(GapReason::Interrupted)));
        assert_eq!(feed.tail().await.unwrap().sequence, 1);
        let mut late = feed.subscribe(&instance).await.unwrap();
        feed.publish(&messages[1..]).await.unwrap();
        assert!(matches!(late.next().await, Some(FeedItem::Change(_))), "the row after the head, once");
        assert!(matches!(reader.next().await, Some(FeedItem::Change(_))));
    }

    #[tokio::test]
    async fn a_reader_that_lags_gets_a_gap_and_the_last_states_again() {
        let feed = InProcessFeed::new();
        let mut log = crate::contract::SampleLog::new();
        let key = crate::contract::key();
        let instance = log.register_instance("lagging");
        let certificate = log.register_certificate(&instance);
        feed.publish(&log.messages(&key)).await.unwrap();
        let mut reader = feed.subscribe(&instance).await.unwrap();
        let first = reader.next().await;
        assert!(matches!(first, Some(FeedItem::Change(_))), "{first:?}");
        for _ in 0..BUFFER {
            log.toggle(&instance, &certificate);
        }
        feed.publish(&log.messages(&key)).await.unwrap();
        log.toggle(&instance, &certificate);
        feed.publish(&log.messages(&key)).await.unwrap();
        assert_eq!(reader.next().await, Some(FeedItem::Gap(GapReason::Lagged)));
        let Some(FeedItem::Change(change)) = reader.next().await else { panic!("no last state") };
        assert_eq!(change.position, log.head());
    }
}
