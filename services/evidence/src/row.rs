//! A row of the log as evidence carries it: every column that the hash covers, and the hash.

use catrust_domain::{AccountId, InstanceId, LogEpoch, RecordedEvent, SerialNumber, Sha256, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A row. Its names are those of the columns; absent values are left out. Nothing else may
/// stand beside them: it would look proved, and not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvidenceRow {
    /// Global position, from 1.
    pub position: u64,
    /// Identity of the event.
    pub event_id: Uuid,
    /// Aggregate that the event belongs to.
    pub stream_id: String,
    /// Number of the event in its stream, from 1.
    pub stream_version: u64,
    /// Instance that the event belongs to.
    pub instance_id: InstanceId,
    /// Instance revision that the event made; trust changes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Digest of the trust bundle after the event; trust changes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle_digest: Option<Sha256>,
    /// Serial number of the CA certificate; trust changes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sn: Option<SerialNumber>,
    /// Type of the event.
    pub event_type: String,
    /// Version of the payload's shape.
    pub schema_version: u16,
    /// The fact: JSON, byte for byte as stored, hence a string.
    pub payload: String,
    /// Principal that asked for it.
    pub actor: String,
    /// Account of the principal.
    pub account_id: AccountId,
    /// Version of the policies that allowed it.
    pub policy_version: String,
    /// Network address that the call came from; empty where unknown.
    pub source_address: String,
    /// Request that asked for it.
    pub request_id: Uuid,
    /// W3C trace context of the call; empty where there was none.
    pub traceparent: String,
    /// When it was committed, RFC 3339 with six digits of fraction.
    pub occurred_at: Timestamp,
    /// Link of the chain.
    pub hash: Sha256,
}

impl From<RecordedEvent> for EvidenceRow {
    fn from(event: RecordedEvent) -> Self {
        Self {
            position: event.position,
            event_id: event.event_id,
            stream_id: event.stream_id,
            stream_version: event.stream_version,
            instance_id: event.instance_id,
            revision: event.revision,
            bundle_digest: event.bundle_digest,
            sn: event.sn,
            event_type: event.event_type,
            schema_version: event.schema_version,
            payload: event.payload,
            actor: event.actor,
            account_id: event.account_id,
            policy_version: event.policy_version,
            source_address: event.source_address,
            request_id: event.request_id,
            traceparent: event.traceparent,
            occurred_at: event.occurred_at,
            hash: event.hash,
        }
    }
}

impl From<EvidenceRow> for RecordedEvent {
    fn from(row: EvidenceRow) -> Self {
        Self {
            position: row.position,
            event_id: row.event_id,
            stream_id: row.stream_id,
            stream_version: row.stream_version,
            instance_id: row.instance_id,
            revision: row.revision,
            bundle_digest: row.bundle_digest,
            sn: row.sn,
            event_type: row.event_type,
            schema_version: row.schema_version,
            payload: row.payload,
            actor: row.actor,
            account_id: row.account_id,
            policy_version: row.policy_version,
            source_address: row.source_address,
            request_id: row.request_id,
            traceparent: row.traceparent,
            occurred_at: row.occurred_at,
            hash: row.hash,
            // Of other rows it is not known here, and not needed: only trust changes fold.
            epoch: row.revision.map(LogEpoch::of_revision).unwrap_or_default(),
        }
    }
}
