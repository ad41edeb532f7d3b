//! What a client certificate says about its bearer. TLS has verified it.

use catrust_domain::{Sha256, Timestamp};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::FromDer as _;

use crate::distinguished_name::rfc4514;

/// A verified client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The SPIFFE id, else the subject (RFC 4514). `None` for one with more than one SPIFFE
    /// id (X.509-SVID §2: exactly one), and for one without any name.
    pub name: Option<String>,
    /// SHA-256 of its DER: what tokens are bound to (RFC 8705 §3.1).
    pub sha256: Sha256,
    /// From when on it is not accepted. A connection may outlive its certificate.
    pub expires_at: Timestamp,
}

impl ClientCertificate {
    /// Reads it. `None` for what is no certificate.
    #[must_use]
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        // notAfter is the last second of its validity (RFC 5280 §4.1.2.5).
        let end = certificate.validity().not_after.timestamp().saturating_add(1);
        Some(Self {
            name: name(&certificate),
            sha256: Sha256::of(der),
            expires_at: Timestamp::from_micros(end.saturating_mul(1_000_000)),
        })
    }
}

fn name(certificate: &X509Certificate<'_>) -> Option<String> {
    let alternative_names = certificate
        .get_extension_unique(&OID_X509_EXT_SUBJECT_ALT_NAME)
        .ok()?
        .map(X509Extension::parsed_extension);
    if let Some(ParsedExtension::SubjectAlternativeName(names)) = alternative_names {
        let mut ids = names.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) if uri.starts_with("spiffe://") => Some(*uri),
            _ => None,
        });
        match (ids.next(), ids.next()) {
            (Some(id), None) => return Some(id.to_owned()),
            (Some(_), Some(_)) => return None,
            (None, _) => {}
        }
    }
    Some(rfc4514(certificate.subject())).filter(|subject| !subject.is_empty())
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn read(common_name: Option<&str>, uris: &[&str]) -> ClientCertificate {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.not_after = rcgen::date_time_ymd(2030, 1, 1);
        let key = KeyPair::generate().unwrap();
        ClientCertificate::read(params.self_signed(&key).unwrap().der()).unwrap()
    }

    #[test]
    fn the_spiffe_id_goes_before_the_subject_and_two_are_none() {
        let (a, b) = ("spiffe://example.org/a", "spiffe://example.org/b");
        assert_eq!(read(Some("svc"), &[a]).name.as_deref(), Some(a));
        assert_eq!(read(Some("svc"), &["https://example.org", a]).name.as_deref(), Some(a));
        assert_eq!(read(Some("svc"), &["https://example.org"]).name.as_deref(), Some("CN=svc"));
        assert_eq!(read(Some("svc"), &[]).name.as_deref(), Some("CN=svc"));
        assert_eq!(read(Some("svc"), &[a, b]).name, None);
        assert_eq!(read(None, &[]).name, None);
    }

    #[test]
    fn it_ends_after_its_last_second() {
        assert_eq!(read(Some("svc"), &[]).expires_at.micros(), 1_893_456_001_000_000);
        assert_eq!(ClientCertificate::read(b"no certificate"), None);
    }
}
