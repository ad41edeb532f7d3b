//! What is known of a broker: its receipts, folded.

use crate::receipt::{Enforcement, Outcome, OutcomeKind, Receipt};
use crate::{BrokerId, InstanceId, Sha256, Timestamp};

/// A broker as its receipts tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerState {
    /// Instance of the broker.
    pub instance_id: InstanceId,
    /// Its name, unique in the instance.
    pub broker_id: BrokerId,
    /// What it enforces; `None` before its first success.
    pub applied: Option<AppliedRevision>,
    /// Its last refusal; stays after a later success, as history.
    pub refused: Option<RefusedRevision>,
    /// What its last statement was; late ones do not count.
    pub outcome: OutcomeKind,
    /// Where it refuses devices.
    pub enforcement: Enforcement,
    /// Sessions open when it last spoke.
    pub sessions_open: u64,
    /// When it was last heard, by the clock of the database.
    pub received_at: Timestamp,
}

/// A revision that a broker enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppliedRevision {
    /// The revision.
    pub revision: u64,
    /// Digest of the bundle that it enforces.
    pub digest: Sha256,
    /// Sessions that the change cut.
    pub sessions_cut: u64,
    /// When, by the broker's clock; `None` where it did not say.
    pub applied_at: Option<Timestamp>,
}

/// A revision that a broker refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedRevision {
    /// The revision.
    pub revision: u64,
    /// Why, for people.
    pub reason: String,
    /// When it was heard.
    pub refused_at: Timestamp,
}

impl BrokerState {
    /// The broker after its first receipt.
    #[must_use]
    pub fn first(receipt: &Receipt) -> Self {
        let mut broker = Self {
            instance_id: receipt.instance_id.clone(),
            broker_id: receipt.broker_id.clone(),
            applied: None,
            refused: None,
            outcome: receipt.outcome.kind(),
            enforcement: receipt.enforcement,
            sessions_open: receipt.sessions_open,
            received_at: receipt.received_at,
        };
        broker.take(receipt);
        broker
    }

    /// Takes one more receipt of the same broker, in whatever order they come.
    ///
    /// Receipts travel by two ways and through several replicas, so that one may
    /// come late or twice. What it enforces therefore never falls, and a refusal of
    /// a revision that it has not applied since is not covered by one of an older
    /// revision. A late receipt proves that the broker was there, and no more.
    pub fn take(&mut self, receipt: &Receipt) {
        self.received_at = self.received_at.max(receipt.received_at);
        let revision = receipt.revision;
        match &receipt.outcome {
            Outcome::Applied { digest, sessions_cut, applied_at } => {
                let mut sessions_cut = *sessions_cut;
                if let Some(known) = self.applied {
                    if revision < known.revision {
                        return;
                    }
                    // The sign of life of a restarted agent knows of no cut any more.
                    if revision == known.revision {
                        sessions_cut = sessions_cut.max(known.sessions_cut);
                    }
                }
                let (digest, applied_at) = (*digest, *applied_at);
                self.applied = Some(AppliedRevision { revision, digest, sessions_cut, applied_at });
            }
            Outcome::Refused { reason } => {
                if self.outstanding_refusal().is_some_and(|refused| revision < refused.revision) {
                    return;
                }
                let refused_at = receipt.received_at;
                self.refused = Some(RefusedRevision { revision, reason: reason.clone(), refused_at });
            }
        }
        self.outcome = receipt.outcome.kind();
        self.enforcement = receipt.enforcement;
        self.sessions_open = receipt.sessions_open;
    }

    /// The last refusal, unless the broker has applied that revision since. A broker
    /// may take back what it applied: its agent could not put it through again after
    /// a restart, say. So of two statements about one revision the last one holds.
    #[must_use]
    pub fn outstanding_refusal(&self) -> Option<&RefusedRevision> {
        let refused = self.refused.as_ref()?;
        let outstanding = match self.applied {
            None => true,
            Some(applied) if applied.revision == refused.revision => self.outcome == OutcomeKind::Refused,
            Some(applied) => refused.revision > applied.revision,
        };
        outstanding.then_some(refused)
    }

