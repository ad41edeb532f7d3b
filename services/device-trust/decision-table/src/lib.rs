//! The decision table: who is admitted, as whom, and who is refused why. Run through every
//! way in by a real handshake, so that all of them decide alike.
//!
//! leaf × path × state × scope × time

mod authority;
mod rows;

pub use authority::{Authority, Device, FUTURE, NOW, PAST, Span};
use catrust_domain::{CaState, InactivationScope, Sha256};
pub use rows::rows;
use rustls_pki_types::CertificateDer;

/// Trusted.
pub const ACTIVE: CaState = CaState::Active;
/// Inactive with its key.
pub const INACTIVE: CaState = CaState::Inactive(InactivationScope::Key);
/// Inactive alone.
pub const SUPERSEDED: CaState = CaState::Inactive(InactivationScope::Certificate);

/// One case.
#[derive(Clone, Debug)]
pub struct Row {
    /// What it is about.
    pub name: String,
    /// The trust of the instance.
    pub trust: Vec<(CertificateDer<'static>, CaState)>,
    /// Who comes.
    pub device: Device,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// What becomes of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It gets in.
    Admitted {
        /// SHA-256 of the CA certificate that vouches.
        anchor: Sha256,
        /// The name by which the broker knows it.
        user_name: String,
    },
    /// It does not, and sees this TLS alert, as rustls spells it.
    Refused(Alert),
}

/// What a refused device sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alert {
    /// No active CA vouches.
    UnknownCa,
    /// The CA is inactive.
    Revoked,
    /// Not in its time.
    Expired,
    /// For another purpose.
    Unsupported,
    /// Not a certificate that can be used at all.
    Bad,
    /// Whatever the TLS stack says to bytes that it does not take for a certificate.
    Any,
}

impl Alert {
    /// Part of the error that a rustls client has.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::UnknownCa => "UnknownCA",
            Self::Revoked => "CertificateRevoked",
            Self::Expired => "CertificateExpired",
            Self::Unsupported => "UnsupportedCertificate",
            Self::Bad => "BadCertificate",
            Self::Any => "",
        }
    }
}
