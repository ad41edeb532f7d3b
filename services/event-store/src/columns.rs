//! Rows of both engines into the domain's types, by one set of decoders.
//!
//! A row is read by the index of its columns, in the order of the lists in
//! [`crate::queries`]. Whatever does not parse is [`StoreError::Corrupt`], with
//! table and key: the store wrote it, so somebody else changed it.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use catrust_domain::command::StoredReply;
use catrust_domain::set_hash::SetHash;
use catrust_domain::{
    AppliedRevision, BrokerState, CaCertificate, CaState, CertificateFacts, Edition, Enforcement,
    InactivationScope, Instance, OutcomeKind, RecordedEvent, RefusedRevision, RequestKey, Sha256, Timestamp,
};
use uuid::Uuid;

use crate::StoreError;
use crate::replies;

/// What a decoder asks of a row. An error is a text for [`StoreError::Corrupt`].
pub(crate) trait Columns {
    fn text(&self, index: usize) -> Result<&str, String>;
    fn number(&self, index: usize) -> Result<i64, String>;
    fn octets(&self, index: usize) -> Result<&[u8], String>;
    fn uuid(&self, index: usize) -> Result<Uuid, String>;
    fn time(&self, index: usize) -> Result<Timestamp, String>;
    fn is_null(&self, index: usize) -> Result<bool, String>;

    /// A number that is never negative.
    fn count(&self, index: usize) -> Result<u64, String> {
        let number = self.number(index)?;
        u64::try_from(number).map_err(|_| format!("{number} is negative"))
    }

    fn digest(&self, index: usize) -> Result<Sha256, String> {
        let octets = self.octets(index)?;
        Sha256::from_slice(octets).ok_or_else(|| format!("a digest of {} octets", octets.len()))
    }

    fn parsed<T: FromStr<Err: Display>>(&self, index: usize) -> Result<T, String> {
        let text = self.text(index)?;
        text.parse().map_err(|error| format!("{text:?} {error}"))
    }

    fn owned(&self, index: usize) -> Result<String, String> {
        self.text(index).map(str::to_owned)
    }

    /// `None` for NULL, else what `read` gives.
    fn optional<T>(
        &self,
        index: usize,
        read: impl FnOnce(&Self, usize) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        if self.is_null(index)? { Ok(None) } else { read(self, index).map(Some) }
    }
}

/// Reads the columns of `EVENT_COLUMNS` from `at` on.
pub(crate) fn event(row: &impl Columns, at: usize) -> Result<RecordedEvent, StoreError> {
    let read = || {
        Ok(RecordedEvent {
            position: row.count(at)?,
            event_id: row.uuid(at + 1)?,
            stream_id: row.owned(at + 2)?,
            stream_version: row.count(at + 3)?,
            instance_id: row.parsed(at + 4)?,
            revision: row.optional(at + 5, Columns::count)?,
            bundle_digest: row.optional(at + 6, Columns::digest)?,
            sn: row.optional(at + 7, Columns::parsed)?,
            event_type: row.owned(at + 8)?,
            schema_version: u16::try_from(row.number(at + 9)?).map_err(|error| error.to_string())?,
            payload: row.owned(at + 10)?,
            actor: row.owned(at + 11)?,
            account_id: row.parsed(at + 12)?,
            policy_version: row.owned(at + 13)?,
            source_address: row.owned(at + 14)?,
            request_id: row.uuid(at + 15)?,
            traceparent: row.owned(at + 16)?,
            occurred_at: row.time(at + 17)?,
            hash: row.digest(at + 18)?,
        })
    };
    read().map_err(|reason| corrupt("events", &[row.number(at).map(|position| position.to_string())], reason))
}

