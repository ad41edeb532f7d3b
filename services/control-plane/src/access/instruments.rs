//! What is told about identities in numbers.

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Meter};

/// Handles to the instruments of identities.
#[derive(Debug)]
pub struct IdentityInstruments {
    refused: Counter<u64>,
    key_set_failing: Gauge<u64>,
}

impl IdentityInstruments {
    pub(crate) fn new(meter: &Meter) -> Self {
        Self {
            refused: meter
                .u64_counter("catrust.identity.refused")
                .with_description("Calls without a valid identity, by kind: missing, malformed or invalid")
                .build(),
            key_set_failing: meter
                .u64_gauge("catrust.identity.key_set.failing")
                .with_description("1 while the issuer's key set cannot be read")
                .build(),
        }
    }

    /// Counts a call without a valid identity.
    pub fn refused(&self, kind: &'static str) {
        self.refused.add(1, &[KeyValue::new("kind", kind)]);
    }

    /// Notes whether the issuer's key set can be read.
    pub fn key_set(&self, failing: bool) {
        self.key_set_failing.record(u64::from(failing), &[]);
    }
}
