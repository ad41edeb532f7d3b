//! Ends a unary call at its deadline: the caller's `grpc-timeout`, or the server's
//! default where the caller gave none.
//!
//! The future is dropped then, which takes a command out of the appender's queue
//! where it still waits; one that is being committed is committed, and the reply
//! says that it may have been. Server streams are ended by their handlers, which
//! find the [`Deadline`] in the extensions: only an explicit one ends a stream. A
//! handler that is asked to wait moves the default by the [`DefaultDeadline`].

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tonic::body::Body;
use tower::Service;

use super::request_id::RequestId;
use super::{Middleware, ResponseFuture};
use crate::error::{ApiError, to_status};

/// When the caller stops waiting; absent where it did not say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(pub(crate) Instant);

/// The server's own deadline of a call that brings none; there in its place.
#[derive(Clone, Debug)]
pub(crate) struct DefaultDeadline(Arc<watch::Sender<Instant>>);

impl DefaultDeadline {
    /// Gives the call time until `limit` at least.
    pub(crate) fn extend_to(&self, limit: Instant) {
        self.0.send_if_modified(|deadline| {
            let later = limit > *deadline;
            *deadline = limit.max(*deadline);
            later
        });
    }
}

/// Adds the layer described in the module's documentation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DeadlineLayer {
    /// Deadline of calls that bring none.
    pub(crate) default: Duration,
}

impl Middleware for DeadlineLayer {
    fn call<S>(&self, inner: &mut S, mut request: Request<Body>) -> ResponseFuture<S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>, Future: Send + 'static>,
    {
        let asked = grpc_timeout(request.headers());
        // A deadline beyond what the clock can hold is no deadline.
        let deadline = asked.and_then(|timeout| Instant::now().checked_add(timeout));
        let latest = Instant::now() + self.default.max(LONGEST_CALL);
        let until = deadline.map_or_else(|| Instant::now() + self.default, |asked| asked.min(latest));
        let limit = Arc::new(watch::Sender::new(until));
        match deadline {
            Some(deadline) => drop(request.extensions_mut().insert(Deadline(deadline))),
            None => drop(request.extensions_mut().insert(DefaultDeadline(Arc::clone(&limit)))),
        }
        let id = RequestId::of(&request);
        // The future resolves when the response head is there: for a server stream
        // that is its start, so that the limit does not end streams.
        let reply = inner.call(request);
        Box::pin(async move {
            let mut limits = limit.subscribe();
            tokio::pin!(reply);
            loop {
                let until = *limits.borrow_and_update();
                tokio::select! {
                    biased;
                    reply = &mut reply => return reply,
                    // The sender lives in `limit`, as long as this future.
                    _ = limits.changed() => {}
                    () = sleep_until(until) => {
                        return Ok(to_status(&ApiError::DeadlineExceeded, id).into_http());
                    }
                }
            }
        })
    }
}

/// Longest that a unary call may last, whatever its caller asks for: a wait for the
/// brokers takes 60 s at most.
const LONGEST_CALL: Duration = Duration::from_secs(65);

/// Parses `grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2, "Timeout").
/// A malformed one is ignored, as other servers do.
fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use tonic::{Code, Status};
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    fn parse(text: &'static str) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", HeaderValue::from_static(text));
        grpc_timeout(&headers)
    }

    #[test]
    fn timeouts_follow_the_grpc_grammar() {
        assert_eq!(parse("250m"), Some(Duration::from_millis(250)));
        assert_eq!(parse("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for malformed in ["", "m", "1", "123456789S", "-1S", "1.5S", "1x"] {
            assert_eq!(parse(malformed), None, "{malformed:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_waits_moves_the_default_and_no_other_deadline() {
        let handler = |request: Request<Body>| async move {
            let own = request.extensions().get::<DefaultDeadline>().cloned();
            if let Some(own) = &own {
                own.extend_to(Instant::now() + Duration::from_secs(1));
                own.extend_to(Instant::now() + Duration::from_secs(30));
            }
            std::future::pending::<Result<Response<Body>, std::convert::Infallible>>().await
        };
        for (grpc_timeout, ended) in [(None, 30), (Some("5S"), 5)] {
            let service = DeadlineLayer { default: Duration::from_secs(10) }.layer(service_fn(handler));
            let mut request = Request::new(Body::empty());
            if let Some(text) = grpc_timeout {
                request.headers_mut().insert("grpc-timeout", HeaderValue::from_static(text));
            }
            let started = Instant::now();
            service.oneshot(request).await.unwrap();
            assert_eq!(started.elapsed(), Duration::from_secs(ended));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_at_the_callers_deadline() {
        let service = DeadlineLayer { default: Duration::from_secs(10) }.layer(service_fn(
            |_request: Request<Body>| {
                std::future::pending::<Result<Response<Body>, std::convert::Infallible>>()
            },
        ));
        let mut request = Request::new(Body::empty());
        request.headers_mut().insert("grpc-timeout", HeaderValue::from_static("100m"));
        let started = Instant::now();
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(started.elapsed(), Duration::from_millis(100));
        assert_eq!(Status::from_header_map(response.headers()).unwrap().code(), Code::DeadlineExceeded);
    }
}
