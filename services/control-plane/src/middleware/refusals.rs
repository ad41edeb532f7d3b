//! Notes what was refused, whoever refused it: the layers behind this one, or the handler.
//!
//! Looks at replies that are an error from their first byte on, and there only: a stream
//! that ends later, because its caller may not go on, was no refused call. Failures of the
//! service itself are not refusals.

use std::net::SocketAddr;
use std::sync::Arc;

use catrust_event_store::{Clock, RefusedCall};
use http::{Request, Response, Uri};
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use tower::Service;

use super::{Middleware, ResponseFuture};
use crate::listener::Peer;
use crate::refusals::{CallFacts, RefusalLog};

/// Longest message that is kept, in characters.
const MAX_MESSAGE: usize = 256;

/// Adds the layer described in the module's documentation. Must sit outside every layer
/// that refuses.
#[derive(Clone)]
pub(crate) struct RefusalLayer {
    pub(crate) log: RefusalLog,
    pub(crate) clock: Clock,
}

impl Middleware for RefusalLayer {
    fn call<S>(&self, inner: &mut S, mut request: Request<Body>) -> ResponseFuture<S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>, Future: Send + 'static>,
    {
        let facts = Arc::new(CallFacts::default());
        request.extensions_mut().insert(Arc::clone(&facts));
        let source = request.extensions().get::<Peer>().map(|peer| peer.address);
        let called = request.uri().clone();
        let layer = self.clone();
        let reply = inner.call(request);
        Box::pin(async move {
            let reply = reply.await?;
            // Only a reply that is an error from its start has it in the headers.
            if reply.headers().contains_key("grpc-status") {
                layer.look(&reply, &facts, source, &called);
            }
            Ok(reply)
        })
    }
}

impl RefusalLayer {
    fn look(&self, reply: &Response<Body>, facts: &CallFacts, source: Option<SocketAddr>, called: &Uri) {
        let Some(status) = Status::from_header_map(reply.headers()) else { return };
        if !is_refusal(status.code()) {
            return;
        }
        let Some(info) = status.get_details_error_info() else { return };
        let detail = |name: &str| info.metadata.get(name).cloned().unwrap_or_default();
        let identity = facts.identity.get();
        let now = (self.clock)();
        self.log.note(RefusedCall {
            first_at: now,
            last_at: now,
            attempts: 1,
            principal: identity.map(|identity| identity.principal.to_string()).unwrap_or_default(),
            account_id: identity.map(|identity| identity.account_id.to_string()).unwrap_or_default(),
            method: called.path().to_owned(),
            code: detail("code"),
            message: shortened(status.message()),
            instance_id: facts.instance_id.get().map(ToString::to_string).unwrap_or_default(),
            source_address: source.map(|source| source.ip().to_canonical().to_string()).unwrap_or_default(),
            request_id: detail("request_id"),
        });
    }
}

/// Whether somebody said no, rather than that something failed.
const fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::Unauthenticated
            | Code::PermissionDenied
            | Code::ResourceExhausted
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::OutOfRange
    )
}

/// A database refuses the character 0, and a terminal the others.
fn shortened(message: &str) -> String {
    message.chars().filter(|character| !character.is_control()).take(MAX_MESSAGE).collect()
}
