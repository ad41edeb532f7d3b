//! `ProveEvent`.

use catrust_domain::{RecordedEvent, SerialNumber};
use catrust_proto::v1;
use catrust_proto::v1::prove_event_request::Event;
use catrust_trust_feed::message::timestamp;
use uuid::Uuid;

use crate::api::{Api, Call, Fields};
use crate::error::ApiError;
use catrust_access::Action;

/// Which event.
enum EventSelector {
    At(u64),
    Named(Uuid),
}

pub(super) async fn handle(
    api: &Api,
    call: &mut Call,
    request: v1::ProveEventRequest,
) -> Result<v1::ProveEventResponse, ApiError> {
    let mut fields = Fields::default();
    let id = fields.instance_id(&request.mqtt_instance_id);
    let wanted = wanted(&mut fields, request.event.as_ref());
    let (Some(id), Some(wanted)) = (id, wanted) else { return Err(fields.into_error()) };

    api.admit(call, &id, Action::ListCaCertificateEvents).await?;
    let found = match wanted {
        EventSelector::At(position) => api.store.read(position - 1, 1).await?.pop(),
        EventSelector::Named(event_id) => api.store.find_event(event_id).await?,
    };
    // Must not tell that the event exists in another instance.
    let event = found.filter(|event| event.instance_id == id).ok_or(ApiError::EventNotFound)?;
    api.ground.check()?;
    let proof = api.evidence.prove(event.clone()).await;
    let proof = proof.map_err(|error| ApiError::Internal(format!("no proof could be made: {error:#}")))?;
    Ok(v1::ProveEventResponse {
        request_id: call.request_id.to_string(),
        row: Some(log_row(event)),
        previous_event_hash: proof.previous_hash.to_string(),
        inclusion_path: proof.inclusion_path.iter().map(ToString::to_string).collect(),
        checkpoint: proof.checkpoint,
    })
}

fn wanted(fields: &mut Fields, event: Option<&Event>) -> Option<EventSelector> {
    match event {
        None => fields.complain("event", "is required: a position or an event_id"),
        Some(Event::Position(position)) if *position > 0 && i64::try_from(*position).is_ok() => {
            return Some(EventSelector::At(*position));
        }
        Some(Event::Position(_)) => fields.complain("position", "must be 1 or more, as events have it"),
        Some(Event::EventId(text)) => match Uuid::try_parse(text) {
            Ok(id) if text.len() == 36 => return Some(EventSelector::Named(id)),
            _ => fields.complain("event_id", "is not a UUID like 020f6a43-19e6-4b6e-b846-44eb31df0000"),
        },
    }
    None
}

fn log_row(event: RecordedEvent) -> v1::LogRow {
    v1::LogRow {
        position: event.position,
        event_id: event.event_id.to_string(),
        stream_id: event.stream_id,
        stream_version: event.stream_version,
        mqtt_instance_id: event.instance_id.to_string(),
        revision: event.revision,
        bundle_digest: event.bundle_digest.map(|digest| digest.to_string()),
        sn: event.sn.as_ref().map(SerialNumber::to_string),
        event_type: event.event_type,
        schema_version: event.schema_version.into(),
        payload: event.payload,
        actor: event.actor,
        account_id: event.account_id.to_string(),
        policy_version: event.policy_version,
        source_address: event.source_address,
        request_id: event.request_id.to_string(),
        traceparent: event.traceparent,
        occurred_at: Some(timestamp(event.occurred_at)),
        event_hash: event.hash.to_string(),
    }
}
