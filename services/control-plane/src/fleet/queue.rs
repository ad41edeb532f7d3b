//! The receipts that wait to be recorded, by broker.

use std::collections::{HashMap, VecDeque};

use catrust_domain::{BrokerId, InstanceId, Outcome, Receipt};
use tokio::sync::oneshot;

/// Receipts of one broker that wait. A broker changes its mind about a revision or two
/// within a batch, not more.
const PER_BROKER: usize = 4;

/// What became of a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Every replica knows it.
    Recorded,
    /// Thrown away for newer ones of the same broker.
    Shed,
    /// The store does not answer.
    Unavailable,
    /// The store failed.
    Failed,
}

/// A receipt, and who wants to know what became of it.
#[derive(Debug)]
pub(crate) struct WaitingReceipt {
    pub(crate) receipt: Receipt,
    pub(crate) answers: Vec<oneshot::Sender<Fate>>,
}

impl WaitingReceipt {
    pub(crate) fn answer(self, fate: Fate) {
        for answer in self.answers {
            // Nobody may be waiting any more.
            let _ = answer.send(fate);
        }
    }
}

type BrokerKey = (InstanceId, BrokerId);

/// A bounded queue. A broker whose receipts wait loses its own oldest one when it says
/// more, and nobody else's.
#[derive(Debug)]
pub(crate) struct ReceiptQueue {
    by_broker: HashMap<BrokerKey, VecDeque<WaitingReceipt>>,
    /// Brokers with waiting receipts, in the order of their first one.
    turns: VecDeque<BrokerKey>,
    length: usize,
    capacity: usize,
}

impl ReceiptQueue {
    /// At most `capacity` receipts.
    pub(crate) fn new(capacity: usize) -> Self {
        Self { by_broker: HashMap::new(), turns: VecDeque::new(), length: 0, capacity }
    }

    /// Puts a receipt in; gives the one that had to go: an older one of its broker, or
    /// the receipt itself where the queue is full of other brokers' receipts.
    pub(crate) fn push(&mut self, next: WaitingReceipt) -> Option<WaitingReceipt> {
        let broker = (next.receipt.instance_id.clone(), next.receipt.broker_id.clone());
        let full = self.length >= self.capacity;
        let Some(waiting) = self.by_broker.get_mut(&broker) else {
            if full {
                return Some(next);
            }
            self.turns.push_back(broker.clone());
            self.by_broker.insert(broker, VecDeque::from([next]));
            self.length += 1;
            return None;
        };
        match waiting.back_mut() {
            Some(last) if supersedes(&next.receipt, &last.receipt) => {
                supersede(last, next);
                return None;
            }
            _ => waiting.push_back(next),
        }
        let shed = if full || waiting.len() > PER_BROKER { waiting.pop_front() } else { None };
        self.length += usize::from(shed.is_none());
        shed
    }

