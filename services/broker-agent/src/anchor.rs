//! One registered CA certificate, parsed once and kept as long as it is registered.

use catrust_domain::{CertificateFacts, Sha256};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, Der, TrustAnchor, UnixTime};
use x509_parser::prelude::{FromDer as _, ParsedExtension, X509Certificate};

/// Why a registered certificate cannot vouch for anybody. Its devices are refused;
/// the other CA certificates of the bundle are not touched by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnusableCertificate {
    /// `ca_content` is not one PEM certificate.
    #[error("the content is not a PEM certificate")]
    Pem,
    /// The DER is not an X.509 certificate that can be an anchor.
    #[error("the certificate cannot be parsed")]
    Certificate,
    /// The DER is another one than `sha256` or `spki_sha256` names.
    #[error("the certificate is not the one that its digest names")]
    Digest,
}

/// The seconds since the epoch in which a certificate is valid, both inclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Validity {
    pub(crate) from: i64,
    pub(crate) until: i64,
}

impl Validity {
    /// Of `certificate`, as RFC 5280 §4.1.2.5 states it.
    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Self {
        let validity = certificate.validity();
        Self { from: validity.not_before.timestamp(), until: validity.not_after.timestamp() }
    }

    pub(crate) fn contains(self, now: UnixTime) -> bool {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        self.from <= now && now <= self.until
    }

    pub(crate) fn intersect(self, other: Self) -> Self {
        Self { from: self.from.max(other.from), until: self.until.min(other.until) }
    }
}

/// A CA certificate in the form that path building wants it.
#[derive(Debug)]
pub(crate) struct Anchor {
    pub(crate) sha256: Sha256,
    pub(crate) key: Sha256,
    pub(crate) validity: Validity,
    /// Subject key identifier; empty where there is none.
    pub(crate) key_id: Vec<u8>,
    pub(crate) trust_anchor: TrustAnchor<'static>,
}

impl Anchor {
    /// Parses a bundle's entry. Dates, names and keys are read from the certificate
    /// itself, not from the facts beside it: the bundle digest covers only what
    /// follows from `sha256`.
    pub(crate) fn parse(facts: &CertificateFacts) -> Result<Self, UnusableCertificate> {
        let der = CertificateDer::from_pem_slice(facts.ca_content.as_bytes())
            .map_err(|_| UnusableCertificate::Pem)?;
        let (_, certificate) =
            X509Certificate::from_der(&der).map_err(|_| UnusableCertificate::Certificate)?;
        let key = Sha256::of(certificate.public_key().raw);
        if Sha256::of(&der) != facts.sha256 || key != facts.spki_sha256 {
            return Err(UnusableCertificate::Digest);
        }
        let trust_anchor =
            webpki::anchor_from_trusted_cert(&der).map_err(|_| UnusableCertificate::Certificate)?.to_owned();
        Ok(Self {
            sha256: facts.sha256,
            key,
            validity: Validity::of(&certificate),
            key_id: subject_key_id(&certificate).unwrap_or_default().to_vec(),
            trust_anchor,
        })
    }

    /// The anchor as webpki takes it, without copying it.
    pub(crate) fn borrow(&self) -> TrustAnchor<'_> {
        TrustAnchor {
            subject: Der::from_slice(&self.trust_anchor.subject),
            subject_public_key_info: Der::from_slice(&self.trust_anchor.subject_public_key_info),
            name_constraints: self.trust_anchor.name_constraints.as_deref().map(Der::from_slice),
        }
    }
}

fn subject_key_id<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    })
}

/// Authority key identifier of `certificate`.
pub(crate) fn authority_key_id<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    })
}
