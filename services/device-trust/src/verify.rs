//! From a chain to a path.

use std::collections::HashSet;
use std::sync::Arc;

use catrust_domain::Sha256;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, Error, KeyUsage, VerifiedPath};
use x509_parser::prelude::X509Version;

use crate::anchor::Anchor;
use crate::candidates::Candidates;
use crate::certificate::Certificate;
use crate::effort::{Budget, Effort, KeyIds};
use crate::path::{IssuerPath, TrustPath};
use crate::refusal::Refusal;
use crate::trust_set::TrustSet;

/// Most certificates that a device may show besides its own. With 4 there are at most 64
/// partial paths, however the names are chosen; with the 8 of before there were some
/// 29,000.
pub const MAX_INTERMEDIATES: usize = 4;
/// Most bytes of a chain, the device's own certificate included. Chains of live sessions
/// are kept, so that this is memory per session.
pub const MAX_CHAIN_BYTES: usize = 16 * 1024;
/// Most comparisons of names with name constraints on one path.
pub const MAX_NAME_COMPARISONS: usize = 1024;

impl TrustSet {
    /// Finds a CA certificate that vouches for `chain`, the device's own certificate
    /// first, by a path on which nothing is denied.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<TrustPath, Refusal> {
        self.verify_counted(chain, now).0
    }

    /// As [`TrustSet::verify`], and says how much work it was.
    pub fn verify_counted(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> (Result<TrustPath, Refusal>, Effort) {
        let mut effort = Effort::default();
        (self.find_path(chain, now, &mut effort), effort)
    }

    fn find_path(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
        effort: &mut Effort,
    ) -> Result<TrustPath, Refusal> {
        check_size(chain)?;
        let (leaf_der, shown) = chain.split_first().ok_or(Refusal::NoCertificate)?;
        let leaf = Certificate::read(leaf_der)?;
        if !leaf.is_moderate {
            return Err(Refusal::Malformed);
        }
        if leaf.version != X509Version::V3 {
            return Err(Refusal::OldVersion);
        }
        if self.denies(&leaf.id) {
            return Err(Refusal::Inactive);
        }
        if !leaf.validity.contains(now) {
            return Err(Refusal::Expired);
        }
        let end_entity = EndEntityCert::try_from(leaf_der).map_err(|_| Refusal::Malformed)?;
        check_key(&leaf, &end_entity.subject_public_key_info())?;
        let candidates = self.candidates(&leaf, shown, now)?;
        let issuers = candidates.build_path(&leaf, &end_entity, chain, now, effort)?;
        let path = TrustPath {
            leaf: leaf.id,
            leaf_validity: leaf.validity,
            user_name: leaf.user_name(),
            issuers: Arc::new(issuers),
            chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
        };
        // Says yes by construction: what is denied or not valid was no candidate.
        if self.holds(&path, now) { Ok(path) } else { Err(Refusal::Inactive) }
    }
}

impl Candidates<'_, '_> {
    /// Has webpki build a path: first below the anchors that the chain names, and only
    /// where key identifiers agree, so that neither namesakes nor an odd order cost an
    /// honest chain anything; then below all of them, whatever the identifiers say.
    fn build_path(
        &self,
        leaf: &Certificate<'_>,
        end_entity: &EndEntityCert<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
        effort: &mut Effort,
    ) -> Result<IssuerPath, Refusal> {
        let offered: Vec<TrustAnchor<'_>> =
            self.anchors.iter().filter_map(|anchor| anchor.borrow()).collect();
        let intermediates: Vec<CertificateDer<'_>> =
            self.intermediates.iter().map(|(_, der)| CertificateDer::from(&***der)).collect();
        let known = |der: &CertificateDer<'_>| {
            self.intermediates.iter().find(|(_, other)| *other == der).map(|(certificate, _)| certificate)
        };
        let shown = chain.iter().enumerate().map(|(place, der)| match place {
            0 => KeyIds { own: None, issuer: leaf.authority_key_id },
            _ => known(der).map(KeyIds::of).unwrap_or_default(),
        });
        let anchors =
            self.anchors.iter().map(|anchor| KeyIds { own: anchor.key_id.as_deref(), issuer: None });
        let budget = Budget::new(chain, &offered, shown.chain(anchors).collect());
        let algorithms = budget.algorithms();
        let algorithms: Vec<&dyn SignatureVerificationAlgorithm> =
            algorithms.iter().map(|algorithm| algorithm as _).collect();
        let mut result = Err(self.otherwise);
        for (anchors, by_key_id) in [(&offered[..self.named], true), (&offered[..], false)] {
            if anchors.is_empty() || budget.is_spent() {
                continue;
            }
            budget.follow_key_ids(by_key_id);
            let usage = KeyUsage::client_auth();
            let path =
                end_entity.verify_for_usage(&algorithms, anchors, &intermediates, now, usage, None, None);
            result = match path {
                Ok(path) => self.issuers(&path, &offered),
                Err(error) => Err(self.refusal(&error)),
            };
            if result.is_ok() {
                break;
            }
        }
        *effort = budget.effort();
        if budget.is_spent() && result.is_err() { Err(Refusal::TooCostly) } else { result }
    }

    fn refusal(&self, error: &Error) -> Refusal {
        match error {
            Error::CaUsedAsEndEntity | Error::EmptyEkuExtension | Error::RequiredEkuNotFoundContext(_) => {
                Refusal::WrongPurpose
            }
            Error::MaximumSignatureChecksExceeded
            | Error::MaximumPathBuildCallsExceeded
            | Error::MaximumNameConstraintComparisonsExceeded => Refusal::TooCostly,
            _ => self.otherwise,
        }
    }

    fn issuers(&self, path: &VerifiedPath<'_>, offered: &[TrustAnchor<'_>]) -> Result<IssuerPath, Refusal> {
        let place = offered.iter().position(|anchor| std::ptr::eq(anchor, path.anchor()));
        let anchor: &Anchor =
            place.and_then(|place| self.anchors.get(place)).ok_or(Refusal::UnknownIssuer)?;
        let mut issuers =
            IssuerPath { anchor: anchor.id, intermediates: Vec::new(), validity: anchor.validity };
        for issuer in path.intermediate_certificates() {
            let known = self.intermediates.iter().find(|(_, der)| **der == issuer.der());
            let (certificate, _) = known.ok_or(Refusal::UnknownIssuer)?;
            check_key(certificate, &issuer.subject_public_key_info())?;
            issuers.intermediates.push(certificate.id);
            issuers.validity = issuers.validity.intersection(certificate.validity);
        }
        Ok(issuers)
    }
}

/// webpki and we read the same key: what is denied must not depend on the reader.
fn check_key(certificate: &Certificate<'_>, spki: &[u8]) -> Result<(), Refusal> {
    if Sha256::of(spki) == certificate.id.spki_sha256 { Ok(()) } else { Err(Refusal::Malformed) }
}

/// Whether a chain is small enough to be looked at.
///
/// # Errors
/// [`Refusal::NoCertificate`], [`Refusal::ChainTooLong`].
pub fn check_size(chain: &[CertificateDer<'_>]) -> Result<(), Refusal> {
    let bytes: usize = chain.iter().map(|certificate| certificate.len()).sum();
    // One that is sent twice counts once, as it does where OpenSSL hands the chain over.
    let different: HashSet<&[u8]> = chain.iter().map(|certificate| &**certificate).collect();
    match different.len() {
        0 => Err(Refusal::NoCertificate),
        count if count > MAX_INTERMEDIATES + 1 || bytes > MAX_CHAIN_BYTES => Err(Refusal::ChainTooLong),
        _ => Ok(()),
    }
}
