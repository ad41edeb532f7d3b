//! What the plugin needs to know about a certificate.

use catrust_domain::Sha256;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// A certificate and its key, by their identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// SHA-256 of the DER.
    pub sha256: Sha256,
    /// SHA-256 of the DER of the `SubjectPublicKeyInfo`.
    pub spki_sha256: Sha256,
}

/// When a certificate is valid: seconds since the epoch, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before: i64,
    /// Last second.
    pub not_after: i64,
}

impl Validity {
    /// Whether `now`, in seconds since the epoch, is inside.
    #[must_use]
    pub const fn contains(self, now: i64) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// When both are valid.
    #[must_use]
    pub fn intersection(self, other: Self) -> Self {
        Self {
            not_before: self.not_before.max(other.not_before),
            not_after: self.not_after.min(other.not_after),
        }
    }
}

/// The parts of a certificate that decide about trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its identities.
    pub link: Link,
    /// DER of the subject.
    pub subject: Vec<u8>,
    /// DER of the issuer.
    pub issuer: Vec<u8>,
    /// When it is valid.
    pub validity: Validity,
    /// The only common name of the subject, where it is text.
    pub common_name: Option<String>,
}

/// The octets are not one X.509 certificate in DER.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an X.509 certificate")]
pub struct NotACertificate;

impl Certificate {
    /// Reads DER.
    ///
    /// # Errors
    /// [`NotACertificate`], also where something follows the certificate: its digest
    /// would then be that of other octets than those that were signed.
    pub fn parse(der: &[u8]) -> Result<Self, NotACertificate> {
        let (rest, x509) = X509Certificate::from_der(der).map_err(|_| NotACertificate)?;
        if !rest.is_empty() {
            return Err(NotACertificate);
        }
        let validity = x509.validity();
        Ok(Self {
            link: Link {
                sha256: Sha256::of(der),
                spki_sha256: Sha256::of(x509.tbs_certificate.subject_pki.raw),
            },
            subject: x509.subject().as_raw().to_vec(),
            issuer: x509.issuer().as_raw().to_vec(),
            validity: Validity {
                not_before: validity.not_before.timestamp(),
                not_after: validity.not_after.timestamp(),
            },
            common_name: common_name(&x509),
        })
    }
}

/// Several common names are ambiguous: the user name would depend on who reads them.
fn common_name(x509: &X509Certificate<'_>) -> Option<String> {
    let mut names = x509.subject().iter_common_name();
    let (first, second) = (names.next()?, names.next());
    let text = first.as_str().ok()?;
    let plain = !text.is_empty() && !text.chars().any(char::is_control);
    (second.is_none() && plain).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PublicKeyData as _};

    use super::*;
    use crate::testing::Authority;

    #[test]
    fn identities_and_names_are_read() {
        let authority = Authority::new("A");
        let device = authority.device("d1");
        let ca = Certificate::parse(&authority.der).unwrap();
        let leaf = Certificate::parse(&device.der).unwrap();
        assert_eq!(leaf.issuer, ca.subject);
        assert_eq!(leaf.link.sha256, Sha256::of(&device.der));
        let key = KeyPair::try_from(device.key_der).unwrap();
        assert_eq!(leaf.link.spki_sha256, Sha256::of(&key.subject_public_key_info()));
        assert_eq!(leaf.common_name.as_deref(), Some("d1"));
        assert!(leaf.validity.contains(1_700_000_000));
    }

    #[test]
    fn an_ambiguous_or_unprintable_common_name_is_none() {
        let authority = Authority::new("A");
        let twice = authority.device_with("one", |params| {
            params.distinguished_name.push(rcgen::DnType::CustomDnType(vec![2, 5, 4, 3]), "two");
        });
        assert_eq!(Certificate::parse(&twice.der).unwrap().common_name, None);
        for name in ["", "a\0b", "a\nb"] {
            let device = authority.device(name);
            assert_eq!(Certificate::parse(&device.der).unwrap().common_name, None, "{name:?}");
        }
    }

    #[test]
    fn octets_behind_the_certificate_are_refused() {
        let mut der = Authority::new("A").der;
        assert!(Certificate::parse(&der).is_ok());
        der.push(0);
        assert_eq!(Certificate::parse(&der), Err(NotACertificate));
        assert_eq!(Certificate::parse(b""), Err(NotACertificate));
    }

    #[test]
    fn the_validity_includes_both_ends() {
        let validity = Validity { not_before: 10, not_after: 20 };
        let inside: Vec<i64> = (8..23).filter(|now| validity.contains(*now)).collect();
        assert_eq!(inside, (10..=20).collect::<Vec<i64>>());
        let other = Validity { not_before: 15, not_after: 30 };
        assert_eq!(validity.intersection(other), Validity { not_before: 15, not_after: 20 });
    }
}
