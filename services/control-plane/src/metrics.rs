//! The numbers that this server tells about itself, by OpenTelemetry: to `/metrics`
//! always, by OTLP where an endpoint is set. Names follow the OTel semantic
//! conventions where there is one.

use std::sync::Arc;
use std::time::Duration;

use catrust_domain::Reply;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter, UpDownCounter};
use tonic::Code;

use crate::access::instruments::IdentityInstruments;
use crate::access::policy_reload::PolicyInstruments;
use crate::error::ApiError;
use crate::keys::reload::KeyInstruments;
use crate::limiter::{Fleet, Swept};
use crate::reload::ReloadInstruments;

/// Seconds from 100 µs to 10 s.
const DURATION_BOUNDS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];
/// Commands per batch.
const BATCH_BOUNDS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// How a receipt came.
#[derive(Clone, Copy, Debug)]
pub enum ReceiptVia {
    /// `ReportReceipt`.
    Grpc,
    /// The subject of a broker's receipts.
    Nats,
}

/// What became of a message of the rate limit's gossip.
#[derive(Clone, Copy, Debug)]
pub enum Gossip {
    /// Handed over to NATS.
    Sent,
    /// Could not be.
    Unsent,
    /// Taken into account.
    Received,
    /// Late, recorded, or of a replica that has not heard this one yet.
    Unanswering,
    /// Heard before.
    Repeated,
    /// Of one replica too many.
    Crowded,
    /// Not a message of a replica with the same signing key.
    Invalid,
}

/// Handles to all instruments. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Instruments>);

#[derive(Debug)]
struct Instruments {
    call_duration: Histogram<f64>,
    commands: Counter<u64>,
    command_duration: Histogram<f64>,
    batch_size: Histogram<u64>,
    queue_depth: Gauge<u64>,
    log_head: Gauge<u64>,
    published: Gauge<u64>,
    feed_available: Gauge<u64>,
    feed_rebuilds: Counter<u64>,
    watchers: UpDownCounter<i64>,
    rate_limited: Counter<u64>,
    limiter_users: Gauge<u64>,
    limiter_checks: Counter<u64>,
    limiter_shared: Counter<u64>,
    limiter_share: Gauge<f64>,
    limiter_replicas: Gauge<u64>,
    limiter_gossip: Counter<u64>,
    limiter_gossip_age: Gauge<f64>,
    receipts: Counter<u64>,
    receipts_lost: Counter<u64>,
    brokers: Gauge<u64>,
    refusals: Counter<u64>,
    refusals_dropped: Counter<u64>,
    checkpoint_size: Gauge<u64>,
    checkpoint_failures: Counter<u64>,
    policies: PolicyInstruments,
    identities: IdentityInstruments,
    keys: KeyInstruments,
    reloads: ReloadInstruments,
}

