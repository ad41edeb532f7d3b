//! What the appender tells about itself in numbers.

use std::time::Duration;

use catrust_domain::Reply;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Histogram, Meter};

use crate::error::ApiError;
use crate::telemetry::duration_histogram;

/// Commands per batch.
const BATCH_BOUNDS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

pub(super) struct AppenderInstruments {
    commands: Counter<u64>,
    command_duration: Histogram<f64>,
    batch_size: Histogram<u64>,
    queue_depth: Gauge<u64>,
}

impl AppenderInstruments {
    pub(super) fn new(meter: &Meter) -> Self {
        Self {
            commands: meter.u64_counter("catrust.commands").with_description("Commands by outcome").build(),
            command_duration: duration_histogram(
                meter,
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
        }
    }

    pub(super) fn command(&self, name: &'static str, outcome: &Result<Reply, ApiError>, elapsed: Duration) {
        let outcome = match outcome {
            Ok(reply) if reply.changed => "Changed",
            Ok(_) => "Unchanged",
            Err(error) => error.codes().1,
        };
        let labels = [KeyValue::new("command", name), KeyValue::new("outcome", outcome)];
        self.commands.add(1, &labels);
        self.command_duration.record(elapsed.as_secs_f64(), &labels[..1]);
    }

    pub(super) fn batch(&self, commands: usize) {
        self.batch_size.record(commands as u64, &[]);
    }

    pub(super) fn queue_depth(&self, commands: usize) {
        self.queue_depth.record(commands as u64, &[]);
    }
}
