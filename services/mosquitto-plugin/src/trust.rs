//! The trust set: which CA certificates vouch for devices, and which keys and
//! certificates may be on no path.
//!
//! Paths are built and verified by rustls-webpki rather than by the broker's OpenSSL,
//! although that one is in the process: webpki says *which* anchor vouched, goes on
//! searching past a path that we deny, and is what the gate and the SDK use, so that
//! all three ways in accept the same devices. What comes with it: certificates of X.509
//! version 1, RSA keys below 2048 bits and SHA-1 signatures are refused, and validity
//! of anchors is our business (they carry no dates in webpki).

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use catrust_domain::digest::Sha256;
use catrust_domain::set_hash::SetHash;
use catrust_domain::trust_bundle::canonical_entry;
use catrust_domain::{CaState, InactivationScope};
use catrust_mosquitto_control::Entry;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};

use crate::certificate::{Certificate, Link, Validity};
use crate::intermediates::Intermediates;

/// Why a device is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no bundle, or it may not be relied on any more.
    #[error("the trust is not current: new sessions are refused until the agent renews it")]
    NotCurrent,
    /// The certificate cannot be read.
    #[error("the certificate is malformed")]
    Malformed,
    /// The certificate is of X.509 version 1, as `openssl x509 -req` makes it without
    /// extensions.
    #[error("the certificate is of X.509 version 1: issue one of version 3")]
    OldVersion,
    /// More than 8 certificates came with it, or more than 16 KiB.
    #[error("the certificate chain is too long")]
    ChainTooLong,
    /// No active CA certificate vouches for it.
    #[error("no active CA certificate vouches for it")]
    UnknownIssuer,
    /// An inactive CA certificate or its key is on its path, or bears its issuer's name.
    #[error("its CA certificate is inactive")]
    Inactive,
    /// There is a path, and a certificate on it is not valid now.
    #[error("a certificate on its path is expired or not yet valid")]
    Expired,
}

/// A path that was verified once: what has to stay true for it to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vouched {
    /// SHA-256 of the CA certificate that vouches.
    pub anchor: Sha256,
    /// The leaf and the intermediates.
    pub links: Vec<Link>,
    /// When all of them are valid.
    pub validity: Validity,
}

/// Why entries make no trust set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEntries {
    /// An entry is not base64, or not a certificate.
    #[error("entry {0} is not a certificate")]
    NotACertificate(usize),
    /// A certificate stands twice, perhaps with two states.
    #[error("entry {0} repeats a certificate")]
    Repeated(usize),
}

/// webpki follows no path with more than 6; 8 leave room for certificates that lead
/// nowhere. The gate has the same two limits.
const MAX_INTERMEDIATES: usize = 8;
const MAX_CHAIN_OCTETS: usize = 16 * 1024;

#[derive(Debug)]
struct Anchor {
    link: Link,
    validity: Validity,
    parsed: TrustAnchor<'static>,
}

/// The trust set of one revision. Default: trusts nothing.
#[derive(Debug, Default)]
pub struct TrustSet {
    /// Active anchors, by the DER of their subjects.
    anchors: HashMap<Vec<u8>, Vec<Anchor>>,
    active: HashMap<Sha256, (Link, Validity)>,
    /// Subjects, DER, of the inactive ones: only to tell a device why.
    inactive_subjects: HashSet<Vec<u8>>,
    registered: HashSet<Sha256>,
    denied_keys: HashSet<Sha256>,
    denied_certificates: HashSet<Sha256>,
}

impl TrustSet {
    /// Makes a trust set and computes the digest of its entries.
    ///
    /// # Errors
    /// [`InvalidEntries`].
    pub fn new(entries: &[Entry]) -> Result<(Self, Sha256), InvalidEntries> {
        let mut set = Self::default();
        let mut hash = SetHash::empty();
        for (index, entry) in entries.iter().enumerate() {
            let invalid = InvalidEntries::NotACertificate(index);
            let der = entry.der().map_err(|_| invalid)?;
            let certificate = Certificate::parse(&der).map_err(|_| invalid)?;
            let Link { sha256, spki_sha256 } = certificate.link;
            if !set.registered.insert(sha256) {
                return Err(InvalidEntries::Repeated(index));
            }
            let state = CaState::from(entry.state);
            hash.add(&canonical_entry(&sha256, &spki_sha256, state));
            match state {
                CaState::Active => {
                    let (link, validity) = (certificate.link, certificate.validity);
                    // One that webpki cannot use vouches for nobody, and does not keep
                    // the others from being inactivated.
                    let Some(parsed) = anchor(&der) else { continue };
                    set.active.insert(sha256, (link, validity));
                    let anchor = Anchor { link, validity, parsed };
                    set.anchors.entry(certificate.subject).or_default().push(anchor);
                }
                CaState::Inactive(scope) => {
                    set.inactive_subjects.insert(certificate.subject);
                    set.denied_certificates.insert(sha256);
                    if scope == InactivationScope::Key {
                        set.denied_keys.insert(spki_sha256);
                    }
                }
            }
        }
        Ok((set, hash.digest()))
    }

    /// Whether `sha256` is a CA certificate of the set, active or not.
    #[must_use]
    pub fn is_registered(&self, sha256: &Sha256) -> bool {
        self.registered.contains(sha256)
    }

    /// Whether a path that was verified before still holds: no signature has to be
    /// checked again for that, only states and time.
    #[must_use]
    pub fn still_holds(&self, vouched: &Vouched, now: i64) -> bool {
        let anchor = self.active.get(&vouched.anchor);
        anchor.is_some_and(|(link, validity)| validity.contains(now) && !self.denies(link))
            && vouched.validity.contains(now)
            && !vouched.links.iter().any(|link| self.denies(link))
    }

