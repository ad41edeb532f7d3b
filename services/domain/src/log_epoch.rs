//! Log epochs: one unbroken history of the log each. A new one begins where an older end
//! was lost, so that a reader can tell two histories with the same positions apart.
//!
//! A revision is `epoch · 2³² + count`, where the count is the dense number of the
//! instance's trust changes. In epoch 0 a revision is the count, and any revision of a
//! later epoch is above every one of an earlier epoch.

mod began;
mod made_again;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::timestamp::Timestamp;

pub use began::{BeginPlace, EndBefore, LogEpochBegan, LostChange, LostFate, MAX_LOST_TOLD};
pub use made_again::{LostEvent, LostTrustChange, made_again};

/// Actor of the rows by which a new epoch puts lost inactivations into force again.
pub const MADE_AGAIN_BY: &str = "catrust:epoch";

/// How far the number of an epoch may be ahead of the clock of the database, in seconds. Brokers
/// refuse what is ahead of their clocks, so that one far in the future would stop them all.
pub const MAX_EPOCH_AHEAD: u32 = 60;

/// Number of bits of a revision that hold the count.
const COUNT_BITS: u32 = 32;

/// 2020-01-01T00:00:00Z: numbers of epochs after the first count the seconds from here,
/// so that one which begins later has a higher number, also where nobody knows any more
/// which ones there were.
const EPOCH_NUMBERS_START: i64 = 1_577_836_800;

/// Number of a log epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LogEpoch(pub u32);

impl LogEpoch {
    /// The epoch in which every log starts.
    pub const FIRST: Self = Self(0);

    /// The last number: revisions of a later one would not fit the databases' numbers.
    pub const LAST: Self = Self(i32::MAX as u32);

    /// The epoch that a revision belongs to.
    #[must_use]
    pub const fn of_revision(revision: u64) -> Self {
        Self((revision >> COUNT_BITS) as u32)
    }

    /// The revision with this count in this epoch.
    #[must_use]
    pub const fn revision(self, count: u64) -> u64 {
        ((self.0 as u64) << COUNT_BITS) | revision_count(count)
    }

    /// The revision with the same count in this epoch: what a revision of an earlier
    /// epoch that this one has kept is called now.
    #[must_use]
    pub const fn lift(self, revision: u64) -> u64 {
        self.revision(revision)
    }

    /// The number of an epoch that begins at `now` after this one. At the last number it
    /// stays there: the caller MUST NOT begin an epoch that is not above the one before.
    #[must_use]
    pub fn next(self, now: Timestamp) -> Self {
        Self(self.0.saturating_add(1).max(Self::by_clock(now)))
    }

    /// Whether no epoch with this number can have begun by `now`, the present of the database:
    /// it is further ahead than clocks may differ. Epochs that follow each other within seconds
    /// are ahead by their number.
    #[must_use]
    pub fn is_ahead_of(self, now: Timestamp) -> bool {
        self.0 > Self::by_clock(now).saturating_add(MAX_EPOCH_AHEAD)
    }

    fn by_clock(now: Timestamp) -> u32 {
        let seconds = now.micros().div_euclid(1_000_000).saturating_sub(EPOCH_NUMBERS_START);
        u32::try_from(seconds.max(0)).unwrap_or(u32::MAX)
    }
}

impl fmt::Display for LogEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The count in a revision: the number of the instance's trust changes.
#[must_use]
pub const fn revision_count(revision: u64) -> u64 {
    revision & ((1 << COUNT_BITS) - 1)
}

/// Spells a revision for people: "epoch 1, revision 7", and in the first epoch
/// "revision 7".
#[must_use]
pub fn spell_revision(revision: u64) -> String {
    let count = revision_count(revision);
    match LogEpoch::of_revision(revision) {
        LogEpoch::FIRST => format!("revision {count}"),
        epoch => format!("epoch {epoch}, revision {count}"),
    }
}

