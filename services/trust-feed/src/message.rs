//! From the log to the wire: what each row, bundle and head says to brokers.
//!
//! Everything here is a pure function of its arguments, so that any replica with
//! the same key makes the same bytes. Bodies are ProtoJSON.

use std::sync::Arc;

use bytes::Bytes;
use catrust_domain::event::UndecodableEvent;
use catrust_domain::{
    CaState, CertificateFacts, Event, InactivationScope, Instance, InstanceId, RecordedEvent, Sha256,
    Timestamp, TrustBundle,
};
use catrust_proto::v1 as proto;
use uuid::Uuid;

pub use crate::canonical::timestamp;
use crate::canonical::{NotCanonical, Signed as _};
use crate::feed::TailMessage;
use crate::signing::SigningKey;
use crate::subject;

/// How long after its issue a head proves that its revision is current, in seconds.
pub const HEAD_VALIDITY_SECONDS: i64 = 10;

/// A row of which no message can be made. The publisher MUST stop there: a skipped
/// row may be a CA that somebody still trusts.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// The row's event is of a newer version, or damaged.
    #[error("the event at position {position} cannot be read")]
    Undecodable {
        /// Position of the row.
        position: u64,
        /// Why.
        #[source]
        source: UndecodableEvent,
    },
    /// The row is a trust change without revision or digest.
    #[error("the trust change at position {position} has no revision or digest")]
    Incomplete {
        /// Position of the row.
        position: u64,
    },
    /// A value cannot be written as JSON: a time beyond what RFC 3339 can say.
    #[error("the event at position {position} has no ProtoJSON form")]
    NoJson {
        /// Position of the row.
        position: u64,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A value has no canonical form.
    #[error("the event at position {position} cannot be signed")]
    Unsignable {
        /// Position of the row.
        position: u64,
        /// Why.
        #[source]
        source: NotCanonical,
    },
}

/// What a message of the stream says.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedBody {
    /// A change of trust.
    Change(Arc<proto::TrustChange>),
    /// Any other event.
    Log(Arc<proto::LogEvent>),
}

/// One message of the stream: what log position `position` looks like on the wire.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedMessage {
    /// Log position, and the sequence that the message MUST get.
    pub position: u64,
    /// Identity of the log.
    pub log_id: Uuid,
    /// Subject to publish on.
    pub subject: String,
    /// Instance that the event belongs to.
    pub instance_id: InstanceId,
    /// Identity of the event.
    pub event_id: Uuid,
    /// Type of the event.
    pub event_type: String,
    /// Hash of the row.
    pub event_hash: Sha256,
    /// When it was committed.
    pub occurred_at: Timestamp,
    /// W3C trace context of the call; empty where there was none.
    pub traceparent: String,
    /// The signed message.
    pub body: FeedBody,
    /// The signed message, ProtoJSON.
    pub json: Bytes,
}

impl FeedMessage {
    /// Makes the message of a row and signs it.
    ///
    /// # Errors
    /// [`MessageError`]: stop, never skip.
    pub fn new(log_id: Uuid, row: &RecordedEvent, key: &SigningKey) -> Result<Self, MessageError> {
        Self::of_event(log_id, row, &decode(row)?, key)
    }

    /// As [`FeedMessage::new`], of a row whose payload is `decoded`.
    ///
    /// # Errors
    /// As [`FeedMessage::new`].
    pub fn of_event(
        log_id: Uuid,
        event: &RecordedEvent,
        decoded: &Event,
        key: &SigningKey,
    ) -> Result<Self, MessageError> {
        let position = event.position;
        let unsignable = |source| MessageError::Unsignable { position, source };
        let no_json = |source| MessageError::NoJson { position, source };
        let (subject, body, json) = match change_of_event(log_id, event, decoded)? {
            Some((sha256, mut change)) => {
                change.sign(key).map_err(unsignable)?;
                let json = serde_json::to_vec(&change).map_err(no_json)?;
                (subject::trust(&event.instance_id, &sha256), FeedBody::Change(Arc::new(change)), json)
            }
            None => {
                let mut other = log_event(log_id, event);
                other.sign(key).map_err(unsignable)?;
                let json = serde_json::to_vec(&other).map_err(no_json)?;
                (subject::log(&event.instance_id, &event.event_type), FeedBody::Log(Arc::new(other)), json)
            }
        };
        Ok(Self {
            position,
            log_id,
            subject,
            instance_id: event.instance_id.clone(),
            event_id: event.event_id,
            event_type: event.event_type.clone(),
            event_hash: event.hash,
            occurred_at: event.occurred_at,
            traceparent: event.traceparent.clone(),
            body,
            json: json.into(),
        })
    }
}

impl FeedMessage {
    /// How the message identifies itself as the last one of a feed.
    #[must_use]
    pub const fn tail(&self) -> TailMessage {
        TailMessage { log_id: self.log_id, event_hash: self.event_hash }
    }
}

/// The unsigned trust change of a row, with the certificate's identity; `None`
/// where the row is not a trust change.
///
/// # Errors
/// [`MessageError::Undecodable`], [`MessageError::Incomplete`].
pub fn trust_change(
    log_id: Uuid,
    row: &RecordedEvent,
) -> Result<Option<(Sha256, proto::TrustChange)>, MessageError> {
    change_of_event(log_id, row, &decode(row)?)
}

fn decode(row: &RecordedEvent) -> Result<Event, MessageError> {
    row.decode().map_err(|source| MessageError::Undecodable { position: row.position, source })
}

