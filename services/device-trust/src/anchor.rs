//! One registered CA certificate, read once and kept as long as it is registered.

use rustls_pki_types::{CertificateDer, Der, TrustAnchor};

use crate::certificate::{Certificate, CertificateId, Validity};

/// Why a registered certificate cannot vouch for anybody. Its devices are refused; the
/// other CA certificates of the bundle are not touched by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnusableCertificate {
    /// The content is not one PEM certificate.
    #[error("the content is not a PEM certificate")]
    Pem,
    /// The DER is not an X.509 certificate that can be an anchor.
    #[error("the certificate cannot be read")]
    Certificate,
    /// The DER is another one than the bundle's digests name.
    #[error("the certificate is not the one that its digest names")]
    Digest,
}

/// A registered CA certificate, active or not.
#[derive(Debug)]
pub struct Anchor {
    /// Certificate and key.
    pub id: CertificateId,
    /// When it is valid.
    pub validity: Validity,
    pub(crate) subject: Box<[u8]>,
    pub(crate) key_id: Option<Box<[u8]>>,
    pub(crate) name_constraints: usize,
    /// `None` where webpki cannot use it: it may be inactivated, and vouches for nobody.
    pub(crate) trust_anchor: Option<TrustAnchor<'static>>,
}

impl Anchor {
    /// Reads DER. Dates, names and keys are those of the certificate itself: nothing
    /// that a bundle says beside it is believed.
    ///
    /// # Errors
    /// [`UnusableCertificate::Certificate`].
    pub fn read(der: &[u8]) -> Result<Self, UnusableCertificate> {
        let certificate = Certificate::read(der).map_err(|_| UnusableCertificate::Certificate)?;
        let der = CertificateDer::from(der);
        let trust_anchor = webpki::anchor_from_trusted_cert(&der).ok().map(|anchor| anchor.to_owned());
        Ok(Self {
            id: certificate.id,
            validity: certificate.validity,
            subject: certificate.subject.into(),
            key_id: certificate.key_id.map(Box::from),
            name_constraints: certificate.name_constraints,
            trust_anchor,
        })
    }

    /// As webpki takes it, without a copy.
    pub(crate) fn borrow(&self) -> Option<TrustAnchor<'_>> {
        self.trust_anchor.as_ref().map(|anchor| TrustAnchor {
            subject: Der::from_slice(&anchor.subject),
            subject_public_key_info: Der::from_slice(&anchor.subject_public_key_info),
            name_constraints: anchor.name_constraints.as_deref().map(Der::from_slice),
        })
    }
}
