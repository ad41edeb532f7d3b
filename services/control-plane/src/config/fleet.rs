//! `[fleet]`: when silent brokers are lost, and when forgotten.

use std::time::Duration;

use catrust_domain::ContactBudget;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Problems;

/// When a broker counts as lost, and when as gone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FleetConfig {
    /// Seconds without contact after which a broker is lost, 1 to 1,800. Default 15: three
    /// signs of life of its agent, which come every 5 s; with less than 10, one that is lost
    /// on the way makes a broker lost. A call that waits for all brokers does not wait for
    /// lost ones.
    pub lost_after_seconds: u64,
    /// Hours without contact after which a broker drops out of every list and count, 1 to
    /// 8,760. Default 24. Until then a quorum counts it.
    pub forget_after_hours: u64,
}

impl Default for FleetConfig {
    fn default() -> Self {
        Self { lost_after_seconds: 15, forget_after_hours: 24 }
    }
}

impl FleetConfig {
    /// The budget that brokers have.
    #[must_use]
    pub const fn budget(&self) -> ContactBudget {
        ContactBudget {
            lost_after: Duration::from_secs(self.lost_after_seconds),
            forget_after: Duration::from_secs(self.forget_after_hours.saturating_mul(3_600)),
        }
    }

    pub(crate) fn validate(&self, problems: &mut Problems) {
        let why = "agents give a sign of life every 5 s, and lost brokers must be told of";
        problems.within("fleet.lost_after_seconds", self.lost_after_seconds, 1..=1_800, why);
        let why = "a broker must be lost before it is forgotten, and dismantled ones must drop out";
        problems.within("fleet.forget_after_hours", self.forget_after_hours, 1..=8_760, why);
    }
}
