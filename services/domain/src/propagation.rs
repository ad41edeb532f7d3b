//! How far one revision has got in a fleet.

use std::time::Duration;

use crate::broker::BrokerState;
use crate::{BrokerId, Sha256, Timestamp};

/// A broker, and what the log says about the revision that it enforces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetMember {
    /// The broker.
    pub broker: BrokerState,
    /// Digest of the trust bundle at the revision that it enforces; `None` where it
    /// enforces none, or one that is not in the log.
    pub log_digest: Option<Sha256>,
}

/// How long silence is borne.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContactBudget {
    /// Without contact for longer than this, a broker is lost.
    pub lost_after: Duration,
    /// Without contact for longer than this, it does not belong to the fleet any more.
    pub forget_after: Duration,
}

/// Where a broker stands with a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It enforces the revision or a later one. Holds for a lost broker too: what was
    /// applied is on its disk, and it refuses to go back.
    Applied,
    /// In contact, and has not said anything about the revision.
    Pending,
    /// In contact, and does not enforce the revision; the text says why.
    Refused(String),
    /// Has not applied it as far as is known, and is out of contact.
    Lost,
}

/// Which brokers a call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitTarget {
    /// Every broker that is not lost.
    All,
    /// More than half of the brokers, lost ones included.
    Quorum,
}

/// Counts and names for one revision. Forgotten brokers are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Propagation {
    /// The revision.
    pub revision: u64,
    /// Brokers that enforce it.
    pub applied: usize,
    /// Brokers in contact that have not reported it, ascending.
    pub pending: Vec<BrokerId>,
    /// Brokers in contact that do not enforce it, and why, ascending.
    pub refused: Vec<(BrokerId, String)>,
    /// Brokers out of contact that have not applied it, ascending.
    pub lost: Vec<BrokerId>,
}

impl FleetMember {
    /// Whether the broker enforces what the log says about its revision.
    #[must_use]
    pub fn digest_agrees(&self) -> bool {
        let enforced = self.broker.applied.map(|applied| applied.digest);
        enforced.is_some() && enforced == self.log_digest
    }

    /// Whether the broker has been silent for longer than its budget.
    #[must_use]
    pub fn is_lost(&self, now: Timestamp, budget: &ContactBudget) -> bool {
        self.silence(now) > budget.lost_after
    }

    /// Whether the broker has been silent for so long that it left the fleet.
    #[must_use]
    pub fn is_forgotten(&self, now: Timestamp, budget: &ContactBudget) -> bool {
        self.silence(now) > budget.forget_after
    }

    /// Where the broker stands with `revision`.
    #[must_use]
    pub fn progress(&self, revision: u64, now: Timestamp, budget: &ContactBudget) -> Progress {
        let reached = self.broker.applied.is_some_and(|applied| applied.revision >= revision);
        // About a later revision than the applied one, or about that one, taken back since.
        let refused = self.broker.outstanding_refusal();
        let taken_back = self.broker.applied.map(|a| a.revision) == refused.map(|r| r.revision);
        if reached && self.digest_agrees() && !taken_back {
            return Progress::Applied;
        }
        if self.is_lost(now, budget) {
            return Progress::Lost;
        }
        match refused {
            Some(refused) if refused.revision >= revision && (!reached || taken_back) => {
                Progress::Refused(refused.reason.clone())
            }
            _ if reached => Progress::Refused("digest differs".to_owned()),
            _ => Progress::Pending,
        }
    }

    /// Zero where the broker was heard by a clock ahead of `now`.
    fn silence(&self, now: Timestamp) -> Duration {
        let micros = now.micros().saturating_sub(self.broker.received_at.micros());
        Duration::from_micros(u64::try_from(micros).unwrap_or(0))
    }
}

/// Counts and names the brokers of `fleet`, which is ascending by name, for `revision`.
#[must_use]
pub fn propagation(
    fleet: &[FleetMember],
    revision: u64,
    now: Timestamp,
    budget: &ContactBudget,
) -> Propagation {
    let mut propagation = Propagation { revision, ..Propagation::default() };
    for member in fleet.iter().filter(|member| !member.is_forgotten(now, budget)) {
        let name = || member.broker.broker_id.clone();
        match member.progress(revision, now, budget) {
            Progress::Applied => propagation.applied += 1,
            Progress::Pending => propagation.pending.push(name()),
            Progress::Refused(reason) => propagation.refused.push((name(), reason)),
            Progress::Lost => propagation.lost.push(name()),
        }
    }
    propagation
}

impl Propagation {
    /// Brokers of the fleet.
    #[must_use]
    pub fn brokers(&self) -> usize {
        self.applied + self.pending.len() + self.refused.len() + self.lost.len()
    }

