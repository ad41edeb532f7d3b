//! Bounds the calls in progress, and refuses inactivations last.
//!
//! Turning trust off is what callers need most when things go wrong, so one fifth
//! of the places is kept for `InactivateCaCertificate`. Streams hold no place:
//! their number has its own limits. One user may hold half of the places: who
//! opens calls and lets them hang must not stop the others.

use std::sync::Arc;

use http::{Request, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::body::Body;
use tower::Service;

use super::request_id::RequestId;
use super::{Middleware, ResponseFuture, answer};
use crate::error::{ApiError, to_status};
use crate::per_user::{PerUser, UserShare};
use catrust_access::Identity;

const SHED_LAST: &str = "/catrust.v1.CaCertificateService/InactivateCaCertificate";

/// Adds the layer described in the module's documentation. Clones share the places.
#[derive(Clone, Debug)]
pub(crate) struct LoadShedLayer {
    all: Arc<Semaphore>,
    most: Arc<Semaphore>,
    of_users: PerUser,
}

impl LoadShedLayer {
    /// At most `places` calls in progress; other calls than inactivations share
    /// four fifths of them.
    #[must_use]
    pub(crate) fn new(places: usize) -> Self {
        let places = places.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            all: Arc::new(Semaphore::new(places)),
            most: Arc::new(Semaphore::new((places - places / 5).max(1))),
            of_users: PerUser::new(places / 2),
        }
    }
}

/// A place, a share of the four fifths, and of the user's half; given back when dropped.
type Place = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>, Option<UserShare>);

impl LoadShedLayer {
    fn take(&self, user: Option<&Arc<str>>, shed_last: bool) -> Option<Place> {
        let take = |places: &Arc<Semaphore>| Arc::clone(places).try_acquire_owned().ok();
        let shared = if shed_last { None } else { Some(take(&self.most)?) };
        let share = user.map(|user| self.of_users.take(user).ok_or(())).transpose().ok()?;
        Some((take(&self.all)?, shared, share))
    }
}

impl Middleware for LoadShedLayer {
    fn call<S>(&self, inner: &mut S, request: Request<Body>) -> ResponseFuture<S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>, Future: Send + 'static>,
    {
        let user = request.extensions().get::<Identity>().map(|identity| &identity.principal);
        let Some(place) = self.take(user, request.uri().path() == SHED_LAST) else {
            return answer(to_status(&ApiError::Overloaded, RequestId::of(&request)).into_http());
        };
        let reply = inner.call(request);
        Box::pin(async move {
            let reply = reply.await;
            drop(place);
            reply
        })
    }
}

#[cfg(test)]
mod tests {
    use tonic::{Code, Status};
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    #[tokio::test]
    async fn inactivations_pass_when_everything_else_is_refused() {
        let service = LoadShedLayer::new(5).layer(service_fn(|_request: Request<Body>| {
            std::future::pending::<Result<Response<Body>, std::convert::Infallible>>()
        }));
        let call = |path: &'static str| {
            let request = Request::builder().uri(path).body(Body::empty()).unwrap();
            tokio::spawn(service.clone().oneshot(request))
        };
        let get = "/catrust.v1.CaCertificateService/GetCaCertificate";
        let held: Vec<_> = (0..4).map(|_| call(get)).collect();
        tokio::task::yield_now().await;
        let refused = call(get).await.unwrap().unwrap();
        assert_eq!(Status::from_header_map(refused.headers()).unwrap().code(), Code::Unavailable);
        let passed = call(SHED_LAST);
        tokio::task::yield_now().await;
        assert!(!passed.is_finished(), "the inactivation is in progress, not refused");
        let refused = call(SHED_LAST).await.unwrap().unwrap();
        assert_eq!(Status::from_header_map(refused.headers()).unwrap().code(), Code::Unavailable);
        drop((held, passed));
    }
}
