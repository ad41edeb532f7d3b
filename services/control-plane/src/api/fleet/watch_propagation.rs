//! `WatchPropagation`: how far a revision has got, until nobody in contact is pending.

use std::pin::Pin;
use std::sync::Arc;

use catrust_domain::{InstanceId, Propagation};
use catrust_proto::v1;
use futures::{Stream, StreamExt as _, stream};
use tokio::time::Instant;
use tonic::Status;
use uuid::Uuid;

use crate::access::{Action, Identity};
use crate::api::{Api, Call, Fields, convert, standing};
use crate::error::{ApiError, to_status};
use crate::fleet::view::Changes;
use crate::per_user::Share;

/// The messages of one stream.
pub type PropagationStream = Pin<Box<dyn Stream<Item = Result<v1::WatchPropagationResponse, Status>> + Send>>;

pub(super) async fn handle(
    api: &Arc<Api>,
    call: &mut Call,
    request: v1::WatchPropagationRequest,
) -> Result<PropagationStream, ApiError> {
    let mut fields = Fields::default();
    let Some(id) = fields.instance_id(&request.mqtt_instance_id) else { return Err(fields.into_error()) };

    api.admit(call, &id, Action::GetPropagation).await?;
    let revision = super::revision(api, &id, request.revision).await?;
    let share = api.take_stream(call)?;
    let follower = Follower {
        changes: api.fleet.changes(&id),
        api: Arc::clone(api),
        id,
        revision,
        request_id: call.request_id,
        deadline: call.deadline,
        identity: call.identity.clone(),
        last: None,
        ended: false,
        _share: share,
    };
    // Runs as far as its reader reads: who is slow skips states, and holds none up.
    let messages = stream::unfold(follower, |mut follower| async move {
        let message = follower.next().await?;
        Some((message, follower))
    });
    Ok(messages.boxed())
}

struct Follower {
    api: Arc<Api>,
    id: InstanceId,
    revision: u64,
    request_id: Uuid,
    deadline: Option<Instant>,
    identity: Identity,
    changes: Changes,
    /// What the reader was sent last.
    last: Option<Propagation>,
    ended: bool,
    /// Of the streams that its user may have open.
    _share: Share,
}

impl Follower {
    /// The next message; `None` at the end.
    async fn next(&mut self) -> Option<Result<v1::WatchPropagationResponse, Status>> {
        if self.ended {
            return None;
        }
        let (draining, clock) = (self.api.draining.clone(), Arc::clone(&self.api.clock));
        let identity = self.identity.clone();
        let deadline = self.deadline;
        let expired = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let outcome = tokio::select! {
            () = draining.cancelled() => Err(ApiError::Draining),
            () = expired => Err(ApiError::DeadlineExceeded),
            error = standing::lost(&identity, &clock) => Err(error),
            found = self.changed() => found,
        };
        self.ended = outcome.as_ref().map_or(true, |found| found.pending.is_empty());
        Some(match outcome {
            Ok(found) => Ok(v1::WatchPropagationResponse {
                request_id: self.request_id.to_string(),
                propagation: Some(convert::propagation(&self.id, &found)),
            }),
            Err(error) => Err(to_status(&error, self.request_id)),
        })
    }

    /// Waits until there is something that the reader does not know.
    async fn changed(&mut self) -> Result<Propagation, ApiError> {
        loop {
            if self.last.is_some() {
                self.changes.next().await;
            }
            let found = self.api.fleet.propagation(&self.id, self.revision).await?;
            if self.last.as_ref() != Some(&found) {
                self.last = Some(found.clone());
                return Ok(found);
            }
        }
    }
}
