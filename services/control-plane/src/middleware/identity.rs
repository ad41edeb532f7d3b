//! Finds out who calls, before anything else is looked at.
//!
//! The credentials are the TLS client certificate and the bearer token; what they
//! are worth is decided by an [`Authenticator`]. The [`Identity`] goes into the
//! request's extensions. No identity, no service.
//!
//! A refused caller hears what to do; the reason is in the log, under the request id. Nobody
//! is known yet whom a limit could count, so that the log has one of its own: some refusals a
//! second are written, all are counted (`catrust.identity.refused`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

use catrust_domain::Timestamp;
use catrust_event_store::Clock;
use http::{Request, Response, header::AUTHORIZATION};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Meter};
use tonic::body::Body;
use tower::Service;

use super::request_id::RequestId;
use super::{Middleware, ResponseFuture, answer};
use crate::error::{ApiError, to_status};
use crate::listener::Peer;
use crate::refusals::CallFacts;
use catrust_access::{Authenticator, Credentials, Identity, InvalidCredentials};

/// Most refusals that are logged in one second.
const LOGGED_PER_SECOND: u32 = 20;

/// Adds the layer described in the module's documentation.
#[derive(Clone)]
pub(crate) struct IdentityLayer {
    authenticator: Arc<dyn Authenticator>,
    clock: Clock,
    refused: Counter<u64>,
    log: Arc<LogBudget>,
}

impl IdentityLayer {
    /// `authenticator` decides what credentials are worth at the time of `clock`.
    #[must_use]
    pub(crate) fn new(authenticator: Arc<dyn Authenticator>, clock: Clock, meter: &Meter) -> Self {
        let refused = meter
            .u64_counter("catrust.identity.refused")
            .with_description("Calls without a valid identity, by kind: missing, malformed or invalid")
            .build();
        Self { authenticator, clock, refused, log: Arc::default() }
    }
}

/// Network address of the caller; absent where the transport does not tell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SourceAddress(pub(crate) SocketAddr);

impl Middleware for IdentityLayer {
    fn call<S>(&self, inner: &mut S, mut request: Request<Body>) -> ResponseFuture<S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>, Future: Send + 'static>,
    {
        let peer = request.extensions().get::<Peer>().cloned();
        let source = peer.as_ref().map(|peer| peer.address);
        let now = (self.clock)();
        match self.identify(&request, peer.as_ref(), now) {
            Ok(identity) => {
                if let Some(facts) = request.extensions().get::<Arc<CallFacts>>() {
                    // Set once: there is one identity layer.
                    let _ = facts.identity.set(identity.clone());
                }
                request.extensions_mut().insert(identity);
                if let Some(source) = source {
                    request.extensions_mut().insert(SourceAddress(source));
                }
                Box::pin(inner.call(request))
            }
            Err(problem) => {
                let response = self.refuse(&request, source, &problem, now);
                answer(response)
            }
        }
    }
}

impl IdentityLayer {
    fn identify(
        &self,
        request: &Request<Body>,
        peer: Option<&Peer>,
        now: Timestamp,
    ) -> Result<Identity, InvalidCredentials> {
        let client_certificate = peer.and_then(|peer| peer.client_certificate.as_deref());
        let bearer_token = bearer_token(request)?;
        self.authenticator.authenticate(&Credentials { bearer_token, client_certificate }, now)
    }

    fn refuse(
        &self,
        request: &Request<Body>,
        source: Option<SocketAddr>,
        problem: &InvalidCredentials,
        now: Timestamp,
    ) -> Response<Body> {
        let id = RequestId::of(request);
        self.refused.add(1, &[KeyValue::new("kind", problem.kind)]);
        if self.log.allows(now) {
            let source = source.map(tracing::field::display);
            let (path, reason) = (request.uri().path(), problem.reason);
            tracing::info!(request_id = %id, path, source, reason, "a call without a valid identity");
        }
        to_status(&ApiError::Unauthenticated(problem.advice), id).into_http()
    }
}

/// Lets so many lines into the log in each second.
#[derive(Debug, Default)]
struct LogBudget {
    second: AtomicI64,
    written: AtomicU32,
}

impl LogBudget {
    /// Two threads at the turn of a second may write a few lines more: nobody is harmed.
    fn allows(&self, now: Timestamp) -> bool {
        let second = now.micros().div_euclid(1_000_000);
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.written.store(0, Ordering::Relaxed);
        }
        self.written.fetch_add(1, Ordering::Relaxed) < LOGGED_PER_SECOND
    }
}

fn bearer_token(request: &Request<Body>) -> Result<Option<&str>, InvalidCredentials> {
    let mut values = request.headers().get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(malformed("there is more than one authorization header"));
    }
    let text = value.to_str().map_err(|_| malformed("the authorization header is not ASCII"))?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() => {
            Ok(Some(token))
        }
        _ => Err(malformed("the authorization header is not `Bearer TOKEN`")),
    }
}

/// The caller may hear how the header looks: it knows what it has sent.
const fn malformed(reason: &'static str) -> InvalidCredentials {
    let advice = "no valid identity: send one authorization header, `Bearer TOKEN`";
    InvalidCredentials { advice, ..InvalidCredentials::malformed(reason) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_writes_so_many_lines_a_second() {
        let budget = LogBudget::default();
        let at = |second: i64| Timestamp::from_micros(second * 1_000_000);
        for second in [7, 8] {
            let written = (0..1_000).filter(|_| budget.allows(at(second))).count();
            assert_eq!(written, LOGGED_PER_SECOND as usize);
        }
    }

    #[test]
    fn one_header_with_one_bearer_token() {
        let header = |values: &[&str]| {
            let mut request = Request::new(Body::empty());
            for value in values {
                request.headers_mut().append(AUTHORIZATION, value.parse().unwrap());
            }
            bearer_token(&request).map(|token| token.map(str::to_owned)).map_err(|problem| problem.kind)
        };
        assert_eq!(header(&[]), Ok(None));
        assert_eq!(header(&["bearer abc"]), Ok(Some("abc".to_owned())));
        for bad in [&["Bearer a", "Bearer b"][..], &["Basic abc"], &["Bearer "], &["Bearer"], &["abc"]] {
            assert_eq!(header(bad), Err("malformed"), "{bad:?}");
        }
    }
}
