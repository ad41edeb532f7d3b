//! Several replicas in one thread, on a wire that delays, loses and repeats: what they admit
//! together, against the bound of the module's documentation.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::exchange::Exchange;
use super::peers::Reception;
use super::{Share, UserLimiter};

const ROUND: u64 = 50;

/// A time in milliseconds of the simulation.
fn at(millis: u64) -> Duration {
    Duration::from_secs(1_000) + Duration::from_millis(millis)
}

struct Replica {
    limiter: Arc<UserLimiter>,
    exchange: Exchange,
    /// When in a round it speaks.
    phase: u64,
    wired: bool,
}

struct ReplicaFleet {
    replicas: Vec<Replica>,
    now: u64,
    /// Messages on their way: when, to whom.
    wire: Vec<(u64, usize, Vec<u8>)>,
    delay: u64,
    /// When each call was admitted.
    admitted: Vec<u64>,
    refused: usize,
}

impl ReplicaFleet {
    fn new(count: usize, rate: u32, burst: u32, delay: u64, floor: u32) -> Self {
        let replicas = (0..count).map(|number| {
            let at_least_one = |value| NonZeroU32::new(value).unwrap();
            let (rate, burst) = (at_least_one(rate), at_least_one(burst));
            let limiter = Arc::new(UserLimiter::new(rate, burst, 1_000, [1; 32], Instant::now()));
            let exchange = Exchange::new(Arc::clone(&limiter), number as u64 + 1, [2; 32], floor);
            Replica { limiter, exchange, phase: number as u64 * 17 % ROUND, wired: true }
        });
        let mut fleet = Self {
            replicas: replicas.collect(),
            now: 0,
            wire: Vec::new(),
            delay,
            admitted: Vec::new(),
            refused: 0,
        };
        for _ in 0..4 * ROUND {
            fleet.advance();
        }
        assert!(fleet.shares().iter().all(|share| *share == Share::WHOLE));
        fleet
    }

    fn shares(&self) -> Vec<Share> {
        self.replicas.iter().map(|replica| replica.limiter.pace().share).collect()
    }

    fn wired(&mut self, wired: bool) {
        self.replicas.iter_mut().for_each(|replica| replica.wired = wired);
        self.wire.clear();
    }

    /// One millisecond passes.
    fn advance(&mut self) {
        self.now += 1;
        let now = at(self.now);
        for (number, replica) in self.replicas.iter_mut().enumerate() {
            if self.now % ROUND == replica.phase {
                let said = replica.exchange.round(now, replica.wired).messages;
                let arrives = self.now + (self.now * 7 + number as u64) % (self.delay + 1);
                self.wire.extend(said.into_iter().map(|message| (arrives, number, message)));
            }
        }
        let (arrived, under_way) = std::mem::take(&mut self.wire).into_iter().partition(|m| m.0 <= self.now);
        self.wire = under_way;
        let arrived: Vec<(u64, usize, Vec<u8>)> = arrived;
        for (_, sender, message) in &arrived {
            let heard_by = |replica: &&mut Replica| replica.wired;
            if !self.replicas[*sender].wired {
                continue;
            }
            for replica in self.replicas.iter_mut().filter(heard_by) {
                replica.exchange.hear(message, now);
                // The wire says it twice.
                assert_ne!(replica.exchange.hear(message, now), Some(Reception::Counts));
            }
        }
    }

    fn call(&mut self, replica: usize) {
        match self.replicas[replica].limiter.check("the user", at(self.now)) {
            Ok(_) => self.admitted.push(self.now),
            Err(_) => self.refused += 1,
        }
    }

    /// Most calls that any window holds beyond the rate.
    fn most_above(&self, rate: u32) -> f64 {
        let per_milli = f64::from(rate) / 1_000.0;
        let mut least = f64::INFINITY;
        let mut most: f64 = 0.0;
        for (index, time) in self.admitted.iter().enumerate() {
            let drained = *time as f64 * per_milli;
            least = least.min(index as f64 - drained);
            most = most.max(index as f64 + 1.0 - drained - least);
        }
        most
    }

    /// `(n − 1)·(b + r·d)`.
    fn unknown(&self, rate: u32, burst: u32) -> f64 {
        let age = (ROUND + self.delay + 1) as f64 / 1_000.0;
        (self.replicas.len() - 1) as f64 * (f64::from(burst) + f64::from(rate) * age)
    }
}