fn change_of_event(
    log_id: Uuid,
    row: &RecordedEvent,
    event: &Event,
) -> Result<Option<(Sha256, proto::TrustChange)>, MessageError> {
    let position = row.position;
    let Some(effect) = event.trust_effect() else { return Ok(None) };
    let incomplete = MessageError::Incomplete { position };
    let (Some(revision), Some(digest)) = (row.revision, row.bundle_digest) else { return Err(incomplete) };
    let Some(previous_revision) = revision.checked_sub(1) else { return Err(incomplete) };
    let change = proto::TrustChange {
        log_id: log_id.to_string(),
        position,
        event_id: row.event_id.to_string(),
        event_type: row.event_type.clone(),
        mqtt_instance_id: row.instance_id.to_string(),
        revision,
        previous_revision,
        bundle_digest: digest.to_string(),
        entry: Some(trust_entry(effect.certificate, effect.state)),
        deleted: effect.state.is_none(),
        with_will: effect.with_will,
        reason: effect.reason.to_owned(),
        occurred_at: Some(timestamp(row.occurred_at)),
        event_hash: row.hash.to_string(),
        traceparent: row.traceparent.clone(),
        signature: None,
    };
    Ok(Some((effect.certificate.sha256, change)))
}

/// The unsigned log event of a row: the payload as stored, whatever it is.
#[must_use]
pub fn log_event(log_id: Uuid, row: &RecordedEvent) -> proto::LogEvent {
    proto::LogEvent {
        log_id: log_id.to_string(),
        position: row.position,
        event_id: row.event_id.to_string(),
        event_type: row.event_type.clone(),
        schema_version: u32::from(row.schema_version),
        mqtt_instance_id: row.instance_id.to_string(),
        payload: row.payload.clone(),
        actor: row.actor.clone(),
        request_id: row.request_id.to_string(),
        occurred_at: Some(timestamp(row.occurred_at)),
        event_hash: row.hash.to_string(),
        traceparent: row.traceparent.clone(),
        signature: None,
        epoch: row.epoch.0,
    }
}

/// The unsigned bundle message.
#[must_use]
pub fn trust_bundle(log_id: Uuid, bundle: &TrustBundle, issued_at: Timestamp) -> proto::TrustBundle {
    proto::TrustBundle {
        log_id: log_id.to_string(),
        mqtt_instance_id: bundle.instance_id.to_string(),
        revision: bundle.revision,
        position: bundle.position,
        bundle_digest: bundle.digest.to_string(),
        entries: bundle.entries.iter().map(|entry| trust_entry(&entry.facts, Some(entry.state))).collect(),
        issued_at: Some(timestamp(issued_at)),
        signature: None,
    }
}

/// Where the trust of an instance stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustPoint {
    /// The instance.
    pub instance_id: InstanceId,
    /// Its current revision.
    pub revision: u64,
    /// Log position of the change that made the revision; 0 at revision 0.
    pub position: u64,
    /// Digest of the bundle at `revision`.
    pub digest: Sha256,
}

impl From<&Instance> for TrustPoint {
    fn from(instance: &Instance) -> Self {
        Self {
            instance_id: instance.instance_id.clone(),
            revision: instance.revision,
            position: instance.trust_position,
            digest: instance.bundle_digest,
        }
    }
}

/// The unsigned head of an instance. `issued_at` MUST be a time at which the log
/// was known to hold nothing newer: the head claims it.
#[must_use]
pub fn head(log_id: Uuid, point: &TrustPoint, issued_at: Timestamp) -> proto::Head {
    proto::Head {
        log_id: log_id.to_string(),
        mqtt_instance_id: point.instance_id.to_string(),
        revision: point.revision,
        position: point.position,
        bundle_digest: point.digest.to_string(),
        issued_at: Some(timestamp(issued_at)),
        valid_until: Some(timestamp(issued_at.plus_seconds(HEAD_VALIDITY_SECONDS))),
        signature: None,
        nonce: Vec::new(),
    }
}

/// A state as the contract has it; UNSPECIFIED for a certificate that left the bundle.
fn state_and_scope(state: Option<CaState>) -> (proto::CaCertificateState, proto::InactivationScope) {
    use proto::{CaCertificateState as State, InactivationScope as Scope};
    match state {
        None => (State::Unspecified, Scope::Unspecified),
        Some(CaState::Active) => (State::Active, Scope::Unspecified),
        Some(CaState::Inactive(InactivationScope::Key)) => (State::Inactive, Scope::Key),
        Some(CaState::Inactive(InactivationScope::Certificate)) => (State::Inactive, Scope::Certificate),
    }
}

fn trust_entry(facts: &CertificateFacts, state: Option<CaState>) -> proto::TrustEntry {
    let (state, scope) = state_and_scope(state);
    proto::TrustEntry {
        sn: facts.sn.to_string(),
        sha256: facts.sha256.to_string(),
        spki_sha256: facts.spki_sha256.to_string(),
        subject: facts.subject.clone(),
        subject_key_id: facts.subject_key_id.clone(),
        issuer: facts.issuer.clone(),
        not_before: Some(timestamp(facts.not_before)),
        not_after: Some(timestamp(facts.not_after)),
        ca_content: facts.ca_content.clone(),
        state: state.into(),
        inactivation_scope: scope.into(),
    }
}

#[cfg(test)]
mod tests;
