//! What has to be known about a certificate.

use catrust_domain::Sha256;
use rustls_pki_types::UnixTime;
use x509_parser::asn1_rs::{Any, Class, FromDer as _, Tag};
use x509_parser::nom::Parser as _;
use x509_parser::prelude::{X509Certificate, X509CertificateParser, X509Version};

use crate::refusal::Refusal;

/// Extensions, and purposes of extended key usage, that a certificate which a device shows
/// may have. Honest ones have ten and three; each is read once per partial path. Registered
/// certificates are read once for all, and whatever was registered can be inactivated.
const MAX_EXTENSIONS: usize = 32;
const MAX_PURPOSES: usize = 16;
/// Longest common name that is a user name, in bytes: X.520 permits 64 characters of up
/// to 4 bytes.
const MAX_COMMON_NAME: usize = 256;
/// What user names begin with that are no common name.
const DIGEST_PREFIX: &str = "sha256-";
/// `id-kp-clientAuth`, 1.3.6.1.5.5.7.3.2.
const CLIENT_AUTHENTICATION: [u8; 8] = [0x2b, 6, 1, 5, 5, 7, 3, 2];

/// A certificate and its key, by their digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CertificateId {
    /// SHA-256 of the DER.
    pub sha256: Sha256,
    /// SHA-256 of the DER of the `SubjectPublicKeyInfo`.
    pub spki_sha256: Sha256,
}

/// When a certificate is valid: seconds since the epoch, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Validity {
    /// First second.
    pub not_before: i64,
    /// Last second.
    pub not_after: i64,
}

impl Validity {
    /// Whether `now` is inside.
    #[must_use]
    pub fn contains(self, now: UnixTime) -> bool {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
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

/// A certificate, read for what decides about trust. Names and identifiers are DER, and
/// borrowed from the certificate's.
#[derive(Clone, Debug)]
pub struct Certificate<'a> {
    /// Certificate and key.
    pub id: CertificateId,
    /// Whose it is.
    pub subject: &'a [u8],
    /// Who issued it.
    pub issuer: &'a [u8],
    /// When it is valid.
    pub validity: Validity,
    /// Its subject key identifier.
    pub(crate) key_id: Option<&'a [u8]>,
    /// The key identifier of its issuer, as it says.
    pub(crate) authority_key_id: Option<&'a [u8]>,
    /// Whether it may issue certificates of devices: webpki would refuse it otherwise.
    pub(crate) may_issue: bool,
    /// Whether it holds no more than an honest one does.
    pub(crate) is_moderate: bool,
    /// Its alternative names and its subject.
    pub(crate) names: usize,
    /// Its name constraints.
    pub(crate) name_constraints: usize,
    pub(crate) version: X509Version,
    common_name: Option<&'a str>,
}

impl<'a> Certificate<'a> {
    /// Reads DER.
    ///
    /// # Errors
    /// [`Refusal::Malformed`], also where something follows the certificate: its digest
    /// would then be that of other bytes than those that were signed.
    pub fn read(der: &'a [u8]) -> Result<Self, Refusal> {
        let parsed = X509CertificateParser::new().with_deep_parse_extensions(false).parse(der);
        let (rest, x509) = parsed.map_err(|_| Refusal::Malformed)?;
        if !rest.is_empty() {
            return Err(Refusal::Malformed);
        }
        let validity = x509.validity();
        let mut certificate = Self {
            id: CertificateId {
                sha256: Sha256::of(der),
                spki_sha256: Sha256::of(x509.tbs_certificate.subject_pki.raw),
            },
            subject: x509.tbs_certificate.subject.as_raw(),
            issuer: x509.tbs_certificate.issuer.as_raw(),
            validity: Validity {
                not_before: validity.not_before.timestamp(),
                not_after: validity.not_after.timestamp(),
            },
            key_id: None,
            authority_key_id: None,
            may_issue: false,
            is_moderate: x509.extensions().len() <= MAX_EXTENSIONS,
            names: 1,
            name_constraints: 0,
            version: x509.version(),
            common_name: common_name(&x509),
        };
        certificate.read_extensions(&x509);
        Ok(certificate)
    }

    fn read_extensions(&mut self, x509: &X509Certificate<'a>) {
        let (mut is_ca, mut is_for_clients) = (false, true);
        for extension in x509.extensions() {
            let [0x55, 0x1d, number] = extension.oid.as_bytes() else { continue };
            let Ok((_, value)) = Any::from_der(extension.value) else { continue };
            let mut parts = parts(value.data);
            match number {
                14 => self.key_id = Some(value.data),
                17 => self.names += count(value.data),
                19 => is_ca = parts.next().is_some_and(|part| part.tag() == Tag::Boolean && part.data != [0]),
                30 => self.name_constraints += parts.map(|subtrees| count(subtrees.data)).sum::<usize>(),
                35 => self.authority_key_id = parts.find(|part| is_numbered(part, 0)).map(|part| part.data),
                37 => {
                    let purposes: Vec<_> = parts.collect();
                    self.is_moderate &= purposes.len() <= MAX_PURPOSES;
                    is_for_clients = purposes.iter().any(|purpose| purpose.data == CLIENT_AUTHENTICATION);
                }
                _ => {}
            }
        }
        self.may_issue = is_ca && is_for_clients;
    }

    /// The one user name of a device with this certificate: its common name, or
    /// `sha256-` and the certificate's digest in hexadecimal digits. The latter where
    /// there is no common name, or several (which counts would depend on who reads them),
    /// and where it is no printable text of at most 256 bytes, or itself begins with
    /// `sha256-`, which would be another device's.
    #[must_use]
    pub fn user_name(&self) -> String {
        self.common_name.map_or_else(|| format!("{DIGEST_PREFIX}{}", self.id.sha256), str::to_owned)
    }
}

fn common_name<'a>(x509: &X509Certificate<'a>) -> Option<&'a str> {
    let mut names = x509.tbs_certificate.subject.iter_common_name();
    let (first, None) = (names.next()?, names.next()) else { return None };
    let text = first.as_str().ok()?;
    let usable = (1..=MAX_COMMON_NAME).contains(&text.len())
        && !text.starts_with(DIGEST_PREFIX)
        && !text.chars().any(char::is_control);
    usable.then_some(text)
}

/// The elements of a DER sequence, up to the first that is malformed.
fn parts(mut content: &[u8]) -> impl Iterator<Item = Any<'_>> {
    std::iter::from_fn(move || {
        let (rest, part) = Any::from_der(content).ok()?;
        content = rest;
        Some(part)
    })
}

/// Their number, or more where one is malformed.
fn count(content: &[u8]) -> usize {
    let (mut number, mut length) = (0, 0);
    for part in parts(content) {
        number += 1;
        // A header is of 2 bytes at least.
        length += 2 + part.data.len();
    }
    number + content.len().saturating_sub(length) / 2
}

fn is_numbered(part: &Any<'_>, number: u32) -> bool {
    part.class() == Class::ContextSpecific && part.tag() == Tag(number)
}
