//! How long ago the feed proved that the bundle is current.
//!
//! Age is counted by the monotonic clock. The wall clock can only make things older:
//! a step forward (or a machine that slept) counts, a step back does not. Whether a
//! head is still valid is asked of two clocks, the wall clock and the one that earlier
//! heads have set, and the later one decides.
//!
//! Where heads have shown a time that the wall clock has not come to, one of the two was
//! set back: by whoever put a wrong clock right, or by somebody who wants old heads to
//! count again. Then no head counts but an answer: it repeats a nonce, so that it was
//! signed after the question, and it has to agree with the wall clock.

use std::time::Duration;

use catrust_domain::Timestamp;
use catrust_signing::Present;

use super::Moment;
use crate::agent::Freshness;

/// Why a head proves nothing. The bundle stays; its age goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadRefusal {
    /// It was held back, or this machine's clock is ahead.
    #[error("the head expired {late:?} ago: it was held back, or the clock of this machine is ahead")]
    Expired {
        /// How long before.
        late: Duration,
    },
    /// Heads have shown a later time than this machine's clock: one of the two was set back.
    #[error(
        "the head may be an old one: the clock of this machine was set back, or the servers'; only a head \
         that answers a question of this agent counts"
    )]
    InDoubt,
    /// The server's clock is ahead, or this machine's clock is behind.
    #[error(
        "the head is from {ahead:?} in the future: the clock of this machine is behind, or the server's ahead"
    )]
    Future {
        /// How far ahead.
        ahead: Duration,
    },
}

/// The last head that counted.
#[derive(Clone, Copy, Debug)]
struct Proof {
    issued_at: Timestamp,
    /// When it was taken.
    at: Moment,
    /// How old it was already: 0, but for a head from the disk.
    age_then: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct HeadClock {
    skew: Duration,
    soft_budget: Duration,
    hard_budget: Duration,
    proof: Option<Proof>,
    /// Highest difference of a head's time and the monotonic clock at its coming, in
    /// microseconds: what the server's clock shows at least.
    offset: Option<i64>,
}

impl HeadClock {
    /// A clock that has seen no head. `skew` is how far the clocks of server and agent may
    /// differ.
    pub const fn new(skew: Duration, soft_budget: Duration, hard_budget: Duration) -> Self {
        Self { skew, soft_budget, hard_budget, proof: None, offset: None }
    }

    /// Checks the times of a head, whatever it says.
    ///
    /// # Errors
    /// [`HeadRefusal`].
    pub fn check(
        &self,
        issued_at: Timestamp,
        valid_until: Timestamp,
        now: Moment,
    ) -> Result<(), HeadRefusal> {
        let present = self.present(now);
        let ahead = issued_at.micros().saturating_sub(present.latest.micros());
        if ahead > 0 {
            return Err(HeadRefusal::Future { ahead: duration(ahead) });
        }
        let late = present.earliest.micros().saturating_sub(valid_until.micros());
        if late > 0 {
            return Err(HeadRefusal::Expired { late: duration(late) });
        }
        if self.is_in_doubt(now) { Err(HeadRefusal::InDoubt) } else { Ok(()) }
    }

    /// What time it may be: no later than the wall clock and the skew, and no earlier than
    /// the skew before that clock or the one that heads have set, whichever is later.
    pub fn present(&self, now: Moment) -> Present {
        let (wall, skew) = (now.wall.micros(), micros(self.skew));
        let by_heads = self.offset.map(|offset| offset.saturating_add(micros(now.monotonic)));
        let earliest = by_heads.map_or(wall, |time| time.max(wall));
        Present {
            earliest: Timestamp::from_micros(earliest.saturating_sub(skew)),
            latest: Timestamp::from_micros(wall.saturating_add(skew)),
        }
    }

    /// Whether heads, this process' or the saved one, have shown a time that is still to come
    /// by the wall clock.
    pub fn is_in_doubt(&self, now: Moment) -> bool {
        let latest = now.wall.micros().saturating_add(micros(self.skew));
        let by_heads = self.offset.map(|offset| offset.saturating_add(micros(now.monotonic)));
        let last = self.proof.map(|proof| proof.issued_at.micros());
        by_heads.max(last).is_some_and(|time| time > latest)
    }

    /// Whether a head that was issued then would have to wait for the wall clock to count.
    pub fn is_overtaken(&self, issued_at: Timestamp, now: Moment) -> bool {
        self.proof.is_some_and(|proof| issued_at <= proof.issued_at && proof.issued_at > now.wall)
    }

