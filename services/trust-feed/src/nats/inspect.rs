//! Looking at the streams without changing them: what verification compares the log with,
//! and what an operator decides by. And the one thing that only an operator does.

use async_nats::jetstream::stream::RawMessageErrorKind;

use super::streams::{StreamOutline, StreamUse, stream_name};
use super::{NatsFeed, stream, wire};
use crate::feed::{FeedError, KeptMessage};

impl NatsFeed {
    /// Every stream that has one of catrust's names, by number. Makes none.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`], also while the connection is being made: try again.
    pub async fn outlines(&self) -> Result<Vec<StreamOutline>, FeedError> {
        self.check_connected()?;
        self.streams.outlines(&self.jetstream).await
    }

    /// Refuses where there may be no stream beside those that there are. Makes none.
    ///
    /// # Errors
    /// [`FeedError::NoFurtherStream`], [`FeedError::Unavailable`].
    pub async fn check_further_stream(&self) -> Result<(), FeedError> {
        self.check_connected()?;
        self.streams.check_further(&self.jetstream, super::now()).await
    }

    /// The first message that stream `number` has kept after `sequence`.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`].
    pub async fn kept_in(&self, number: u32, sequence: u64) -> Result<Option<KeptMessage>, FeedError> {
        self.check_connected()?;
        self.kept_in_named(&stream_name(number), sequence).await
    }

    pub(super) async fn kept_in_named(
        &self,
        name: &str,
        sequence: u64,
    ) -> Result<Option<KeptMessage>, FeedError> {
        let stream = self.jetstream.get_stream_no_info(name).await.map_err(FeedError::unavailable)?;
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

    /// Deletes a stream that was set aside, with all that it holds. No server does, or may: it
    /// takes a login of NATS that is an operator's.
    ///
    /// # Errors
    /// [`FeedError::Unsuitable`] for a stream that is in use or not there,
    /// [`FeedError::Unavailable`].
    pub async fn remove_stream(&self, number: u32) -> Result<StreamOutline, FeedError> {
        let name = stream_name(number);
        let found = self.outlines().await?.into_iter().find(|stream| stream.number == number);
        let problem = match &found {
            Some(stream) if stream.role == StreamUse::SetAside => None,
            Some(stream) if stream.role == StreamUse::InUse => Some("is in use"),
            Some(_) => Some("is not catrust's"),
            None => Some("does not exist"),
        };
        match (found, problem) {
            (Some(stream), None) => {
                stream::delete(&self.jetstream, number).await?;
                Ok(stream)
            }
            (_, problem) => Err(FeedError::Unsuitable(format!(
                "the stream {name} {}; only one that was set aside can be removed",
                problem.unwrap_or_default()
            ))),
        }
    }
}
