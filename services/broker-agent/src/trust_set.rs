//! What an instance trusts at one revision, ready to be asked about a chain.
//!
//! ```text
//! accepted = a path to an ACTIVE CA certificate that is valid now        (allow-list)
//!            and no certificate on it has the key of a CA inactive with scope KEY,
//!            and none is a CA certificate inactive with scope CERTIFICATE (deny-list)
//! ```
//!
//! The allow-list alone lets a renewed or cross-signed certificate of an inactive CA
//! through, and an inactive intermediate below an active root; see the module's
//! tests. The clock is the caller's.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use catrust_domain::{CaState, InactivationScope, Sha256, TrustBundle};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::anchor::{Anchor, UnusableCertificate, Validity, authority_key_id};
use crate::vouch::{IssuerPath, Refusal, Vouch};

/// webpki follows no path with more than 6; 8 leave room for certificates that lead
/// nowhere.
const MAX_INTERMEDIATES: usize = 8;
/// The chain of a live session is kept, so that its size is memory per session.
const MAX_CHAIN_OCTETS: usize = 16 * 1024;
/// Verdicts remembered per set: about 2 KB each with their chain, which live sessions
/// of the same devices share.
const MAX_VERDICTS: usize = 8192;

/// The trust of one instance at one revision. Never changes: a change makes another
/// set.
#[derive(Debug)]
pub struct TrustSet {
    revision: u64,
    admits: bool,
    anchors: HashMap<Sha256, Arc<Anchor>>,
    /// The same anchors by the DER of their subject's content: webpki looks at no
    /// other anchor than those whose subject is the issuer of a certificate on the
    /// path, so that this choice loses nothing, key identifiers or not.
    by_subject: HashMap<Box<[u8]>, Vec<Arc<Anchor>>>,
    denied_keys: HashSet<Sha256>,
    denied_certificates: HashSet<Sha256>,
    unusable: Vec<(Sha256, UnusableCertificate)>,
    /// Verdicts of this set, by chain: a full handshake asks twice (verifier, then
    /// the check after registration), a resumed one asks about a known chain.
    verdicts: Mutex<HashMap<Sha256, Arc<Vouch>>>,
}

