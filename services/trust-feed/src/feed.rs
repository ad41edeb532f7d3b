//! The port that carries messages from the log to the brokers.
//!
//! A feed is transport, never the record: it may lose what it acknowledged, and is
//! then filled again from the log. Two things hold it together:
//! - the message of log position `p` is stored at sequence `p`, or not at all, so
//!   that the last sequence is the cursor of whoever publishes;
//! - only the last message of each subject is kept, so that a late joiner gets the
//!   last state of each CA certificate, and what follows.

use std::sync::Arc;

use async_trait::async_trait;
use catrust_domain::{InstanceId, Sha256, Timestamp};
use catrust_proto::v1::{Head, KeySet, TrustChange};
use futures::stream::BoxStream;
use uuid::Uuid;

use crate::message::FeedMessage;

/// The inner error, for the log.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A failure of the feed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeedError {
    /// The feed is away, or did not answer in time. Some of the messages may have
    /// been stored: read the tail and go on from there.
    #[error("the feed is unavailable")]
    Unavailable(#[source] BoxError),
    /// The messages do not follow the feed's last one; none of the remaining ones was
    /// stored. Ordinary with two publishers: read the tail and go on from there.
    #[error("the feed is at sequence {found}, and the message is for {expected}")]
    OutOfSequence {
        /// Sequence that the first message not stored must get.
        expected: u64,
        /// Last sequence of the feed.
        found: u64,
    },
    /// The feed holds another event at this position: it belongs to another log, or
    /// to another past of this one. Only a reset helps.
    #[error("the feed holds another event at position {position}")]
    Conflict {
        /// The position.
        position: u64,
    },
    /// The feed has to be set aside, and there may be no further one: too many are kept, or too
    /// many were made within a day. The text says what an operator can do.
    #[error("no further stream is made: {0}")]
    NoFurtherStream(String),
    /// The feed cannot be used as it is set up; the text says why and what to do.
    #[error("unsuitable feed: {0}")]
    Unsuitable(String),
}

impl FeedError {
    /// Makes an [`FeedError::Unavailable`].
    pub fn unavailable(source: impl Into<BoxError>) -> Self {
        Self::Unavailable(source.into())
    }
}

/// What the last message of the feed is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TailMessage {
    /// Log that it comes from.
    pub log_id: Uuid,
    /// Hash of its row.
    pub event_hash: Sha256,
}

/// The end of the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedTail {
    /// Last sequence; 0 for a feed that never held a message.
    pub sequence: u64,
    /// The message at `sequence`; `None` where it is missing, or not one of ours.
    pub last: Option<TailMessage>,
    /// Messages kept: one per subject. Never falls, unless messages were lost.
    pub messages: u64,
    /// When the feed was created; another time means another feed.
    pub created_at: Timestamp,
}

/// A message that the feed has kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptMessage {
    /// Sequence, which is the log position.
    pub sequence: u64,
    /// Which row of which log it says to be; `None` where it does not belong at its
    /// sequence.
    pub row: Option<TailMessage>,
    /// The body, ProtoJSON. Nothing in it is verified.
    pub body: bytes::Bytes,
}

/// Why a reader may have missed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// It read too slowly.
    Lagged,
    /// The feed was away, or was set up anew.
    Interrupted,
    /// A message could not be parsed.
    Unreadable,
}

/// What a reader gets. Nothing is verified yet.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedItem {
    /// A change.
    Change(Arc<TrustChange>),
    /// A sign of life.
    Head(Arc<Head>),
    /// The keys that may sign the others.
    KeySet(Arc<KeySet>),
    /// Changes may be missing before what follows. After `Lagged` and `Interrupted`
    /// the last state of each CA certificate comes again.
    Gap(GapReason),
}

/// Changes and heads of one instance, and key sets; ends only when the feed is dropped.
pub type FeedStream = BoxStream<'static, FeedItem>;

