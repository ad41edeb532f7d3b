//! Calls that were refused: noted behind the call, in a bounded table, and counted.
//!
//! A layer ([`crate::middleware::refusals`]) notes each refusal here; nobody waits for it. What
//! is alike within a second becomes one row, what the rate limit refuses within a minute. Too
//! many at once are dropped, and counted as such: a flood may cost rows, never calls.

mod gathering;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use catrust_domain::{InstanceId, error_chain};
use catrust_event_store::{RefusalStore, RefusedCall};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use self::gathering::Gathering;
use catrust_access::Identity;

/// Refusals that wait to be looked at.
const QUEUE: usize = 4_096;
/// How often rows are written.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
/// How long refusals by the rate limit are gathered into one row.
const LIMITED_INTERVAL: Duration = Duration::from_secs(60);

/// What is found out about a call on its way in, for whoever has to tell of its refusal.
#[derive(Debug, Default)]
pub(crate) struct CallFacts {
    /// Who calls, once that is known.
    pub(crate) identity: OnceLock<Identity>,
    /// Instance that the call names, once its fields are read.
    pub(crate) instance_id: OnceLock<InstanceId>,
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RefusalRetention {
    /// Rows of all callers together.
    pub(crate) all: u64,
    /// Rows of one caller.
    pub(crate) per_caller: u64,
}

/// Where refusals are noted. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct RefusalLog {
    sender: mpsc::Sender<RefusedCall>,
    instruments: RefusalInstruments,
}

#[derive(Clone, Debug)]
struct RefusalInstruments {
    refusals: Counter<u64>,
    dropped: Counter<u64>,
}

impl RefusalInstruments {
    fn new(meter: &Meter) -> Self {
        Self {
            refusals: meter
                .u64_counter("catrust.refusals")
                .with_description("Calls that were refused, by code of the error table")
                .build(),
            dropped: meter
                .u64_counter("catrust.refusals.dropped")
                .with_description("Refused calls that were not recorded, by reason")
                .build(),
        }
    }

    fn dropped(&self, reason: &'static str, attempts: u64) {
        self.dropped.add(attempts, &[KeyValue::new("reason", reason)]);
    }
}

impl RefusalLog {
    /// Makes the log, and the task that writes what is noted in it.
    pub(crate) fn new(
        store: Arc<dyn RefusalStore>,
        kept: RefusalRetention,
        meter: &Meter,
        stopping: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let instruments = RefusalInstruments::new(meter);
        let recorder = RefusalRecorder { store, kept, instruments: instruments.clone() };
        (Self { sender, instruments }, recorder.run(receiver, stopping))
    }

    /// Notes a refusal. Returns at once.
    pub(crate) fn note(&self, refusal: RefusedCall) {
        self.instruments.refusals.add(1, &[KeyValue::new("code", refusal.code.clone())]);
        if self.sender.try_send(refusal).is_err() {
            self.instruments.dropped("queue", 1);
        }
    }
}

/// Writes what was noted.
struct RefusalRecorder {
    store: Arc<dyn RefusalStore>,
    kept: RefusalRetention,
    instruments: RefusalInstruments,
}

impl RefusalRecorder {
    async fn run(self, mut receiver: mpsc::Receiver<RefusedCall>, stopping: CancellationToken) {
        let mut gathering = Gathering::default();
        let mut ticks = interval(FLUSH_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next_minute = Instant::now() + LIMITED_INTERVAL;
        loop {
            tokio::select! {
                () = stopping.cancelled() => break,
                Some(refusal) = receiver.recv() => self.take(&mut gathering, refusal),
                _ = ticks.tick() => {
                    let minute = Instant::now() >= next_minute;
                    if minute {
                        next_minute = Instant::now() + LIMITED_INTERVAL;
                        self.prune().await;
                    }
                    self.write(gathering.drain(minute)).await;
                }
            }
        }
        while let Ok(refusal) = receiver.try_recv() {
            self.take(&mut gathering, refusal);
        }
        self.write(gathering.drain(true)).await;
    }

    fn take(&self, gathering: &mut Gathering, refusal: RefusedCall) {
        if !gathering.take(refusal) {
            self.instruments.dropped("flood", 1);
        }
    }

    async fn write(&self, rows: Vec<RefusedCall>) {
        if rows.is_empty() {
            return;
        }
        if let Err(error) = self.store.record_refusals(&rows, self.kept.per_caller).await {
            let attempts = rows.iter().map(|row| row.attempts).sum();
            self.instruments.dropped("store", attempts);
            tracing::warn!(error = error_chain(&error), attempts, "refused calls are not recorded");
        }
    }

    async fn prune(&self) {
        if let Err(error) = self.store.prune_refusals(self.kept.all).await {
            tracing::warn!(error = error_chain(&error), "old refusals could not be forgotten");
        }
    }
}
