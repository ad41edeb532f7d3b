//! The rule: GCRA (ITU-T I.371, the "virtual scheduling" form), as pure functions.
//!
//! One time is kept per user: when its bucket will be empty, the theoretical arrival
//! time. A time in the past says as much as none. All times are nanoseconds of the
//! limiter's clock ([`super::pace`]).

use std::num::NonZeroU32;

const SECOND: u64 = 1_000_000_000;

/// What one user may spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gcra {
    /// Time that one call takes to drain.
    emission: u64,
    /// How far ahead of now a bucket may be after a call.
    tolerance: u64,
}

impl Gcra {
    /// `per_second` in the long run, `burst` at once. Rounded to whole nanoseconds per
    /// call, so that never more than `per_second` pass.
    #[must_use]
    pub fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        let emission = SECOND.div_ceil(per_second.get().into());
        Self { emission, tolerance: emission * u64::from(burst.get()) }
    }

    /// The same rate with `part` of `whole` of the burst, one call at least.
    #[must_use]
    pub fn with_part_of_burst(self, part: u32, whole: u32) -> Self {
        let tolerance = scale(self.tolerance, part, whole);
        Self { tolerance: tolerance.max(self.emission), ..self }
    }

    /// Calls at once, and the time in which as many drain.
    #[must_use]
    pub const fn burst(self) -> (u64, u64) {
        (self.tolerance / self.emission, self.tolerance)
    }

    /// Takes one call out of the bucket `full_until`.
    ///
    /// # Errors
    /// The time after which it would pass, if nothing else is spent. The bucket is as it
    /// was.
    pub fn spend(self, full_until: u64, now: u64) -> Result<u64, u64> {
        let after = full_until.max(now) + self.emission;
        match (after - now).checked_sub(self.tolerance) {
            None | Some(0) => Ok(after),
            Some(wait) => Err(wait),
        }
    }

    /// Takes `calls` that were admitted elsewhere, whatever is in the bucket. Debt beyond
    /// `most` ahead of now is forgiven.
    #[must_use]
    pub fn charge(self, full_until: u64, now: u64, calls: u32, most: u64) -> u64 {
        let after = full_until.max(now).saturating_add(self.emission.saturating_mul(calls.into()));
        after.min(now.saturating_add(most)).max(full_until)
    }

    /// Calls that would pass at once, and the time until there is one more; 0 where the
    /// bucket is empty and nothing more is to come.
    #[must_use]
    pub fn standing(self, full_until: u64, now: u64) -> (u64, u64) {
        let level = full_until.saturating_sub(now);
        let remaining = self.tolerance.saturating_sub(level) / self.emission;
        let next = (level + (remaining + 1) * self.emission).saturating_sub(self.tolerance);
        (remaining, if level == 0 { 0 } else { next })
    }
}

/// `value × part ÷ whole`, rounded down.
pub(super) fn scale(value: u64, part: u32, whole: u32) -> u64 {
    let scaled = u128::from(value) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: u64 = 1_000 * SECOND;

    fn gcra(per_second: u32, burst: u32) -> Gcra {
        Gcra::new(NonZeroU32::new(per_second).unwrap(), NonZeroU32::new(burst).unwrap())
    }

    /// Something that happens after a pause: a call here, or some that were admitted
    /// elsewhere.
    fn happenings() -> impl Strategy<Value = Vec<(u64, Option<u32>)>> {
        let pause = prop_oneof![Just(0), 0..2_000_000_u64, 0..40_000_000_u64, 0..2 * SECOND];
        let what = prop_oneof![4 => Just(None), 1 => (0..30_u32).prop_map(Some)];
        proptest::collection::vec((pause, what), 1..120)
    }

    /// The definition, by counting: at no moment may more than the burst have been taken
    /// since any earlier one, beyond what has drained since.
    fn conforms(taken: &[(u64, u32)], at: u64, emission: u64, burst: u32) -> bool {
        let mut calls = 1_u64;
        taken.iter().rev().all(|(since, more)| {
            calls += u64::from(*more);
            calls * emission <= u64::from(burst) * emission + (at - since)
        }) && burst >= 1
    }

    proptest! {
        #[test]
        fn a_call_passes_exactly_when_every_window_conforms(
            happenings in happenings(), per_second in 1..5_000_u32, burst in 1..40_u32,
        ) {
            let rule = gcra(per_second, burst);
            let (mut now, mut full_until) = (START, 0);
            let mut taken: Vec<(u64, u32)> = Vec::new();
            for (pause, what) in happenings {
                now += pause;
                match what {
                    Some(calls) => {
                        full_until = rule.charge(full_until, now, calls, u64::MAX);
                        taken.push((now, calls));
                    }
                    None => {
                        let outcome = rule.spend(full_until, now);
                        prop_assert_eq!(outcome.is_ok(), conforms(&taken, now, rule.emission, burst));
                        if let Ok(after) = outcome {
                            full_until = after;
                            taken.push((now, 1));
                        }
                    }
                }
            }
        }

        #[test]
        fn who_waits_as_long_as_told_passes_and_who_comes_earlier_does_not(
            level in 0..5 * SECOND, per_second in 1..5_000_u32, burst in 1..40_u32,
        ) {
            let rule = gcra(per_second, burst);
            if let Err(wait) = rule.spend(START + level, START) {
                prop_assert!(rule.spend(START + level, START + wait).is_ok());
                prop_assert!(rule.spend(START + level, START + wait - 1).is_err());
                prop_assert_eq!(rule.standing(START + level, START), (0, wait));
            }
        }

        #[test]
        fn as_many_pass_as_the_standing_says_and_one_more_after_the_time_that_it_says(
            level in 0..5 * SECOND, per_second in 1..5_000_u32, burst in 1..40_u32,
        ) {
            let rule = gcra(per_second, burst);
            let full_until = START + level;
            let (remaining, next) = rule.standing(full_until, START);
            let pass = |now: u64| {
                let mut bucket = full_until;
                (0..1_000).take_while(|_| rule.spend(bucket, now).map(|after| bucket = after).is_ok()).count()
            };
            prop_assert_eq!(pass(START) as u64, remaining);
            if level > 0 {
                prop_assert_eq!(pass(START + next) as u64, remaining + 1);
                prop_assert_eq!(pass(START + next - 1) as u64, remaining);
            }
        }

        #[test]
        fn charges_never_give_anything_back_and_never_go_beyond_the_bound(
            level in 0..5 * SECOND, calls in any::<u32>(), most in 0..3 * SECOND,
        ) {
            let rule = gcra(500, 100);
            let full_until = START + level;
            let after = rule.charge(full_until, START, calls, most);
            prop_assert!(after >= full_until && after <= full_until.max(START + most));
        }
    }

    #[test]
    fn no_rate_is_exceeded_by_rounding_and_a_part_of_the_burst_is_one_call_at_least() {
        for per_second in [1, 3, 7, 500, 999_999, 1_000_000] {
            let rule = gcra(per_second, 1);
            assert!(rule.emission * u64::from(per_second) >= SECOND);
        }
        assert_eq!(gcra(500, 100).with_part_of_burst(1, 3).burst().0, 33);
        assert_eq!(gcra(500, 2).with_part_of_burst(1, 3).burst().0, 1);
    }
}
