//! A verified path, and what has to stay true for it to hold.

use std::sync::Arc;

use catrust_domain::Sha256;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::certificate::{CertificateId, Validity};

/// The issuing side of a path: what all devices below it share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IssuerPath {
    /// The registered CA certificate that vouches.
    pub anchor: CertificateId,
    /// The intermediates, the device's issuer first.
    pub intermediates: Vec<CertificateId>,
    /// When all of them are valid.
    pub validity: Validity,
}

/// A device's certificate and the path that vouches for it.
#[derive(Clone, Debug)]
pub struct TrustPath {
    /// The device's own certificate.
    pub leaf: CertificateId,
    /// When that is valid.
    pub leaf_validity: Validity,
    /// The one user name of a device with this certificate
    /// ([`crate::Certificate::user_name`]).
    pub user_name: String,
    /// The rest of the path.
    pub issuers: Arc<IssuerPath>,
    /// As the device sent it, its own certificate first: a change may need another path
    /// through it.
    pub chain: Arc<[CertificateDer<'static>]>,
}

impl TrustPath {
    /// SHA-256 of the CA certificate that vouches.
    #[must_use]
    pub fn anchor(&self) -> Sha256 {
        self.issuers.anchor.sha256
    }

    /// SHA-256 of each public key on the path, the device's own first, the CA's last.
    pub fn keys(&self) -> impl Iterator<Item = Sha256> + '_ {
        let intermediates = self.issuers.intermediates.iter();
        std::iter::once(&self.leaf)
            .chain(intermediates)
            .chain([&self.issuers.anchor])
            .map(|certificate| certificate.spki_sha256)
    }

    /// When every certificate on it is valid, the device's own included. A session ends
    /// with it.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.issuers.validity.intersection(self.leaf_validity)
    }

    /// Whether the verdict, true in its trust set, is true at `now` as well.
    #[must_use]
    pub fn holds_at(&self, now: UnixTime) -> bool {
        self.validity().contains(now)
    }
}