/// The feed.
#[async_trait]
pub trait TrustFeed: Send + Sync + 'static {
    /// Reads the end of the feed; creates an empty one where there is none.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`], [`FeedError::Unsuitable`].
    async fn tail(&self) -> Result<FeedTail, FeedError>;

    /// Reads which row the oldest message is that the feed has kept; `None` where it has none,
    /// or one that does not belong at its sequence. Whose the feed is shows here, also where
    /// somebody has put another message at its end.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`].
    async fn oldest(&self) -> Result<Option<TailMessage>, FeedError>;

    /// Stores messages, whose positions MUST be consecutive, in their order.
    ///
    /// Returns when all of them are stored. Those that the feed holds already are
    /// passed over. Cancel safe: a message is stored at its position or not at all.
    ///
    /// # Errors
    /// All of [`FeedError`]; a leading part of the messages may have been stored.
    async fn publish(&self, messages: &[FeedMessage]) -> Result<(), FeedError>;

    /// Sends a signed head to whoever listens now. Not stored.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`]: drop the head, the next one is better.
    async fn publish_head(&self, head: &Head) -> Result<(), FeedError>;

    /// Sends a key set to whoever follows any instance now. Not stored: send it again and
    /// again.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`]: the next time will do.
    async fn publish_key_set(&self, set: &KeySet) -> Result<(), FeedError>;

    /// Sends a signed checkpoint of the log to whoever listens now. Not stored. A feed that
    /// does not leave the process has nobody to send it to.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`]: the next time will do.
    async fn publish_checkpoint(&self, _note: &str) -> Result<(), FeedError> {
        Ok(())
    }

    /// Sends a change to whoever follows its instance now, beside the feed: for one that the
    /// feed will only come to later. Not stored; a message that is no change is passed over.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`]: it comes by the feed later.
    async fn publish_live(&self, message: &FeedMessage) -> Result<(), FeedError>;

    /// The first message that the feed has kept after `sequence`, whoever put it there. A feed
    /// that nobody else can write to has nothing to show.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`].
    async fn kept_after(&self, _sequence: u64) -> Result<Option<KeptMessage>, FeedError> {
        Ok(None)
    }

    /// How many feeds there are, the one in use among them.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`].
    async fn streams(&self) -> Result<u64, FeedError> {
        Ok(1)
    }

    /// Puts an empty feed in the place of the one that was made at `made_at`: the next message
    /// must be the one of position 1. Where another one has taken its place already, nothing
    /// happens. What it held is kept, where a feed outlives the process. Only for the holder of
    /// the publisher lease, who then fills it from the log.
    ///
    /// # Errors
    /// [`FeedError::NoFurtherStream`], [`FeedError::Unavailable`], [`FeedError::Unsuitable`].
    async fn set_aside(&self, made_at: Timestamp) -> Result<(), FeedError>;

    /// Follows an instance: the last state of each CA certificate in the order of
    /// positions, then every change as it comes, in order; heads in between. A change
    /// may come twice.
    ///
    /// A slow reader disturbs nobody else; it gets a [`FeedItem::Gap`] at worst.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`], [`FeedError::Unsuitable`]; later interruptions are
    /// items, after which the stream goes on by itself.
    async fn subscribe(&self, instance_id: &InstanceId) -> Result<FeedStream, FeedError>;
}

/// Where to go on with `messages` on a feed whose tail is `tail`: the part that is
/// not stored yet. What is passed over is proved to be the same by the hash of the
/// tail, which covers everything before it.
pub(crate) fn remaining<'a>(
    messages: &'a [FeedMessage],
    tail: &FeedTail,
) -> Result<&'a [FeedMessage], FeedError> {
    let Some(first) = messages.first() else { return Ok(messages) };
    let out_of_sequence = FeedError::OutOfSequence { expected: first.position, found: tail.sequence };
    if tail.sequence + 1 == first.position {
        return Ok(messages);
    }
    let Some(stored) = messages.iter().position(|message| message.position == tail.sequence) else {
        return Err(out_of_sequence);
    };
    let message = &messages[stored];
    let same = tail.last == Some(message.tail());
    if same { Ok(&messages[stored + 1..]) } else { Err(FeedError::Conflict { position: tail.sequence }) }
}
