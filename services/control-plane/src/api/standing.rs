//! How long a stream may stay open: as long as its caller would be let in again.
//!
//! A call is over before anything changes; a stream may last for weeks, and must not outlive
//! the token or certificate that opened it, nor its withdrawal.

use std::time::Duration;

use catrust_domain::Timestamp;
use catrust_event_store::Clock;

use crate::access::Identity;
use crate::error::ApiError;

/// Longest sleep before the clock is looked at again: it may be set meanwhile.
const LOOK: Duration = Duration::from_secs(30);

/// Ends when the identity counts for nothing any more; tells why.
pub(super) async fn lost(identity: &Identity, clock: &Clock) -> ApiError {
    tokio::select! {
        () = identity.withdrawn.cancelled() => ApiError::Unauthenticated(
            "no valid identity any more: the token or certificate that opened this stream was withdrawn; open it \
             again with another one",
        ),
        () = expired(identity.expires_at, clock) => ApiError::Unauthenticated(
            "no valid identity any more: the token or certificate that opened this stream has expired; open it \
             again with a new one",
        ),
    }
}

async fn expired(at: Option<Timestamp>, clock: &Clock) {
    let Some(at) = at else { return std::future::pending().await };
    loop {
        let left = at.micros().saturating_sub(clock().micros());
        match u64::try_from(left) {
            Ok(left) if left > 0 => tokio::time::sleep(Duration::from_micros(left).min(LOOK)).await,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    use tokio_util::sync::CancellationToken;

    use super::*;

    fn identity(expires_at: Option<i64>) -> Identity {
        Identity {
            principal: Arc::from("alice"),
            account_id: "1".parse().unwrap(),
            operator: false,
            broker: None,
            entry: None,
            withdrawn: CancellationToken::new(),
            expires_at: expires_at.map(Timestamp::from_micros),
        }
    }

    fn told(error: &ApiError) -> &'static str {
        match error {
            ApiError::Unauthenticated(text) if text.contains("expired") => "expired",
            ApiError::Unauthenticated(text) if text.contains("withdrawn") => "withdrawn",
            _ => "something else",
        }
    }

    #[tokio::test]
    async fn it_ends_with_the_credentials_by_the_wall_clock() {
        let time = Arc::new(AtomicI64::new(0));
        let clock: Clock = {
            let time = Arc::clone(&time);
            Arc::new(move || Timestamp::from_micros(time.load(Ordering::SeqCst)))
        };
        // A few milliseconds pass, but the clock stands.
        let identity = identity(Some(2_000));
        let mut lost = std::pin::pin!(lost(&identity, &clock));
        assert!(tokio::time::timeout(Duration::from_millis(50), lost.as_mut()).await.is_err());
        time.store(2_000, Ordering::SeqCst);
        assert_eq!(told(&lost.await), "expired");
    }

    #[tokio::test]
    async fn it_ends_with_a_withdrawal_and_else_never() {
        let clock: Clock = Arc::new(|| Timestamp::from_micros(i64::MAX));
        let identity = identity(None);
        let mut lost = std::pin::pin!(lost(&identity, &clock));
        assert!(futures::poll!(lost.as_mut()).is_pending());
        identity.withdrawn.cancel();
        assert_eq!(told(&lost.await), "withdrawn");
    }
}
