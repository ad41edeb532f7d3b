//! Who else is there, and how much of the limit this replica may use. Pure: times are
//! arguments, and only ever compared with other times of this replica.
//!
//! A message counts when it answers this replica: when it names a message of this
//! replica that was sent within the last second. So a message that was recorded earlier
//! or comes late is known for what it is without anybody's clock, and a replica counts as
//! heard only while it hears this one, too. A message that counts counts once: numbers only
//! rise.
//!
//! The whole limit is this replica's to give while its own messages come back to it (NATS
//! carries them) and at least half of the replicas are heard. Otherwise the replicas that
//! hear each other have their share of it: `heard ÷ replicas`, and alone one part. A
//! replica that is silent while NATS carries messages is forgotten after ten seconds, one
//! that says that it leaves at once; while NATS is away nobody is.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use super::message::{Acknowledgement, MOST_PEERS, Spending};
use super::pace::Share;

/// How old an answer may be. Longer than any ordinary hiccup of a busy machine; also how
/// long a NATS that hangs goes unnoticed (a lost connection is noticed at once).
pub(super) const FRESH: Duration = Duration::from_secs(1);
/// How long a silent replica counts among the replicas. Short, since one that crashes and
/// starts again and again leaves one behind each time.
const REMEMBERED: Duration = Duration::from_secs(10);

/// What a message is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reception {
    /// It counts: what it says was spent has been spent.
    Counts,
    /// One's own, come back.
    Own,
    /// It answers nothing recent: its sender has not heard this replica yet, or the message
    /// is late, or recorded.
    Unanswering,
    /// It was heard before.
    Repeated,
    /// There are too many replicas to remember this one.
    Crowded,
}

/// The replicas, and this one's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaFleet {
    /// How much of the limit this replica gives.
    pub share: Share,
    /// Replicas that there are, this one among them: those heard lately, and not fewer
    /// than the setting says.
    pub replicas: u32,
    /// Replicas that hear each other, this one among them.
    pub heard: u32,
}

impl ReplicaFleet {
    /// A replica that hears nobody, among `replicas`.
    #[must_use]
    pub fn alone(replicas: u32) -> Self {
        let replicas = replicas.max(1);
        Self { share: Share { part: 1, of: replicas }, replicas, heard: 1 }
    }
}

#[derive(Debug)]
struct OtherReplica {
    sequence: u64,
    heard_at: Duration,
    /// When this replica sent what the peer answered last; `None` before the first answer.
    answered: Option<Duration>,
    left: bool,
}

/// What is known of the other replicas.
#[derive(Debug)]
pub(super) struct Peers {
    me: u64,
    /// Fewest replicas.
    floor: u32,
    sequence: u64,
    /// When the last messages were sent, the newest last; consecutive.
    sent: VecDeque<Duration>,
    /// When this replica sent the newest message that came back to it.
    returned: Option<Duration>,
    /// Since when messages come back.
    connected_since: Option<Duration>,
    peers: HashMap<u64, OtherReplica>,
}

impl Peers {
    /// `me` MUST be another number at each start.
    pub fn new(me: u64, floor: u32) -> Self {
        Self {
            me,
            floor: floor.max(1),
            sequence: 0,
            sent: VecDeque::new(),
            returned: None,
            connected_since: None,
            peers: HashMap::new(),
        }
    }

    /// The frame of the next message, which is sent now.
    pub fn next_message(&mut self, now: Duration) -> Spending {
        while self.sent.front().is_some_and(|sent| now.saturating_sub(*sent) > FRESH) {
            self.sent.pop_front();
        }
        self.sequence += 1;
        self.sent.push_back(now);
        let heard = self.peers.iter().filter(|(_, peer)| !peer.left);
        let heard =
            heard.map(|(from, peer)| Acknowledgement { from: *from, sequence: peer.sequence }).collect();
        Spending { from: self.me, sequence: self.sequence, heard, ..Spending::default() }
    }

    /// Takes note of a message.
    pub fn hear(&mut self, message: &Spending, now: Duration) -> Reception {
        if message.from == self.me {
            self.returned = self.returned.max(self.sent_at(message.sequence, now));
            return Reception::Own;
        }
        let answer = message.heard.iter().find(|heard| heard.from == self.me);
        let answered = answer.and_then(|heard| self.sent_at(heard.sequence, now));
        if !self.peers.contains_key(&message.from) && self.peers.len() >= MOST_PEERS {
            return Reception::Crowded;
        }
        let peer = self.peers.entry(message.from).or_insert(OtherReplica {
            sequence: 0,
            heard_at: now,
            answered: None,
            left: false,
        });
        if message.sequence <= peer.sequence || peer.left {
            return Reception::Repeated;
        }
        peer.sequence = message.sequence;
        peer.heard_at = now;
        if answered.is_none() {
            return Reception::Unanswering;
        }
        peer.answered = peer.answered.max(answered);
        // Still known for a while, so that its last words are not taken for new ones.
        peer.left = message.leaving;
        Reception::Counts
    }

    /// When a recent message of this replica was sent.
    fn sent_at(&self, sequence: u64, now: Duration) -> Option<Duration> {
        let back = usize::try_from(self.sequence.checked_sub(sequence)?).ok()?;
        let sent = *self.sent.get(self.sent.len().checked_sub(back + 1)?)?;
        (now.saturating_sub(sent) <= FRESH).then_some(sent)
    }

    /// The fleet as it is now, those forgotten who were silent for long. `connected` says
    /// whether there is a connection to NATS at all.
    pub fn fleet(&mut self, now: Duration, connected: bool) -> ReplicaFleet {
        let recent = |time: Option<Duration>| time.is_some_and(|time| now.saturating_sub(time) <= FRESH);
        let connected = connected && recent(self.returned);
        self.connected_since = if connected { self.connected_since.or(Some(now)) } else { None };
        let connected_since = self.connected_since;
        self.peers.retain(|_, peer| match (peer.answered, connected_since) {
            (Some(_), None) if !peer.left => true,
            (Some(_), Some(since)) if !peer.left => {
                now.saturating_sub(peer.heard_at.max(since)) <= REMEMBERED
            }
            _ => now.saturating_sub(peer.heard_at) <= 2 * FRESH,
        });
        let counted = self.peers.values().filter(|peer| peer.answered.is_some() && !peer.left);
        let (mut known, mut heard) = (1_u32, 1_u32);
        for peer in counted {
            known += 1;
            heard += u32::from(connected && recent(peer.answered));
        }
        let replicas = known.max(self.floor);
        let share = if connected && 2 * heard >= replicas {
            Share::WHOLE
        } else {
            Share { part: heard, of: replicas }
        };
        ReplicaFleet { share, replicas, heard }
    }

    /// How long ago the peer that was silent for longest among those heard was heard;
    /// `None` where none is.
    pub fn oldest_news(&self, now: Duration) -> Option<Duration> {
        let counted = self.peers.values().filter(|peer| peer.answered.is_some() && !peer.left);
        counted.map(|peer| now.saturating_sub(peer.heard_at)).max()
    }
}

#[cfg(test)]
mod tests;
