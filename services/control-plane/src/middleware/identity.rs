//! Finds out who calls, before anything else is looked at.
//!
//! The credentials are the TLS client certificate and the bearer token; what they
//! are worth is decided by an [`Authenticator`]. The [`Identity`](crate::access::Identity) goes into the
//! request's extensions. No identity, no service.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response, header::AUTHORIZATION};
use tonic::body::Body;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tower::{Layer, Service};
use uuid::Uuid;

use super::BoxFuture;
use super::request_id::RequestId;
use crate::access::{Authenticator, Credentials};
use crate::error::{ApiError, to_status};

/// Adds the layer described in the module's documentation.
#[derive(Clone)]
pub struct IdentityLayer {
    /// Decides what credentials are worth.
    pub authenticator: Arc<dyn Authenticator>,
}

/// Service of [`IdentityLayer`].
#[derive(Clone)]
pub struct IdentityService<S> {
    inner: S,
    authenticator: Arc<dyn Authenticator>,
}

/// Network address of the caller; absent where the transport does not tell.
#[derive(Clone, Copy, Debug)]
pub struct SourceAddress(pub SocketAddr);

impl<S> Layer<S> for IdentityLayer {
    type Service = IdentityService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        IdentityService { inner, authenticator: Arc::clone(&self.authenticator) }
    }
}

impl<S> Service<Request<Body>> for IdentityService<S>
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

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let tls = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>();
        let tcp = tls.map_or_else(|| request.extensions().get::<TcpConnectInfo>(), |tls| Some(tls.get_ref()));
        let source = tcp.and_then(TcpConnectInfo::remote_addr);
        let certificates = tls.and_then(TlsConnectInfo::peer_certs);
        let outcome = bearer_token(&request).and_then(|bearer_token| {
            self.authenticator.authenticate(&Credentials {
                bearer_token,
                client_certificate: certificates.as_ref().and_then(|chain| chain.first()).map(|leaf| &**leaf),
            })
        });
        match outcome {
            Ok(identity) => {
                request.extensions_mut().insert(identity);
                if let Some(source) = source {
                    request.extensions_mut().insert(SourceAddress(source));
                }
                Box::pin(self.inner.call(request))
            }
            Err(problem) => {
                let id = request.extensions().get::<RequestId>().map_or(Uuid::nil(), |id| id.0);
                let response = to_status(&ApiError::Unauthenticated(problem), id).into_http();
                Box::pin(async move { Ok(response) })
            }
        }
    }
}

fn bearer_token(request: &Request<Body>) -> Result<Option<&str>, &'static str> {
    let mut values = request.headers().get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err("more than one authorization header; send one");
    }
    let text = value.to_str().map_err(|_| "the authorization header is not ASCII")?;
    match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() => {
            Ok(Some(token))
        }
        _ => Err("the authorization header must be `Bearer TOKEN`"),
    }
}