/// Reads the columns of `INSTANCE_COLUMNS` from `at` on.
pub(crate) fn instance(row: &impl Columns, at: usize) -> Result<Instance, StoreError> {
    let read = || {
        let set_hash = SetHash::from_bytes(row.octets(at + 7)?).ok_or("a set hash of another length")?;
        Ok(Instance {
            instance_id: row.parsed(at)?,
            region_id: row.parsed(at + 1)?,
            owner_account_id: row.parsed(at + 2)?,
            edition: parse_edition(row.text(at + 3)?)?,
            revision: row.count(at + 4)?,
            trust_position: row.count(at + 5)?,
            bundle_digest: row.digest(at + 6)?,
            set_hash,
            certificate_count: u32::try_from(row.number(at + 8)?).map_err(|error| error.to_string())?,
            unspent_register_codes: row.text(at + 9)?.split_ascii_whitespace().map(str::to_owned).collect(),
            registered_at: row.time(at + 10)?,
            registered_position: row.count(at + 11)?,
            updated_at: row.time(at + 12)?,
            updated_position: row.count(at + 13)?,
            stream_version: row.count(at + 14)?,
        })
    };
    read().map_err(|reason| corrupt("instances", &[row.owned(at)], reason))
}

/// Reads the columns of `CERTIFICATE_COLUMNS` from `at` on.
pub(crate) fn certificate(row: &impl Columns, at: usize) -> Result<CaCertificate, StoreError> {
    let read = || {
        Ok(CaCertificate {
            instance_id: row.parsed(at)?,
            facts: Arc::new(facts(row, at + 1)?),
            ca_name: row.owned(at + 10)?,
            register_code: row.owned(at + 11)?,
            state: state(row, at + 12)?,
            registered_at: row.time(at + 14)?,
            registered_position: row.count(at + 15)?,
            state_changed_at: row.time(at + 16)?,
            state_changed_by: row.owned(at + 17)?,
            state_reason: row.owned(at + 18)?,
            revision: row.count(at + 19)?,
            position: row.count(at + 20)?,
            stream_version: row.count(at + 21)?,
        })
    };
    read().map_err(|reason| corrupt("ca_certificates", &[row.owned(at), row.owned(at + 1)], reason))
}

/// Reads the columns of `FACTS_COLUMNS` from `at` on.
pub(crate) fn facts(row: &impl Columns, at: usize) -> Result<CertificateFacts, String> {
    Ok(CertificateFacts {
        sn: row.parsed(at)?,
        sha256: row.digest(at + 1)?,
        spki_sha256: row.digest(at + 2)?,
        subject: row.owned(at + 3)?,
        subject_key_id: row.owned(at + 4)?,
        issuer: row.owned(at + 5)?,
        not_before: row.time(at + 6)?,
        not_after: row.time(at + 7)?,
        ca_content: row.owned(at + 8)?,
    })
}

/// Reads `state, inactivation_scope` from `at` on.
pub(crate) fn state(row: &impl Columns, at: usize) -> Result<CaState, String> {
    let scope = row.optional(at + 1, Columns::owned)?;
    match (row.text(at)?, scope.as_deref()) {
        ("ACTIVE", None) => Ok(CaState::Active),
        ("INACTIVE", Some("KEY")) => Ok(CaState::Inactive(InactivationScope::Key)),
        ("INACTIVE", Some("CERTIFICATE")) => Ok(CaState::Inactive(InactivationScope::Certificate)),
        (state, scope) => Err(format!("state {state:?} with scope {scope:?}")),
    }
}

/// Reads `account_id, request_id, fingerprint, reply` from `at` on, and the event that
/// the reply tells of from `at_event` on, as [`replies::decode`] does.
pub(crate) fn stored_reply(
    row: &impl Columns,
    at: usize,
    at_event: usize,
) -> Result<StoredReply, StoreError> {
    let read = || {
        Ok(StoredReply {
            key: RequestKey { account_id: row.parsed(at)?, request_id: row.uuid(at + 1)? },
            fingerprint: row.digest(at + 2)?,
            reply: replies::decode(row.text(at + 3)?, row, at_event)?,
        })
    };
    let request_id = row.uuid(at + 1).map(|id| id.to_string());
    read().map_err(|reason| corrupt("replies", &[row.owned(at), request_id], reason))
}

