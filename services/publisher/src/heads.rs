//! Signs of life: one signed head per instance every two seconds, after the key set.

use std::time::Duration;

use catrust_domain::{Timestamp, error_chain};
use catrust_trust_feed::{FeedError, Signed as _, TrustPoint, message};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::Publisher;

/// Time between two heads of an instance.
const HEAD_INTERVAL: Duration = Duration::from_secs(2);
/// Heads that are signed in one go; more would hold up other tasks.
const BETWEEN_YIELDS: usize = 16;

/// Knows where the trust of each instance stands.
pub trait HeadSource: Send + Sync + 'static {
    /// Every instance, and the time at which that was current, by a freshness lease that is
    /// valid and whose end of the log these have come through; `None` otherwise, since a head
    /// would then claim what nobody knows.
    fn heads(&self) -> Option<(Timestamp, Vec<TrustPoint>)>;
}

/// Sends heads while this replica publishes, until `shutdown`.
pub(super) async fn send(publisher: &Publisher, shutdown: &CancellationToken) {
    let mut ticks = interval(HEAD_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        if publisher.speaks()
            && let Err(error) = send_round(publisher).await
        {
            // Told once by the publishing task; a head is not worth a second attempt.
            tracing::debug!(error = error_chain(&error), "heads could not be sent");
        }
    }
}

async fn send_round(publisher: &Publisher) -> Result<(), FeedError> {
    let parts = &publisher.parts;
    // Before what is signed by its keys.
    let key_set = parts.key_set.borrow().clone();
    if let Some(set) = key_set {
        parts.feed.publish_key_set(set.message()).await?;
    }
    let Some((issued_at, points)) = parts.heads.heads() else { return Ok(()) };
    let log_id = parts.log.log_id();
    for (number, point) in points.iter().enumerate() {
        let mut head = message::head(log_id, point, issued_at);
        if let Err(error) = head.sign(&parts.key) {
            tracing::error!(%error, instance = %point.instance_id, "a head could not be signed");
            continue;
        }
        parts.feed.publish_head(&head).await?;
        if number % BETWEEN_YIELDS == BETWEEN_YIELDS - 1 {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}
