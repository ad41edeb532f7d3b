//! Ends a request whose message does not arrive: it holds a place of the load shedding,
//! and headers alone cost a caller nothing.
//!
//! For the services of the contract only, whose requests are one message each.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};
use tonic::Status;
use tonic::body::Body;

/// How long a request's message may take to arrive.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The request, whose message has so long to arrive.
#[must_use]
pub(crate) fn bounded(request: Request<Body>) -> Request<Body> {
    request.map(|body| Body::new(TimedBody { body, late: None }))
}

/// A body that is an error once it is late. The clock starts at the first wait, so
/// that a message that is there already costs no timer.
struct TimedBody {
    body: Body,
    late: Option<Pin<Box<Sleep>>>,
}

impl http_body::Body for TimedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) {
            return Poll::Ready(frame);
        }
        let late = self.late.get_or_insert_with(|| Box::pin(sleep(TIMEOUT)));
        match late.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err(Status::deadline_exceeded(
                "the request's message did not arrive in time",
            )))),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_message_that_does_not_come_ends_the_call() {
        let never =
            http_body_util::StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, Status>>());
        let mut body = TimedBody { body: Body::new(never), late: None };
        let started = Instant::now();
        let status = body.frame().await.unwrap().unwrap_err();
        assert_eq!((status.code(), started.elapsed()), (tonic::Code::DeadlineExceeded, TIMEOUT));
    }
}
