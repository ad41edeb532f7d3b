//! What every [`TrustFeed`] must do, one function a promise, and a sample log to do
//! it with. Behind the feature `contract`, so that implementations elsewhere can run
//! it too.

mod certificate;
mod sample_log;

use std::collections::HashSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use catrust_domain::{Sha256, Timestamp};
use catrust_proto::v1::KeySet;
use futures::StreamExt as _;

use crate::canonical::Signed as _;
use crate::feed::{FeedError, FeedItem, FeedStream, TailMessage, TrustFeed};
use crate::message::{self, FeedBody, FeedMessage, TrustPoint};
use crate::signing::SigningKey;

pub use sample_log::SampleLog;

/// How long a promise may take to come true.
const PATIENCE: Duration = Duration::from_secs(20);

/// A key of its own for each test.
///
/// # Panics
/// Where the system gives no randomness.
#[must_use]
pub fn key() -> SigningKey {
    let pem = SigningKey::generate_pem().expect("the system gives randomness");
    SigningKey::from_pem(&pem).expect("a new key can be read")
}

/// Asks NATS or a service on it, as a client of its own; gives the answer.
///
/// # Panics
/// Where there is no answer.
pub async fn ask_nats(url: &str, subject: &str, payload: &str) -> Vec<u8> {
    let client = async_nats::connect(url).await.expect("a connection");
    let answer = client
        .request(subject.to_owned(), payload.to_owned().into())
        .await
        .unwrap_or_else(|error| panic!("no answer on {subject}: {error}"));
    answer.payload.to_vec()
}

/// Makes one test of each promise. `$make` is a future of an empty feed, and of
/// whatever must live as long as the feed does.
#[macro_export]
macro_rules! feed_contract {
    ($make:expr) => {
        $crate::feed_contract!($make;
            an_empty_feed_is_at_sequence_zero,
            each_message_is_stored_at_its_position,
            publishing_again_what_is_stored_is_harmless,
            a_message_out_of_sequence_is_refused,
            another_event_at_a_stored_position_is_a_conflict,
            two_publishers_at_once_are_harmless,
            one_message_is_kept_per_subject,
            a_late_joiner_gets_the_last_states_and_then_what_follows,
            a_reader_sees_no_other_instance,
            heads_reach_the_readers_of_their_instance,
            key_sets_reach_every_reader,
            a_feed_that_was_set_aside_is_empty_and_can_be_filled_again,
            readers_go_on_after_a_feed_was_set_aside,
            a_slow_reader_delays_nobody,
            a_live_change_reaches_readers_and_is_not_stored,
        );
    };
    ($make:expr; $($promise:ident,)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $promise() {
                let (feed, _keeps_alive) = $make.await;
                $crate::contract::$promise(feed).await;
            }
        )+
    };
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

fn tail_of(message: &FeedMessage) -> Option<TailMessage> {
    Some(TailMessage { log_id: message.log_id, event_hash: message.event_hash })
}

/// Reads changes until one has `position`; gives all their positions.
async fn read_until(reader: &mut FeedStream, position: u64) -> Vec<u64> {
    let mut seen = Vec::new();
    let reading = async {
        while seen.last() != Some(&position) {
            match reader.next().await {
                Some(FeedItem::Change(change)) => seen.push(change.position),
                Some(FeedItem::Head(_) | FeedItem::KeySet(_) | FeedItem::Gap(_)) => {}
                None => panic!("the stream of items ended after {seen:?}"),
            }
        }
    };
    if tokio::time::timeout(PATIENCE, reading).await.is_err() {
        panic!("no change at {position} within {PATIENCE:?}; seen {seen:?}");
    }
    seen
}

/// A promise of the suite.
pub async fn an_empty_feed_is_at_sequence_zero(feed: Arc<dyn TrustFeed>) {
    let tail = feed.tail().await.expect("a tail");
    assert_eq!((tail.sequence, tail.last, tail.messages), (0, None, 0));
    feed.publish(&[]).await.expect("nothing to publish is fine");
}

/// A promise of the suite.
pub async fn each_message_is_stored_at_its_position(feed: Arc<dyn TrustFeed>) {
    let mut log = SampleLog::new();
    log.grow(700);
    let messages = log.messages(&key());
    for part in messages.chunks(300) {
        feed.publish(part).await.expect("stored");
        let tail = feed.tail().await.expect("a tail");
        let last = part.last().expect("chunks are not empty");
        assert_eq!((tail.sequence, tail.last), (last.position, tail_of(last)));
    }
}

