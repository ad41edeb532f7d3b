//! A running publisher, and what its feed must be in the end.

use std::sync::Mutex;

use catrust_domain::Timestamp;
use catrust_test_harness::eventually::eventually;
use catrust_test_harness::nats::NatsServer;
use catrust_trust_feed::contract::{ask_nats, key};
use catrust_trust_feed::nats::stream_name;
use catrust_trust_feed::{NatsFeed, NatsSettings, SigningKey, StreamUse, TrustPoint};
use tokio::task::JoinHandle;

use super::super::*;
use super::memory_store::{MemoryLog, MemoryStore};

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// When all heads were current.
pub const HEADS_ISSUED_AT: Timestamp = Timestamp::from_micros(1_900_000_000_000_000);

/// Heads of the whole log, or none where it is not fresh.
pub struct Heads {
    pub log: MemoryLog,
    pub fresh: Mutex<bool>,
}

impl HeadSource for Heads {
    fn heads(&self) -> Option<(Timestamp, Vec<TrustPoint>)> {
        let fresh = *self.fresh.lock().unwrap();
        let points = || self.log.with(|log| log.instances().map(TrustPoint::from).collect());
        fresh.then(|| (HEADS_ISSUED_AT, points()))
    }
}

#[derive(Default)]
pub struct Recorder {
    pub published: Mutex<Vec<u64>>,
    pub rebuilds: Mutex<Vec<String>>,
}

impl PublisherHooks for Recorder {
    fn published(&self, event: &RecordedEvent) {
        self.published.lock().unwrap().push(event.position);
    }

    fn rebuilding(&self, reason: &str) {
        self.rebuilds.lock().unwrap().push(reason.to_owned());
    }
}

