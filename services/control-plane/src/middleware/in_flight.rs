//! Knows which calls are in progress, to the last byte of their replies, so that a
//! server that leaves waits for those and for nothing else: an idle connection, or
//! one that never said anything, is no reason to stay.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use super::{Middleware, ResponseFuture};

/// Adds the layer described in the module's documentation.
#[derive(Clone, Debug)]
pub(crate) struct InFlightLayer(pub(crate) TaskTracker);

impl Middleware for InFlightLayer {
    fn call<S>(&self, inner: &mut S, request: Request<Body>) -> ResponseFuture<S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>, Future: Send + 'static>,
    {
        let call = self.0.token();
        let reply = inner.call(request);
        Box::pin(async move {
            let reply = reply.await?;
            Ok(reply.map(|body| Body::new(TrackedBody { body, _call: call })))
        })
    }
}

/// A reply's body, and the call that lasts until it is gone.
struct TrackedBody {
    body: Body,
    _call: TaskTrackerToken,
}

impl http_body::Body for TrackedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