/// A promise of the suite.
pub async fn publishing_again_what_is_stored_is_harmless(feed: Arc<dyn TrustFeed>) {
    let mut log = SampleLog::new();
    log.grow(40);
    let messages = log.messages(&key());
    feed.publish(&messages[..30]).await.expect("stored");
    feed.publish(&messages[..30]).await.expect("all of them again");
    feed.publish(&messages[10..]).await.expect("some again, some new");
    feed.publish(&messages[39..]).await.expect("the last one again");
    let tail = feed.tail().await.expect("a tail");
    assert_eq!((tail.sequence, tail.last), (40, tail_of(&messages[39])));
}

/// A promise of the suite.
pub async fn a_message_out_of_sequence_is_refused(feed: Arc<dyn TrustFeed>) {
    let mut log = SampleLog::new();
    log.grow(20);
    let messages = log.messages(&key());
    let refused = feed.publish(&messages[5..]).await;
    assert!(
        matches!(refused, Err(FeedError::OutOfSequence { expected: 6, found: 0 })),
        "positions after a gap: {refused:?}"
    );
    feed.publish(&messages).await.expect("stored");
    let refused = feed.publish(&messages[..10]).await;
    assert!(
        matches!(refused, Err(FeedError::OutOfSequence { expected: 1, found: 20 })),
        "positions long passed: {refused:?}"
    );
    assert_eq!(feed.tail().await.expect("a tail").last, tail_of(&messages[19]));
}

/// A promise of the suite.
pub async fn another_event_at_a_stored_position_is_a_conflict(feed: Arc<dyn TrustFeed>) {
    let mut ours = SampleLog::new();
    ours.grow(10);
    let mut theirs = SampleLog::new();
    theirs.grow(12);
    let ours = ours.messages(&key());
    feed.publish(&ours).await.expect("stored");
    let refused = feed.publish(&theirs.messages(&key())).await;
    assert!(matches!(refused, Err(FeedError::Conflict { position: 10 })), "another log: {refused:?}");
    let mut forged = ours[9..].to_vec();
    forged[0].event_hash = Sha256::of(b"another past");
    let refused = feed.publish(&forged).await;
    assert!(matches!(refused, Err(FeedError::Conflict { position: 10 })), "another past: {refused:?}");
}

