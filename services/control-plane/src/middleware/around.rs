//! tower's part of a layer, once for all of them.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

/// What a layer's service returns: boxed, since each layer may answer by itself.
pub(crate) type ResponseFuture<E> = Pin<Box<dyn Future<Output = Result<Response<Body>, E>> + Send>>;

/// What is done with each call on its way to the services behind, and with its reply.
pub(crate) trait Middleware: Clone {
    /// Calls `inner`, which is ready, or answers by itself.
    fn call<S>(&self, inner: &mut S, request: Request<Body>) -> ResponseFuture<S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>, Future: Send + 'static>;

    /// The layer around one service.
    fn layer<S>(&self, inner: S) -> AroundService<Self, S> {
        AroundService { middleware: self.clone(), inner }
    }
}

#[derive(Clone)]
pub(crate) struct Around<M>(pub(crate) M);

#[derive(Clone)]
pub(crate) struct AroundService<M, S> {
    middleware: M,
    inner: S,
}

impl<M: Middleware, S> Layer<S> for Around<M> {
    type Service = AroundService<M, S>;

    fn layer(&self, inner: S) -> Self::Service {
        self.0.layer(inner)
    }
}

impl<M, S> Service<Request<Body>> for AroundService<M, S>
where
    M: Middleware,
    S: Service<Request<Body>, Response = Response<Body>, Future: Send + 'static>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.middleware.call(&mut self.inner, request)
    }
}

/// Answers without the services behind.
pub(super) fn answer<E>(response: Response<Body>) -> ResponseFuture<E> {
    Box::pin(async move { Ok(response) })
}
