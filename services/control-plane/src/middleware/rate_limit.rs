//! Counts each call against its user's limit, and tells the user where it stands: refused
//! calls by the details of the status, and every reply by the headers `ratelimit-policy` and
//! `ratelimit` of draft-ietf-httpapi-ratelimit-headers-11, for clients that want to slow
//! down before they are refused:
//!
//! ```text
//! ratelimit-policy: "user";q=500;w=1;catrust-burst=100
//! ratelimit: "user";r=99;t=1
//! ```
//!
//! `q` calls per `w` seconds in the long run, `catrust-burst` at once; `r` calls would pass
//! now, and in `t` seconds there are more. The draft knows whole seconds only, so that `t` is
//! rounded up: the exact wait of a refused call is in its `RetryInfo`. Without the other
//! replicas `q` and `catrust-burst` are this replica's share.
//!
//! The rule and the buckets are in [`catrust_limiter`].

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Request, Response};
use opentelemetry::metrics::{Counter, Meter};
use tonic::body::Body;
use tower::Service;

use super::request_id::RequestId;
use super::{Middleware, ResponseFuture, answer};
use crate::error::{ApiError, to_status};
use catrust_access::Identity;
use catrust_limiter::{Quota, UserLimiter};

const RATELIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATELIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Adds the layer described in the module's documentation. Must sit inside the
/// identity layer.
#[derive(Clone)]
pub(crate) struct RateLimitLayer {
    limiter: Arc<UserLimiter>,
    checks: Counter<u64>,
    refused: Counter<u64>,
}

impl RateLimitLayer {
    /// The buckets of `limiter` are shared by all services.
    #[must_use]
    pub(crate) fn new(limiter: Arc<UserLimiter>, meter: &Meter) -> Self {
        let checks = meter
            .u64_counter("catrust.rate_limiter.checks")
            .with_description("Calls that the rate limiter counted, refused ones among them")
            .build();
        let refused = meter
            .u64_counter("catrust.rate_limited")
            .with_description("Calls refused by the rate limit")
            .build();
        Self { limiter, checks, refused }
    }
}

impl Middleware for RateLimitLayer {
    fn call<S>(&self, inner: &mut S, request: Request<Body>) -> ResponseFuture<S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>, Future: Send + 'static>,
    {
        let id = RequestId::of(&request);
        let Some(identity) = request.extensions().get::<Identity>() else {
            let error = ApiError::Internal("the rate limit sits outside the identity layer".to_owned());
            return answer(to_status(&error, id).into_http());
        };
        self.checks.add(1, &[]);
        let limiter = &self.limiter;
        match limiter.check(&identity.principal, limiter.now()) {
            Ok(quota) => {
                let reply = inner.call(request);
                Box::pin(async move { Ok(tell(reply.await?, &quota)) })
            }
            Err(quota) => {
                self.refused.add(1, &[]);
                let error = ApiError::RateLimited {
                    retry_after: quota.next,
                    per_second: quota.per_second,
                    user: identity.principal.to_string(),
                };
                answer(tell(to_status(&error, id).into_http(), &quota))
            }
        }
    }
}

fn tell(mut response: Response<Body>, quota: &Quota) -> Response<Body> {
    let Quota { per_second, burst, remaining, next } = quota;
    let policy = format!("\"user\";q={per_second};w=1;catrust-burst={burst}");
    let seconds = next.as_secs() + u64::from(next.subsec_nanos() > 0);
    let standing = if seconds == 0 {
        format!("\"user\";r={remaining}")
    } else {
        format!("\"user\";r={remaining};t={seconds}")
    };
    for (name, text) in [(RATELIMIT_POLICY, policy), (RATELIMIT, standing)] {
        // ASCII without control characters: always a valid header value.
        if let Ok(value) = HeaderValue::try_from(text) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::num::NonZeroU32;
    use std::time::{Duration, Instant};

    use opentelemetry::metrics::MeterProvider as _;
    use opentelemetry_sdk::metrics::SdkMeterProvider;
    use tonic::{Code, Status};
    use tonic_types::StatusExt as _;
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    fn layer(per_second: u32, burst: u32) -> RateLimitLayer {
        let at_least_one = |value| NonZeroU32::new(value).unwrap();
        let (rate, burst) = (at_least_one(per_second), at_least_one(burst));
        let limiter = Arc::new(UserLimiter::new(rate, burst, 1_000, [1; 32], Instant::now()));
        RateLimitLayer::new(limiter, &SdkMeterProvider::default().meter("test"))
    }

    async fn call(layer: &RateLimitLayer, user: &str) -> Response<Body> {
        let inner =
            service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(Response::new(Body::empty())) });
        let mut request = Request::new(Body::empty());
        request.extensions_mut().insert(Identity {
            principal: user.into(),
            account_id: "account".parse().unwrap(),
            operator: false,
            broker: None,
            entry: None,
            withdrawn: Default::default(),
            expires_at: None,
        });
        layer.layer(inner).oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn every_reply_says_where_the_user_stands() {
        // Slow, so that the time of the test makes no difference.
        let layer = layer(1, 2);
        let headers = |response: &Response<Body>| {
            let text = |name| response.headers()[name].to_str().unwrap().to_owned();
            (text(RATELIMIT_POLICY), text(RATELIMIT))
        };
        let policy = "\"user\";q=1;w=1;catrust-burst=2".to_owned();
        let first = call(&layer, "u").await;
        assert_eq!(headers(&first), (policy.clone(), "\"user\";r=1;t=1".to_owned()));
        call(&layer, "u").await;
        let refused = call(&layer, "u").await;
        assert_eq!(headers(&refused), (policy, "\"user\";r=0;t=1".to_owned()));
        let status = Status::from_header_map(refused.headers()).unwrap();
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.get_error_details();
        let wait = details.retry_info().unwrap().retry_delay.unwrap();
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!(details.quota_failure().unwrap().violations[0].subject, "u");
    }

    #[test]
    fn a_user_who_is_owed_nothing_is_told_no_time_and_others_one_that_is_long_enough() {
        let quota = Quota { per_second: 500, burst: 100, remaining: 100, next: Duration::ZERO };
        let told = |quota: &Quota| {
            let response = tell(Response::new(Body::empty()), quota);
            response.headers()[RATELIMIT].to_str().unwrap().to_owned()
        };
        assert_eq!(told(&quota), "\"user\";r=100");
        let next = Duration::from_millis(1_001);
        assert_eq!(told(&Quota { remaining: 0, next, ..quota }), "\"user\";r=0;t=2");
    }
}
