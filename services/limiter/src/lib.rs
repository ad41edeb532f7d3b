//! How often each user may call, for all replicas together.
//!
//! Each replica keeps a bucket per user ([`gcra`], [`table`]) and takes out of it what it
//! admits itself, at once, and what the others say that they admitted, every 50 ms
//! ([`exchange`], [`message`], [`peers`]). Without the others it gives its share of the
//! limit ([`pace`]).
//!
//! # What is admitted at most
//! Let `r` be the rate, `b` the burst, `n` the replicas, and `d` the age of news: the time
//! from an admission until every other replica has taken it into account, 50 ms and the way.
//! **In any window of length `w` the replicas together admit at most**
//!
//! ```text
//! r·w + b + (n − 1)·(b + r·d)
//! ```
//!
//! Take the last call admitted in the window, at replica `i`. The bucket of `i` began with
//! nothing less than empty, has drained `r·w` at most, and holds `b` at most after the call:
//! what was taken out of it in the window is at most `r·w + b`. That is all that was admitted
//! but what the other `n − 1` replicas admitted in the last `d`, of which `i` does not know
//! yet; each of them alone admits at most `b + r·d` in that time. ∎
//!
//! The last part is debt, not a gift: it stays in the buckets, and nothing passes until it
//! has drained, so that in the long run exactly `r` pass. It is reached only by a user who
//! was idle and then sends to every replica at the same moment.
//!
//! - *NATS lost* (or the news of one replica): what was admitted in the last `d` is never
//!   told. Each time adds `(n − 1)·(b + r·d) + b`; `d` is then up to a second where NATS
//!   hangs without its connections breaking. In between each replica admits `r/n` and a
//!   burst of `b/n`: `r` in sum, so that a user of one replica alone gets a part.
//! - *One of them cut off*: the others hear each other and give `r`, that one `r/n`.
//! - *A NATS cluster that falls apart*: a side with half of the replicas or more gives `r`, another
//!   one its share: below `1.5·r` in sum, and `2·r` for two equal halves. That takes the
//!   setting of how many there are: a side forgets silent replicas while NATS works.
//! - *A replica lost*: the others go on giving `r`. What it admitted in its last `d` is not
//!   told: `b + r·d` once.
//! - *A replica that joins* knows of nobody's spending: `b + r·d` once.
//!
//! Never refused: a user whose calls conform to the rate `r` with a burst of `b − r·d`. News
//! may come together that happened within `d`, and nothing is ever taken out of a bucket
//! that was not admitted.

pub mod exchange;
mod gcra;
pub mod gossip;
pub mod instruments;
mod message;
mod pace;
mod peers;
#[cfg(test)]
mod simulation;
pub mod sweep;
mod table;

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use gcra::{Gcra, scale};
use pace::{Pace, nanoseconds};
use table::Table;

pub use pace::Share;
pub use peers::{Reception, ReplicaFleet};
pub use table::SweepReport;

/// Where a user stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Calls per second that this replica allows now.
    pub per_second: u32,
    /// Calls at once that it allows now to a user who was idle.
    pub burst: u64,
    /// Calls that would pass at once.
    pub remaining: u64,
    /// When one more will; zero when nothing is missing.
    pub next: Duration,
}

/// The buckets of all users. All times are those of [`UserLimiter::now`].
pub struct UserLimiter {
    per_second: NonZeroU32,
    whole: Gcra,
    pace: RwLock<Pace>,
    table: Table,
    /// Makes numbers of names: the same on every replica, and known to nobody else.
    naming_key: [u8; 32],
    /// Whether there is somebody to tell what is spent.
    gossips: AtomicBool,
    started: Instant,
}

impl UserLimiter {
    /// `per_second` in the long run, `burst` at once, about `max_users` buckets. It gives
    /// the whole limit until [`UserLimiter::set_fleet`] says otherwise.
    #[must_use]
    pub fn new(
        per_second: NonZeroU32,
        burst: NonZeroU32,
        max_users: usize,
        naming_key: [u8; 32],
        started: Instant,
    ) -> Self {
        let whole = Gcra::new(per_second, burst);
        Self {
            per_second,
            whole,
            pace: RwLock::new(Pace::new(whole, Share::WHOLE, 0, Duration::ZERO, 0)),
            table: Table::new(max_users),
            naming_key,
            gossips: AtomicBool::new(false),
            started,
        }
    }