    /// Whether somebody who follows a revision has to know that `self` became `next`.
    /// Signs of life are not news: a fleet sends them all the time.
    #[must_use]
    pub fn is_news(&self, next: &Self) -> bool {
        let seen = |broker: &Self| {
            let applied = broker.applied.map(|applied| (applied.revision, applied.digest));
            (applied, broker.refused.as_ref().map(|refused| refused.revision), broker.outcome)
        };
        seen(self) != seen(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(revision: u64, outcome: Outcome, at: i64) -> Receipt {
        Receipt {
            instance_id: "i".parse().unwrap(),
            broker_id: "b".parse().unwrap(),
            revision,
            outcome,
            enforcement: Enforcement::Tls,
            sessions_open: revision * 10,
            received_at: Timestamp::from_micros(at),
            origin: None,
        }
    }

    fn applied(revision: u64, at: i64) -> Receipt {
        let digest = Sha256::of(&revision.to_be_bytes());
        receipt(revision, Outcome::Applied { digest, sessions_cut: revision, applied_at: None }, at)
    }

    fn refused(revision: u64, at: i64) -> Receipt {
        receipt(revision, Outcome::Refused { reason: format!("no {revision}") }, at)
    }

    fn fold(receipts: &[Receipt]) -> BrokerState {
        let (first, rest) = receipts.split_first().unwrap();
        let mut broker = BrokerState::first(first);
        rest.iter().for_each(|receipt| broker.take(receipt));
        broker
    }

    #[test]
    fn a_late_receipt_only_proves_contact() {
        let broker = fold(&[applied(7, 1), applied(6, 2)]);
        assert_eq!(broker, BrokerState { received_at: Timestamp::from_micros(2), ..fold(&[applied(7, 1)]) });
        let delayed = fold(&[applied(7, 2), applied(7, 1)]);
        assert_eq!(delayed.received_at, Timestamp::from_micros(2), "contact never falls");
    }

    #[test]
    fn a_refusal_keeps_what_is_enforced_and_is_outstanding_until_it_is_applied() {
        let broker = fold(&[applied(7, 1), refused(8, 2)]);
        assert_eq!(broker.applied.map(|applied| applied.revision), Some(7));
        assert_eq!(broker.outstanding_refusal().map(|refused| refused.revision), Some(8));
        assert_eq!(broker.outcome, OutcomeKind::Refused);
        let alive = fold(&[applied(7, 1), refused(8, 2), applied(7, 3)]);
        assert_eq!(alive.outstanding_refusal().map(|refused| refused.revision), Some(8));
        let done = fold(&[applied(7, 1), refused(8, 2), applied(8, 3)]);
        assert_eq!(done.outstanding_refusal(), None);
        assert_eq!(done.refused.map(|refused| refused.revision), Some(8), "it stays as history");
    }

    #[test]
    fn an_older_refusal_does_not_cover_an_outstanding_one() {
        let broker = fold(&[applied(5, 1), refused(8, 2), refused(0, 3)]);
        assert_eq!(broker.refused.map(|refused| refused.revision), Some(8));
        let settled = fold(&[applied(8, 1), refused(7, 2), refused(0, 3)]);
        assert_eq!(settled.refused.map(|refused| refused.revision), Some(0), "the newest one heard");
    }

    #[test]
    fn of_two_statements_about_one_revision_the_last_one_holds() {
        let taken_back = fold(&[applied(7, 1), refused(7, 2), applied(6, 3)]);
        assert_eq!(taken_back.outstanding_refusal().map(|refused| refused.revision), Some(7));
        let restored = fold(&[applied(7, 1), refused(7, 2), applied(7, 3)]);
        assert_eq!(restored.outstanding_refusal(), None);
    }

    #[test]
    fn a_sign_of_life_keeps_the_number_of_sessions_cut() {
        let mut again = applied(7, 2);
        again.outcome = Outcome::Applied { digest: Sha256::ZERO, sessions_cut: 0, applied_at: None };
        assert_eq!(fold(&[applied(7, 1), again]).applied.map(|applied| applied.sessions_cut), Some(7));
    }

    #[test]
    fn signs_of_life_are_no_news() {
        let before = fold(&[applied(7, 1)]);
        let mut alive = applied(7, 2);
        alive.sessions_open = 3;
        assert!(!before.is_news(&fold(&[applied(7, 1), alive])));
        assert!(before.is_news(&fold(&[applied(7, 1), applied(8, 2)])));
        assert!(before.is_news(&fold(&[applied(7, 1), refused(8, 2)])));
        let taken_back = [applied(7, 1), refused(7, 2)];
        assert!(fold(&taken_back).is_news(&fold(&[&taken_back[..], &[applied(7, 3)]].concat())));
    }
}
