//! One replica's side of the gossip, without its wire: what to say, and what to make of
//! what is heard.

use std::sync::Arc;
use std::time::Duration;

use super::UserLimiter;
use super::message::{MOST_USERS, Spending};
use super::peers::{Peers, Reception, ReplicaFleet};

/// Longest silence: who has nothing to tell says at least that it is there.
const SIGN_OF_LIFE: Duration = Duration::from_millis(100);

/// What one replica knows of the others.
pub struct Exchange {
    limiter: Arc<UserLimiter>,
    peers: Peers,
    sealing_key: [u8; 32],
    spoke: Option<Duration>,
}

/// What a round says and finds.
#[derive(Debug, PartialEq)]
pub struct Round {
    /// For the wire, in this order.
    pub messages: Vec<Vec<u8>>,
    /// The fleet, whose share the limiter gives from now on.
    pub fleet: ReplicaFleet,
    /// Age of the oldest last word of a replica that counts.
    pub age: Option<Duration>,
}

impl Exchange {
    /// `me` MUST be another number at each start, `sealing_key` the same on every replica
    /// and known to nobody else. There are `replicas` at least.
    #[must_use]
    pub fn new(limiter: Arc<UserLimiter>, me: u64, sealing_key: [u8; 32], replicas: u32) -> Self {
        limiter.set_fleet(ReplicaFleet::alone(replicas), limiter.now());
        limiter.gossips.store(true, std::sync::atomic::Ordering::Relaxed);
        Self { limiter, peers: Peers::new(me, replicas), sealing_key, spoke: None }
    }

    /// What to say now, to be called every 50 ms. What was spent while there is no
    /// connection is not told later: it was a share that nobody else had.
    #[must_use]
    pub fn round(&mut self, now: Duration, connected: bool) -> Round {
        let fleet = self.peers.fleet(now, connected);
        self.limiter.set_fleet(fleet, now);
        let spent = self.limiter.take_spent();
        let silent = self.spoke.is_none_or(|spoke| now.saturating_sub(spoke) >= SIGN_OF_LIFE);
        let messages = if !connected || (spent.is_empty() && !silent) {
            Vec::new()
        } else {
            self.spoke = Some(now);
            self.say(&spent, now, false)
        };
        Round { messages, fleet, age: self.peers.oldest_news(now) }
    }

    /// The last words of a replica that stops: nothing is admitted after them.
    #[must_use]
    pub fn leave(&mut self, now: Duration) -> Vec<Vec<u8>> {
        let spent = self.limiter.take_spent();
        self.say(&spent, now, true)
    }

    fn say(&mut self, spent: &[(u64, u32)], now: Duration, leaving: bool) -> Vec<Vec<u8>> {
        let parts = spent.len().div_ceil(MOST_USERS).max(1);
        let mut messages = Vec::with_capacity(parts);
        for part in 0..parts {
            let users = spent.iter().skip(part * MOST_USERS).take(MOST_USERS);
            let (users, calls) = users.copied().unzip();
            let leaving = leaving && part + 1 == parts;
            let frame = self.peers.next_message(now);
            messages.push(Spending { leaving, users, calls, ..frame }.seal(&self.sealing_key));
        }
        messages
    }

    /// Takes a message in; `None` for what is none.
    pub fn hear(&mut self, bytes: &[u8], now: Duration) -> Option<Reception> {
        let message = Spending::open(bytes, &self.sealing_key)?;
        let worth = self.peers.hear(&message, now);
        if worth == Reception::Counts {
            for (user, calls) in message.spent() {
                self.limiter.charge(user, calls, now);
            }
        }
        Some(worth)
    }
}
