//! Which processes speak under the names of brokers: two at once under one name, or a
//! machine that was put back to an earlier state, make every statement about that broker
//! worth nothing, and somebody has to be told.
//!
//! ```text
//! one process after another:  A1 A2 A3      B1 B2 B3        a restart
//! two at once:                A1 A2 B1 A3 B2 A4 B3          told, from A4 on
//! put back:                   A1 A2 … A90 A40 A41           told, at A40
//! ```
//!
//! Receipts may come late, twice and out of order, by seconds; so whoever still speaks 15 s
//! after another began is no latecomer.

use std::collections::HashMap;

use crate::{BrokerId, InstanceId, Timestamp};

/// A receipt does not come later than this, in seconds.
const SETTLED: i64 = 15;
/// For so long after the last sign of it, in seconds, a name is disputed.
const DISPUTED: i64 = 60;
/// Processes remembered of one name.
const PROCESSES: usize = 4;
/// Names remembered. Beyond them, the new ones are not watched.
const NAMES: usize = 65_536;
/// Names that are silent for longer than this, in seconds, make room for others.
const SILENT: i64 = 3_600;

/// Which process made a receipt, and how many it had made by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiptOrigin {
    /// Drawn at random by the process when it started.
    pub incarnation: [u8; 16],
    /// Number of the receipt, from 1, in the order in which the process made them.
    pub sequence: u64,
}

/// What is remembered of one process.
#[derive(Clone, Copy, Debug)]
struct Speaking {
    incarnation: [u8; 16],
    began: Timestamp,
    last: Timestamp,
    sequence: u64,
    /// A sequence number that it had reached, and when it was known.
    mark: (u64, Timestamp),
    /// One that it had reached [`SETTLED`] before: what comes below it comes a second time.
    passed: u64,
}

impl Speaking {
    const fn new(origin: ReceiptOrigin, at: Timestamp) -> Self {
        let ReceiptOrigin { incarnation, sequence } = origin;
        Self { incarnation, began: at, last: at, sequence, mark: (sequence, at), passed: 0 }
    }

    /// Gives whether the receipt can't be a late one.
    fn hear(&mut self, sequence: u64, at: Timestamp) -> bool {
        if at >= self.mark.1.plus_seconds(SETTLED) {
            self.passed = self.mark.0;
            self.mark = (self.sequence, at);
        }
        let comes_again = sequence < self.passed;
        self.sequence = self.sequence.max(sequence);
        self.last = self.last.max(at);
        comes_again
    }
}

/// What is remembered of one name.
#[derive(Debug, Default)]
struct NamedSpeakers {
    processes: Vec<Speaking>,
    disputed_until: Option<Timestamp>,
}

/// Whether a receipt says something about one broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameStanding {
    /// As far as is known.
    Sound,
    /// Two processes speak under the name, or one that was put back to an earlier state:
    /// what either says is true of nobody in particular.
    Disputed {
        /// It was not, a moment ago.
        new: bool,
    },
}

/// Who speaks under which name, as far as one replica has heard.
#[derive(Debug, Default)]
pub struct Speakers {
    names: HashMap<(InstanceId, BrokerId), NamedSpeakers>,
}

impl NamedSpeakers {
    /// Gives whether the receipt shows that the name is disputed.
    fn hear(&mut self, origin: ReceiptOrigin, at: Timestamp) -> bool {
        let known = &mut self.processes;
        let Some(index) = known.iter().position(|process| process.incarnation == origin.incarnation) else {
            if known.len() >= PROCESSES
                && let Some(oldest) = (0..known.len()).min_by_key(|&index| known[index].last)
            {
                known.swap_remove(oldest);
            }
            known.push(Speaking::new(origin, at));
            return false;
        };
        let comes_again = known[index].hear(origin.sequence, at);
        let began = known[index].began;
        // The other has been there for long enough to be more than the late receipts of one
        // that ended.
        let overlaps =
            known.iter().any(|other| other.began > began && other.last >= other.began.plus_seconds(SETTLED));
        comes_again || overlaps
    }
}

impl Speakers {
    /// Takes note of a receipt that was heard `at`.
    pub fn hear(
        &mut self,
        instance_id: &InstanceId,
        broker_id: &BrokerId,
        origin: ReceiptOrigin,
        at: Timestamp,
    ) -> NameStanding {
        let name = (instance_id.clone(), broker_id.clone());
        if !self.names.contains_key(&name) && !self.make_room(at) {
            return NameStanding::Sound;
        }
        let known = self.names.entry(name).or_default();
        let before = known.disputed_until.is_some_and(|until| at < until);
        if known.hear(origin, at) {
            known.disputed_until = Some(at.plus_seconds(DISPUTED));
            return NameStanding::Disputed { new: !before };
        }
        if before { NameStanding::Disputed { new: false } } else { NameStanding::Sound }
    }

