//! Looking at the stream without changing it: what verification compares the log with.

use async_nats::jetstream::context::GetStreamErrorKind;
use async_nats::jetstream::stream::RawMessageErrorKind;

use super::{NatsFeed, STREAM, stream, wire};
use crate::feed::{FeedError, TailMessage};

/// How far a stream has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamExtent {
    /// Last sequence; 0 for a stream that never held a message.
    pub last_sequence: u64,
    /// Messages kept: the last one of each subject.
    pub messages: u64,
}

/// A message that the stream has kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptMessage {
    /// Sequence, which is the log position.
    pub sequence: u64,
    /// Which row of which log it says to be; `None` where it does not belong at its
    /// sequence.
    pub row: Option<TailMessage>,
    /// The body, ProtoJSON.
    pub body: bytes::Bytes,
}

impl NatsFeed {
    /// How far the stream has got; `None` where there is no stream. Makes none.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`], also while the connection is being made: try again.
    pub async fn extent(&self) -> Result<Option<StreamExtent>, FeedError> {
        self.check_connected()?;
        match self.jetstream.get_stream(STREAM).await {
            Ok(found) => {
                let state = &found.cached_info().state;
                Ok(Some(StreamExtent { last_sequence: state.last_sequence, messages: state.messages }))
            }
            Err(error) if stream::is_missing(&error) => Ok(None),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(answer) => Err(FeedError::Unsuitable(answer.to_string())),
                _ => Err(FeedError::unavailable(error)),
            },
        }
    }

    /// The first message that the stream has kept after `sequence`.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`].
    pub async fn kept_after(&self, sequence: u64) -> Result<Option<KeptMessage>, FeedError> {
        let stream = self.jetstream.get_stream_no_info(STREAM).await.map_err(FeedError::unavailable)?;
        let next = stream.raw_message_builder().sequence(sequence + 1).next_by_subject(">").send().await;
        match next {
            Ok(stored) => Ok(Some(KeptMessage {
                sequence: stored.sequence,
                row: wire::identify(&stored),
                body: stored.payload,
            })),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(FeedError::unavailable(error)),
        }
    }
}