    /// Checks the time of a head that was certainly signed after `asked_at`, by the monotonic
    /// clock, against the wall clock alone.
    ///
    /// # Errors
    /// [`HeadRefusal`].
    pub fn check_answer(
        &self,
        issued_at: Timestamp,
        asked_at: Duration,
        now: Moment,
    ) -> Result<(), HeadRefusal> {
        let (wall, skew) = (now.wall.micros(), micros(self.skew));
        let ahead = issued_at.micros().saturating_sub(wall.saturating_add(skew));
        if ahead > 0 {
            return Err(HeadRefusal::Future { ahead: duration(ahead) });
        }
        let under_way = micros(now.monotonic.saturating_sub(asked_at));
        let latest = issued_at.micros().saturating_add(under_way).saturating_add(skew);
        let late = wall.saturating_sub(latest);
        if late > 0 {
            return Err(HeadRefusal::Expired { late: duration(late) });
        }
        Ok(())
    }

    /// Takes a checked answer as proof, and its time for the time that it is: what heads
    /// have shown before is forgotten.
    pub fn set_by_answer(&mut self, issued_at: Timestamp, asked_at: Duration, now: Moment) {
        let age_then = now.monotonic.saturating_sub(asked_at);
        self.proof = Some(Proof { issued_at, at: now, age_then });
        self.offset = Some(issued_at.micros().saturating_sub(micros(now.monotonic)));
    }

    /// What time it may be by the wall clock alone.
    pub fn by_wall(&self, now: Moment) -> Present {
        let (wall, skew) = (now.wall.micros(), micros(self.skew));
        Present {
            earliest: Timestamp::from_micros(wall.saturating_sub(skew)),
            latest: Timestamp::from_micros(wall.saturating_add(skew)),
        }
    }

    /// Takes a checked head as proof that the bundle is current. One that is not newer
    /// than the last proves nothing more: it may be a replay. Gives whether it counted.
    pub fn prove(&mut self, issued_at: Timestamp, now: Moment) -> bool {
        if self.proof.is_some_and(|proof| issued_at <= proof.issued_at) {
            return false;
        }
        self.proof = Some(Proof { issued_at, at: now, age_then: Duration::ZERO });
        let offset = issued_at.micros().saturating_sub(micros(now.monotonic));
        self.offset = self.offset.max(Some(offset));
        true
    }

    /// No head has proved anything. What time it is at least stays known.
    pub const fn forget(&mut self) {
        self.proof = None;
    }

    /// Takes a head from the disk: its age can only be told by the wall clock, and not at
    /// all where that is before the head.
    pub fn restore(&mut self, issued_at: Timestamp, now: Moment) {
        let age = now.wall.micros().saturating_sub(issued_at.micros());
        let age_then = if age < -micros(self.skew) { Duration::MAX } else { duration(age) };
        self.proof = Some(Proof { issued_at, at: now, age_then });
    }

    /// How long ago the bundle was proved to be current; `None` for never.
    pub fn age(&self, now: Moment) -> Option<Duration> {
        let proof = self.proof?;
        let monotonic = now.monotonic.saturating_sub(proof.at.monotonic);
        let wall = duration(now.wall.micros().saturating_sub(proof.at.wall.micros()));
        Some(proof.age_then.saturating_add(monotonic.max(wall)))
    }

