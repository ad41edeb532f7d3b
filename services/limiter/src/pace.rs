//! The limiter's clock, and the limit in force.
//!
//! A replica that must do with a share of the limit lets its clock run slower by that
//! share: every bucket then drains slower, without one of them being touched, and
//! none gains or loses anything by the change. Real time is the time since the limiter
//! was made, by the operating system's monotonic clock.

use std::time::Duration;

use super::gcra::{Gcra, scale};

/// A part of the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Parts that this replica may use, 1 at least.
    pub part: u32,
    /// Parts that there are.
    pub of: u32,
}

impl Share {
    /// The whole limit.
    pub const WHOLE: Self = Self { part: 1, of: 1 };

    /// As a number from 0 to 1.
    #[must_use]
    pub fn ratio(self) -> f64 {
        f64::from(self.part) / f64::from(self.of)
    }
}

/// What a check goes by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub gcra: Gcra,
    pub share: Share,
    /// Most debt that charges may leave in a bucket.
    pub most_debt: u64,
    /// Real time of the last change, and what the limiter's clock showed then.
    since: Duration,
    shown: u64,
}

impl Pace {
    /// The pace from `now` on, on a clock that shows `shown`.
    pub fn new(gcra: Gcra, share: Share, most_debt: u64, now: Duration, shown: u64) -> Self {
        let gcra = gcra.with_part_of_burst(share.part, share.of);
        Self { gcra, share, most_debt, since: now, shown }
    }

    /// What the limiter's clock shows. A time before the last change counts as that.
    pub fn clock(&self, now: Duration) -> u64 {
        let passed = nanoseconds(now.saturating_sub(self.since));
        self.shown + scale(passed, self.share.part, self.share.of)
    }

    /// Real time in which the limiter's clock advances by `wait`.
    pub fn real(&self, wait: u64) -> Duration {
        let (part, of) = (u128::from(self.share.part.max(1)), u128::from(self.share.of));
        // Up by one more, for what `clock` rounds down.
        let real = (u128::from(wait) * of).div_ceil(part) + u128::from(part != of && wait > 0);
        Duration::from_nanos(u64::try_from(real).unwrap_or(u64::MAX))
    }
}

pub(super) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn pace(share: Share, now: Duration, shown: u64) -> Pace {
        Pace::new(Gcra::new(NonZeroU32::MIN, NonZeroU32::MIN), share, 0, now, shown)
    }

    #[test]
    fn the_clock_runs_slower_by_the_share_and_never_jumps() {
        let whole = pace(Share::WHOLE, Duration::ZERO, 7);
        let change = Duration::from_secs(3);
        assert_eq!(whole.clock(change), 3_000_000_007);
        let third = pace(Share { part: 1, of: 3 }, change, whole.clock(change));
        assert_eq!(third.clock(change), whole.clock(change));
        assert_eq!(third.clock(change + Duration::from_secs(3)), 4_000_000_007);
        assert_eq!(third.clock(Duration::ZERO), whole.clock(change), "a reader with an older time");
    }

    #[test]
    fn a_wait_in_real_time_is_long_enough_and_hardly_longer() {
        for (part, of) in [(1, 1), (1, 3), (2, 3), (5, 7)] {
            let pace = pace(Share { part, of }, Duration::from_nanos(11), 13);
            for wait in [1, 2, 3, 1_000_001] {
                let now = Duration::from_nanos(12);
                let real = pace.real(wait);
                let advanced = pace.clock(now + real) - pace.clock(now);
                assert!(advanced >= wait && advanced <= wait + 2, "{part}/{of}: {advanced} for {wait}");
            }
        }
    }
}