    fn denies(&self, link: &Link) -> bool {
        self.denied_keys.contains(&link.spki_sha256) || self.denied_certificates.contains(&link.sha256)
    }

    /// Finds a CA certificate that vouches for `leaf`, by a path over `presented` and
    /// `known` intermediates on which nothing is denied.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn verify(
        &self,
        leaf: &[u8],
        presented: &[Vec<u8>],
        known: &Intermediates,
        now: i64,
    ) -> Result<Path, Refusal> {
        check_size(presented)?;
        let facts = Certificate::parse(leaf).map_err(|_| Refusal::Malformed)?;
        let candidates = known.candidates(&facts.issuer, presented);
        let anchors = self.usable_anchors(&candidates.issuers, now)?;
        // All anchors in one call and not one call each: webpki's budget of signatures
        // then bounds what a hostile chain costs the broker's only thread.
        let offered: Vec<_> = anchors.iter().map(|anchor| anchor.parsed.clone()).collect();
        let leaf = CertificateDer::from(leaf);
        let end_entity = EndEntityCert::try_from(&leaf).map_err(|error| match error {
            webpki::Error::UnsupportedCertVersion => Refusal::OldVersion,
            _ => Refusal::Malformed,
        })?;
        let path = end_entity
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &offered,
                &candidates.certificates,
                UnixTime::since_unix_epoch(Duration::from_secs(now.try_into().unwrap_or(0))),
                KeyUsage::client_auth(),
                None,
                Some(&|path| self.check_path(path)),
            )
            .map_err(|error| refusal(&error))?;
        let anchor = anchors
            .iter()
            .zip(&offered)
            .find_map(|(anchor, offered)| std::ptr::eq(offered, path.anchor()).then_some(anchor))
            .ok_or(Refusal::UnknownIssuer)?;
        let intermediates = path.intermediate_certificates().map(|issuer| issuer.der().to_vec()).collect();
        Path::new(anchor, &facts, intermediates)
    }

    /// The anchors under `names` that may vouch at `now`. Where there are none, the
    /// refusal follows from the names alone: the signature of a device that is refused
    /// anyway is not worth the time, least of all when all of them come back at once.
    fn usable_anchors(&self, names: &[Vec<u8>], now: i64) -> Result<Vec<&Anchor>, Refusal> {
        let named: Vec<_> = names.iter().filter_map(|name| self.anchors.get(name)).flatten().collect();
        let (allowed, denied): (Vec<_>, Vec<_>) =
            named.into_iter().partition(|anchor| !self.denies(&anchor.link));
        let (usable, expired): (Vec<_>, Vec<_>) =
            allowed.into_iter().partition(|anchor| anchor.validity.contains(now));
        if !usable.is_empty() {
            return Ok(usable);
        }
        let is_inactive = names.iter().any(|name| self.inactive_subjects.contains(name));
        Err(match (denied.is_empty() && !is_inactive, expired.is_empty()) {
            (false, _) => Refusal::Inactive,
            (true, false) => Refusal::Expired,
            (true, true) => Refusal::UnknownIssuer,
        })
    }

    /// An error makes webpki look for another path.
    fn check_path(&self, path: &VerifiedPath<'_>) -> Result<(), webpki::Error> {
        let denied = |der: &[u8], spki: &[u8]| {
            self.denies(&Link { sha256: Sha256::of(der), spki_sha256: Sha256::of(spki) })
        };
        let leaf = path.end_entity();
        let any = denied(&leaf.der(), &leaf.subject_public_key_info())
            || path
                .intermediate_certificates()
                .any(|certificate| denied(&certificate.der(), &certificate.subject_public_key_info()));
        if any { Err(webpki::Error::CertRevoked) } else { Ok(()) }
    }
}

fn check_size(presented: &[Vec<u8>]) -> Result<(), Refusal> {
    let octets: usize = presented.iter().map(Vec::len).sum();
    if presented.len() > MAX_INTERMEDIATES || octets > MAX_CHAIN_OCTETS {
        Err(Refusal::ChainTooLong)
    } else {
        Ok(())
    }
}

/// A verified path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// What has to stay true for it to hold.
    pub vouched: Vouched,
    /// The intermediates on it, DER.
    pub intermediates: Vec<Vec<u8>>,
}

impl Path {
    fn new(anchor: &Anchor, leaf: &Certificate, intermediates: Vec<Vec<u8>>) -> Result<Self, Refusal> {
        let mut links = vec![leaf.link];
        let mut validity = leaf.validity;
        for der in &intermediates {
            let certificate = Certificate::parse(der).map_err(|_| Refusal::Malformed)?;
            links.push(certificate.link);
            validity = validity.intersection(certificate.validity);
        }
        Ok(Self { vouched: Vouched { anchor: anchor.link.sha256, links, validity }, intermediates })
    }
}

fn anchor(der: &[u8]) -> Option<TrustAnchor<'static>> {
    let der = CertificateDer::from(der);
    webpki::anchor_from_trusted_cert(&der).ok().map(|anchor| anchor.to_owned())
}

fn refusal(error: &webpki::Error) -> Refusal {
    use webpki::Error as E;
    match error {
        E::CertRevoked => Refusal::Inactive,
        E::CertExpired { .. } | E::CertNotValidYet { .. } => Refusal::Expired,
        _ => Refusal::UnknownIssuer,
    }
}

#[cfg(test)]
mod tests;
