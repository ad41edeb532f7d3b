//! What an instance trusts at one revision.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use catrust_domain::{CaState, CertificateFacts, InactivationScope, Sha256, TrustBundle};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::anchor::{Anchor, UnusableCertificate};
use crate::certificate::CertificateId;
use crate::path::{IssuerPath, TrustPath};

/// The CA certificates of an instance with their states. Default: trusts nobody.
#[derive(Debug, Default)]
pub struct TrustSet {
    registered: HashMap<Sha256, Arc<Anchor>>,
    active: HashMap<Sha256, Arc<Anchor>>,
    /// The active ones by subject: of one subject, the one that is valid longest first.
    pub(crate) active_by_subject: HashMap<Box<[u8]>, Vec<Arc<Anchor>>>,
    /// Only to tell a device why it is refused.
    pub(crate) inactive_subjects: HashSet<Box<[u8]>>,
    denied_keys: HashSet<Sha256>,
    denied_certificates: HashSet<Sha256>,
}

impl TrustSet {
    /// Makes the set of `bundle`, and names the active certificates that cannot be used:
    /// their devices are refused. Certificates known to `previous` are not read again.
    #[must_use]
    pub fn of(bundle: &TrustBundle, previous: &Self) -> (Self, Vec<(Sha256, UnusableCertificate)>) {
        let mut set = Self::default();
        let mut unusable = Vec::new();
        for entry in &bundle.entries {
            let facts = &entry.facts;
            let known = previous.find(&facts.sha256).map(Arc::clone);
            let read = known.map_or_else(|| read(facts).map(Arc::new), Ok);
            if let CaState::Inactive(scope) = entry.state {
                // By the bundle's word as well, in case that the two do not belong together.
                set.deny(&CertificateId { sha256: facts.sha256, spki_sha256: facts.spki_sha256 }, scope);
            }
            match read {
                Ok(anchor) if set.add(&anchor, entry.state) => {}
                Ok(_) => unusable.push((facts.sha256, UnusableCertificate::Certificate)),
                Err(reason) if entry.state == CaState::Active => unusable.push((facts.sha256, reason)),
                Err(_) => {}
            }
        }
        (set, unusable)
    }

    /// Registers a CA certificate; says no where it is active and can vouch for nobody.
    #[must_use]
    pub fn add(&mut self, anchor: &Arc<Anchor>, state: CaState) -> bool {
        self.registered.insert(anchor.id.sha256, Arc::clone(anchor));
        match state {
            CaState::Inactive(scope) => {
                self.deny(&anchor.id, scope);
                self.inactive_subjects.insert(anchor.subject.clone());
            }
            CaState::Active if anchor.trust_anchor.is_none() => return false,
            CaState::Active => {
                self.active.insert(anchor.id.sha256, Arc::clone(anchor));
                let namesakes = self.active_by_subject.entry(anchor.subject.clone()).or_default();
                let rank = |anchor: &Anchor| (std::cmp::Reverse(anchor.validity.not_after), anchor.id.sha256);
                let place = namesakes.partition_point(|other| rank(other) < rank(anchor));
                namesakes.insert(place, Arc::clone(anchor));
            }
        }
        true
    }

    fn deny(&mut self, certificate: &CertificateId, scope: InactivationScope) {
        self.denied_certificates.insert(certificate.sha256);
        if scope == InactivationScope::Key {
            self.denied_keys.insert(certificate.spki_sha256);
        }
    }

    /// A registered certificate, active or not.
    #[must_use]
    pub fn find(&self, sha256: &Sha256) -> Option<&Arc<Anchor>> {
        self.registered.get(sha256)
    }

    /// Number of active CA certificates that can be used, expired ones included.
    #[must_use]
    pub fn active(&self) -> usize {
        self.active.len()
    }

    /// Whether no path may hold this certificate, for its own sake or for its key's.
    #[must_use]
    pub fn denies(&self, certificate: &CertificateId) -> bool {
        self.denied_keys.contains(&certificate.spki_sha256)
            || self.denied_certificates.contains(&certificate.sha256)
    }

    /// The digests of all keys and certificates that no path may hold.
    pub fn denied(&self) -> impl Iterator<Item = &Sha256> {
        self.denied_keys.iter().chain(&self.denied_certificates)
    }

    pub(crate) fn may_vouch(&self, anchor: &Anchor, now: UnixTime) -> bool {
        anchor.validity.contains(now) && !self.denies(&anchor.id)
    }

    /// Whether a path that was verified before is trusted still: no signature has to be
    /// checked again for that, only states and time.
    #[must_use]
    pub fn holds(&self, path: &TrustPath, now: UnixTime) -> bool {
        self.trusts(&path.issuers, now) && path.leaf_validity.contains(now) && !self.denies(&path.leaf)
    }

    /// Whether everything that devices below `issuers` share is trusted at `now`.
    #[must_use]
    pub fn trusts(&self, issuers: &IssuerPath, now: UnixTime) -> bool {
        self.active.get(&issuers.anchor.sha256).is_some_and(|anchor| self.may_vouch(anchor, now))
            && issuers.validity.contains(now)
            && !issuers.intermediates.iter().any(|certificate| self.denies(certificate))
    }

    /// `issuers` with an active twin of its anchor in the anchor's place: same subject,
    /// key and name constraints, so that every signature stays what it was. `None` where
    /// there is none, and in doubt: then each chain is verified anew.
    #[must_use]
    pub fn through_twin(&self, issuers: &IssuerPath, previous: &Self, now: UnixTime) -> Option<IssuerPath> {
        let old = previous.active.get(&issuers.anchor.sha256)?;
        // The intermediates' own dates are not known apart from the old anchor's: a path
        // with intermediates is verified anew.
        if !issuers.intermediates.is_empty() {
            return None;
        }
        let namesakes = self.active_by_subject.get(&old.subject)?;
        let twin = namesakes
            .iter()
            .find(|anchor| anchor.trust_anchor == old.trust_anchor && self.may_vouch(anchor, now))?;
        Some(IssuerPath { anchor: twin.id, intermediates: Vec::new(), validity: twin.validity })
    }

    /// Whether anybody whom `previous` trusts may be refused by this set.
    #[must_use]
    pub fn is_narrower_than(&self, previous: &Self) -> bool {
        previous.active.keys().any(|sha256| !self.active.contains_key(sha256))
            || !self.denied_keys.is_subset(&previous.denied_keys)
            || !self.denied_certificates.is_subset(&previous.denied_certificates)
    }

    /// Whether a CA certificate that was valid at `earlier` is not any more at `now`.
    #[must_use]
    pub fn expires_between(&self, earlier: UnixTime, now: UnixTime) -> bool {
        self.active.values().any(|anchor| anchor.validity.contains(earlier) && !anchor.validity.contains(now))
    }
}

fn read(facts: &CertificateFacts) -> Result<Anchor, UnusableCertificate> {
    let der =
        CertificateDer::from_pem_slice(facts.ca_content.as_bytes()).map_err(|_| UnusableCertificate::Pem)?;
    let anchor = Anchor::read(&der)?;
    if anchor.id != (CertificateId { sha256: facts.sha256, spki_sha256: facts.spki_sha256 }) {
        return Err(UnusableCertificate::Digest);
    }
    Ok(anchor)
}
