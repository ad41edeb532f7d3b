//! Publishing: a window of messages in flight, each tied to its sequence.
//!
//! Whatever happens to a window (a lost ack, another publisher, a restart), the tail of
//! the stream tells how much of it is stored, since message `p` is at sequence `p` or
//! nowhere. A resend of a stored message answers "duplicate" on NATS 2.9 and "wrong
//! last sequence" on newer ones; both only mean: look at the tail.

use std::pin::Pin;

use async_nats::jetstream::context::{PublishAckFuture, PublishError, PublishErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use futures::StreamExt as _;
use futures::future::try_join_all;
use futures::stream::FuturesOrdered;

use super::{NatsFeed, WINDOW, stream, wire};
use crate::feed::{FeedError, TrustFeed as _, remaining};
use crate::message::FeedMessage;

/// Windows in a row that may store nothing before the caller is told: more than a
/// busy second publisher causes, and few enough not to stall.
const FRUITLESS_WINDOWS: u32 = 3;

/// Look-ups under way at once when a window is checked after an interruption.
const CHECKS_IN_FLIGHT: usize = 32;

/// Why a window ended early.
enum Interruption {
    /// The server says that the sequence is another than expected, or that it has the
    /// message.
    Sequence {
        /// The first message that it says so of.
        position: u64,
    },
    /// Anything else.
    Feed(FeedError),
}

/// Stores `messages`; see [`crate::feed::TrustFeed::publish`].
pub async fn publish(feed: &NatsFeed, messages: &[FeedMessage]) -> Result<(), FeedError> {
    let mut rest = messages;
    if rest.first().is_some_and(|first| first.position == 1) {
        // Alone, and onto a stream seen empty: see `wire::headers`. Were it put at
        // another sequence, one in flight behind it could find what it expects.
        rest = remaining(rest, &feed.tail().await?)?;
    }
    let mut fruitless = 0;
    while let Some(first) = rest.first() {
        let part = if first.position == 1 { &rest[..1] } else { rest };
        let refused = match send_window(feed, part).await {
            Ok(()) if part.len() < rest.len() => {
                rest = &rest[1..];
                continue;
            }
            Ok(()) => return Ok(()),
            Err(Interruption::Feed(error)) => return Err(error),
            Err(Interruption::Sequence { position }) => position,
        };
        let tail = feed.tail().await?;
        let next = remaining(rest, &tail)?;
        let passed_over = &rest[..rest.len() - next.len()];
        let unproved = passed_over.iter().position(|message| message.position >= refused);
        check_passed_over(feed, &passed_over[unproved.unwrap_or(passed_over.len())..]).await?;
        fruitless = if next.len() == rest.len() { fruitless + 1 } else { 0 };
        if fruitless == FRUITLESS_WINDOWS {
            return Err(FeedError::OutOfSequence { expected: first.position, found: tail.sequence });
        }
        rest = next;
    }
    Ok(())
}

/// Proves that messages which the tail covers, but whose storing was not acknowledged,
/// are stored. The tail alone does not: somebody else's message may have taken the
/// sequence of one, and the next in flight, which found the last sequence that it
/// expects, be the tail. A message is stored when the last one of its subject is it,
/// or a later one.
async fn check_passed_over(feed: &NatsFeed, messages: &[FeedMessage]) -> Result<(), FeedError> {
    for part in messages.chunks(CHECKS_IN_FLIGHT) {
        let mut checks = Vec::with_capacity(part.len());
        for message in part {
            checks.push(check_stored(feed, message));
        }
        try_join_all(checks).await?;
    }
    Ok(())
}

async fn check_stored(feed: &NatsFeed, message: &FeedMessage) -> Result<(), FeedError> {
    let last = stream::last_of_subject(&feed.jetstream, &feed.streams.name(), &message.subject).await?;
    let stored = last.is_some_and(|last| {
        last.sequence > message.position
            || (last.sequence == message.position && wire::identify(&last) == Some(message.tail()))
    });
    if stored { Ok(()) } else { Err(FeedError::Conflict { position: message.position }) }
}

type Ack<'a> = Pin<Box<dyn Future<Output = (u64, Result<PublishAck, PublishError>)> + Send + 'a>>;

/// Sends all of `messages` with at most [`WINDOW`] acks in flight; stops at the first
/// one that is not stored. Those in flight behind it are refused by the server.
async fn send_window(feed: &NatsFeed, messages: &[FeedMessage]) -> Result<(), Interruption> {
    let mut acks: FuturesOrdered<Ack<'_>> = FuturesOrdered::new();
    for message in messages {
        if acks.len() == WINDOW
            && let Some((position, ack)) = acks.next().await
        {
            check(position, ack)?;
        }
        let position = message.position;
        let ack = send(feed, message).await.map_err(|error| interruption(position, error))?;
        acks.push_back(Box::pin(async move { (position, ack.await) }));
    }
    while let Some((position, ack)) = acks.next().await {
        check(position, ack)?;
    }
    Ok(())
}

async fn send(feed: &NatsFeed, message: &FeedMessage) -> Result<PublishAckFuture, PublishError> {
    let publish = PublishMessage::build().headers(wire::headers(message)).payload(message.json.clone());
    feed.jetstream.send_publish(message.subject.clone(), publish).await
}

fn check(position: u64, ack: Result<PublishAck, PublishError>) -> Result<(), Interruption> {
    let ack = ack.map_err(|error| interruption(position, error))?;
    if ack.duplicate || ack.sequence != position { Err(Interruption::Sequence { position }) } else { Ok(()) }
}

fn interruption(position: u64, error: PublishError) -> Interruption {
    match error.kind() {
        PublishErrorKind::WrongLastSequence => Interruption::Sequence { position },
        PublishErrorKind::MaxPayloadExceeded => Interruption::Feed(FeedError::Unsuitable(
            "a message is larger than the NATS server takes; raise its max_payload".to_owned(),
        )),
        _ => Interruption::Feed(FeedError::unavailable(error)),
    }
}

#[cfg(test)]
mod tests {
    use catrust_test_harness::eventually::eventually;
    use catrust_test_harness::nats::NatsServer;

    use super::*;
    use crate::contract::{SampleLog, key};
    use crate::nats::NatsSettings;

    async fn connected(server: &NatsServer) -> NatsFeed {
        let feed = NatsFeed::connect(&NatsSettings::new(server.url())).await.unwrap();
        let patience = std::time::Duration::from_secs(20);
        eventually(patience, "the feed answers", async || feed.tail().await).await.unwrap();
        feed
    }

    /// The one in flight behind it finds the last sequence that it expects, and is stored.
    #[tokio::test]
    async fn a_sequence_taken_by_somebody_else_is_a_conflict_whatever_follows_it() {
        let server = NatsServer::start().await.unwrap();
        let feed = connected(&server).await;
        let mut log = SampleLog::new();
        log.grow(5);
        feed.publish(&log.messages(&key())).await.unwrap();
        let forged = feed.jetstream.publish("catrust.v1.log.somebody.Forged", "{}".into()).await.unwrap();
        assert_eq!(forged.await.unwrap().sequence, 6);
        log.grow(8);
        let outcome = feed.publish(&log.messages(&key())).await;
        assert!(matches!(outcome, Err(FeedError::Conflict { position: 6 })), "{outcome:?}");
    }

    #[tokio::test]
    async fn messages_that_another_publisher_stored_are_passed_over() {
        let server = NatsServer::start().await.unwrap();
        let feed = connected(&server).await;
        let mut log = SampleLog::new();
        log.grow(5);
        feed.publish(&log.messages(&key())).await.unwrap();
        log.grow(15);
        let messages = log.messages(&key());
        connected(&server).await.publish(&messages[..7]).await.unwrap();
        feed.publish(&messages).await.unwrap();
        assert_eq!(feed.tail().await.unwrap().sequence, 15);
    }

    /// NATS 2.9 ignores an expected last sequence of 0, and the message id of another
    /// log, or of long ago, does not help.
    #[tokio::test]
    async fn position_one_cannot_be_stored_twice() {
        let server = NatsServer::start().await.unwrap();
        let feed = connected(&server).await;
        let (mut ours, mut theirs) = (SampleLog::new(), SampleLog::new());
        ours.grow(10);
        theirs.grow(10);
        feed.publish(&ours.messages(&key())).await.unwrap();
        let ack = send(&feed, &theirs.messages(&key())[0]).await.unwrap().await;
        assert_eq!(ack.map_err(|error| error.kind()), Err(PublishErrorKind::WrongLastSequence));
        assert_eq!(feed.tail().await.unwrap().sequence, 10);
    }
}