/// A running publisher.
pub struct Replica {
    pub status: watch::Receiver<PublisherStatus>,
    pub hooks: Arc<Recorder>,
    pub heads: Arc<Heads>,
    task: JoinHandle<()>,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Replica {
    pub fn start(store: MemoryStore, feed: Arc<dyn TrustFeed>, key: &Arc<SigningKey>) -> Self {
        Self::start_as(store, feed, key, false)
    }

    /// Makes the feed its own, whosever it is.
    pub fn start_taking_over(store: MemoryStore, feed: Arc<dyn TrustFeed>, key: &Arc<SigningKey>) -> Self {
        Self::start_as(store, feed, key, true)
    }

    fn start_as(
        store: MemoryStore,
        feed: Arc<dyn TrustFeed>,
        key: &Arc<SigningKey>,
        take_over: bool,
    ) -> Self {
        let heads = Arc::new(Heads { log: store.log(), fresh: Mutex::new(true) });
        let hooks = Arc::new(Recorder::default());
        let messages = Arc::new(MessageCache::new(store.log_id(), Arc::clone(key)));
        let store: Arc<dyn EventLog> = Arc::new(store);
        let (publisher, status) = Publisher::new(PublisherParts {
            log: Arc::clone(&store),
            ground: Arc::new(ReadGround(store)),
            clock: Arc::new(|| Timestamp::from_micros(1_900_000_000_000_000)),
            feed,
            messages,
            key: Arc::clone(key),
            key_set: watch::channel(None).1,
            heads: Arc::clone(&heads) as Arc<dyn HeadSource>,
            hooks: Arc::clone(&hooks) as Arc<dyn PublisherHooks>,
            take_over,
        });
        let task = tokio::spawn(publisher.run(CancellationToken::new()));
        Self { status, hooks, heads, task }
    }

    pub async fn until(
        &self,
        what: &str,
        condition: impl FnMut(&PublisherStatus) -> bool,
    ) -> PublisherStatus {
        let mut status = self.status.clone();
        match tokio::time::timeout(PATIENCE, status.wait_for(condition)).await {
            Ok(status) => status.expect("the publisher runs").clone(),
            Err(_) => panic!("not within {PATIENCE:?}: {what}; last: {:?}", self.status.borrow()),
        }
    }

    pub async fn until_published(&self, position: u64) -> PublisherStatus {
        self.until(&format!("position {position} is published"), |status| {
            status.published_position >= position
        })
        .await
    }

    pub fn rebuilds(&self) -> Vec<String> {
        self.hooks.rebuilds.lock().unwrap().clone()
    }
}

pub async fn feed_on(server: &NatsServer) -> Arc<NatsFeed> {
    Arc::new(NatsFeed::connect(&NatsSettings::new(server.url())).await.expect("usable settings"))
}

pub fn shared_key() -> Arc<SigningKey> {
    Arc::new(key())
}

pub fn grown(length: u64) -> MemoryLog {
    let log = MemoryLog::new();
    log.with(|log| log.grow(length));
    log
}

/// Waits until the feed's end is the log's, and checks that every kept message is the
/// one that the log's row makes, at the sequence of its position.
pub async fn assert_feed_is_the_log(server: &NatsServer, log: &MemoryLog, key: &SigningKey) {
    assert_feed_is_the_log_by(server, log, &[key]).await;
}

/// As [`assert_feed_is_the_log`], where any of the keys may have signed a message.
pub async fn assert_feed_is_the_log_by(server: &NatsServer, log: &MemoryLog, keys: &[&SigningKey]) {
    let mut rest = log.with(|log| log.events().to_vec());
    let log_id = log.with(|log| log.log_id());
    let feed = feed_on(server).await;
    eventually(PATIENCE, &format!("the feed is at {}", rest.len()), async || match feed.tail().await {
        Ok(tail) if tail.sequence == rest.len() as u64 && tail.last.is_some() => Ok(()),
        tail => Err(format!("{tail:?}")),
    })
    .await
    .unwrap();
    let stream = stream_in_use(&feed).await;
    let mut kept = 0;
    let mut subjects = std::collections::HashSet::new();
    while let Some(event) = rest.pop() {
        let made = |key| FeedMessage::new(log_id, &event, key).unwrap();
        // From the end: the first message of a subject is the one that is kept.
        if subjects.insert(made(keys[0]).subject) {
            let stored = raw_message(server, &stream, event.position).await;
            let by_one_of_them = keys.iter().any(|key| stored.as_deref() == Some(&made(key).json[..]));
            assert!(by_one_of_them, "position {}: {stored:?}", event.position);
            kept += 1;
        }
    }
    assert_eq!(feed.tail().await.unwrap().messages, kept);
}

/// What NATS itself says is stored at a sequence, by its own protocol.
pub async fn raw_message(server: &NatsServer, stream: &str, sequence: u64) -> Option<Vec<u8>> {
    let request = format!("{{\"seq\":{sequence}}}");
    let subject = format!("$JS.API.STREAM.MSG.GET.{stream}");
    let answer = ask_nats(&server.url(), &subject, &request).await;
    let answer: serde_json::Value = serde_json::from_slice(&answer).expect("JSON");
    let data = answer["message"]["data"].as_str()?;
    Some(base64::Engine::decode(&base64::engine::general_purpose::STANDARD, data).expect("base64"))
}

async fn stream_in_use(feed: &NatsFeed) -> String {
    let streams = feed.outlines().await.unwrap();
    let used: Vec<u32> = streams.iter().filter(|s| s.role == StreamUse::InUse).map(|s| s.number).collect();
    assert_eq!(used.len(), 1, "{streams:?}");
    stream_name(used[0])
}

/// What was set aside, as number and last sequence.
pub async fn set_aside_on(server: &NatsServer) -> Vec<(u32, u64)> {
    let streams = feed_on_ready(server).await.outlines().await.unwrap();
    let aside = streams.into_iter().filter(|stream| stream.role == StreamUse::SetAside);
    aside.map(|stream| (stream.number, stream.last_sequence)).collect()
}

pub async fn delete_stream(server: &NatsServer) {
    let answer = ask_nats(&server.url(), "$JS.API.STREAM.DELETE.CATRUST", "").await;
    assert!(String::from_utf8_lossy(&answer).contains("\"success\":true"));
}

pub async fn feed_on_ready(server: &NatsServer) -> Arc<NatsFeed> {
    let feed = feed_on(server).await;
    eventually(PATIENCE, "the feed answers", async || feed.tail().await).await.unwrap();
    feed
}
