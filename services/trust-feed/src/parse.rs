//! From the wire back to the domain, with every claim checked that can be checked
//! without the state of the reader.
//!
//! `sha256` and `spki_sha256` are checked against the certificate itself, so that
//! whoever enforces may rely on both.

use std::str::FromStr;
use std::sync::Arc;

use catrust_domain::log_epoch::revision_count;
use catrust_domain::trust_bundle::TrustEntry;
use catrust_domain::{
    CaState, CertificateFacts, InactivationScope, InstanceId, Sha256, Timestamp, TrustBundle,
};
use catrust_proto::v1 as proto;
use uuid::Uuid;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

use crate::{canonical, pem};

/// A message that does not say what the contract asks. Refuse it; its sender has a
/// defect, or is another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("field {field} {reason}")]
pub struct InvalidMessage {
    /// Name of the field, as in the contract.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// A trust change, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Identity of the log.
    pub log_id: Uuid,
    /// Position in the log.
    pub position: u64,
    /// Instance whose trust changed.
    pub instance_id: InstanceId,
    /// Revision that the change makes; it applies onto the one before.
    pub revision: u64,
    /// Digest of the bundle after the change.
    pub digest: Sha256,
    /// The CA certificate.
    pub certificate: Arc<CertificateFacts>,
    /// Its state afterwards; `None` where it leaves the bundle.
    pub state: Option<CaState>,
    /// Whether the last wills of cut sessions shall be published.
    pub with_will: bool,
    /// Reason given; may be empty.
    pub reason: String,
    /// When it was committed.
    pub occurred_at: Timestamp,
    /// W3C trace context of the call; empty where there was none.
    pub traceparent: String,
}

impl TryFrom<&proto::TrustChange> for Change {
    type Error = InvalidMessage;

    fn try_from(change: &proto::TrustChange) -> Result<Self, InvalidMessage> {
        if change.revision.checked_sub(1) != Some(change.previous_revision) {
            return Err(InvalidMessage { field: "previous_revision", reason: "is not revision - 1" });
        }
        if revision_count(change.revision) == 0 {
            return Err(InvalidMessage { field: "revision", reason: "is that of no change" });
        }
        if change.position < revision_count(change.revision) {
            return Err(InvalidMessage { field: "position", reason: "is below the revision" });
        }
        let entry = change.entry.as_ref().ok_or(InvalidMessage { field: "entry", reason: "is missing" })?;
        let state = state(entry)?;
        if change.deleted != state.is_none() {
            return Err(InvalidMessage { field: "deleted", reason: "contradicts the entry's state" });
        }
        Ok(Self {
            log_id: parse("log_id", &change.log_id)?,
            position: change.position,
            instance_id: parse("mqtt_instance_id", &change.mqtt_instance_id)?,
            revision: change.revision,
            digest: sha256("bundle_digest", &change.bundle_digest)?,
            certificate: Arc::new(certificate(entry)?),
            state,
            with_will: change.with_will,
            reason: change.reason.clone(),
            occurred_at: time("occurred_at", change.occurred_at.as_ref())?,
            traceparent: change.traceparent.clone(),
        })
    }
}

/// Parses a bundle message: entries in order, none twice, and their digest is the
/// stated one.
///
/// # Errors
/// [`InvalidMessage`] names the field.
pub fn trust_bundle(message: &proto::TrustBundle) -> Result<(Uuid, TrustBundle), InvalidMessage> {
    let mut entries: Vec<TrustEntry> = Vec::with_capacity(message.entries.len());
    for entry in &message.entries {
        let state = state(entry)?.ok_or(InvalidMessage { field: "state", reason: "is not stated" })?;
        let facts = Arc::new(certificate(entry)?);
        if entries.last().is_some_and(|last| last.facts.sha256 >= facts.sha256) {
            return Err(InvalidMessage { field: "entries", reason: "are not ascending by sha256" });
        }
        entries.push(TrustEntry { facts, state });
    }
    let digest = sha256("bundle_digest", &message.bundle_digest)?;
    if TrustBundle::compute_digest(&entries) != digest {
        return Err(InvalidMessage { field: "bundle_digest", reason: "is not that of the entries" });
    }
    let bundle = TrustBundle {
        instance_id: parse("mqtt_instance_id", &message.mqtt_instance_id)?,
        revision: message.revision,
        position: message.position,
        digest,
        entries,
    };
    Ok((parse("log_id", &message.log_id)?, bundle))
}

