//! The append-only table of facts: its rows, and the chain that holds them.
//!
//! `hash = SHA-256(previous hash ‖ canonical row)`, where the canonical row is the
//! netstrings (`<length>:<bytes>,`) of every column but `hash`, in the order of
//! the table, absent values as empty ones. One byte changed in any row breaks
//! the chain from that row on.

use std::io::Write as _;

use sha2::Digest as _;
use uuid::Uuid;

use crate::digest::Sha256;
use crate::event::{Event, UndecodableEvent};
use crate::identifiers::{AccountId, InstanceId};
use crate::log_epoch::LogEpoch;
use crate::serial_number::SerialNumber;
use crate::timestamp::Timestamp;

/// Appends one netstring to `out`.
pub fn put_netstring(out: &mut Vec<u8>, bytes: &[u8]) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{}:", bytes.len());
    out.extend_from_slice(bytes);
    out.push(b',');
}

/// The end of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogHead {
    /// Last position; 0 for an empty log.
    pub position: u64,
    /// Hash of the last row; [`Sha256::ZERO`] for an empty log.
    pub hash: Sha256,
    /// When the last event occurred; the epoch for an empty log.
    pub occurred_at: Timestamp,
}

impl LogHead {
    /// The head of an empty log.
    pub const EMPTY: Self = Self { position: 0, hash: Sha256::ZERO, occurred_at: Timestamp::from_micros(0) };
}

/// One row of the log, as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedEvent {
    /// Global position: 1, 2, 3, … in commit order, without gaps.
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
    pub revision: Option<u64>,
    /// Digest of the trust bundle after the event; trust changes only.
    pub bundle_digest: Option<Sha256>,
    /// Serial number of the CA certificate; trust changes only.
    pub sn: Option<SerialNumber>,
    /// Type, see [`Event::event_type`].
    pub event_type: String,
    /// Version of the payload's shape.
    pub schema_version: u16,
    /// JSON, byte for byte as written.
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
    /// When it was committed. Never decreases with the position.
    pub occurred_at: Timestamp,
    /// Link of the chain.
    pub hash: Sha256,
    /// Epoch that the row belongs to: that of the last one to begin at or before it.
    ///
    /// Not a column, and not hashed: it follows from the rows before. A trust change has it
    /// in its revision as well.
    pub epoch: LogEpoch,
}

impl RecordedEvent {
    /// Computes the hash that this row has after the one with `previous`,
    /// whatever `hash` says.
    #[must_use]
    pub fn compute_hash(&self, previous: &Sha256) -> Sha256 {
        let mut row = Vec::with_capacity(self.payload.len() + 640);
        let number = |row: &mut Vec<u8>, value: u64| put_netstring(row, value.to_string().as_bytes());
        number(&mut row, self.position);
        put_netstring(&mut row, self.event_id.to_string().as_bytes());
        put_netstring(&mut row, self.stream_id.as_bytes());
        number(&mut row, self.stream_version);
        put_netstring(&mut row, self.instance_id.as_str().as_bytes());
        put_netstring(&mut row, self.revision.map(|r| r.to_string()).unwrap_or_default().as_bytes());
        put_netstring(&mut row, self.bundle_digest.map(|d| d.to_string()).unwrap_or_default().as_bytes());
        put_netstring(&mut row, self.sn.as_ref().map_or("", SerialNumber::as_str).as_bytes());
        put_netstring(&mut row, self.event_type.as_bytes());
        number(&mut row, u64::from(self.schema_version));
        put_netstring(&mut row, self.payload.as_bytes());
        put_netstring(&mut row, self.actor.as_bytes());
        put_netstring(&mut row, self.account_id.as_str().as_bytes());
        put_netstring(&mut row, self.policy_version.as_bytes());
        put_netstring(&mut row, self.source_address.as_bytes());
        put_netstring(&mut row, self.request_id.to_string().as_bytes());
        put_netstring(&mut row, self.traceparent.as_bytes());
        put_netstring(&mut row, self.occurred_at.micros().to_string().as_bytes());
        let mut hasher = sha2::Sha256::new();
        hasher.update(previous.0);
        hasher.update(&row);
        Sha256(hasher.finalize().into())
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// [`UndecodableEvent`]; the caller MUST stop, not skip.
    pub fn decode(&self) -> Result<Event, UndecodableEvent> {
        Event::decode(&self.event_type, self.schema_version, &self.payload)
    }

    /// The head of a log that ends with this event.
    #[must_use]
    pub const fn head(&self) -> LogHead {
        LogHead { position: self.position, hash: self.hash, occurred_at: self.occurred_at }
    }
}

/// A row of the log, and the event that it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// The row.
    pub row: RecordedEvent,
    /// What [`RecordedEvent::decode`] gives of it.
    pub event: Event,
}