impl Metrics {
    /// Makes the instruments.
    #[must_use]
    pub fn new(meter: &Meter) -> Self {
        let seconds = |name: &'static str, description: &'static str| {
            meter
                .f64_histogram(name)
                .with_unit("s")
                .with_description(description)
                .with_boundaries(DURATION_BOUNDS.to_vec())
                .build()
        };
        Self(Arc::new(Instruments {
            call_duration: seconds("rpc.server.call.duration", "Duration of calls, by method and code"),
            commands: meter.u64_counter("catrust.commands").with_description("Commands by outcome").build(),
            command_duration: seconds(
                "catrust.command.duration",
                "Time from a command's queueing to its durable answer",
            ),
            batch_size: meter
                .u64_histogram("catrust.appender.batch.size")
                .with_description("Commands per transaction")
                .with_boundaries(BATCH_BOUNDS.to_vec())
                .build(),
            queue_depth: meter
                .u64_gauge("catrust.appender.queue.depth")
                .with_description("Commands that wait for the next transaction")
                .build(),
            log_head: meter
                .u64_gauge("catrust.log.head.position")
                .with_description("Last position of the log that this replica has seen")
                .build(),
            published: meter
                .u64_gauge("catrust.published.position")
                .with_description("Last position known to be on the NATS stream")
                .build(),
            feed_available: meter
                .u64_gauge("catrust.feed.available")
                .with_description("1 while the NATS feed can be published to")
                .build(),
            feed_rebuilds: meter
                .u64_counter("catrust.feed.rebuilds")
                .with_description("Times the NATS stream was rebuilt from the log")
                .build(),
            watchers: meter
                .i64_up_down_counter("catrust.watchers")
                .with_description("Open WatchTrust streams")
                .build(),
            rate_limited: meter
                .u64_counter("catrust.rate_limited")
                .with_description("Calls refused by the rate limit")
                .build(),
            limiter_users: meter
                .u64_gauge("catrust.rate_limiter.users")
                .with_description("Users that the rate limiter remembers")
                .build(),
            limiter_checks: meter
                .u64_counter("catrust.rate_limiter.checks")
                .with_description("Calls that the rate limiter counted, refused ones among them")
                .build(),
            limiter_shared: meter
                .u64_counter("catrust.rate_limiter.shared")
                .with_description("Calls of users who shared a bucket, because there were too many users")
                .build(),
            limiter_share: meter
                .f64_gauge("catrust.rate_limiter.share")
                .with_description("Part of each user's limit that this replica gives; 1 while gossip works")
                .build(),
            limiter_replicas: meter
                .u64_gauge("catrust.rate_limiter.replicas")
                .with_description(
                    "Replicas, this one among them: those known, and those that hear each other",
                )
                .build(),
            limiter_gossip: meter
                .u64_counter("catrust.rate_limiter.gossip")
                .with_description("Messages of the rate limit's gossip, by what became of them")
                .build(),
            limiter_gossip_age: meter
                .f64_gauge("catrust.rate_limiter.gossip.age")
                .with_unit("s")
                .with_description("Time since the last word of the replica that was silent for longest")
                .build(),
            receipts: meter
                .u64_counter("catrust.receipts")
                .with_description("Receipts that came, by way and outcome; invalid ones among them")
                .build(),
            receipts_lost: meter
                .u64_counter("catrust.receipts.lost")
                .with_description("Receipts that came and were not recorded, by reason")
                .build(),
            brokers: meter
                .u64_gauge("catrust.brokers")
                .with_description("Brokers of all instances, by their state with the current revision")
                .build(),
            refusals: meter
                .u64_counter("catrust.refusals")
                .with_description("Calls that were refused, by code of the error table")
                .build(),
            refusals_dropped: meter
                .u64_counter("catrust.refusals.dropped")
                .with_description("Refused calls that were not recorded, by reason")
                .build(),
            checkpoint_size: meter
                .u64_gauge("catrust.checkpoint.size")
                .with_description("Events that the last signed checkpoint of the log covers")
                .build(),
            checkpoint_failures: meter
                .u64_counter("catrust.checkpoint.failures")
                .with_description("Checkpoints that were not made or not let out, by reason")
                .build(),
            policies: PolicyInstruments::new(meter),
            identities: IdentityInstruments::new(meter),
            keys: KeyInstruments::new(meter),
            reloads: ReloadInstruments::new(meter),
        }))
    }

    /// Counts and times a call. `method` MUST come from a bounded set.
    pub fn call(&self, method: &str, code: Code, elapsed: Duration) {
        let labels = [
            KeyValue::new("rpc.method", method.to_owned()),
            KeyValue::new("rpc.response.status_code", i64::from(code as i32)),
        ];
        self.0.call_duration.record(elapsed.as_secs_f64(), &labels);
    }

    /// Counts and times a command.
    pub fn command(&self, name: &'static str, outcome: &Result<Reply, ApiError>, elapsed: Duration) {
        let outcome = match outcome {
            Ok(reply) if reply.changed => "Changed",
            Ok(_) => "Unchanged",
            Err(error) => error.codes().1,
        };
        let labels = [KeyValue::new("command", name), KeyValue::new("outcome", outcome)];
        self.0.commands.add(1, &labels);
        self.0.command_duration.record(elapsed.as_secs_f64(), &labels[..1]);
    }

    /// Notes the size of a batch.
    pub fn batch(&self, commands: usize) {
        self.0.batch_size.record(commands as u64, &[]);
    }

    /// Notes how many commands wait.
    pub fn queue_depth(&self, commands: usize) {
        self.0.queue_depth.record(commands as u64, &[]);
    }

    /// Notes the last position of the log.
    pub fn log_head(&self, position: u64) {
        self.0.log_head.record(position, &[]);
    }