impl TrustSet {
    /// The set that refuses everybody: what a broker has before its first bundle.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            revision: 0,
            admits: false,
            anchors: HashMap::new(),
            by_subject: HashMap::new(),
            denied_keys: HashSet::new(),
            denied_certificates: HashSet::new(),
            unusable: Vec::new(),
            verdicts: Mutex::default(),
        }
    }

    /// Makes the set of `bundle`. With `admits == false` it vouches for the sessions
    /// that are open and for nobody else.
    ///
    /// Certificates known to `previous` are not parsed again. An active certificate
    /// that cannot be used is left out, so that its devices are refused:
    /// [`TrustSet::unusable`] names it.
    #[must_use]
    pub fn new(bundle: &TrustBundle, admits: bool, previous: Option<&Self>) -> Self {
        let mut set = Self { revision: bundle.revision, admits, ..Self::nothing() };
        for entry in &bundle.entries {
            let facts = &entry.facts;
            match entry.state {
                CaState::Inactive(InactivationScope::Key) => {
                    set.denied_keys.insert(facts.spki_sha256);
                    // The certificate is denied with its key; its digest as well, in
                    // case that the two do not belong together.
                    set.denied_certificates.insert(facts.sha256);
                }
                CaState::Inactive(InactivationScope::Certificate) => {
                    set.denied_certificates.insert(facts.sha256);
                }
                CaState::Active => {
                    let known = previous.and_then(|set| set.anchors.get(&facts.sha256)).map(Arc::clone);
                    match known.map_or_else(|| Anchor::parse(facts).map(Arc::new), Ok) {
                        Ok(anchor) => set.add(anchor),
                        Err(reason) => set.unusable.push((facts.sha256, reason)),
                    }
                }
            }
        }
        set
    }

    fn add(&mut self, anchor: Arc<Anchor>) {
        let subject = Box::from(&*anchor.trust_anchor.subject);
        self.by_subject.entry(subject).or_default().push(Arc::clone(&anchor));
        self.anchors.insert(anchor.sha256, anchor);
    }

    /// Revision of the bundle.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether anybody new may be admitted at all.
    #[must_use]
    pub const fn admits(&self) -> bool {
        self.admits
    }

    /// Number of active CA certificates, expired ones included.
    #[must_use]
    pub fn active(&self) -> usize {
        self.anchors.len()
    }

    /// Active certificates that vouch for nobody because they cannot be read.
    #[must_use]
    pub fn unusable(&self) -> &[(Sha256, UnusableCertificate)] {
        &self.unusable
    }

    /// Decides about a new session, full or resumed: which CA vouches for `chain`, the
    /// device's own certificate first.
    ///
    /// # Errors
    /// [`Refusal`]; the session MUST NOT be served.
    pub fn admit(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<Arc<Vouch>, Refusal> {
        if !self.admits {
            return Err(Refusal::Stale);
        }
        self.verify(chain, now)
    }

    /// Decides about a session that is open: as [`TrustSet::admit`], whether or not
    /// the set admits anybody new.
    ///
    /// # Errors
    /// [`Refusal`]; the session MUST be closed.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<Arc<Vouch>, Refusal> {
        check_size(chain)?;
        let name = fingerprint(chain);
        if let Some(vouch) = self.verdicts().get(&name)
            && vouch.holds_at(now)
        {
            return Ok(Arc::clone(vouch));
        }
        let vouch = Arc::new(self.build_path(chain, now)?);
        let mut verdicts = self.verdicts();
        // Emptied rather than evicted one by one: the set lives until the next change,
        // and a miss costs one verification.
        if verdicts.len() >= MAX_VERDICTS {
            verdicts.clear();
        }
        verdicts.insert(name, Arc::clone(&vouch));
        Ok(vouch)
    }

    fn verdicts(&self) -> std::sync::MutexGuard<'_, HashMap<Sha256, Arc<Vouch>>> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn build_path(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<Vouch, Refusal> {
        let (leaf, intermediates) = chain.split_first().ok_or(Refusal::NoCertificate)?;
        let (_, parsed) = X509Certificate::from_der(leaf).map_err(|_| Refusal::Malformed)?;
        let leaf_key = Sha256::of(parsed.public_key().raw);
        if self.denied_keys.contains(&leaf_key) {
            return Err(Refusal::Inactive);
        }
        let end_entity = webpki::EndEntityCert::try_from(leaf).map_err(Refusal::Path)?;
        let candidates = self.candidates(&end_entity, &parsed, intermediates, now);
        let anchors: Vec<TrustAnchor<'_>> = candidates.iter().map(|anchor| anchor.borrow()).collect();
        // All candidates in one call and not one call each: webpki's budget of 100
        // signatures then bounds what a hostile chain costs. The path still names
        // its anchor.
        let path = end_entity
            .verify_for_usage(
                algorithms().all,
                &anchors,
                intermediates,
                now,
                webpki::KeyUsage::client_auth(),
                None,
                Some(&|path| self.check_intermediates(path)),
            )
            .map_err(|error| match error {
                webpki::Error::CertRevoked => Refusal::Inactive,
                error => Refusal::Path(error),
            })?;
        let anchor = candidates
            .iter()
            .zip(&anchors)
            .find_map(|(anchor, offered)| std::ptr::eq(offered, path.anchor()).then_some(anchor))
            .ok_or(Refusal::Path(webpki::Error::UnknownIssuer))?;
        let mut issuers = IssuerPath {
            anchor: anchor.sha256,
            anchor_key: anchor.key,
            intermediates: Vec::new(),
            validity: anchor.validity,
        };
        for certificate in path.intermediate_certificates() {
            let der = certificate.der();
            let (_, parsed) = X509Certificate::from_der(&der).map_err(|_| Refusal::Malformed)?;
            issuers.intermediates.push((Sha256::of(&der), Sha256::of(parsed.public_key().raw)));
            issuers.validity = issuers.validity.intersect(Validity::of(&parsed));
        }
        Ok(Vouch {
            path: Arc::new(issuers),
            leaf_key,
            leaf_validity: Validity::of(&parsed),
            chain: chain.iter().map(|certificate| certificate.clone().into_owned()).collect(),
        })
    }

    /// Anchors that may end a path, the likeliest first: those whose key identifier the
    /// leaf names, then those without one. A device without the identifier, or with a
    /// wrong one, costs tries and is not refused for it. Of twins the one that is
    /// valid longest vouches.
    fn candidates(
        &self,
        end_entity: &webpki::EndEntityCert<'_>,
        leaf: &X509Certificate<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Vec<&Arc<Anchor>> {
        let mut issuers: HashSet<Box<[u8]>> = HashSet::from([Box::from(end_entity.issuer())]);
        for certificate in intermediates {
            if let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) {
                issuers.insert(Box::from(certificate.issuer()));
            }
        }
        let named = authority_key_id(leaf);
        let mut candidates: Vec<&Arc<Anchor>> = issuers
            .iter()
            .filter_map(|issuer| self.by_subject.get(issuer))
            .flatten()
            .filter(|anchor| self.may_vouch(anchor, now))
            .collect();
        candidates.sort_by_key(|anchor| {
            let rank = match named {
                Some(id) if id == anchor.key_id => 0,
                Some(_) if !anchor.key_id.is_empty() => 2,
                _ => 1,
            };
            (rank, std::cmp::Reverse(anchor.validity.until), anchor.sha256)
        });
        candidates
    }

    fn may_vouch(&self, anchor: &Anchor, now: UnixTime) -> bool {
        anchor.validity.contains(now)
            && !self.denied_keys.contains(&anchor.key)
            && !self.denied_certificates.contains(&anchor.sha256)
    }

    /// An error makes webpki look for another path.
    fn check_intermediates(&self, path: &webpki::VerifiedPath<'_>) -> Result<(), webpki::Error> {
        let denied = path.intermediate_certificates().any(|certificate| {
            self.denied_keys.contains(&Sha256::of(&certificate.subject_public_key_info()))
                || self.denied_certificates.contains(&Sha256::of(&certificate.der()))
        });
        if denied { Err(webpki::Error::CertRevoked) } else { Ok(()) }
    }

    /// Whether everything that devices below `path` share is trusted at `now`: then
    /// none of their sessions needs a look.
    pub(crate) fn trusts(&self, path: &IssuerPath, now: UnixTime) -> bool {
        self.anchors.get(&path.anchor).is_some_and(|anchor| self.may_vouch(anchor, now))
            && self.trusts_intermediates(path, now)
    }

    fn trusts_intermediates(&self, path: &IssuerPath, now: UnixTime) -> bool {
        path.validity.contains(now)
            && path.intermediates.iter().all(|(certificate, key)| {
                !self.denied_certificates.contains(certificate) && !self.denied_keys.contains(key)
            })
    }

    /// `path` with an active twin of its anchor in the anchor's place: same subject,
    /// key and name constraints, so that every signature stays what it was. `None`
    /// where there is none, and in doubt: then each chain is verified anew.
    pub(crate) fn through_twin(
        &self,
        path: &IssuerPath,
        previous: &Self,
        now: UnixTime,
    ) -> Option<IssuerPath> {
        let old = previous.anchors.get(&path.anchor)?;
        let twin = self
            .by_subject
            .get(&*old.trust_anchor.subject)?
            .iter()
            .filter(|anchor| anchor.trust_anchor == old.trust_anchor && self.may_vouch(anchor, now))
            .max_by_key(|anchor| (anchor.validity.until, anchor.sha256))?;
        // The intermediates' own dates are not known apart from the old anchor's: a
        // path with intermediates is verified anew.
        path.intermediates.is_empty().then(|| IssuerPath {
            anchor: twin.sha256,
            anchor_key: twin.key,
            intermediates: Vec::new(),
            validity: twin.validity,
        })
    }

    pub(crate) fn denied_keys(&self) -> impl Iterator<Item = &Sha256> {
        self.denied_keys.iter()
    }

    pub(crate) fn denies_key(&self, key: &Sha256) -> bool {
        self.denied_keys.contains(key)
    }

    /// Whether anybody whom `previous` admits may be refused by this set.
    pub(crate) fn is_narrower_than(&self, previous: &Self) -> bool {
        (previous.admits && !self.admits)
            || previous.anchors.keys().any(|sha256| !self.anchors.contains_key(sha256))
            || !self.denied_keys.is_subset(&previous.denied_keys)
            || !self.denied_certificates.is_subset(&previous.denied_certificates)
    }

    /// Whether a CA certificate that was valid at `earlier` is not any more at `now`.
    pub(crate) fn expires_between(&self, earlier: UnixTime, now: UnixTime) -> bool {
        self.anchors
            .values()
            .any(|anchor| anchor.validity.contains(earlier) && !anchor.validity.contains(now))
    }
}

/// The one provider's algorithms.
pub(crate) fn algorithms() -> WebPkiSupportedAlgorithms {
    rustls::crypto::ring::default_provider().signature_verification_algorithms
}

fn check_size(chain: &[CertificateDer<'_>]) -> Result<(), Refusal> {
    let octets: usize = chain.iter().map(|certificate| certificate.len()).sum();
    match chain.len() {
        0 => Err(Refusal::NoCertificate),
        count if count > MAX_INTERMEDIATES + 1 || octets > MAX_CHAIN_OCTETS => Err(Refusal::ChainTooLong),
        _ => Ok(()),
    }
}

/// Names a chain. Lengths are part of it, so that octets cannot move from one
/// certificate to the next.
fn fingerprint(chain: &[CertificateDer<'_>]) -> Sha256 {
    let mut octets = Vec::with_capacity(chain.iter().map(|certificate| certificate.len() + 8).sum());
    for certificate in chain {
        octets.extend_from_slice(&(certificate.len() as u64).to_be_bytes());
        octets.extend_from_slice(certificate);
    }
    Sha256::of(&octets)
}
