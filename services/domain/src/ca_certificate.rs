//! A registered issuing certificate and the switch of its trust.
//!
//! ```text
//! (none) ──Register──▶ ACTIVE ──Inactivate──▶ INACTIVE ──Delete──▶ (none)
//!                        ▲ └──────Delete──▶      │
//!                        └───────Activate────────┘
//! ```

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::digest::Sha256;
use crate::event::{
    CaCertificateActivated, CaCertificateDeleted, CaCertificateInactivated, CaCertificateRegistered, Event,
};
use crate::identifiers::InstanceId;
use crate::log_epoch::MADE_AGAIN_BY;
use crate::rejection::Rejection;
use crate::serial_number::SerialNumber;
use crate::timestamp::Timestamp;

/// What a certificate says about itself, as parsed and checked at registration.
///
/// Part of stored payloads: a changed field is a new schema version of each event
/// that holds it, as [`crate::event`] says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFacts {
    /// Serial number: the alias inside an instance.
    pub sn: SerialNumber,
    /// SHA-256 of the DER: the identity.
    pub sha256: Sha256,
    /// SHA-256 of the DER of the `SubjectPublicKeyInfo`: the identity of the key.
    pub spki_sha256: Sha256,
    /// Subject, RFC 4514.
    pub subject: String,
    /// Subject key identifier, lower-case hexadecimal; empty where there is none.
    pub subject_key_id: String,
    /// Issuer, RFC 4514.
    pub issuer: String,
    /// Start of validity.
    pub not_before: Timestamp,
    /// End of validity, inclusive.
    pub not_after: Timestamp,
    /// PEM, re-encoded from the DER.
    pub ca_content: String,
}

/// How far an inactivation reaches; the wider is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum InactivationScope {
    /// This certificate alone: an active twin with the same key keeps its devices.
    Certificate,
    /// The key, on every path.
    Key,
}

/// Whether brokers accept devices of a CA certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CaState {
    /// They do.
    Active,
    /// They do not.
    Inactive(InactivationScope),
}

impl CaState {
    /// Whether it is [`CaState::Active`].
    #[must_use]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Active)
    }
}

/// Current state of a CA certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaCertificate {
    /// Instance that it belongs to.
    pub instance_id: InstanceId,
    /// What the certificate says about itself.
    pub facts: Arc<CertificateFacts>,
    /// Name given at registration.
    pub ca_name: String,
    /// Code that proved possession of the key.
    pub register_code: String,
    /// Whether brokers accept its devices.
    pub state: CaState,
    /// When it was registered.
    pub registered_at: Timestamp,
    /// Log position of its registration: the order of lists.
    pub registered_position: u64,
    /// When `state` last changed.
    pub state_changed_at: Timestamp,
    /// Principal that last changed it.
    pub state_changed_by: String,
    /// Reason given then.
    pub state_reason: String,
    /// Instance revision that the last change made.
    pub revision: u64,
    /// Log position of the last change.
    pub position: u64,
    /// Number of events in its stream.
    pub stream_version: u64,
}

/// Decides a registration. Whether code, serial number and limit permit it is the
/// instance's business: see [`crate::batch`].
#[must_use]
pub fn decide_register(facts: Arc<CertificateFacts>, ca_name: String, register_code: String) -> Event {
    Event::CaCertificateRegistered(CaCertificateRegistered { certificate: facts, ca_name, register_code })
}

/// Decides an inactivation.
///
/// Gives no event when the certificate is inactive already with at least the
/// asked-for scope, so that a caller may retry. `CERTIFICATE` can be widened to
/// `KEY`, never narrowed: that would turn trust on again by a call that says off.
///
/// # Errors
/// [`Rejection::CertificateNotFound`].
pub fn decide_inactivate(
    state: Option<&CaCertificate>,
    scope: InactivationScope,
    with_will: bool,
    reason: String,
) -> Result<Option<Event>, Rejection> {
    let certificate = state.ok_or(Rejection::CertificateNotFound)?;
    match certificate.state {
        CaState::Inactive(current) if current >= scope => Ok(None),
        CaState::Active | CaState::Inactive(_) => {
            Ok(Some(Event::CaCertificateInactivated(CaCertificateInactivated {
                certificate: Arc::clone(&certificate.facts),
                scope,
                with_will,
                reason,
            })))
        }
    }
}

/// Decides an activation; no event when the certificate is active already.
///
/// `expected_revision` is the newest change that the caller has seen. What a new epoch made
/// inactive again needs it: a late retry of an activation that was lost has seen no such change,
/// and must not let the CA in.
///
/// # Errors
/// [`Rejection::CertificateNotFound`]; [`Rejection::MadeInactiveAgain`] where the certificate
/// was made inactive by a change that the caller has not seen.
pub fn decide_activate(
    state: Option<&CaCertificate>,
    expected_revision: Option<u64>,
    reason: String,
) -> Result<Option<Event>, Rejection> {
    let certificate = state.ok_or(Rejection::CertificateNotFound)?;
    if certificate.state.is_active() {
        return Ok(None);
    }
    let seen = match expected_revision {
        Some(expected) => certificate.revision <= expected,
        None => certificate.state_changed_by != MADE_AGAIN_BY,
    };
    if !seen {
        return Err(Rejection::MadeInactiveAgain { revision: certificate.revision });
    }
    Ok(Some(Event::CaCertificateActivated(CaCertificateActivated {
        certificate: Arc::clone(&certificate.facts),
        reason,
    })))
}

/// Decides a deletion. `active_twins` are the active CA certificates with the same key.
///
/// # Errors
/// [`Rejection::CertificateNotFound`]; [`Rejection::KeyHeldByActive`] where the record
/// that goes is what keeps the key of active twins distrusted: a deletion never
/// turns trust on.
pub fn decide_delete(
    state: Option<&CaCertificate>,
    active_twins: Vec<SerialNumber>,
    with_will: bool,
    reason: String,
) -> Result<Option<Event>, Rejection> {
    let certificate = state.ok_or(Rejection::CertificateNotFound)?;
    let denies_key = certificate.state == CaState::Inactive(InactivationScope::Key);
    if denies_key && !active_twins.is_empty() {
        return Err(Rejection::KeyHeldByActive(active_twins));
    }
    Ok(Some(Event::CaCertificateDeleted(CaCertificateDeleted {
        certificate: Arc::clone(&certificate.facts),
        with_will,
        reason,
    })))
}
