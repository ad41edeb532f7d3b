//! Watches over what is about to expire: the key set in force, and this server's own key in it.

use std::sync::Arc;
use std::time::Duration;

use catrust_domain::Timestamp;
use catrust_event_store::Clock;
use opentelemetry::metrics::{Gauge, Meter};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::ServerKeys;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(2);
/// Time between two warnings of one expiry.
const REMINDED_EVERY: Duration = Duration::from_secs(3_600);
const DAY: i64 = 86_400;

/// Warns, in the log and in numbers.
pub(crate) struct KeyExpiry {
    keys: Arc<ServerKeys>,
    clock: Clock,
    instruments: KeyInstruments,
    /// Seconds before an expiry from which on it is warned of.
    warning: i64,
    /// When an expiry was warned of last, and the version of the set then.
    reminded: Option<(Instant, u64)>,
}

impl KeyExpiry {
    /// Of the set of `keys`; warns `warning_days` before something expires.
    #[must_use]
    pub(crate) fn new(keys: Arc<ServerKeys>, clock: Clock, meter: &Meter, warning_days: u32) -> Self {
        let (instruments, warning) = (KeyInstruments::new(meter), i64::from(warning_days) * DAY);
        Self { keys, clock, instruments, warning, reminded: None }
    }

    /// Looks until told to stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.look();
        }
    }

    fn look(&mut self) {
        let Some(set) = self.keys.follow().borrow().clone() else { return };
        let now = (self.clock)();
        let left = |end: Timestamp| (end.micros() - now.micros()).div_euclid(1_000_000);
        let set_left = left(set.expires_at());
        let key_left = set.key(self.keys.key_id()).map_or(0, |key| left(key.not_after));
        let version = set.version();
        self.instruments.version.record(version, &[]);
        self.instruments.set_expiry.record(set_left, &[]);
        self.instruments.key_expiry.record(key_left, &[]);
        if set_left.min(key_left) > self.warning {
            self.reminded = None;
            return;
        }
        if self.reminded.is_some_and(|(at, of)| of == version && at.elapsed() < REMINDED_EVERY) {
            return;
        }
        self.reminded = Some((Instant::now(), version));
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

struct KeyInstruments {
    version: Gauge<u64>,
    set_expiry: Gauge<i64>,
    key_expiry: Gauge<i64>,
}

impl KeyInstruments {
    fn new(meter: &Meter) -> Self {
        let seconds =
            |name, description| meter.i64_gauge(name).with_unit("s").with_description(description).build();
        Self {
            version: meter
                .u64_gauge("catrust.signing.key_set.version")
                .with_description("Version of the key set in force")
                .build(),
            set_expiry: seconds("catrust.signing.key_set.expiry", "Time until the key set in force expires"),
            key_expiry: seconds("catrust.signing.key.expiry", "Time until this server's signing key expires"),
        }
    }
}
