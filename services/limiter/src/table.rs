//! The buckets of all users, in bounded memory.
//!
//! Sharded by a part of the user's number. A shard holds so many buckets and no more. When
//! it is full it first drops those that are empty, which say nothing; no other bucket is
//! ever dropped, so that nobody can push a user's spent bucket out to get a new one. A
//! user who comes to a full shard shares one of a few buckets with others: strict with all
//! who share it. Who gets a bucket of its own later begins it as full as the shared one.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Buckets of a shard, about: large enough that users spread evenly.
const SHARD: usize = 4_096;
const MOST_SHARDS: usize = 256;
/// Buckets that users of a full shard share.
const SHARED: usize = 4;
/// Users whose spending is kept for the next round of gossip, in all shards: more than a
/// replica can serve in that time.
const MOST_SPENDERS: usize = 65_536;
/// Shortest time between two searches for empty buckets in one shard, in nanoseconds of
/// the limiter's clock: a search costs some microseconds, and a flood of new users must not
/// buy one with each call.
const BETWEEN_SEARCHES: u64 = 100_000_000;

/// A user's number is a keyed hash already.
#[derive(Default)]
struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        debug_assert!(false, "not a user's number: {bytes:?}");
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

type ByUser<T> = HashMap<u64, T, BuildHasherDefault<NumberHasher>>;

#[derive(Default)]
struct Shard {
    /// When each user's bucket will be empty.
    buckets: ByUser<u64>,
    shared: [u64; SHARED],
    searched: u64,
    /// Calls since the last round of gossip.
    spent: ByUser<u32>,
    /// Calls that met a shared bucket since the last sweep.
    met_shared: u64,
}

/// Buckets by user.
pub(super) struct Table {
    shards: Box<[Mutex<Shard>]>,
    per_shard: usize,
    spenders_per_shard: usize,
}

/// What a sweep found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweepReport {
    /// Users with a bucket that is not empty.
    pub users: usize,
    /// Calls since the last sweep that met a bucket shared with other users.
    pub met_shared: u64,
}

impl Table {
    /// At most `max_users` buckets, and a sixteenth more, so that chance does not fill a
    /// shard early.
    pub fn new(max_users: usize) -> Self {
        let shards = (max_users / SHARD).next_power_of_two().clamp(1, MOST_SHARDS);
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            per_shard: (max_users + max_users / 16).div_ceil(shards),
            spenders_per_shard: MOST_SPENDERS / shards,
        }
    }

    /// Looks at the bucket of `user` and changes it: `change` gets when it will be empty,
    /// and gives when it will be then. Where `counts`, a call that gave `true` is kept for
    /// gossip.
    pub fn change(&self, user: u64, now: u64, counts: bool, change: impl FnOnce(u64) -> (u64, bool)) -> bool {
        let mut shard = self.shard(user);
        let spent = shard.change(user, now, self.per_shard, change);
        if counts && spent {
            shard.count(user, self.spenders_per_shard);
        }
        spent
    }

    /// Takes what was spent since the last time.
    pub fn take_spent(&self) -> Vec<(u64, u32)> {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(lock(shard).spent.drain());
        }
        all
    }

    /// Drops empty buckets, and memory that is not needed any more.
    pub fn sweep(&self, now: u64) -> SweepReport {
        let mut swept = SweepReport::default();
        for shard in &self.shards {
            let mut shard = lock(shard);
            shard.search(now);
            let buckets = shard.buckets.len();
            if buckets < shard.buckets.capacity() / 8 {
                shard.buckets.shrink_to(2 * buckets);
            }
            swept.users += buckets;
            swept.met_shared += std::mem::take(&mut shard.met_shared);
        }
        swept
    }

    fn shard(&self, user: u64) -> MutexGuard<'_, Shard> {
        // The middle bits: hashbrown uses the lowest and the highest ones.
        lock(&self.shards[(user >> 32) as usize % self.shards.len()])
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shard {
    fn change(&mut self, user: u64, now: u64, most: usize, change: impl FnOnce(u64) -> (u64, bool)) -> bool {
        if let Some(bucket) = self.buckets.get_mut(&user) {
            let (after, spent) = change(*bucket);
            *bucket = after;
            return spent;
        }
        if self.buckets.len() >= most && now >= self.searched + BETWEEN_SEARCHES {
            self.search(now);
        }
        let shared = &mut self.shared[(user >> 48) as usize % SHARED];
        let (after, spent) = change(*shared);
        if self.buckets.len() < most {
            self.buckets.insert(user, after);
        } else {
            *shared = after;
            self.met_shared += 1;
        }
        spent
    }

    fn count(&mut self, user: u64, most: usize) {
        if self.spent.len() < most || self.spent.contains_key(&user) {
            *self.spent.entry(user).or_default() += 1;
        }
    }

    fn search(&mut self, now: u64) {
        self.searched = now;
        self.buckets.retain(|_, empty_at| *empty_at > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: u64 = 1_000;

    fn set(table: &Table, user: u64, now: u64, empty_at: u64) {
        table.change(user, now, false, |_| (empty_at, true));
    }

    fn bucket(table: &Table, user: u64) -> u64 {
        let mut found = 0;
        table.change(user, LATER, false, |bucket| {
            found = bucket;
            (bucket, false)
        });
        found
    }

    #[test]
    fn a_full_table_keeps_every_spent_bucket_and_new_users_share() {
        let table = Table::new(64);
        for user in 0..68 {
            set(&table, user, 0, LATER + user);
        }
        for user in 1_000..2_000 {
            set(&table, user, 0, LATER + user);
        }
        assert_eq!(table.sweep(0), SweepReport { users: 68, met_shared: 1_000 });
        assert!((0..68).all(|user| bucket(&table, user) == LATER + user));
    }

    #[test]
    fn who_shared_a_bucket_does_not_get_an_empty_one_later() {
        let table = Table::new(16);
        for user in 0..17 {
            set(&table, user, 0, LATER);
        }
        set(&table, 99, 0, 5 * LATER);
        table.sweep(LATER);
        assert_eq!(bucket(&table, 99), 5 * LATER);
    }

    #[test]
    fn empty_buckets_make_room_but_are_not_searched_for_with_every_call() {
        let table = Table::new(16);
        let much_later = BETWEEN_SEARCHES + 1;
        for user in 0..17 {
            set(&table, user, 0, 1);
        }
        set(&table, 50, 2, much_later);
        assert_eq!(table.sweep(0).met_shared, 1, "too early for a search");
        set(&table, 51, much_later, 2 * much_later);
        assert_eq!(table.sweep(much_later), SweepReport { users: 1, met_shared: 0 });
    }

    #[test]
    fn what_was_spent_is_taken_once_and_bounded() {
        let table = Table::new(1_000);
        for user in 0..2 * MOST_SPENDERS as u64 {
            table.change(user % 70_000, 0, true, |bucket| (bucket + 1, true));
        }
        table.change(7, 0, true, |bucket| (bucket, false));
        let spent = table.take_spent();
        assert_eq!(spent.len(), MOST_SPENDERS);
        let of_seven = spent.iter().find(|(user, _)| *user == 7).unwrap();
        assert_eq!(of_seven.1, 2, "a refused call is not spent");
        assert!(table.take_spent().is_empty());
    }
}
