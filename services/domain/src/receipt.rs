//! Receipts: what a broker says about one revision.

use crate::incarnation::ReceiptOrigin;
use crate::{BrokerId, InstanceId, Sha256, Timestamp};

/// A broker's statement about one revision, as it was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Instance of the broker.
    pub instance_id: InstanceId,
    /// Who speaks.
    pub broker_id: BrokerId,
    /// Revision that the statement is about.
    pub revision: u64,
    /// What was done with it.
    pub outcome: Outcome,
    /// Where the broker refuses devices.
    pub enforcement: Enforcement,
    /// Sessions open at the broker.
    pub sessions_open: u64,
    /// When it was heard, by the clock of the database.
    pub received_at: Timestamp,
    /// Which process made it; `None` where it did not say.
    pub origin: Option<ReceiptOrigin>,
}

/// What a broker did with a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Trust is swapped, resumption retired, sessions cut, the state on disk.
    Applied {
        /// Digest of the bundle that is enforced.
        digest: Sha256,
        /// Sessions that the change cut.
        sessions_cut: u64,
        /// When, by the broker's clock; `None` where it did not say.
        applied_at: Option<Timestamp>,
    },
    /// The revision is not enforced; what was before still is.
    Refused {
        /// Why, for people.
        reason: String,
    },
}

impl Outcome {
    /// Which of the two.
    #[must_use]
    pub const fn kind(&self) -> OutcomeKind {
        match self {
            Self::Applied { .. } => OutcomeKind::Applied,
            Self::Refused { .. } => OutcomeKind::Refused,
        }
    }
}

/// An [`Outcome`] without its particulars.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutcomeKind {
    /// Enforced.
    Applied,
    /// Not enforced.
    Refused,
}

/// Where a broker refuses devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement {
    /// In the TLS handshake.
    Tls,
    /// At MQTT CONNECT.
    Connect,
}

impl Receipt {
    /// The receipt as far as it is about the log, of which the instance is at revision
    /// `current`.
    ///
    /// A revision that the log has not reached must not enter the state of a broker:
    /// it would stand above everything that the broker says afterwards. Who applied
    /// one follows another log; the receipt becomes one about `current`, with which
    /// its digest will not agree. Who refused one was shown a forged message; that is
    /// kept as a refusal of revision 0, which keeps no revision of the log waiting.
    #[must_use]
    pub fn within(self, current: u64) -> Self {
        let revision = match (self.revision <= current, self.outcome.kind()) {
            (true, _) => self.revision,
            (false, OutcomeKind::Applied) => current,
            (false, OutcomeKind::Refused) => 0,
        };
        Self { revision, ..self }
    }

    /// The receipt as that of a broker whose name is [disputed](crate::NameStanding::Disputed):
    /// nobody may take it for the statement of one, so it is none of having applied
    /// something.
    #[must_use]
    pub fn disputed(self) -> Self {
        let reason = "two brokers speak under one name, or one that was put back to an earlier state";
        Self { outcome: Outcome::Refused { reason: reason.to_owned() }, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(revision: u64, outcome: Outcome) -> Receipt {
        Receipt {
            instance_id: "i".parse().unwrap(),
            broker_id: "b".parse().unwrap(),
            revision,
            outcome,
            enforcement: Enforcement::Tls,
            sessions_open: 0,
            received_at: Timestamp::from_micros(0),
            origin: None,
        }
    }

    #[test]
    fn a_revision_that_the_log_has_not_reached_does_not_enter() {
        let refused = Outcome::Refused { reason: "the signature is wrong".to_owned() };
        let applied = Outcome::Applied { digest: Sha256::ZERO, sessions_cut: 0, applied_at: None };
        for (outcome, instead) in [(applied, 3), (refused, 0)] {
            assert_eq!(receipt(3, outcome.clone()).within(3), receipt(3, outcome.clone()));
            assert_eq!(receipt(u64::MAX, outcome.clone()).within(3), receipt(instead, outcome));
        }
    }
}
