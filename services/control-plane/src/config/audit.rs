//! `[audit]`: the evidence that leaves the database, and what was refused.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Problems;

/// Signed checkpoints of the log, and refused calls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuditConfig {
    /// File that checkpoints are appended to (c2sp.org/tlog-checkpoint), each put onto the
    /// disk. No default: without it they go to NATS alone (`catrust.v1.checkpoint`). Keep it
    /// where whoever administers the database cannot write; each replica needs one of its own.
    pub checkpoint_file: Option<PathBuf>,
    /// Seconds between two checkpoints, 1 to 86,400. Default 10. Events after the last
    /// checkpoint are held by the hash chain and the stream alone.
    pub interval_seconds: u64,
    /// Name of the log in checkpoints: begins with a letter, no white space, no `+`, 255
    /// bytes at most. Default `catrust/log/` and the log's id. A URL without its scheme that
    /// you own makes it unique in the world. Auditors know the log by it: never change it.
    pub origin: Option<String>,
    /// Refused calls that are kept, the newest, 1,000 to 10,000,000. Default 100,000: some
    /// 50 MB.
    pub refusals_kept: u64,
    /// Refused calls that are kept of one caller, 10 to 100,000; all who showed no valid
    /// identity count as one. Default 1,000: whoever is refused all the time pushes nobody
    /// else's out.
    pub refusals_kept_per_caller: u64,
}

impl Default for AuditConfig {
    fn default() -> Self {
        Self {
            checkpoint_file: None,
            interval_seconds: 10,
            origin: None,
            refusals_kept: 100_000,
            refusals_kept_per_caller: 1_000,
        }
    }
}

impl AuditConfig {
    /// Time between two checkpoints.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        Duration::from_secs(self.interval_seconds)
    }

    pub(crate) fn validate(&self, problems: &mut Problems) {
        let why = "evidence must leave the database before somebody changes it";
        problems.within("audit.interval_seconds", self.interval_seconds, 1..=86_400, why);
        let why = "refused attempts must be there to be looked at, and must not fill the disk";
        problems.within("audit.refusals_kept", self.refusals_kept, 1_000..=10_000_000, why);
        let per_caller = self.refusals_kept_per_caller;
        problems.within("audit.refusals_kept_per_caller", per_caller, 10..=100_000, why);
        if let Some(origin) = &self.origin
            && let Err(error) = catrust_signing::note::check_name(origin)
        {
            problems.add("audit.origin", error.to_string());
        }
    }
}