    /// What the age means.
    pub fn freshness(&self, now: Moment) -> Freshness {
        match self.age(now) {
            Some(age) if age <= self.soft_budget => Freshness::Fresh,
            Some(age) if age <= self.hard_budget => Freshness::SoftStale,
            _ => Freshness::HardStale,
        }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Zero for what is negative.
fn duration(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKEW: Duration = Duration::from_secs(30);
    const SOFT: Duration = Duration::from_secs(6);
    const HARD: Duration = Duration::from_secs(600);

    /// Monotonic seconds, and wall seconds on the server's scale.
    fn at(monotonic: u64, wall: i64) -> Moment {
        Moment { monotonic: Duration::from_secs(monotonic), wall: time(wall) }
    }

    fn time(seconds: i64) -> Timestamp {
        Timestamp::from_micros(0).plus_seconds(seconds)
    }

    fn clock() -> HeadClock {
        HeadClock::new(SKEW, SOFT, HARD)
    }

    fn check(clock: &HeadClock, issued: i64, now: Moment) -> Result<(), HeadRefusal> {
        clock.check(time(issued), time(issued + 10), now)
    }

    #[test]
    fn trust_ages_from_fresh_over_soft_to_hard_stale() {
        let mut clock = clock();
        assert_eq!(clock.freshness(at(0, 1_000)), Freshness::HardStale);
        assert!(clock.prove(time(1_000), at(0, 1_000)));
        for (after, expected) in [
            (6, Freshness::Fresh),
            (7, Freshness::SoftStale),
            (600, Freshness::SoftStale),
            (601, Freshness::HardStale),
        ] {
            assert_eq!(
                clock.freshness(at(after, 1_000 + i64::try_from(after).unwrap())),
                expected,
                "{after} s"
            );
        }
    }

    #[test]
    fn a_wall_clock_stepping_back_does_not_extend_trust() {
        let mut clock = clock();
        clock.prove(time(1_000), at(0, 1_000));
        assert_eq!(clock.freshness(at(601, -50_000)), Freshness::HardStale);
        // Nor does it make an expired head valid again: heads have set a clock themselves.
        assert!(check(&clock, 1_002, at(42, 1_042)).is_ok());
        assert!(matches!(check(&clock, 1_002, at(43, 980)), Err(HeadRefusal::Expired { .. })));
    }

    #[test]
    fn a_wall_clock_stepping_forward_ends_trust_until_the_next_head() {
        let mut clock = clock();
        clock.prove(time(1_000), at(0, 1_000));
        // A machine that slept: its monotonic clock stood still.
        assert_eq!(clock.freshness(at(1, 5_000)), Freshness::HardStale);
        assert!(clock.prove(time(4_999), at(2, 5_000)));
        assert_eq!(clock.freshness(at(2, 5_000)), Freshness::Fresh);
    }

    #[test]
    fn a_head_counts_once_and_only_when_newer() {
        let mut clock = clock();
        assert!(clock.prove(time(1_000), at(0, 1_000)));
        assert!(!clock.prove(time(1_000), at(5, 1_005)), "a replay");
        assert!(!clock.prove(time(999), at(5, 1_005)), "an older one");
        assert_eq!(clock.age(at(5, 1_005)), Some(Duration::from_secs(5)));
    }

    #[test]
    fn heads_beyond_the_skew_are_refused_on_both_sides() {
        let clock = clock();
        assert!(check(&clock, 1_030, at(0, 1_000)).is_ok());
        let ahead = Duration::from_secs(1);
        assert_eq!(check(&clock, 1_031, at(0, 1_000)), Err(HeadRefusal::Future { ahead }));
        assert!(check(&clock, 1_000, at(0, 1_040)).is_ok());
        let late = Duration::from_secs(1);
        assert_eq!(check(&clock, 1_000, at(0, 1_041)), Err(HeadRefusal::Expired { late }));
    }

    /// Ground rule 23: a clock that was set right after it ran ahead is believed together with an
    /// answer, and never with a head that may be an old one.
    #[test]
    fn after_a_step_back_only_an_answer_that_agrees_with_the_wall_clock_counts() {
        let mut clock = clock();
        clock.prove(time(50_000), at(0, 50_000));
        assert!(!clock.is_in_doubt(at(10, 50_010)));
        assert!(!clock.is_in_doubt(at(10, 49_980)), "within the skew");
        let now = at(12, 1_012);
        assert!(clock.is_in_doubt(now));
        assert!(matches!(check(&clock, 1_012, now), Err(HeadRefusal::Expired { .. })));
        let answer =
            |clock: &HeadClock, issued: i64| clock.check_answer(time(issued), Duration::from_secs(11), now);
        assert!(matches!(answer(&clock, 50_012), Err(HeadRefusal::Future { .. })), "by the clock of before");
        assert!(matches!(answer(&clock, 980), Err(HeadRefusal::Expired { .. })));
        assert_eq!(answer(&clock, 1_011), Ok(()));
        clock.set_by_answer(time(1_011), Duration::from_secs(11), now);
        assert!(!clock.is_in_doubt(now));
        assert_eq!(clock.age(now), Some(Duration::from_secs(1)), "from the question on");
        assert!(check(&clock, 1_014, at(14, 1_014)).is_ok());
        assert!(clock.prove(time(1_014), at(14, 1_014)), "and from there on as ever");
    }

    #[test]
    fn heads_that_come_ever_later_are_refused_in_the_end() {
        let mut clock = clock();
        clock.prove(time(1_000), at(0, 1_000));
        // Somebody holds the heads back and turns the wall clock back as well.
        let mut refused_at = None;
        for round in 1..60 {
            let (issued, now) = (1_000 + round, at(2 * u64::try_from(round).unwrap(), 1_000 + round));
            if check(&clock, issued, now).is_err() {
                refused_at = Some(round);
                break;
            }
            assert!(clock.prove(time(issued), now));
        }
        assert_eq!(refused_at, Some(31), "the two clocks differ by more than the skew");
    }

    #[test]
    fn a_head_from_the_disk_is_as_old_as_the_wall_clock_says() {
        let mut clock = clock();
        clock.restore(time(1_000), at(0, 1_300));
        assert_eq!(clock.freshness(at(0, 1_300)), Freshness::SoftStale);
        assert_eq!(clock.freshness(at(300, 1_300)), Freshness::SoftStale);
        assert_eq!(clock.freshness(at(301, 1_300)), Freshness::HardStale);
        // A clock that was set back since: the age is unknown.
        clock.restore(time(1_000), at(0, 969));
        assert_eq!(clock.freshness(at(0, 969)), Freshness::HardStale);
        // Within the skew, it is new.
        clock.restore(time(1_000), at(0, 971));
        assert_eq!(clock.freshness(at(0, 971)), Freshness::Fresh);
        assert!(!clock.prove(time(1_000), at(1, 972)), "a replay of the saved one");
    }
}
