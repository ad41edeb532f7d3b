//! `WatchPropagation`: how far a revision has got, until nobody in contact is pending.

use std::pin::Pin;
use std::sync::Arc;

use catrust_domain::{InstanceId, Propagation};
use catrust_proto::v1;
use futures::{Stream, StreamExt as _, stream};
use tokio::time::Instant;
use tonic::Status;
use uuid::Uuid;

use crate::api::standing::Standing;
use crate::api::{Api, Call, Fields, convert};
use crate::error::{ApiError, to_status};
use crate::fleet::view::Changes;
use crate::per_user::UserShare;
use catrust_access::Action;

pub(crate) type PropagationStream =
    Pin<Box<dyn Stream<Item = Result<v1::WatchPropagationResponse, Status>> + Send>>;

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
    let follower = PropagationWatcher {
        changes: api.fleet.changes(&id),
        standing: Standing::new(api, call, &id, Action::GetPropagation),
        api: Arc::clone(api),
        id,
        revision,
        request_id: call.request_id,
        deadline: call.deadline,
        last: None,
        ended: false,
        _share: share,
    };
    // Computes a state only when the reader takes one: a slow reader skips states, and delays nobody.
    let messages = stream::unfold(follower, |mut follower| async move {
        let message = follower.next().await?;
        Some((message, follower))
    });
    Ok(messages.boxed())
}

struct PropagationWatcher {
    api: Arc<Api>,
    id: InstanceId,
    revision: u64,
    request_id: Uuid,
    deadline: Option<Instant>,
    standing: Standing,
    changes: Changes,
    /// What the reader was sent last.
    last: Option<Propagation>,
    ended: bool,
    /// Of the streams that its user may have open.
    _share: UserShare,
}

impl PropagationWatcher {
    /// The next message; `None` at the end.
    async fn next(&mut self) -> Option<Result<v1::WatchPropagationResponse, Status>> {
        if self.ended {
            return None;
        }
        let draining = self.api.draining.clone();
        let deadline = self.deadline;
        let expired = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let ground = self.api.ground.clone();
        let outcome = tokio::select! {
            error = ground.lost() => Err(error),
            () = draining.cancelled() => Err(ApiError::Draining),
            () = expired => Err(ApiError::DeadlineExceeded),
            found = self.changed_or_lost() => found,
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

    /// The next state, or why there will be none.
    async fn changed_or_lost(&mut self) -> Result<Propagation, ApiError> {
        let Self { api, id, revision, changes, last, standing, .. } = self;
        tokio::select! {
            error = standing.lost() => Err(error),
            found = changed(api, id, *revision, changes, last) => found,
        }
    }
}

/// Waits until there is something that the reader does not know.
async fn changed(
    api: &Api,
    id: &InstanceId,
    revision: u64,
    changes: &mut Changes,
    last: &mut Option<Propagation>,
) -> Result<Propagation, ApiError> {
    loop {
        if last.is_some() {
            changes.next().await;
        }
        let found = api.fleet.propagation(id, revision).await?;
        if last.as_ref() != Some(&found) {
            *last = Some(found.clone());
            return Ok(found);
        }
    }
}