    /// Whether there is room for one more name.
    fn make_room(&mut self, at: Timestamp) -> bool {
        if self.names.len() >= NAMES {
            let recent = |process: &Speaking| process.last.plus_seconds(SILENT) > at;
            self.names.retain(|_, known| known.processes.iter().any(recent));
        }
        self.names.len() < NAMES
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(0).plus_seconds(1_000_000 + seconds)
    }

    fn origin(process: u8, sequence: u64) -> ReceiptOrigin {
        ReceiptOrigin { incarnation: [process; 16], sequence }
    }

    /// Hears `(second, process, sequence)`; gives those that are disputed.
    fn told(heard: &[(i64, u8, u64)]) -> Vec<(i64, u8, u64)> {
        let (instance, broker) = ("i".parse().unwrap(), "b".parse().unwrap());
        let mut speakers = Speakers::default();
        let mut told = Vec::new();
        for &(second, process, sequence) in heard {
            let standing = speakers.hear(&instance, &broker, origin(process, sequence), at(second));
            assert!(standing != NameStanding::Disputed { new: true } || told.is_empty(), "new once");
            if standing != NameStanding::Sound {
                told.push((second, process, sequence));
            }
        }
        told
    }

    #[test]
    fn a_restart_is_nothing_to_tell_late_receipts_of_the_old_process_included() {
        let mut heard: Vec<_> = (0..20_i64).map(|n| (n * 5, 1, n.unsigned_abs() + 1)).collect();
        heard.extend([(100, 2, 1), (101, 1, 21), (105, 2, 2), (114, 1, 20), (120, 2, 3)]);
        assert_eq!(told(&heard), []);
    }

    #[test]
    fn two_processes_under_one_name_are_told_for_as_long_as_both_speak() {
        let mut heard = Vec::new();
        for round in 0..10_i64 {
            heard.push((round * 5, 1, round.unsigned_abs() + 1));
            heard.push((round * 5 + 2, 2, round.unsigned_abs() + 1));
        }
        // One of them goes; the other is taken at its word a minute later.
        heard.extend((10..30_i64).map(|round| (round * 5 + 2, 2, round.unsigned_abs() + 1)));
        let disputed = told(&heard);
        assert_eq!(disputed.first(), Some(&(20, 1, 5)), "15 s after the second one began");
        assert_eq!(disputed.last(), Some(&(102, 2, 21)), "a minute after the first one spoke last, at 45");
        // Three take turns.
        let three: Vec<_> = (0..30_i64).map(|n| (n * 2, u8::try_from(n % 3).unwrap(), 7)).collect();
        assert!(!told(&three).is_empty());
    }

    #[test]
    fn a_machine_that_was_put_back_is_told() {
        let mut heard: Vec<_> = (0..60_i64).map(|n| (n * 5, 1, n.unsigned_abs() + 1)).collect();
        heard.extend((0..10_i64).map(|n| (300 + n * 5, 1, n.unsigned_abs() + 20)));
        assert!(told(&heard).contains(&(300, 1, 20)), "{:?}", told(&heard));
        // A copy that runs beside the original: the same process, twice.
        let mut heard: Vec<_> = (0..60_i64).map(|n| (n * 5, 1, n.unsigned_abs() + 1)).collect();
        heard.extend((0..10_i64).flat_map(|n| {
            [(300 + n * 5, 1, n.unsigned_abs() + 61), (301 + n * 5, 1, n.unsigned_abs() + 30)]
        }));
        assert_eq!(told(&heard).first(), Some(&(301, 1, 30)));
        assert_eq!(told(&heard).len(), 19, "the original's too");
    }

    #[test]
    fn memory_is_bounded_and_the_silent_make_room() {
        let mut speakers = Speakers::default();
        let instance: InstanceId = "i".parse().unwrap();
        let hear = |speakers: &mut Speakers, number: usize, second| {
            let broker = format!("b{number}").parse().unwrap();
            speakers.hear(&instance, &broker, origin(1, 1), at(second))
        };
        for number in 0..NAMES + 10 {
            hear(&mut speakers, number, 0);
        }
        assert_eq!(speakers.names.len(), NAMES);
        hear(&mut speakers, NAMES + 11, SILENT + 1);
        assert_eq!(speakers.names.len(), 1);
    }

    proptest! {
        /// However late, doubled and out of order receipts come, within seconds: one process after
        /// another is never told as two.
        #[test]
        fn lateness_is_never_told(
            delays in proptest::collection::vec((0_i64..14, 1_usize..3), 1..60),
            restart in 0_usize..60,
        ) {
            let mut heard = Vec::new();
            for (number, (delay, copies)) in delays.iter().enumerate() {
                let sent = i64::try_from(number).unwrap() * 2;
                let process = if number < restart { 1 } else { 2 };
                let sequence = if number < restart { number } else { number - restart } as u64 + 1;
                for copy in 0..*copies {
                    let late = if copy == 0 { *delay } else { 13 - delay };
                    heard.push((sent + late, process, sequence));
                }
            }
            heard.sort();
            prop_assert_eq!(told(&heard), []);
        }
    }
}
