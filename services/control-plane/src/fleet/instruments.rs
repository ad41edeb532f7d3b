//! What is told about receipts in numbers.

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};

#[derive(Clone, Copy, Debug)]
pub(crate) enum ReceiptVia {
    /// `ReportReceipt`.
    Grpc,
    /// The subject of a broker's receipts.
    Nats,
}

#[derive(Debug)]
pub(super) struct ReceiptInstruments {
    receipts: Counter<u64>,
    lost: Counter<u64>,
    disputed: Counter<u64>,
}

impl ReceiptInstruments {
    pub(super) fn new(meter: &Meter) -> Self {
        Self {
            receipts: meter
                .u64_counter("catrust.receipts")
                .with_description("Receipts that came, by way and outcome; invalid ones among them")
                .build(),
            lost: meter
                .u64_counter("catrust.receipts.lost")
                .with_description("Receipts that came and were not recorded, by reason")
                .build(),
            disputed: meter
                .u64_counter("catrust.receipts.disputed")
                .with_description("Receipts under a name that two brokers use, or one that was put back")
                .build(),
        }
    }

    /// `outcome`: `applied`, `refused` or `invalid`.
    pub(super) fn receipt(&self, via: ReceiptVia, outcome: &'static str) {
        let via = match via {
            ReceiptVia::Grpc => "grpc",
            ReceiptVia::Nats => "nats",
        };
        self.receipts.add(1, &[KeyValue::new("via", via), KeyValue::new("outcome", outcome)]);
    }

    pub(super) fn disputed(&self) {
        self.disputed.add(1, &[]);
    }

    pub(super) fn lost(&self, reason: &'static str, receipts: u64) {
        self.lost.add(receipts, &[KeyValue::new("reason", reason)]);
    }
}
