//! What the rate limiter tells about itself in numbers.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Meter};

use super::{ReplicaFleet, SweepReport};

/// Of the limiter and its gossip. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LimiterInstruments {
    users: Gauge<u64>,
    shared: Counter<u64>,
    share: Gauge<f64>,
    replicas: Gauge<u64>,
    gossip: Counter<u64>,
    gossip_age: Gauge<f64>,
}

impl LimiterInstruments {
    /// Makes the instruments.
    #[must_use]
    pub fn new(meter: &Meter) -> Self {
        Self {
            users: meter
                .u64_gauge("catrust.rate_limiter.users")
                .with_description("Users that the rate limiter remembers")
                .build(),
            shared: meter
                .u64_counter("catrust.rate_limiter.shared")
                .with_description("Calls of users who shared a bucket, because there were too many users")
                .build(),
            share: meter
                .f64_gauge("catrust.rate_limiter.share")
                .with_description("Part of each user's limit that this replica gives; 1 while gossip works")
                .build(),
            replicas: meter
                .u64_gauge("catrust.rate_limiter.replicas")
                .with_description(
                    "Replicas, this one among them: those known, and those that hear each other",
                )
                .build(),
            gossip: meter
                .u64_counter("catrust.rate_limiter.gossip")
                .with_description("Messages of the rate limit's gossip, by what became of them")
                .build(),
            gossip_age: meter
                .f64_gauge("catrust.rate_limiter.gossip.age")
                .with_unit("s")
                .with_description("Time since the last word of the replica that was silent for longest")
                .build(),
        }
    }

    pub(super) fn swept(&self, swept: SweepReport) {
        self.users.record(swept.users as u64, &[]);
        self.shared.add(swept.met_shared, &[]);
    }

    /// Notes how much of the limit this replica gives, and how old its news may be.
    pub fn fleet(&self, fleet: ReplicaFleet, age: Option<Duration>) {
        self.share.record(fleet.share.ratio(), &[]);
        for (state, replicas) in [("known", fleet.replicas), ("heard", fleet.heard)] {
            self.replicas.record(replicas.into(), &[KeyValue::new("state", state)]);
        }
        self.gossip_age.record(age.unwrap_or_default().as_secs_f64(), &[]);
    }

    pub(super) fn gossip(&self, outcome: &'static str) {
        self.gossip.add(1, &[KeyValue::new("outcome", outcome)]);
    }
}
