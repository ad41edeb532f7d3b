//! Reads the key set again while the server runs, every few seconds and on SIGHUP, and
//! watches over what is about to expire.
//!
//! A set is signed as a whole, so that half of a file is never taken for it. One that
//! cannot be used leaves in force what was, and makes nobody unready.

use std::sync::Arc;
use std::time::Duration;

use catrust_event_store::Clock;
use opentelemetry::metrics::{Gauge, Meter};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{Looked, ServerKeys};
use crate::metrics::Metrics;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(2);
/// Time between two warnings of one expiry.
const REMINDED_EVERY: Duration = Duration::from_secs(3_600);
const DAY: i64 = 86_400;

/// Keeps a server's key set true to the disk.
pub struct KeyReload {
    keys: Arc<ServerKeys>,
    clock: Clock,
    metrics: Metrics,
    /// Seconds before an expiry from which on it is warned of.
    warning: i64,
    /// What was refused, and told.
    refused: Option<String>,
    /// When an expiry was warned of last.
    reminded: Option<Instant>,
}

impl KeyReload {
    /// Watches the set of `keys`; warns `warning_days` before something expires.
    #[must_use]
    pub fn new(keys: Arc<ServerKeys>, clock: Clock, metrics: Metrics, warning_days: u32) -> Self {
        let warning = i64::from(warning_days) * DAY;
        Self { keys, clock, metrics, warning, refused: None, reminded: None }
    }

    /// Looks until told to stop; returns at once where there is no set.
    ///
    /// # Errors
    /// The process cannot listen for SIGHUP.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        if self.keys.key_set_file().is_none() {
            stop.cancelled().await;
            return Ok(());
        }
        let mut hangup = signal(SignalKind::hangup())?;
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = hangup.recv() => {}
                _ = ticks.tick() => {}
            }
            self.look().await?;
        }
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        let (keys, now) = (Arc::clone(&self.keys), (self.clock)());
        match spawn_blocking(move || keys.look(now)).await? {
            Looked::Known => self.forget_refusal(),
            Looked::New => {
                self.forget_refusal();
                self.reminded = None;
                if let Some(set) = &*self.keys.follow().borrow() {
                    let (version, keys) = (set.version(), set.keys().count());
                    tracing::info!(version, keys, expires_at = %set.expires_at(), "a newer key set is in force");
                }
            }
            Looked::Refused(problem) => self.refuse(problem),
        }
        self.watch_over_expiry();
        Ok(())
    }

    fn forget_refusal(&mut self) {
        if self.refused.take().is_some() {
            tracing::info!("the key set's file can be used again");
        }
        self.metrics.keys().refused.record(0, &[]);
    }

    fn refuse(&mut self, problem: String) {
        self.metrics.keys().refused.record(1, &[]);
        if self.refused.as_ref() != Some(&problem) {
            tracing::error!(problem, "the key set is refused; the one that was in force stays");
            self.refused = Some(problem);
        }
    }

    fn watch_over_expiry(&mut self) {
        let Some(set) = self.keys.follow().borrow().clone() else { return };
        let now = (self.clock)();
        let left = |end: catrust_domain::Timestamp| (end.micros() - now.micros()).div_euclid(1_000_000);
        let set_left = left(set.expires_at());
        let key_left = set.key(self.keys.key_id()).map_or(0, |key| left(key.not_after));
        let numbers = self.metrics.keys();
        numbers.version.record(set.version(), &[]);
        numbers.set_expiry.record(set_left, &[]);
        numbers.key_expiry.record(key_left, &[]);
        if set_left.min(key_left) > self.warning {
            self.reminded = None;
            return;
        }
        if self.reminded.is_some_and(|at| at.elapsed() < REMINDED_EVERY) {
            return;
        }
        self.reminded = Some(Instant::now());
        for (what, seconds) in [("key set", set_left), ("signing key", key_left)] {
            if seconds <= 0 {
                tracing::error!(what, "has expired: agents admit nobody new; see `catrust keys vouch`");
            } else if seconds <= self.warning {
                let days = seconds / DAY;
                tracing::warn!(
                    what,
                    days,
                    "expires soon: agents will admit nobody new; see `catrust keys vouch`"
                );
            }
        }
    }
}

/// What is told about keys in numbers.
#[derive(Debug)]
pub struct KeyInstruments {
    version: Gauge<u64>,
    set_expiry: Gauge<i64>,
    key_expiry: Gauge<i64>,
    refused: Gauge<u64>,
}

impl KeyInstruments {
    pub(crate) fn new(meter: &Meter) -> Self {
        let seconds =
            |name, description| meter.i64_gauge(name).with_unit("s").with_description(description).build();
        Self {
            version: meter
                .u64_gauge("catrust.signing.key_set.version")
                .with_description("Version of the key set in force")
                .build(),
            set_expiry: seconds("catrust.signing.key_set.expiry", "Time until the key set in force expires"),
            key_expiry: seconds("catrust.signing.key.expiry", "Time until this server's signing key expires"),
            refused: meter
                .u64_gauge("catrust.signing.key_set.refused")
                .with_description("1 while the key set's file holds something that cannot be used")
                .build(),
        }
    }
}
