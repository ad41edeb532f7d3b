//! Marks every reply while the log is set back: reads go on then, and what they say may lack
//! what was acknowledged before.

use http::{HeaderName, HeaderValue, Request, Response};
use tonic::body::Body;
use tower::Service;

use super::{Middleware, ResponseFuture};
use crate::ground::LogGround;

const LOG_STATE: HeaderName = HeaderName::from_static("catrust-log-state");

/// Adds the layer described in the module's documentation.
#[derive(Clone, Debug)]
pub(crate) struct LogStateLayer(pub(crate) LogGround);

impl Middleware for LogStateLayer {
    fn call<S>(&self, inner: &mut S, request: Request<Body>) -> ResponseFuture<S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>, Future: Send + 'static>,
    {
        let reply = inner.call(request);
        let ground = self.0.clone();
        Box::pin(async move {
            let mut reply = reply.await?;
            if ground.reason().is_some() {
                reply.headers_mut().insert(LOG_STATE, HeaderValue::from_static("set-back"));
            }
            Ok(reply)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::{ServiceExt as _, service_fn};

    use super::*;

    #[tokio::test]
    async fn replies_are_marked_while_the_log_is_set_back() {
        let ground = LogGround::default();
        let service = LogStateLayer(ground.clone()).layer(service_fn(async |_request: Request<Body>| {
            Ok::<_, Infallible>(Response::new(Body::empty()))
        }));
        let state = async || {
            let reply = service.clone().oneshot(Request::new(Body::empty())).await.unwrap();
            reply.headers().get(LOG_STATE).cloned()
        };
        assert_eq!(state().await, None);
        ground.lose("it ends at 4");
        assert_eq!(state().await, Some(HeaderValue::from_static("set-back")));
        ground.regain();
        assert_eq!(state().await, None);
    }
}
