//! Forgets users that have been quiet.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::UserLimiter;
use super::instruments::LimiterInstruments;

/// Sweeps once a second until `stop`.
pub async fn sweep(limiter: Arc<UserLimiter>, instruments: LimiterInstruments, stop: CancellationToken) {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        instruments.swept(limiter.sweep(limiter.now()));
    }
}
