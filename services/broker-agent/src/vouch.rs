//! A verdict: which CA vouches for a device, and on which path.

use std::sync::Arc;

use catrust_domain::Sha256;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::{CertificateError, Error as TlsError};

use crate::anchor::Validity;

/// Why a device is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The agent has not heard from the control plane for too long, or never:
    /// nobody new is trusted until it has.
    #[error("the trust bundle is too old to admit anybody")]
    Stale,
    /// The peer showed no certificate.
    #[error("there is no client certificate")]
    NoCertificate,
    /// More than 8 intermediate certificates, or over 16 KiB altogether.
    #[error("the certificate chain is too long")]
    ChainTooLong,
    /// The peer's certificate is not X.509 as we read it.
    #[error("the certificate is malformed")]
    Malformed,
    /// An inactive CA's key or certificate is on every path that there is.
    #[error("the certificate depends on an inactive CA")]
    Inactive,
    /// No active CA certificate, valid now, leads to the peer's certificate; or the
    /// peer's certificate is expired, or not for client authentication.
    #[error("no active CA vouches for the certificate")]
    Path(#[source] webpki::Error),
}

impl Refusal {
    /// A word for metrics.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::NoCertificate => "no_certificate",
            Self::ChainTooLong => "chain_too_long",
            Self::Malformed => "malformed",
            Self::Inactive => "inactive",
            Self::Path(_) => "path",
        }
    }
}

impl From<Refusal> for TlsError {
    /// Chooses the alert that the device sees.
    fn from(refusal: Refusal) -> Self {
        let reason = match refusal {
            Refusal::NoCertificate => return Self::NoCertificatesPresented,
            Refusal::Stale => CertificateError::ApplicationVerificationFailure,
            Refusal::ChainTooLong | Refusal::Malformed => CertificateError::BadEncoding,
            Refusal::Inactive => CertificateError::Revoked,
            Refusal::Path(webpki::Error::CertExpired { .. }) => CertificateError::Expired,
            Refusal::Path(webpki::Error::CertNotValidYet { .. }) => CertificateError::NotValidYet,
            Refusal::Path(webpki::Error::RequiredEkuNotFoundContext(_)) => CertificateError::InvalidPurpose,
            Refusal::Path(_) => CertificateError::UnknownIssuer,
        };
        Self::InvalidCertificate(reason)
    }
}

/// The issuing side of a path: what all devices below it share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct IssuerPath {
    /// The registered CA certificate.
    pub(crate) anchor: Sha256,
    /// Its key.
    pub(crate) anchor_key: Sha256,
    /// Certificate and key of each intermediate, the device's issuer first.
    pub(crate) intermediates: Vec<(Sha256, Sha256)>,
    /// When all of them are valid.
    pub(crate) validity: Validity,
}

/// A device's certificate chain and the path that vouches for it.
#[derive(Clone, Debug)]
pub struct Vouch {
    pub(crate) path: Arc<IssuerPath>,
    pub(crate) leaf_key: Sha256,
    pub(crate) leaf_validity: Validity,
    /// As the device sent it, its own certificate first: a change may need another
    /// path through it.
    pub(crate) chain: Arc<[CertificateDer<'static>]>,
}

impl Vouch {
    /// SHA-256 of the CA certificate that vouches.
    #[must_use]
    pub fn anchor(&self) -> Sha256 {
        self.path.anchor
    }

    /// SHA-256 of each public key on the path, the device's own first, the CA's last.
    pub fn keys(&self) -> impl Iterator<Item = Sha256> + '_ {
        let intermediates = self.path.intermediates.iter().map(|(_, key)| *key);
        std::iter::once(self.leaf_key).chain(intermediates).chain([self.path.anchor_key])
    }

    /// The chain that the device sent, its own certificate first.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// Whether the verdict, true in its trust set, is true at `now` as well.
    pub(crate) fn holds_at(&self, now: UnixTime) -> bool {
        self.path.validity.intersect(self.leaf_validity).contains(now)
    }
}