    /// The receipts of as many brokers as fit into `most`, in their order.
    pub(crate) fn take_batch(&mut self, most: usize) -> Vec<WaitingReceipt> {
        let mut batch = Vec::new();
        while let Some(broker) = self.turns.front() {
            let waiting = self.by_broker.get(broker).map_or(0, VecDeque::len);
            if batch.len() + waiting > most {
                break;
            }
            batch.extend(self.by_broker.remove(broker).into_iter().flatten());
            self.turns.pop_front();
        }
        self.length -= batch.len();
        batch
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// Whether what `next` says leaves nothing of `last`.
fn supersedes(next: &Receipt, last: &Receipt) -> bool {
    next.outcome.kind() == last.outcome.kind() && next.revision >= last.revision
}

/// Puts `next` in the place of `last`, for both of those who wait.
fn supersede(last: &mut WaitingReceipt, mut next: WaitingReceipt) {
    if next.receipt.revision == last.receipt.revision
        && let Outcome::Applied { sessions_cut, .. } = &mut next.receipt.outcome
        && let Outcome::Applied { sessions_cut: before, .. } = &last.receipt.outcome
    {
        *sessions_cut = (*sessions_cut).max(*before);
    }
    last.receipt = next.receipt;
    last.answers.append(&mut next.answers);
}

#[cfg(test)]
mod tests {
    use catrust_domain::{Enforcement, Sha256, Timestamp};

    use super::*;

    fn receipt(broker: &str, revision: u64, applied: bool) -> Receipt {
        Receipt {
            instance_id: "i".parse().unwrap(),
            broker_id: broker.parse().unwrap(),
            revision,
            outcome: match applied {
                true => Outcome::Applied { digest: Sha256::ZERO, sessions_cut: 0, applied_at: None },
                false => Outcome::Refused { reason: "no".to_owned() },
            },
            enforcement: Enforcement::Tls,
            sessions_open: 0,
            received_at: Timestamp::from_micros(0),
            origin: None,
        }
    }

    /// Gives the broker and revision of the one that had to go.
    fn push(queue: &mut ReceiptQueue, receipt: Receipt) -> Option<(String, u64)> {
        let shed = queue.push(WaitingReceipt { receipt, answers: Vec::new() })?;
        revisions(&[shed]).pop()
    }

    fn revisions(batch: &[WaitingReceipt]) -> Vec<(String, u64)> {
        batch.iter().map(|w| (w.receipt.broker_id.to_string(), w.receipt.revision)).collect()
    }

    #[test]
    fn a_newer_statement_takes_the_place_of_an_older_one_of_its_kind() {
        let mut queue = ReceiptQueue::new(10);
        let mut cutting = receipt("a", 2, true);
        cutting.outcome = Outcome::Applied { digest: Sha256::ZERO, sessions_cut: 9, applied_at: None };
        for next in [receipt("a", 1, true), cutting, receipt("a", 2, true), receipt("b", 1, false)] {
            assert_eq!(push(&mut queue, next), None);
        }
        let batch = queue.take_batch(10);
        assert_eq!(revisions(&batch), [("a".to_owned(), 2), ("b".to_owned(), 1)]);
        let cut = |outcome: &Outcome| matches!(outcome, Outcome::Applied { sessions_cut: 9, .. });
        assert!(cut(&batch[0].receipt.outcome), "the sign of life knows of no cut");
        assert!(queue.is_empty());
    }

    #[test]
    fn other_kinds_and_late_ones_wait_in_their_order() {
        let mut queue = ReceiptQueue::new(10);
        for (revision, applied) in [(2, true), (3, false), (2, true), (1, true)] {
            assert_eq!(push(&mut queue, receipt("a", revision, applied)), None);
        }
        let shed = push(&mut queue, receipt("a", 4, false));
        assert_eq!(shed, Some(("a".to_owned(), 2)), "its own oldest");
        let waiting: Vec<u64> = queue.take_batch(10).iter().map(|w| w.receipt.revision).collect();
        assert_eq!(waiting, [3, 2, 1, 4]);
    }

    #[test]
    fn a_full_queue_refuses_new_brokers_and_sheds_of_the_same_one() {
        let mut queue = ReceiptQueue::new(2);
        let of = |broker: &str, revision| Some((broker.to_owned(), revision));
        assert_eq!(push(&mut queue, receipt("a", 1, true)), None);
        assert_eq!(push(&mut queue, receipt("b", 1, true)), None);
        assert_eq!(push(&mut queue, receipt("c", 5, true)), of("c", 5));
        assert_eq!(push(&mut queue, receipt("a", 2, false)), of("a", 1));
        assert_eq!(push(&mut queue, receipt("b", 2, true)), None, "superseding needs no room");
        assert_eq!(revisions(&queue.take_batch(9)), [("a".to_owned(), 2), ("b".to_owned(), 2)]);
        assert_eq!(push(&mut queue, receipt("c", 5, true)), None);
    }

    #[test]
    fn a_batch_holds_whole_brokers_only() {
        let mut queue = ReceiptQueue::new(10);
        for next in [receipt("a", 1, true), receipt("b", 1, true), receipt("b", 2, false)] {
            assert_eq!(push(&mut queue, next), None);
        }
        assert_eq!(revisions(&queue.take_batch(2)), [("a".to_owned(), 1)]);
        assert_eq!(queue.take_batch(2).len(), 2);
    }

    #[test]
    fn whoever_waits_for_a_superseded_receipt_hears_of_its_successor() {
        let mut queue = ReceiptQueue::new(10);
        let (first, mut heard) = oneshot::channel();
        let (second, mut heard_too) = oneshot::channel();
        for (revision, answer) in [(1, first), (2, second)] {
            let waiting = WaitingReceipt { receipt: receipt("a", revision, true), answers: vec![answer] };
            assert!(queue.push(waiting).is_none());
        }
        queue.take_batch(10).into_iter().for_each(|waiting| waiting.answer(Fate::Recorded));
        assert_eq!((heard.try_recv(), heard_too.try_recv()), (Ok(Fate::Recorded), Ok(Fate::Recorded)));
    }
}
