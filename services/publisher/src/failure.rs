//! What interrupts publishing, and how often to say so.

use std::mem::{Discriminant, discriminant};
use std::time::Duration;

use catrust_event_store::StoreError;
use catrust_trust_feed::{FeedError, MessageError};
use tokio::time::Instant;

use crate::alignment::Misfit;

/// An interruption. The publisher tries again in every case.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The feed failed.
    #[error("the feed did not take the messages")]
    Feed(#[from] FeedError),
    /// The log could not be read.
    #[error("the log could not be read")]
    Store(#[from] StoreError),
    /// An event has no message: it was written by a newer version, or is damaged.
    #[error("the log could not be put into messages")]
    Message(#[from] MessageError),
    /// The log has no event where there must be one. Run `catrust-server verify`.
    #[error("the log has a hole after position {after}")]
    HoleInTheLog {
        /// Last position before the hole.
        after: u64,
    },
    /// The feed, or another part of this server, has something that the log no longer has. Nothing
    /// is published or signed while that lasts.
    #[error("the event log was set back: {reason}")]
    SetBack {
        /// What was seen, by whom, and what the log says instead.
        reason: String,
    },
    /// The feed holds something else, and setting it aside is not this replica's to do now:
    /// another one holds the lease, or one was set aside a moment ago.
    #[error("the feed is not this log's ({0}); waiting for it to be set aside")]
    NotOurs(Misfit),
    /// The feed is another installation's. An operator has to say what is meant.
    #[error(
        "the stream of this NATS account belongs to somebody else ({0}), and nothing is published on it: give \
         this installation a NATS account of its own; or, where it is to take the stream's place, set \
         nats.take_over_stream = true, which sets the stream aside and keeps it"
    )]
    SomebodyElses(Misfit),
}

impl PublishError {
    /// Whether it is part of the ordinary course of things with two publishers.
    #[must_use]
    pub const fn is_ordinary(&self) -> bool {
        matches!(self, Self::Feed(FeedError::OutOfSequence { .. }))
    }

    /// Why the log is known to be set back, where that is the failure.
    pub(crate) fn set_back(&self) -> Option<&str> {
        match self {
            Self::SetBack { reason } | Self::Store(StoreError::SetBack { reason }) => Some(reason),
            _ => None,
        }
    }

    fn kind(&self) -> Kind {
        let inner = if let Self::Feed(error) = self { Some(discriminant(error)) } else { None };
        (discriminant(self), inner)
    }
}

/// What tells one kind of failure from another.
type Kind = (Discriminant<PublishError>, Option<Discriminant<FeedError>>);

/// The trouble that publishing is in, if any: since when, and what was told of it.
#[derive(Default)]
pub(super) struct Trouble(Option<(Instant, Vec<Kind>)>);

impl Trouble {
    /// Notes a failure; gives whether it is the first of its kind in this trouble.
    pub fn begins(&mut self, error: &PublishError) -> bool {
        let (_, kinds) = self.0.get_or_insert_with(|| (Instant::now(), Vec::new()));
        let kind = error.kind();
        let new = !kinds.contains(&kind);
        if new {
            kinds.push(kind);
        }
        new
    }

    /// Ends the trouble; gives how long it lasted, where there was one.
    pub fn over(&mut self) -> Option<Duration> {
        self.0.take().map(|(since, _)| since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_failure_is_told_once_until_it_is_over() {
        let away = || PublishError::Feed(FeedError::unavailable("away"));
        let mut trouble = Trouble::default();
        assert!(trouble.over().is_none());
        assert!(trouble.begins(&away()));
        assert!(!trouble.begins(&away()));
        assert!(trouble.begins(&PublishError::Feed(FeedError::Unsuitable("old".into()))));
        assert!(trouble.begins(&PublishError::HoleInTheLog { after: 1 }));
        assert!(!trouble.begins(&away()));
        assert!(trouble.over().is_some());
        assert!(trouble.begins(&away()));
    }
}
