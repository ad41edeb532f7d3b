//! Identities of brokers: each for itself, to watch and to report.
//!
//! A broker stands where devices can reach it. Who takes its credentials must not switch a CA,
//! read another fleet, or say in another broker's name that a revocation is done. No policy can
//! allow that to such an identity; policies still have to allow the rest.

use catrust_domain::{BrokerId, InstanceId};

use super::Action;

/// The broker that an identity is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerBinding {
    /// Its instance.
    pub instance_id: InstanceId,
    /// Its name there.
    pub broker_id: BrokerId,
}

impl BrokerBinding {
    /// Whether a broker may even ask for `action` on `instance_id`, as `broker_id` where the
    /// call names a broker.
    #[must_use]
    pub fn covers(
        &self,
        action: Action,
        instance_id: Option<&InstanceId>,
        broker_id: Option<&BrokerId>,
    ) -> bool {
        matches!(action, Action::GetTrustBundle | Action::WatchTrust | Action::ReportReceipt)
            && instance_id == Some(&self.instance_id)
            && broker_id.is_none_or(|named| *named == self.broker_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_watches_and_reports_for_itself_and_nothing_else() {
        let (own, other) = ("fleet-a".parse().unwrap(), "fleet-b".parse().unwrap());
        let (me, neighbour) = ("gate-1".parse().unwrap(), "gate-2".parse().unwrap());
        let broker =
            BrokerBinding { instance_id: "fleet-a".parse().unwrap(), broker_id: "gate-1".parse().unwrap() };
        let covered: Vec<_> =
            Action::ALL.into_iter().filter(|action| broker.covers(*action, Some(&own), Some(&me))).collect();
        assert_eq!(covered, [Action::GetTrustBundle, Action::WatchTrust, Action::ReportReceipt]);
        for action in covered {
            assert!(broker.covers(action, Some(&own), None));
            assert!(!broker.covers(action, Some(&own), Some(&neighbour)));
            assert!(!broker.covers(action, Some(&other), Some(&me)));
            assert!(!broker.covers(action, None, None), "every instance is more than its own");
        }
    }
}
