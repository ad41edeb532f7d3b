//! Does the feed hold this log, and how far? A pure comparison of both ends.

use catrust_domain::{Sha256, Timestamp};
use catrust_trust_feed::FeedTail;
use uuid::Uuid;

/// Why a feed does not hold this log. Only another one in its place helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// The feed holds more than the log: the database lost its end, or was replaced.
    #[error("the feed is at {sequence}, and the log only at {head}")]
    Ahead {
        /// Last sequence of the feed.
        sequence: u64,
        /// Last position of the log.
        head: u64,
    },
    /// The last message is missing, or is not one of catrust's at its sequence.
    #[error("the last message of the feed, {sequence}, is missing or foreign")]
    NoLastMessage {
        /// Last sequence of the feed.
        sequence: u64,
    },
    /// The feed holds the log of another database.
    #[error("the feed holds the log {found}")]
    OtherLog {
        /// Log of the last message.
        found: Uuid,
    },
    /// The feed holds another past of this log: the database was set back.
    #[error("the feed holds another event at position {position}")]
    OtherPast {
        /// Position of the last message.
        position: u64,
    },
    /// Messages vanished from the middle: last states of CA certificates are missing.
    #[error("the feed has {found} messages, and had {before}")]
    MessagesLost {
        /// Messages now.
        found: u64,
        /// Messages before.
        before: u64,
    },
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Alignment {
    /// The feed holds the log up to and including `after`.
    Continue {
        /// Last position on the feed.
        after: u64,
    },
    /// The feed is empty and was not before: publish from the beginning.
    Refill,
    /// The feed does not hold this log: set it aside, and publish from the beginning.
    SetAside(Misfit),
}

/// What this process last knew of the feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Last sequence that was there.
    pub sequence: u64,
    /// Messages that were there when it was last looked at.
    pub messages: u64,
    /// Which feed it was.
    pub created_at: Timestamp,
}

impl From<&FeedTail> for Seen {
    fn from(tail: &FeedTail) -> Self {
        Self { sequence: tail.sequence, messages: tail.messages, created_at: tail.created_at }
    }
}

/// Compares the end of the feed with the log: its last position `head`, and the hash
/// of its row at the feed's sequence, where it has one. The log MUST have been read
/// after the feed.
#[must_use]
pub(crate) fn align(
    tail: &FeedTail,
    head: u64,
    row_hash: Option<Sha256>,
    log_id: Uuid,
    seen: Option<&Seen>,
) -> Alignment {
    let sequence = tail.sequence;
    if sequence == 0 {
        let was_filled = seen.is_some_and(|seen| seen.sequence > 0);
        return if was_filled { Alignment::Refill } else { Alignment::Continue { after: 0 } };
    }
    let Some(last) = tail.last else { return Alignment::SetAside(Misfit::NoLastMessage { sequence }) };
    if last.log_id != log_id {
        return Alignment::SetAside(Misfit::OtherLog { found: last.log_id });
    }
    if sequence > head {
        return Alignment::SetAside(Misfit::Ahead { sequence, head });
    }
    if row_hash != Some(last.event_hash) {
        return Alignment::SetAside(Misfit::OtherPast { position: sequence });
    }
    // A feed that lost its end may well have fewer messages: it is short, not holed.
    match seen {
        Some(seen)
            if seen.created_at == tail.created_at
                && sequence >= seen.sequence
                && tail.messages < seen.messages =>
        {
            Alignment::SetAside(Misfit::MessagesLost { found: tail.messages, before: seen.messages })
        }
        _ => Alignment::Continue { after: sequence },
    }
}

#[cfg(test)]
mod tests {
    use catrust_trust_feed::TailMessage;

    use super::*;

    const LOG: Uuid = Uuid::from_u128(1);

    fn hash(text: &str) -> Sha256 {
        Sha256::of(text.as_bytes())
    }

    fn tail(sequence: u64, log_id: Uuid, row: &str) -> FeedTail {
        FeedTail {
            sequence,
            last: Some(TailMessage { log_id, event_hash: hash(row) }),
            messages: 4,
            created_at: Timestamp::from_micros(1),
        }
    }

    #[test]
    fn a_feed_of_this_log_is_continued() {
        let at = |sequence| align(&tail(sequence, LOG, "row"), 9, Some(hash("row")), LOG, None);
        assert_eq!(at(6), Alignment::Continue { after: 6 });
        assert_eq!(at(9), Alignment::Continue { after: 9 });
    }

    #[test]
    fn an_empty_feed_is_filled_and_noted_where_it_was_not_empty_before() {
        let empty = FeedTail { sequence: 0, last: None, messages: 0, created_at: Timestamp::from_micros(2) };
        let seen = Seen::from(&tail(6, LOG, "row"));
        assert_eq!(align(&empty, 9, None, LOG, None), Alignment::Continue { after: 0 });
        assert_eq!(align(&empty, 9, None, LOG, Some(&seen)), Alignment::Refill);
        assert_eq!(align(&empty, 9, None, LOG, Some(&Seen::from(&empty))), Alignment::Continue { after: 0 });
    }

    #[test]
    fn feeds_that_are_not_ours_are_set_aside() {
        let other = Uuid::from_u128(2);
        assert_eq!(
            align(&tail(6, other, "row"), 9, Some(hash("row")), LOG, None),
            Alignment::SetAside(Misfit::OtherLog { found: other })
        );
        assert_eq!(
            align(&tail(6, LOG, "other"), 9, Some(hash("row")), LOG, None),
            Alignment::SetAside(Misfit::OtherPast { position: 6 })
        );
        assert_eq!(
            align(&tail(10, LOG, "row"), 9, None, LOG, None),
            Alignment::SetAside(Misfit::Ahead { sequence: 10, head: 9 })
        );
        let purged = FeedTail { last: None, messages: 0, ..tail(6, LOG, "row") };
        assert_eq!(
            align(&purged, 9, Some(hash("row")), LOG, None),
            Alignment::SetAside(Misfit::NoLastMessage { sequence: 6 })
        );
    }

    #[test]
    fn fewer_messages_at_the_same_sequence_are_a_loss_and_at_a_lower_one_are_not() {
        let row = Some(hash("row"));
        let seen = Seen { sequence: 6, messages: 5, created_at: Timestamp::from_micros(1) };
        assert_eq!(
            align(&tail(6, LOG, "row"), 9, row, LOG, Some(&seen)),
            Alignment::SetAside(Misfit::MessagesLost { found: 4, before: 5 })
        );
        assert_eq!(align(&tail(5, LOG, "row"), 9, row, LOG, Some(&seen)), Alignment::Continue { after: 5 });
        let another = Seen { created_at: Timestamp::from_micros(0), ..seen };
        assert_eq!(
            align(&tail(6, LOG, "row"), 9, row, LOG, Some(&another)),
            Alignment::Continue { after: 6 }
        );
    }
}
