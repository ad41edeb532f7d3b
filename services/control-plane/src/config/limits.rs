//! `[limits]`: bounds of the event log's content and of the appender.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Problems;

/// Bounds that the commands obey.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// CA certificates registered at once in one instance, 1 to 10,000. Default 1,000; above,
    /// registrations answer `CaNumExceed`. A lower value than instances already have takes
    /// nothing away. Every trust bundle holds all of them, about 3 KB each.
    pub certificates_per_instance: u32,
    /// Commands waiting for the appender, 256 to 1,000,000. Default 4,096; above, calls answer
    /// `SystemOverFlow`. Below one batch (256) the group commit would starve.
    pub appender_queue: usize,
    /// Days that a reply is kept by its `request_id`, 1 to 90. Default 7. A retry that
    /// comes later counts as a new request.
    pub reply_retention_days: u32,
    /// Whether brokers publish the last wills of the sessions that an inactivation cuts.
    /// Default false: the last word of a distrusted device is not to be trusted either.
    pub cut_with_will: bool,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            certificates_per_instance: 1_000,
            appender_queue: 4_096,
            reply_retention_days: 7,
            cut_with_will: false,
        }
    }
}

impl LimitsConfig {
    pub(crate) fn validate(&self, problems: &mut Problems) {
        problems.within(
            "limits.certificates_per_instance",
            self.certificates_per_instance.into(),
            1..=10_000,
            "a trust bundle must fit into one message",
        );
        problems.within(
            "limits.appender_queue",
            self.appender_queue as u64,
            256..=1_000_000,
            "the queue must hold at least one batch",
        );
        problems.within(
            "limits.reply_retention_days",
            self.reply_retention_days.into(),
            1..=90,
            "retries need it, and the replies take room",
        );
    }
}