impl TryFrom<RecordedEvent> for LogEntry {
    type Error = UndecodableEvent;

    fn try_from(row: RecordedEvent) -> Result<Self, UndecodableEvent> {
        Ok(Self { event: row.decode()?, row })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trust_change() -> RecordedEvent {
        RecordedEvent {
            position: 7,
            event_id: Uuid::from_u128(1),
            stream_id: format!("ca-certificate/fleet-1/{}", "ab".repeat(32)),
            stream_version: 2,
            instance_id: "fleet-1".parse().unwrap(),
            revision: Some(3),
            bundle_digest: Some(Sha256([0xcd; 32])),
            sn: Some("7A0F".parse().unwrap()),
            event_type: "CaCertificateActivated".to_owned(),
            schema_version: 1,
            payload: "{\"é\":1}".to_owned(),
            actor: "spiffe://example/ops".to_owned(),
            account_id: "acme".parse().unwrap(),
            policy_version: "policy-4".to_owned(),
            source_address: "192.0.2.7".to_owned(),
            request_id: Uuid::from_u128(2),
            traceparent: "00-11-22-01".to_owned(),
            occurred_at: Timestamp::from_micros(1_764_000_000_000_001),
            hash: Sha256::ZERO,
            epoch: LogEpoch::FIRST,
        }
    }

    /// Stored hashes were made so: an audit tool in another language must agree.
    /// The values were computed with Python's `hashlib`.
    #[test]
    fn known_hashes_stay() {
        let known = "20901926c41b379098fdbb54a8df149bee8e1fb810cf128c069390dcfee874cc";
        assert_eq!(trust_change().compute_hash(&Sha256([0xef; 32])).to_string(), known);

        let first = RecordedEvent {
            position: 1,
            stream_id: "instance/fleet-1".to_owned(),
            stream_version: 1,
            revision: None,
            bundle_digest: None,
            sn: None,
            event_type: "InstanceRegistered".to_owned(),
            payload: "{}".to_owned(),
            actor: "a".to_owned(),
            policy_version: String::new(),
            source_address: String::new(),
            traceparent: String::new(),
            occurred_at: Timestamp::from_micros(-1),
            ..trust_change()
        };
        let known = "2170831e653cfa7e6956e47fb047be227ef57ba814a0b97435d1971577fdfd72";
        assert_eq!(first.compute_hash(&Sha256::ZERO).to_string(), known);
    }

    #[test]
    fn the_stored_hash_is_not_hashed() {
        let mut event = trust_change();
        let hash = event.compute_hash(&Sha256::ZERO);
        event.hash = Sha256([1; 32]);
        assert_eq!(event.compute_hash(&Sha256::ZERO), hash);
    }

    #[test]
    fn a_link_depends_on_the_one_before() {
        let event = trust_change();
        assert_ne!(event.compute_hash(&Sha256::ZERO), event.compute_hash(&Sha256([1; 32])));
    }

    #[test]
    fn text_moved_into_the_next_column_changes_the_hash() {
        let event = trust_change();
        let moved = RecordedEvent {
            policy_version: "policy-".to_owned(),
            source_address: "4192.0.2.7".to_owned(),
            ..trust_change()
        };
        assert_ne!(event.compute_hash(&Sha256::ZERO), moved.compute_hash(&Sha256::ZERO));
    }

    prop_compose! {
        fn any_sha256()(bytes in any::<[u8; 32]>()) -> Sha256 {
            Sha256(bytes)
        }
    }

    prop_compose! {
        fn any_event()(
            numbers in any::<(u64, u64, Option<u64>, u16, i64)>(),
            ids in any::<(u128, u128)>(),
            names in ("[a-c]{1,2}", "[a-c]{1,2}"),
            texts in prop::collection::vec(".{0,3}", 7),
            digest in prop::option::of(any_sha256()),
            sn in prop::option::of("[0-9A-F]{1,3}"),
        ) -> RecordedEvent {
            let [stream_id, event_type, payload, actor, policy_version, source_address, traceparent] =
                <[String; 7]>::try_from(texts).unwrap();
            RecordedEvent {
                position: numbers.0,
                event_id: Uuid::from_u128(ids.0),
                stream_id,
                stream_version: numbers.1,
                instance_id: names.0.parse().unwrap(),
                revision: numbers.2,
                bundle_digest: digest,
                sn: sn.map(|text| text.parse().unwrap()),
                event_type,
                schema_version: numbers.3,
                payload,
                actor,
                account_id: names.1.parse().unwrap(),
                policy_version,
                source_address,
                request_id: Uuid::from_u128(ids.1),
                traceparent,
                occurred_at: Timestamp::from_micros(numbers.4),
                hash: Sha256::ZERO,
                epoch: LogEpoch::FIRST,
            }
        }
    }

    /// The row `at` with one column at a time taken from `other`.
    fn with_each_column_of(at: &RecordedEvent, other: RecordedEvent) -> Vec<RecordedEvent> {
        // Without `..`, so that a new column cannot be forgotten here.
        let RecordedEvent {
            position,
            event_id,
            stream_id,
            stream_version,
            instance_id,
            revision,
            bundle_digest,
            sn,
            event_type,
            schema_version,
            payload,
            actor,
            account_id,
            policy_version,
            source_address,
            request_id,
            traceparent,
            occurred_at,
            hash: _,
            epoch: _,
        } = other;
        vec![
            RecordedEvent { position, ..at.clone() },
            RecordedEvent { event_id, ..at.clone() },
            RecordedEvent { stream_id, ..at.clone() },
            RecordedEvent { stream_version, ..at.clone() },
            RecordedEvent { instance_id, ..at.clone() },
            RecordedEvent { revision, ..at.clone() },
            RecordedEvent { bundle_digest, ..at.clone() },
            RecordedEvent { sn, ..at.clone() },
            RecordedEvent { event_type, ..at.clone() },
            RecordedEvent { schema_version, ..at.clone() },
            RecordedEvent { payload, ..at.clone() },
            RecordedEvent { actor, ..at.clone() },
            RecordedEvent { account_id, ..at.clone() },
            RecordedEvent { policy_version, ..at.clone() },
            RecordedEvent { source_address, ..at.clone() },
            RecordedEvent { request_id, ..at.clone() },
            RecordedEvent { traceparent, ..at.clone() },
            RecordedEvent { occurred_at, ..at.clone() },
        ]
    }

    proptest! {
        #[test]
        fn any_changed_column_breaks_the_chain(
            event in any_event(),
            other in any_event(),
            previous in any_sha256(),
        ) {
            let hash = event.compute_hash(&previous);
            for changed in with_each_column_of(&event, other) {
                prop_assert_eq!(changed == event, changed.compute_hash(&previous) == hash, "{:?}", changed);
            }
        }
    }
}
