//! Follows a stream of the server over lost connections.

use std::time::Duration;

use tonic::Status;

use crate::api_client::{ApiClient, worth_repeating};
use crate::failure::Failure;

/// Times in a row that the stream may fail before the command gives up.
const MAX_FAILURES: u32 = 10;
/// Pause before it is opened again; a draining replica has another one beside it.
const PAUSE: Duration = Duration::from_millis(500);

/// Why a stream was left.
pub(crate) enum StreamFailure {
    /// It broke; it may be opened again.
    Stream(Status),
    /// The command cannot go on.
    Failure(Failure),
}

impl From<Status> for StreamFailure {
    fn from(status: Status) -> Self {
        Self::Stream(status)
    }
}

impl From<Failure> for StreamFailure {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// Opens the stream by `read`, again and again until that says that all is done. `read` sets
/// its argument when a message comes: only failures without one in between are counted.
pub(crate) async fn follow(
    api: &ApiClient,
    mut read: impl AsyncFnMut(&mut bool) -> Result<(), StreamFailure>,
) -> Result<(), Failure> {
    let mut failures = 0;
    loop {
        let mut heard = false;
        let status = match read(&mut heard).await {
            Ok(()) => return Ok(()),
            Err(StreamFailure::Failure(failure)) => return Err(failure),
            Err(StreamFailure::Stream(status)) => status,
        };
        failures = if heard { 1 } else { failures + 1 };
        if failures >= MAX_FAILURES || !worth_repeating(&status) {
            return Err(api.failure(&status));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
