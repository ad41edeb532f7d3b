//! How long a stream may stay open: as long as its caller would be let in again.
//!
//! A call is over before anything changes; a stream may last for weeks, and must not outlive
//! the token or certificate that opened it, its withdrawal, the policy that allowed it, or
//! the account's ownership of the instance.

use std::sync::Arc;
use std::time::Duration;

use catrust_domain::{InstanceId, Rejection, Timestamp};
use catrust_event_store::Clock;
use tokio::time::{Instant, sleep_until};

use super::{Api, Call};
use crate::error::ApiError;
use catrust_access::{Action, Identity};

/// Longest sleep before the clock is looked at again: it may be set meanwhile.
const LOOK: Duration = Duration::from_secs(30);
/// Time between two questions whether the caller would be admitted again. Not at each change
/// of the policies: all streams would ask at once.
const ADMISSION: Duration = Duration::from_secs(10);

/// The right of one stream to stay open.
pub(super) struct Standing {
    api: Arc<Api>,
    call: Call,
    id: InstanceId,
    action: Action,
    next_admission: Instant,
}

impl Standing {
    /// Of a call that was admitted to `action` on `id` just now.
    pub(crate) fn new(api: &Arc<Api>, call: &Call, id: &InstanceId, action: Action) -> Self {
        let next_admission = Instant::now() + ADMISSION;
        Self { api: Arc::clone(api), call: call.clone(), id: id.clone(), action, next_admission }
    }

    /// Ends when the caller would not be let in again; tells why. May be dropped and asked
    /// again at any time.
    pub(crate) async fn lost(&mut self) -> ApiError {
        let (identity, clock) = (self.call.identity.clone(), Arc::clone(&self.api.clock));
        tokio::select! {
            error = identity_lost(&identity, &clock) => error,
            error = self.not_admitted() => error,
        }
    }

    async fn not_admitted(&mut self) -> ApiError {
        loop {
            sleep_until(self.next_admission).await;
            let admitted = self.api.admit(&self.call, &self.id, self.action).await;
            self.next_admission = Instant::now() + ADMISSION;
            match admitted {
                Err(error) if says_no(&error) => return error,
                // A store that is away says nothing about who may read.
                Ok(_) | Err(_) => {}
            }
        }
    }
}

const fn says_no(error: &ApiError) -> bool {
    matches!(
        error,
        ApiError::PermissionDenied { .. }
            | ApiError::BoundToBroker { .. }
            | ApiError::Rejected(Rejection::NotOwner | Rejection::InstanceNotFound)
    )
}

/// Ends when the identity is no longer accepted; tells why.
async fn identity_lost(identity: &Identity, clock: &Clock) -> ApiError {
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
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    fn identity(expires_at: Option<i64>) -> Identity {
        Identity {
            principal: Arc::from("alice"),
            account_id: "1".parse().unwrap(),
            operator: false,
            broker: None,
            entry: None,
            withdrawn: Arc::default(),
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
        let mut lost = std::pin::pin!(identity_lost(&identity, &clock));
        assert!(tokio::time::timeout(Duration::from_millis(50), lost.as_mut()).await.is_err());
        time.store(2_000, Ordering::SeqCst);
        assert_eq!(told(&lost.await), "expired");
    }

    #[tokio::test]
    async fn it_ends_with_a_withdrawal_and_else_never() {
        let clock: Clock = Arc::new(|| Timestamp::from_micros(i64::MAX));
        let identity = identity(None);
        let mut lost = std::pin::pin!(identity_lost(&identity, &clock));
        assert!(futures::poll!(lost.as_mut()).is_pending());
        identity.withdrawn.cancel();
        assert_eq!(told(&lost.await), "withdrawn");
    }

    #[test]
    fn only_a_no_ends_a_stream_and_not_a_failure_to_ask() {
        assert!(says_no(&ApiError::PermissionDenied { action: "mq:WatchTrust" }));
        assert!(says_no(&Rejection::NotOwner.into()));
        for failure in [ApiError::Overloaded, ApiError::Internal(String::new()), ApiError::DeadlineExceeded] {
            assert!(!says_no(&failure), "{failure:?}");
        }
    }
}