/// Parses a SHA-256 value in its one spelling: 64 lower-case hexadecimal digits.
///
/// # Errors
/// [`InvalidMessage`] names `field`.
pub fn sha256(field: &'static str, text: &str) -> Result<Sha256, InvalidMessage> {
    let invalid = InvalidMessage { field, reason: "is not 64 lower-case hexadecimal digits" };
    let value: Sha256 = text.parse().map_err(|_| invalid)?;
    if value.to_string() == text { Ok(value) } else { Err(invalid) }
}

/// Parses a time.
///
/// # Errors
/// [`InvalidMessage`] where it is missing, out of range, or finer than a microsecond.
pub fn time(
    field: &'static str,
    time: Option<&catrust_proto::Timestamp>,
) -> Result<Timestamp, InvalidMessage> {
    let invalid = InvalidMessage { field, reason: "is not a time in whole microseconds" };
    time.and_then(canonical::micros).map(Timestamp::from_micros).ok_or(invalid)
}

/// Parses an identifier.
///
/// # Errors
/// [`InvalidMessage`] names `field`.
pub fn parse<T: FromStr>(field: &'static str, text: &str) -> Result<T, InvalidMessage> {
    text.parse().map_err(|_| InvalidMessage { field, reason: "is malformed" })
}

/// The state of an entry; `None` where it is UNSPECIFIED.
fn state(entry: &proto::TrustEntry) -> Result<Option<CaState>, InvalidMessage> {
    use proto::{CaCertificateState as State, InactivationScope as Scope};
    let unknown = |field| InvalidMessage { field, reason: "is unknown to this version" };
    let state = State::try_from(entry.state).map_err(|_| unknown("state"))?;
    let scope = Scope::try_from(entry.inactivation_scope).map_err(|_| unknown("inactivation_scope"))?;
    match (state, scope) {
        (State::Unspecified, Scope::Unspecified) => Ok(None),
        (State::Active, Scope::Unspecified) => Ok(Some(CaState::Active)),
        (State::Inactive, Scope::Key) => Ok(Some(CaState::Inactive(InactivationScope::Key))),
        (State::Inactive, Scope::Certificate) => Ok(Some(CaState::Inactive(InactivationScope::Certificate))),
        _ => Err(InvalidMessage { field: "inactivation_scope", reason: "contradicts the state" }),
    }
}

fn certificate(entry: &proto::TrustEntry) -> Result<CertificateFacts, InvalidMessage> {
    let facts = CertificateFacts {
        sn: parse("sn", &entry.sn)?,
        sha256: sha256("sha256", &entry.sha256)?,
        spki_sha256: sha256("spki_sha256", &entry.spki_sha256)?,
        subject: entry.subject.clone(),
        subject_key_id: entry.subject_key_id.clone(),
        issuer: entry.issuer.clone(),
        not_before: time("not_before", entry.not_before.as_ref())?,
        not_after: time("not_after", entry.not_after.as_ref())?,
        ca_content: entry.ca_content.clone(),
    };
    let der = pem::decode_one::<pem::CertificateDer<'_>>(&facts.ca_content)
        .ok_or(InvalidMessage { field: "ca_content", reason: "is not one PEM certificate" })?;
    if Sha256::of(&der) != facts.sha256 {
        return Err(InvalidMessage { field: "sha256", reason: "is not that of ca_content" });
    }
    match X509Certificate::from_der(&der) {
        Ok(([], certificate)) => {
            if Sha256::of(certificate.public_key().raw) != facts.spki_sha256 {
                return Err(InvalidMessage { field: "spki_sha256", reason: "is not that of ca_content" });
            }
        }
        _ => return Err(InvalidMessage { field: "ca_content", reason: "is not an X.509 certificate" }),
    }
    Ok(facts)
}