    /// The time since the limiter was made. By the operating system's clock: reading the
    /// processor's counter is cheaper, but the counters of a virtual machine's processors
    /// may differ by a millisecond, and who waited as long as told would be refused again.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Counts one call of `user`.
    ///
    /// # Errors
    /// Where the user stands: the call is refused, and would pass after `next`.
    pub fn check(&self, user: &str, now: Duration) -> Result<Quota, Quota> {
        let pace = self.pace();
        let clock = pace.clock(now);
        let mut after = 0;
        let counts = self.gossips.load(Ordering::Relaxed);
        let passes = self.table.change(self.number(user), clock, counts, |bucket| {
            let outcome = pace.gcra.spend(bucket, clock);
            after = outcome.unwrap_or(bucket);
            (after, outcome.is_ok())
        });
        let (remaining, next) = pace.gcra.standing(after, clock);
        let per_second = scale(self.per_second.get().into(), pace.share.part, pace.share.of);
        let quota = Quota {
            per_second: u32::try_from(per_second.max(1)).unwrap_or(u32::MAX),
            burst: pace.gcra.burst().0,
            remaining,
            next: pace.real(next),
        };
        if passes { Ok(quota) } else { Err(quota) }
    }

    /// Takes calls of a user that another replica admitted.
    fn charge(&self, user: u64, calls: u32, now: Duration) {
        let pace = self.pace();
        let clock = pace.clock(now);
        self.table.change(user, clock, false, |bucket| {
            (pace.gcra.charge(bucket, clock, calls, pace.most_debt), false)
        });
    }

    /// Gives the fleet's share of the limit from `now` on, and takes at most as much debt
    /// as so many replicas can make without knowing of each other.
    pub fn set_fleet(&self, fleet: ReplicaFleet, now: Duration) {
        let mut pace = self.pace.write().unwrap_or_else(PoisonError::into_inner);
        let replicas = u64::from(fleet.replicas);
        let unknown = nanoseconds(peers::FRESH).saturating_mul(replicas);
        let most_debt = self.whole.burst().1.saturating_mul(replicas).saturating_add(unknown);
        *pace = Pace::new(self.whole, fleet.share, most_debt, now, pace.clock(now));
    }

    /// Forgets users whose bucket is empty. To be called about once per second.
    pub fn sweep(&self, now: Duration) -> SweepReport {
        self.table.sweep(self.pace().clock(now))
    }

    fn take_spent(&self) -> Vec<(u64, u32)> {
        self.table.take_spent()
    }

    fn pace(&self) -> Pace {
        *self.pace.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self, user: &str) -> u64 {
        let hash = blake3::keyed_hash(&self.naming_key, user.as_bytes());
        hash.as_bytes().first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(per_second: u32, burst: u32) -> UserLimiter {
        let at_least_one = |value| NonZeroU32::new(value).unwrap();
        UserLimiter::new(at_least_one(per_second), at_least_one(burst), 1_000, [1; 32], Instant::now())
    }

    #[test]
    fn a_user_learns_where_it_stands() {
        let limiter = limiter(500, 3);
        let now = Duration::from_secs(1);
        let standing = |remaining, millis| Quota {
            per_second: 500,
            burst: 3,
            remaining,
            next: Duration::from_millis(millis),
        };
        assert_eq!(limiter.check("u", now), Ok(standing(2, 2)));
        assert_eq!(limiter.check("u", now), Ok(standing(1, 2)));
        assert_eq!(limiter.check("u", now), Ok(standing(0, 2)));
        assert_eq!(limiter.check("u", now), Err(standing(0, 2)));
        assert_eq!(limiter.check("another", now), Ok(standing(2, 2)));
        assert_eq!(limiter.check("u", now + Duration::from_millis(2)), Ok(standing(0, 2)));
    }

    #[test]
    fn a_replica_alone_gives_its_part_and_its_waits_are_exact() {
        let limiter = limiter(300, 30);
        let mut now = Duration::from_secs(1);
        limiter.set_fleet(ReplicaFleet::alone(3), now);
        let passed = (0..100).take_while(|_| limiter.check("u", now).is_ok()).count();
        assert_eq!(passed, 10, "a third of the burst");
        for _ in 0..50 {
            let refused = limiter.check("u", now).unwrap_err();
            assert_eq!(refused.per_second, 100);
            assert!(refused.next <= Duration::from_micros(10_001), "{refused:?}");
            now += refused.next;
            assert!(limiter.check("u", now).is_ok());
        }
        // The whole again: what was spent stays spent.
        limiter.set_fleet(ReplicaFleet { share: Share::WHOLE, replicas: 3, heard: 3 }, now);
        assert_eq!(limiter.check("u", now).unwrap().remaining, 19);
    }

    #[test]
    fn what_others_admitted_is_taken_out_of_the_bucket_but_never_without_bound() {
        let limiter = limiter(100, 10);
        let now = Duration::from_secs(1);
        limiter.set_fleet(ReplicaFleet { share: Share::WHOLE, replicas: 3, heard: 3 }, now);
        let user = limiter.number("u");
        limiter.charge(user, 4, now);
        assert_eq!(limiter.check("u", now).unwrap().remaining, 5);
        limiter.charge(user, u32::MAX, now);
        let refused = limiter.check("u", now).unwrap_err();
        // 3 bursts of 10, and 3 s of 100, less the burst that may be owed.
        assert_eq!(refused.next, Duration::from_millis(300 + 3_000 + 10 - 100));
        assert!(limiter.take_spent().is_empty(), "nobody to tell");
    }
}
