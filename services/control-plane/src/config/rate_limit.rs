//! `[rate_limit]`: how often one user may call.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Problems;

/// The rate limit of each user (principal), GCRA. Health and reflection are free.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimitConfig {
    /// Requests per second of one user, 1 to 1,000,000. Default 500. Above it calls answer
    /// `RESOURCE_EXHAUSTED` / `RateLimitExceeded` and say when to come back.
    pub per_user_per_second: u32,
    /// Requests that a user who was idle may send at once, 1 to 1,000,000. Default 100: a
    /// fifth of a second's worth, enough for a page of a console or a batch of retries,
    /// while no second ever sees more than 600 requests of one user. As large as
    /// `per_user_per_second`, and the first second may see twice the limit; with 1, callers
    /// must space their calls evenly.
    pub burst: u32,
    /// Users remembered at once, 1,000 to 10,000,000: the bound of the limiter's memory.
    /// Default 1,000,000, about 64 MB when they all call within one second.
    pub max_users: usize,
}

impl Default for RateLimitConfig {
    fn default() -> Self {
        Self { per_user_per_second: 500, burst: 100, max_users: 1_000_000 }
    }
}

impl RateLimitConfig {
    pub(crate) fn validate(&self, problems: &mut Problems) {
        let why = "0 would refuse every call";
        let rate = u64::from(self.per_user_per_second);
        problems.within("rate_limit.per_user_per_second", rate, 1..=1_000_000, why);
        problems.within("rate_limit.burst", self.burst.into(), 1..=1_000_000, why);
        problems.within(
            "rate_limit.max_users",
            self.max_users as u64,
            1_000..=10_000_000,
            "fewer would forget users in mid-second, more would need gigabytes",
        );
    }
}