/// The epoch that the end of the log belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochInForce {
    /// Its number.
    pub epoch: LogEpoch,
    /// Position of its [`LogEpochBegan`]; 0 for the first epoch.
    pub position: u64,
    /// Hash of that row, the identity of the epoch; [`Sha256::ZERO`] for the first one.
    pub hash: Sha256,
}

impl EpochInForce {
    /// That of a log in which none has begun.
    pub const FIRST: Self = Self { epoch: LogEpoch::FIRST, position: 0, hash: Sha256::ZERO };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // Ground rule 1: every revision is E·2³² + n, so in epoch 0 nothing changes, and any
    // later epoch outranks any earlier revision.
    proptest! {
        #[test]
        fn a_revision_is_its_epoch_and_its_count(epoch in any::<u32>(), count in any::<u32>()) {
            let revision = LogEpoch(epoch).revision(u64::from(count));
            prop_assert_eq!(revision, u64::from(epoch) * (1 << 32) + u64::from(count));
            prop_assert_eq!(LogEpoch::of_revision(revision), LogEpoch(epoch));
            prop_assert_eq!(revision_count(revision), u64::from(count));
        }

        #[test]
        fn any_revision_of_a_later_epoch_is_above_every_one_of_an_earlier(
            earlier in 0..u32::MAX, by in 1..u32::MAX, one in any::<u32>(), other in any::<u32>(),
        ) {
            let later = LogEpoch(earlier.saturating_add(by));
            prop_assert!(later.revision(u64::from(one)) > LogEpoch(earlier).revision(u64::from(other)));
        }

        #[test]
        fn lifting_keeps_the_count(from in any::<u32>(), to in any::<u32>(), count in any::<u32>()) {
            let lifted = LogEpoch(to).lift(LogEpoch(from).revision(u64::from(count)));
            prop_assert_eq!(lifted, LogEpoch(to).revision(u64::from(count)));
        }
    }

    #[test]
    fn the_first_epoch_changes_no_number() {
        assert_eq!(LogEpoch::FIRST.revision(7), 7);
        assert_eq!(LogEpoch::FIRST.lift(7), 7);
    }

    // Ground rule 1: then max(E before + 1, seconds since 2020-01-01).
    #[test]
    fn the_next_number_follows_the_clock_and_never_falls() {
        let at = |seconds: i64| Timestamp::from_micros(seconds * 1_000_000 + 999_999);
        for (before, now, next) in [
            (0, 0, 1),
            (0, 1_577_836_800, 1),
            (0, 1_577_836_802, 2),
            (5, 1_577_836_802, 6),
            (5, 1_767_225_600, 189_388_800),
            (189_388_800, 1_767_225_600, 189_388_801),
            (u32::MAX, 1_767_225_600, u32::MAX),
        ] {
            assert_eq!(LogEpoch(before).next(at(now)), LogEpoch(next), "after {before} at {now}");
        }
        assert_eq!(LogEpoch::FIRST.next(Timestamp::LAST), LogEpoch(u32::MAX));
        assert_eq!(LogEpoch::FIRST.next(Timestamp::FIRST), LogEpoch(1));
    }

    // A forged epoch far in the future would make every broker refuse everything.
    #[test]
    fn a_number_may_be_ahead_of_the_clock_by_a_minute() {
        let now = LogEpoch::FIRST.next(Timestamp::from_micros(1_767_225_600_000_000));
        for (ahead, refused) in [(0, false), (60, false), (61, true)] {
            let epoch = LogEpoch(now.0 + ahead);
            assert_eq!(
                epoch.is_ahead_of(Timestamp::from_micros(1_767_225_600_000_000)),
                refused,
                "{ahead} s"
            );
        }
        assert!(LogEpoch::LAST.revision(u64::from(u32::MAX)) <= i64::MAX as u64);
        assert!(LogEpoch(LogEpoch::LAST.0 + 1).revision(0) > i64::MAX as u64);
    }

    #[test]
    fn people_see_epoch_and_count() {
        assert_eq!(spell_revision(7), "revision 7");
        assert_eq!(spell_revision(LogEpoch(1).revision(7)), "epoch 1, revision 7");
    }
}