/// Calls per millisecond and replica: silence, some, and everything at once.
fn load(replicas: usize) -> impl Strategy<Value = Vec<Vec<u32>>> {
    let one = prop_oneof![4 => Just(0), 4 => 0..2_u32, 1 => 0..80_u32];
    proptest::collection::vec(proptest::collection::vec(one, replicas), 400..1_500)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_window_holds_more_than_the_bound(
        (count, load) in (2..5_usize).prop_flat_map(|count| (Just(count), load(count))),
        rate in 20..600_u32, burst in 1..60_u32, delay in 0..40_u64,
    ) {
        let mut fleet = ReplicaFleet::new(count, rate, burst, delay, 1);
        for calls in load {
            fleet.advance();
            for (replica, calls) in calls.into_iter().enumerate() {
                (0..calls).for_each(|_| fleet.call(replica));
            }
        }
        let bound = f64::from(burst) + fleet.unknown(rate, burst);
        prop_assert!(fleet.most_above(rate) <= bound, "{} above, bound {bound}", fleet.most_above(rate));
    }

    #[test]
    fn the_bound_holds_over_a_loss_of_the_wire(
        load in load(3), rate in 20..600_u32, burst in 3..60_u32, cut in 0..400_usize, length in 1..600_usize,
    ) {
        let mut fleet = ReplicaFleet::new(3, rate, burst, 5, 1);
        for (step, calls) in load.into_iter().enumerate() {
            if step == cut { fleet.wired(false); }
            if step == cut + length { fleet.wired(true); }
            fleet.advance();
            for (replica, calls) in calls.into_iter().enumerate() {
                (0..calls).for_each(|_| fleet.call(replica));
            }
        }
        // A round may pass before a lost connection is seen, as before one that is back.
        let bound = 2.0 * (f64::from(burst) + fleet.unknown(rate, burst));
        prop_assert!(fleet.most_above(rate) <= bound, "{} above, bound {bound}", fleet.most_above(rate));
    }

    #[test]
    fn who_keeps_to_the_limit_is_never_refused(
        count in 1..5_usize, rate in 20..600_u32, spread in any::<bool>(), delay in 0..40_u64,
    ) {
        let age = ROUND + delay + 1;
        // What the news of one age may hold, and a call to begin with.
        let burst = u32::try_from(u64::from(rate) * age / 1_000).unwrap() + 2;
        let mut fleet = ReplicaFleet::new(count, rate, burst, delay, 1);
        for step in 0..3_000_u64 {
            fleet.advance();
            let due = |step: u64| step * u64::from(rate) / 1_000;
            for number in due(step)..due(step + 1) {
                fleet.call(if spread { number as usize % count } else { 0 });
            }
        }
        prop_assert_eq!(fleet.refused, 0);
    }
}

#[test]
fn far_over_the_limit_exactly_the_rate_passes_in_the_long_run_wherever_it_comes() {
    for weights in [[1, 1, 1], [3, 0, 0], [0, 2, 1]] {
        let mut fleet = ReplicaFleet::new(3, 100, 20, 5, 1);
        for _ in 0..20_000 {
            fleet.advance();
            for (replica, calls) in weights.into_iter().enumerate() {
                (0..calls).for_each(|_| fleet.call(replica));
            }
        }
        let admitted = fleet.admitted.len() as f64;
        assert!((1_990.0..=2_020.0 + fleet.unknown(100, 20)).contains(&admitted), "{weights:?}: {admitted}");
    }
}

#[test]
fn without_a_wire_the_shares_make_the_limit() {
    let mut fleet = ReplicaFleet::new(3, 300, 30, 5, 1);
    fleet.wired(false);
    for _ in 0..ROUND {
        fleet.advance();
    }
    assert_eq!(fleet.shares(), [Share { part: 1, of: 3 }; 3]);
    let before = fleet.admitted.len();
    for _ in 0..10_000 {
        fleet.advance();
        (0..3).for_each(|replica| fleet.call(replica));
    }
    let admitted = fleet.admitted.len() - before;
    assert!((2_990..=3_030).contains(&admitted), "{admitted}");
}

#[test]
fn the_setting_is_the_floor_of_the_replicas_before_any_is_heard() {
    let limiter = |floor| {
        let (rate, burst) = (NonZeroU32::new(100).unwrap(), NonZeroU32::new(30).unwrap());
        let limiter = Arc::new(UserLimiter::new(rate, burst, 1_000, [1; 32], Instant::now()));
        let _exchange = Exchange::new(Arc::clone(&limiter), 1, [2; 32], floor);
        limiter.check("u", limiter.now()).unwrap()
    };
    assert_eq!((limiter(1).per_second, limiter(1).burst), (100, 30));
    assert_eq!((limiter(3).per_second, limiter(3).burst), (33, 10));
}
