//! Names every request, and makes sure that every reply carries the name.
//!
//! The id is the caller's `x-request-id` where that is a UUID, else a new one. It
//! goes into the request's extensions for handlers and logs, and into the reply's
//! `x-request-id`. A handler that answers under another id (an idempotency key in
//! the request) sets the header itself.
//!
//! This is the outermost layer. An error that tonic made itself arrives here
//! without details; it is completed, so that every error has `ErrorInfo`.

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Service;
use uuid::Uuid;

use super::{Middleware, ResponseFuture};
use crate::error::complete_bare_status;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestId(pub(crate) Uuid);

impl RequestId {
    /// Name of the request; nil outside of the layer.
    #[must_use]
    pub(crate) fn of<T>(request: &Request<T>) -> Uuid {
        request.extensions().get::<Self>().map_or(Uuid::nil(), |id| id.0)
    }
}

/// Adds the layer described in the module's documentation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RequestIdLayer;

impl Middleware for RequestIdLayer {
    fn call<S>(&self, inner: &mut S, mut request: Request<Body>) -> ResponseFuture<S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>, Future: Send + 'static>,
    {
        let id = from_caller(request.headers()).unwrap_or_else(Uuid::new_v4);
        request.extensions_mut().insert(RequestId(id));
        let reply = inner.call(request);
        Box::pin(async move { reply.await.map(|response| name(complete(response, id), id)) })
    }
}

fn from_caller(headers: &HeaderMap) -> Option<Uuid> {
    headers.get(X_REQUEST_ID)?.to_str().ok()?.parse().ok()
}

fn name(mut response: Response<Body>, id: Uuid) -> Response<Body> {
    response.headers_mut().entry(X_REQUEST_ID).or_insert_with(|| {
        let mut buffer = Uuid::encode_buffer();
        HeaderValue::from_str(id.hyphenated().encode_lower(&mut buffer))
            .unwrap_or_else(|_| HeaderValue::from_static(""))
    });
    response
}

/// Adds the details to an error reply that has none. Such a reply has its status
/// in the headers ("trailers only"), since nothing was sent before.
fn complete(response: Response<Body>, id: Uuid) -> Response<Body> {
    let headers = response.headers();
    if headers.contains_key(Status::GRPC_STATUS_DETAILS) {
        return response;
    }
    match Status::from_header_map(headers) {
        Some(status) if status.code() != Code::Ok => {
            complete_bare_status(status.code(), status.message(), id).into_http()
        }
        _ => response,
    }
}

#[cfg(test)]
mod tests {
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    async fn answer(headers: &[(&'static str, &'static str)], status: Option<Status>) -> Response<Body> {
        let service = RequestIdLayer.layer(service_fn(move |_request: Request<Body>| {
            let response = status.clone().map_or_else(|| Response::new(Body::empty()), Status::into_http);
            async move { Ok::<_, std::convert::Infallible>(response) }
        }));
        let mut request = Request::new(Body::empty());
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        service.oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn the_callers_uuid_is_kept_and_anything_else_replaced() {
        let id = "0b0e7f4e-63f4-4c4b-8d0a-30b1b5a5f6d1";
        let response = answer(&[("x-request-id", id)], None).await;
        assert_eq!(response.headers()[X_REQUEST_ID], id);
        let response = answer(&[("x-request-id", "not a uuid")], None).await;
        assert!(response.headers()[X_REQUEST_ID].to_str().unwrap().parse::<Uuid>().is_ok());
    }

    #[tokio::test]
    async fn an_error_that_tonic_made_gets_details_and_an_id() {
        use tonic_types::StatusExt as _;
        let response = answer(&[], Some(Status::unimplemented(""))).await;
        let id = response.headers()[X_REQUEST_ID].to_str().unwrap().to_owned();
        let status = Status::from_header_map(response.headers()).unwrap();
        let info = status.get_details_error_info().unwrap();
        assert_eq!(status.code(), Code::Unimplemented);
        assert_eq!(info.domain, "catrust");
        assert_eq!(info.metadata["request_id"], id);
    }
}