/// Reads the columns of `broker_columns!` from `at` on.
pub(crate) fn broker(row: &impl Columns, at: usize) -> Result<BrokerState, StoreError> {
    let read = || {
        Ok(BrokerState {
            instance_id: row.parsed(at)?,
            broker_id: row.parsed(at + 1)?,
            applied: row.optional(at + 2, |row, at| {
                Ok(AppliedRevision {
                    revision: row.count(at)?,
                    digest: row.digest(at + 1)?,
                    applied_at: row.optional(at + 2, Columns::time)?,
                    sessions_cut: row.count(at + 3)?,
                })
            })?,
            refused: row.optional(at + 6, |row, at| {
                Ok(RefusedRevision {
                    revision: row.count(at)?,
                    reason: row.owned(at + 1)?,
                    refused_at: row.time(at + 2)?,
                })
            })?,
            outcome: parse_outcome(row.text(at + 9)?)?,
            enforcement: parse_enforcement(row.text(at + 10)?)?,
            sessions_open: row.count(at + 11)?,
            received_at: row.time(at + 12)?,
        })
    };
    read().map_err(|reason| corrupt("broker_receipts", &[row.owned(at), row.owned(at + 1)], reason))
}

/// The text of an edition in the read model.
pub(crate) const fn edition_text(edition: Edition) -> &'static str {
    match edition {
        Edition::Platinum => "PLATINUM",
        Edition::Professional => "PROFESSIONAL",
        Edition::Standard => "STANDARD",
    }
}

/// The texts of a state in the read model: `state, inactivation_scope`.
pub(crate) const fn state_texts(state: CaState) -> (&'static str, Option<&'static str>) {
    match state {
        CaState::Active => ("ACTIVE", None),
        CaState::Inactive(InactivationScope::Key) => ("INACTIVE", Some("KEY")),
        CaState::Inactive(InactivationScope::Certificate) => ("INACTIVE", Some("CERTIFICATE")),
    }
}

/// The text of an outcome.
pub(crate) const fn outcome_text(outcome: OutcomeKind) -> &'static str {
    match outcome {
        OutcomeKind::Applied => "APPLIED",
        OutcomeKind::Refused => "REFUSED",
    }
}

/// The text of where a broker refuses devices.
pub(crate) const fn enforcement_text(enforcement: Enforcement) -> &'static str {
    match enforcement {
        Enforcement::Tls => "TLS",
        Enforcement::Connect => "CONNECT",
    }
}

/// A position, revision or version as the databases keep it. They count from 1 by
/// one, so that the upper half of 64 bits is out of reach.
pub(crate) fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Names a row that does not parse, by whatever of its key can be read.
pub(crate) fn corrupt(table: &'static str, key: &[Result<String, String>], reason: String) -> StoreError {
    let parts: Vec<&str> = key.iter().map(|part| part.as_deref().unwrap_or("?")).collect();
    StoreError::Corrupt { table, row: parts.join("/"), reason }
}

fn parse_outcome(text: &str) -> Result<OutcomeKind, String> {
    [OutcomeKind::Applied, OutcomeKind::Refused]
        .into_iter()
        .find(|outcome| outcome_text(*outcome) == text)
        .ok_or_else(|| format!("unknown outcome {text:?}"))
}

fn parse_enforcement(text: &str) -> Result<Enforcement, String> {
    [Enforcement::Tls, Enforcement::Connect]
        .into_iter()
        .find(|enforcement| enforcement_text(*enforcement) == text)
        .ok_or_else(|| format!("unknown enforcement {text:?}"))
}

fn parse_edition(text: &str) -> Result<Edition, String> {
    [Edition::Platinum, Edition::Professional, Edition::Standard]
        .into_iter()
        .find(|edition| edition_text(*edition) == text)
        .ok_or_else(|| format!("unknown edition {text:?}"))
}