/// A promise of the suite: both go on from the tail whenever the other was first.
pub async fn two_publishers_at_once_are_harmless(feed: Arc<dyn TrustFeed>) {
    let mut log = SampleLog::new();
    log.grow(2_000);
    let messages = Arc::new(log.messages(&key()));
    let publisher = |chunk: usize| {
        let (feed, messages) = (Arc::clone(&feed), Arc::clone(&messages));
        tokio::spawn(async move {
            let mut done = 0;
            while done < messages.len() {
                let end = (done + chunk).min(messages.len());
                match feed.publish(&messages[done..end]).await {
                    Ok(()) => done = end,
                    Err(FeedError::OutOfSequence { .. }) => {
                        let sequence = feed.tail().await.expect("a tail").sequence;
                        done = usize::try_from(sequence).expect("a small log");
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
        })
    };
    let (one, two) = (publisher(37), publisher(101));
    soon("both publishers are done", async {
        one.await.expect("the first");
        two.await.expect("the second");
    })
    .await;
    let tail = feed.tail().await.expect("a tail");
    assert_eq!((tail.sequence, tail.last), (2_000, tail_of(&messages[1_999])));
    let subjects: HashSet<&str> = messages.iter().map(|message| message.subject.as_str()).collect();
    assert_eq!(tail.messages, subjects.len() as u64);
}

/// A promise of the suite.
pub async fn one_message_is_kept_per_subject(feed: Arc<dyn TrustFeed>) {
    let mut log = SampleLog::new();
    log.grow(300);
    let messages = log.messages(&key());
    feed.publish(&messages).await.expect("stored");
    let subjects: HashSet<&str> = messages.iter().map(|message| message.subject.as_str()).collect();
    assert_eq!(feed.tail().await.expect("a tail").messages, subjects.len() as u64);
}

/// A promise of the suite.
pub async fn a_late_joiner_gets_the_last_states_and_then_what_follows(feed: Arc<dyn TrustFeed>) {
    let key = key();
    let mut log = SampleLog::new();
    let instance = log.register_instance("late");
    let one = log.register_certificate(&instance);
    let two = log.register_certificate(&instance);
    for _ in 0..5 {
        log.toggle(&instance, &one);
    }
    let one_at = log.toggle(&instance, &one);
    let two_at = log.toggle(&instance, &two);
    feed.publish(&log.messages(&key)).await.expect("stored");
    let mut reader = feed.subscribe(&instance).await.expect("a reader");
    let mut expected = vec![one_at, two_at];
    assert_eq!(read_until(&mut reader, two_at).await, expected);
    for _ in 0..50 {
        expected.push(log.toggle(&instance, &one));
        feed.publish(&log.messages(&key)).await.expect("stored");
    }
    assert_eq!(read_until(&mut reader, log.head()).await, expected[2..]);
}

/// A promise of the suite.
pub async fn a_reader_sees_no_other_instance(feed: Arc<dyn TrustFeed>) {
    let mut log = SampleLog::new();
    let instance = log.register_instance("mine");
    let longer = log.register_instance("mine-too");
    let certificate = log.register_certificate(&instance);
    let registered = log.head();
    let other = log.register_certificate(&longer);
    let key = key();
    feed.publish(&log.messages(&key)).await.expect("stored");
    let mut reader = feed.subscribe(&instance).await.expect("a reader");
    let mut expected = Vec::new();
    for _ in 0..3 {
        log.toggle(&longer, &other);
        expected.push(log.toggle(&instance, &certificate));
    }
    assert_eq!(read_until(&mut reader, registered).await, [registered]);
    feed.publish(&log.messages(&key)).await.expect("stored");
    assert_eq!(read_until(&mut reader, expected[2]).await, expected);
}

/// A promise of the suite.
pub async fn heads_reach_the_readers_of_their_instance(feed: Arc<dyn TrustFeed>) {
    let mut log = SampleLog::new();
    let (mine, other) = (log.register_instance("heads"), log.register_instance("other"));
    let key = key();
    let mut reader = feed.subscribe(&mine).await.expect("a reader");
    let head_of = |instance_id| {
        let point = TrustPoint { instance_id, revision: 0, position: 0, digest: Sha256::ZERO };
        let mut head = message::head(log.log_id(), &point, Timestamp::from_micros(7));
        head.sign(&key).expect("signable");
        head
    };
    let (wanted, unwanted) = (head_of(mine), head_of(other));
    // A head is not stored, so it is sent until the reader listens.
    let sending = async {
        loop {
            feed.publish_head(&unwanted).await.expect("sent");
            feed.publish_head(&wanted).await.expect("sent");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        item = reader.next() => assert_eq!(item, Some(FeedItem::Head(Arc::new(wanted.clone())))),
        () = soon("a head arrives", sending) => {}
    }
}

/// A promise of the suite.
pub async fn key_sets_reach_every_reader(feed: Arc<dyn TrustFeed>) {
    let mut log = SampleLog::new();
    let instances = [log.register_instance("keys-a"), log.register_instance("keys-b")];
    let mut set = KeySet {
        version: 7,
        issued_at: Some(message::timestamp(Timestamp::from_micros(7))),
        expires_at: Some(message::timestamp(Timestamp::from_micros(8))),
        ..KeySet::default()
    };
    set.sign(&key()).expect("signable");
    for instance in &instances {
        let mut reader = feed.subscribe(instance).await.expect("a reader");
        // Not stored, so it is sent until the reader listens.
        let sending = async {
            loop {
                feed.publish_key_set(&set).await.expect("sent");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            item = reader.next() => assert_eq!(item, Some(FeedItem::KeySet(Arc::new(set.clone())))),
            () = soon("a key set arrives", sending) => {}
        }
    }
}

/// A promise of the suite.
pub async fn a_feed_that_was_set_aside_is_empty_and_can_be_filled_again(feed: Arc<dyn TrustFeed>) {
    let mut theirs = SampleLog::new();
    theirs.grow(30);
    feed.publish(&theirs.messages(&key())).await.expect("stored");
    let before = feed.tail().await.expect("a tail");
    feed.set_aside(before.created_at).await.expect("set aside");
    let tail = feed.tail().await.expect("a tail");
    assert_eq!((tail.sequence, tail.last, tail.messages), (0, None, 0));
    assert_ne!(tail.created_at, before.created_at, "one can tell that it is another feed");
    let mut ours = SampleLog::new();
    ours.grow(20);
    let ours = ours.messages(&key());
    feed.publish(&ours).await.expect("filled again");
    feed.set_aside(before.created_at).await.expect("another one has its place already");
    assert_eq!(feed.tail().await.expect("a tail").last, tail_of(&ours[19]));
}

/// A promise of the suite: a reader of a feed that takes another one's place gets the new
/// states without doing anything.
pub async fn readers_go_on_after_a_feed_was_set_aside(feed: Arc<dyn TrustFeed>) {
    let key = key();
    let mut theirs = SampleLog::new();
    let instance = theirs.register_instance("reset");
    let certificate = theirs.register_certificate(&instance);
    for _ in 0..30 {
        theirs.toggle(&instance, &certificate);
    }
    feed.publish(&theirs.messages(&key)).await.expect("stored");
    let mut reader = feed.subscribe(&instance).await.expect("a reader");
    read_until(&mut reader, theirs.head()).await;
    let mut ours = SampleLog::new();
    ours.register_instance("reset");
    ours.register_certificate(&instance);
    let made_at = feed.tail().await.expect("a tail").created_at;
    feed.set_aside(made_at).await.expect("set aside");
    feed.publish(&ours.messages(&key)).await.expect("filled again");
    // What is kept comes by itself or with the next head, whose position tells the
    // reader that it misses something.
    let (position, log_id) = (ours.head(), ours.log_id());
    let point = TrustPoint { instance_id: instance, revision: 1, position, digest: Sha256::ZERO };
    let mut head = message::head(log_id, &point, Timestamp::from_micros(7));
    head.sign(&key).expect("signable");
    let sending = async {
        loop {
            feed.publish_head(&head).await.expect("sent");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let reading = async {
        loop {
            match reader.next().await {
                Some(FeedItem::Change(change)) if change.log_id == log_id.to_string() => {
                    break change.position;
                }
                Some(_) => {}
                None => panic!("the stream of items ended"),
            }
        }
    };
    tokio::select! {
        seen = reading => assert_eq!(seen, position),
        () = soon("the new feed's change arrives", sending) => {}
    }
}

/// A promise of the suite.
pub async fn a_slow_reader_delays_nobody(feed: Arc<dyn TrustFeed>) {
    let key = key();
    let mut log = SampleLog::new();
    let instance = log.register_instance("slow");
    let certificate = log.register_certificate(&instance);
    feed.publish(&log.messages(&key)).await.expect("stored");
    let mut slow = feed.subscribe(&instance).await.expect("a reader");
    let first = soon("the slow reader's first item", slow.next()).await;
    assert!(matches!(first, Some(FeedItem::Change(_))), "{first:?}");
    let mut quick = feed.subscribe(&instance).await.expect("a reader");
    for _ in 0..20 {
        for _ in 0..200 {
            log.toggle(&instance, &certificate);
        }
        soon("publishing beside a slow reader", feed.publish(&log.messages(&key))).await.expect("stored");
        read_until(&mut quick, log.head()).await;
    }
    // The slow one gets the end in time, whatever it has missed in between.
    read_until(&mut slow, log.head()).await;
}

/// Whether a message is a change of trust; for tests that count them.
#[must_use]
pub fn is_change(message: &FeedMessage) -> bool {
    matches!(message.body, FeedBody::Change(_))
}

/// A promise of the suite: ground rule 15, new changes reach readers at once while the feed is filled.
pub async fn a_live_change_reaches_readers_and_is_not_stored(feed: Arc<dyn TrustFeed>) {
    let mut log = SampleLog::new();
    let instance = log.register_instance("live");
    let certificate = log.register_certificate(&instance);
    for _ in 0..20 {
        log.toggle(&instance, &certificate);
    }
    let messages = log.messages(&key());
    feed.publish(&messages[..3]).await.expect("stored");
    let mut reader = feed.subscribe(&instance).await.expect("a reader");
    read_until(&mut reader, messages[2].position).await;
    // What is not stored may be sent before the reader listens.
    let sending = async {
        loop {
            feed.publish_live(&messages[21]).await.expect("sent");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        seen = read_until(&mut reader, messages[21].position) => assert!(!seen.is_empty()),
        () = soon("the live change arrives", sending) => {}
    }
    assert_eq!(feed.tail().await.expect("a tail").sequence, 3, "the feed itself is where it was");
    feed.publish(&messages[3..]).await.expect("and goes on from there");
}
