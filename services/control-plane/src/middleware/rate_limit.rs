//! 500 requests per second and user, with a burst: GCRA over `governor`.
//!
//! GCRA (ITU-T I.371, the "virtual scheduling" form) keeps one time per user: when
//! the user's bucket will be empty. A time in the past carries no information, so
//! such users are forgotten every second; the memory is bounded by those who
//! called within the last `burst / rate` seconds, and by `max_users` in any case: once
//! as many calls came within a second, users share the buckets of a fixed table for
//! the rest of it. That is strict with those who share; a user that had a bucket of
//! its own before may spend one more burst there.

use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use governor::clock::{Clock as _, MonotonicClock};
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};
use uuid::Uuid;

use super::BoxFuture;
use super::request_id::RequestId;
use crate::access::Identity;
use crate::error::{ApiError, to_status};
use crate::metrics::Metrics;

/// Buckets that users beyond `max_users` share.
const OVERFLOW_BUCKETS: u64 = 1024;

/// By the operating system's clock: reading the processor's counter is cheaper, but
/// the counters of a virtual machine's processors may differ by a millisecond, and
/// who waited as long as told would be refused again.
type Buckets<K> = RateLimiter<K, DashMapStateStore<K>, MonotonicClock>;

/// The buckets of all users.
pub struct UserLimiter {
    users: Buckets<Arc<str>>,
    overflow: Buckets<u64>,
    overflow_hash: RandomState,
    per_second: NonZeroU32,
    max_users: usize,
    /// Upper bound of the users with a bucket: those at the last sweep plus the calls
    /// since, because counting a sharded map at each call would take all its locks.
    known: AtomicUsize,
}

impl UserLimiter {
    /// `per_second` in the long run, `burst` at once, at most `max_users` buckets.
    #[must_use]
    pub fn new(per_second: NonZeroU32, burst: NonZeroU32, max_users: usize) -> Self {
        let quota = Quota::per_second(per_second).allow_burst(burst);
        Self {
            users: RateLimiter::new(quota, DashMapStateStore::default(), MonotonicClock),
            overflow: RateLimiter::new(quota, DashMapStateStore::default(), MonotonicClock),
            overflow_hash: RandomState::new(),
            per_second,
            max_users,
            known: AtomicUsize::new(0),
        }
    }

    /// Counts one request of `user`.
    ///
    /// # Errors
    /// The time after which the next request will pass.
    pub fn check(&self, user: &Arc<str>) -> Result<(), Duration> {
        let refused = if self.known.load(Ordering::Relaxed) < self.max_users {
            self.known.fetch_add(1, Ordering::Relaxed);
            self.users.check_key(user).err()
        } else {
            let bucket = self.overflow_hash.hash_one(user) % OVERFLOW_BUCKETS;
            self.overflow.check_key(&bucket).err()
        };
        refused.map_or(Ok(()), |not_until| Err(not_until.wait_time_from(MonotonicClock.now())))
    }

    /// Forgets users whose bucket is empty. To be called about once per second.
    pub fn sweep(&self) {
        self.users.retain_recent();
        self.overflow.retain_recent();
        self.known.store(self.users.len(), Ordering::Relaxed);
        if self.users.len() < self.max_users / 8 {
            self.users.shrink_to_fit();
        }
    }

    /// Users with a bucket.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.len()
    }
}

/// Adds the layer described in the module's documentation. Must sit inside the
/// identity layer.
#[derive(Clone)]
pub struct RateLimitLayer {
    /// The buckets, shared by all services.
    pub limiter: Arc<UserLimiter>,
    /// Where refusals are counted.
    pub metrics: Metrics,
}

/// Service of [`RateLimitLayer`].
#[derive(Clone)]
pub struct RateLimitService<S> {
    inner: S,
    layer: RateLimitLayer,
}

impl<S> Layer<S> for RateLimitLayer {
    type Service = RateLimitService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimitService { inner, layer: self.clone() }
    }
}

impl<S> Service<Request<Body>> for RateLimitService<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let limiter = &self.layer.limiter;
        let error = match request.extensions().get::<Identity>() {
            None => ApiError::Internal("the rate limit sits outside the identity layer".to_owned()),
            Some(identity) => match limiter.check(&identity.principal) {
                Ok(()) => return Box::pin(self.inner.call(request)),
                Err(retry_after) => {
                    self.layer.metrics.rate_limited();
                    ApiError::RateLimited {
                        retry_after,
                        per_second: limiter.per_second.get(),
                        user: identity.principal.to_string(),
                    }
                }
            },
        };
        let id = request.extensions().get::<RequestId>().map_or(Uuid::nil(), |id| id.0);
        let response = to_status(&error, id).into_http();
        Box::pin(async move { Ok(response) })
    }
}
