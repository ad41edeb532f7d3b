//! `[rate_limit]`: how often one user may call.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Problems;

/// The rate limit of each user (principal), GCRA, for all replicas together where they
/// share a NATS. Health and reflection are free.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RateLimitConfig {
    /// Requests per second of one user, 1 to 1,000,000. Default 500. Above it calls answer
    /// `RESOURCE_EXHAUSTED` / `RateLimitExceeded` and say when to come back.
    pub per_user_per_second: u32,
    /// Requests that a user who was idle may send at once, 1 to 1,000,000. Default 100: a
    /// fifth of a second's worth, enough for a page of a console or a batch of retries,
    /// while no second ever sees more than 600 requests of one user at one replica. As
    /// large as `per_user_per_second`, and the first second may see twice the limit; with 1,
    /// callers must space their calls evenly. An idle user who sends to several replicas at
    /// the same moment may have a burst at each, before they have told each other; it pays
    /// for that afterwards. Below a tenth of `per_user_per_second` such news may refuse calls
    /// of a user who keeps to the limit.
    pub burst: u32,
    /// Users remembered at once, 1,000 to 10,000,000: the bound of the limiter's memory.
    /// Default 1,000,000, about 40 MB when none of their buckets is empty. Users beyond that
    /// share a few buckets with each other.
    pub max_users: usize,
    /// Fewest replicas that there are, 1 to 250. Default 1. A replica that does not hear the
    /// others gives each user an equal share of the limit, by the number of replicas that
    /// it heard before, or this one where that is larger. Set it to the number of replicas:
    /// too small, and replicas that start while NATS is away give more than the limit
    /// together; too large, and they give less. Without `nats.url` it is the number.
    pub replicas: u32,
}

impl Default for RateLimitConfig {
    fn default() -> Self {
        Self { per_user_per_second: 500, burst: 100, max_users: 1_000_000, replicas: 1 }
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
            "fewer would make users share buckets, more would need gigabytes",
        );
        let replicas = u64::from(self.replicas);
        problems.within("rate_limit.replicas", replicas, 1..=250, "each gives a share of the limit");
    }
}
