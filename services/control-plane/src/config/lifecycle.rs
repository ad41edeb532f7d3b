//! `[lifecycle]`: how the server leaves.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Problems;

/// The order of leaving: not ready, `drain_delay_seconds`, no new calls and streams ended,
/// open calls finished for at most `shutdown_grace_seconds`, out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LifecycleConfig {
    /// Seconds for open calls to finish, 1 to 600. Default 20. What is open afterwards is cut
    /// off; its callers retry with the same request id. Kubernetes'
    /// `terminationGracePeriodSeconds` must exceed the sum of both settings.
    pub shutdown_grace_seconds: u64,
    /// Seconds between "not ready" and the first refused call, 0 to 300. Default 0. Behind a
    /// load balancer, longer than it takes to notice: with too little, callers meet closed
    /// connections.
    pub drain_delay_seconds: u64,
}

impl Default for LifecycleConfig {
    fn default() -> Self {
        Self { shutdown_grace_seconds: 20, drain_delay_seconds: 0 }
    }
}

impl LifecycleConfig {
    pub(crate) fn validate(&self, problems: &mut Problems) {
        let why = "a stop must end, and open calls need a moment";
        problems.within("lifecycle.shutdown_grace_seconds", self.shutdown_grace_seconds, 1..=600, why);
        let why = "a stop must end";
        problems.within("lifecycle.drain_delay_seconds", self.drain_delay_seconds, 0..=300, why);
    }
}