    /// Notes the last position on the stream, and whether it can be reached.
    pub fn published(&self, position: u64, available: bool) {
        self.0.published.record(position, &[]);
        self.0.feed_available.record(u64::from(available), &[]);
    }

    /// Counts rebuilds of the stream.
    pub fn feed_rebuilt(&self, times: u64) {
        self.0.feed_rebuilds.add(times, &[]);
    }

    /// Counts an opened (`1`) or closed (`-1`) watch stream.
    pub fn watchers(&self, change: i64) {
        self.0.watchers.add(change, &[]);
    }

    /// Counts a call that the rate limit looked at.
    pub fn limiter_check(&self) {
        self.0.limiter_checks.add(1, &[]);
    }

    /// Counts a call that the rate limit refused.
    pub fn rate_limited(&self) {
        self.0.rate_limited.add(1, &[]);
    }

    /// Counts a receipt: `applied`, `refused` or `invalid`.
    pub fn receipt(&self, via: ReceiptVia, outcome: &'static str) {
        let via = match via {
            ReceiptVia::Grpc => "grpc",
            ReceiptVia::Nats => "nats",
        };
        self.0.receipts.add(1, &[KeyValue::new("via", via), KeyValue::new("outcome", outcome)]);
    }

    /// Counts receipts that were not recorded.
    pub fn receipts_lost(&self, reason: &'static str, receipts: u64) {
        self.0.receipts_lost.add(receipts, &[KeyValue::new("reason", reason)]);
    }

    /// Notes how many brokers are in a state.
    pub fn brokers(&self, state: &'static str, brokers: u64) {
        self.0.brokers.record(brokers, &[KeyValue::new("state", state)]);
    }

    /// Notes what a sweep of the limiter found.
    pub fn limiter_swept(&self, swept: Swept) {
        self.0.limiter_users.record(swept.users as u64, &[]);
        self.0.limiter_shared.add(swept.met_shared, &[]);
    }

    /// Notes how much of the limit this replica gives, and how old its news may be.
    pub fn limiter_fleet(&self, fleet: Fleet, age: Option<Duration>) {
        self.0.limiter_share.record(fleet.share.ratio(), &[]);
        for (state, replicas) in [("known", fleet.replicas), ("heard", fleet.heard)] {
            self.0.limiter_replicas.record(replicas.into(), &[KeyValue::new("state", state)]);
        }
        self.0.limiter_gossip_age.record(age.unwrap_or_default().as_secs_f64(), &[]);
    }

    /// Counts a message of the rate limit's gossip.
    pub fn gossip(&self, outcome: Gossip) {
        let outcome = match outcome {
            Gossip::Sent => "sent",
            Gossip::Unsent => "unsent",
            Gossip::Received => "received",
            Gossip::Unanswering => "unanswering",
            Gossip::Repeated => "repeated",
            Gossip::Crowded => "crowded",
            Gossip::Invalid => "invalid",
        };
        self.0.limiter_gossip.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    /// The identities' own numbers.
    #[must_use]
    pub fn identities(&self) -> &IdentityInstruments {
        &self.0.identities
    }

    /// Counts a refused call. `code` MUST be one of the error table.
    pub fn refused(&self, code: &str) {
        self.0.refusals.add(1, &[KeyValue::new("code", code.to_owned())]);
    }

    /// Counts refused calls that were not recorded.
    pub fn refusals_dropped(&self, reason: &'static str, attempts: u64) {
        self.0.refusals_dropped.add(attempts, &[KeyValue::new("reason", reason)]);
    }

    /// Notes how many events the last checkpoint covers.
    pub fn checkpointed(&self, size: u64) {
        self.0.checkpoint_size.record(size, &[]);
    }

    /// Counts a checkpoint that was not made, or not let out.
    pub fn checkpoint_failed(&self, reason: &'static str) {
        self.0.checkpoint_failures.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// The numbers of what is read again.
    #[must_use]
    pub fn reloads(&self) -> &ReloadInstruments {
        &self.0.reloads
    }

    /// The policies' own numbers.
    #[must_use]
    pub fn policies(&self) -> &PolicyInstruments {
        &self.0.policies
    }

    /// The keys' own numbers.
    #[must_use]
    pub fn keys(&self) -> &KeyInstruments {
        &self.0.keys
    }
}