    /// Whether a call that waits for `target` need not wait any longer. A fleet of
    /// which no broker is known satisfies both: there is nobody to wait for.
    #[must_use]
    pub fn satisfies(&self, target: WaitTarget) -> bool {
        match target {
            WaitTarget::All => self.pending.is_empty() && self.refused.is_empty(),
            WaitTarget::Quorum => self.applied * 2 > self.brokers() || self.brokers() == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receipt::{Enforcement, Outcome, Receipt};

    const BUDGET: ContactBudget =
        ContactBudget { lost_after: Duration::from_secs(15), forget_after: Duration::from_secs(3_600) };
    const NOW: i64 = 10_000;

    /// A broker heard `silence` seconds before `NOW`.
    fn member(name: &str, receipts: &[(u64, bool)], silence: i64) -> FleetMember {
        let digest = |revision: u64| Sha256::of(&revision.to_be_bytes());
        let receipt = |&(revision, applied): &(u64, bool)| Receipt {
            instance_id: "i".parse().unwrap(),
            broker_id: name.parse().unwrap(),
            revision,
            outcome: match applied {
                true => Outcome::Applied { digest: digest(revision), sessions_cut: 0, applied_at: None },
                false => Outcome::Refused { reason: format!("no {revision}") },
            },
            enforcement: Enforcement::Tls,
            sessions_open: 0,
            received_at: Timestamp::from_micros(0).plus_seconds(NOW - silence),
            origin: None,
        };
        let mut broker = BrokerState::first(&receipt(&receipts[0]));
        receipts[1..].iter().for_each(|next| broker.take(&receipt(next)));
        let log_digest = broker.applied.map(|applied| digest(applied.revision));
        FleetMember { broker, log_digest }
    }

    fn now() -> Timestamp {
        Timestamp::from_micros(0).plus_seconds(NOW)
    }

    fn progress(member: &FleetMember, revision: u64) -> Progress {
        member.progress(revision, now(), &BUDGET)
    }

    #[test]
    fn later_revisions_count_and_earlier_ones_are_pending() {
        let broker = member("b", &[(7, true)], 0);
        assert_eq!(
            [6, 7, 8].map(|r| progress(&broker, r)),
            [Progress::Applied, Progress::Applied, Progress::Pending]
        );
    }

    #[test]
    fn a_refusal_counts_for_what_it_refused_and_everything_before_it_that_is_missing() {
        let broker = member("b", &[(5, true), (7, false)], 0);
        let refused = Progress::Refused("no 7".to_owned());
        assert_eq!(
            [5, 6, 7, 8].map(|r| progress(&broker, r)),
            [Progress::Applied, refused.clone(), refused, Progress::Pending]
        );
        assert_eq!(progress(&member("new", &[(0, false)], 0), 1), Progress::Pending);
    }

    #[test]
    fn a_revision_that_is_taken_back_counts_as_refused() {
        let broker = member("b", &[(7, true), (7, false)], 0);
        let refused = Progress::Refused("no 7".to_owned());
        assert_eq!([6, 7, 8].map(|r| progress(&broker, r)), [refused.clone(), refused, Progress::Pending]);
        let restored = member("b", &[(7, true), (7, false), (7, true)], 0);
        assert_eq!(progress(&restored, 7), Progress::Applied);
    }

    #[test]
    fn another_digest_counts_as_refused() {
        let mut broker = member("b", &[(7, true)], 0);
        for log_digest in [Some(Sha256::ZERO), None] {
            broker.log_digest = log_digest;
            assert!(!broker.digest_agrees());
            assert_eq!(progress(&broker, 7), Progress::Refused("digest differs".to_owned()));
            assert_eq!(progress(&broker, 8), Progress::Pending, "it has not spoken of 8 yet");
        }
    }

    #[test]
    fn silence_makes_a_broker_lost_but_does_not_undo_what_it_applied() {
        assert_eq!(progress(&member("b", &[(7, true)], 15), 8), Progress::Pending, "15 s are borne");
        let lost = member("b", &[(7, true), (8, false)], 16);
        assert_eq!(progress(&lost, 8), Progress::Lost);
        assert_eq!(progress(&lost, 7), Progress::Applied);
        let ahead = member("b", &[(7, true)], -100);
        assert!(!ahead.is_lost(now(), &BUDGET), "another replica's clock is ahead");
    }

    #[test]
    fn forgotten_brokers_are_left_out_and_the_others_named() {
        let fleet = [
            member("a", &[(7, true)], 3_601),
            member("b", &[(7, true)], 0),
            member("c", &[(6, true)], 3_600),
            member("d", &[(6, true), (7, false)], 0),
            member("e", &[(6, true)], 0),
        ];
        let found = propagation(&fleet, 7, now(), &BUDGET);
        let expected = Propagation {
            revision: 7,
            applied: 1,
            pending: vec!["e".parse().unwrap()],
            refused: vec![("d".parse().unwrap(), "no 7".to_owned())],
            lost: vec!["c".parse().unwrap()],
        };
        assert_eq!((found.brokers(), found), (4, expected));
    }

    #[test]
    fn all_leaves_lost_brokers_out_and_a_quorum_counts_them() {
        let name = |text: &str| text.parse::<BrokerId>().unwrap();
        let two_of_three = Propagation { applied: 2, lost: vec![name("c")], ..Propagation::default() };
        assert!(two_of_three.satisfies(WaitTarget::All) && two_of_three.satisfies(WaitTarget::Quorum));
        let half = Propagation { applied: 1, lost: vec![name("b")], ..Propagation::default() };
        assert!(half.satisfies(WaitTarget::All) && !half.satisfies(WaitTarget::Quorum));
        let refused =
            Propagation { applied: 9, refused: vec![(name("r"), "no".into())], ..Propagation::default() };
        assert!(!refused.satisfies(WaitTarget::All) && refused.satisfies(WaitTarget::Quorum));
        let nobody = Propagation::default();
        assert!(nobody.satisfies(WaitTarget::All) && nobody.satisfies(WaitTarget::Quorum));
    }
}
