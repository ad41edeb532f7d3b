//! The trust of one revision, with the verdicts that it has given.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use catrust_device_trust::{Refusal, TrustPath, TrustSet, UnusableCertificate, check_size};
use catrust_domain::{Sha256, TrustBundle};
use rustls::pki_types::{CertificateDer, UnixTime};

/// Verdicts remembered per revision: about 2 KB each with the chain of an honest device,
/// which its live sessions share; 128 MiB at most, if all were as long as a chain may be.
const MAX_VERDICTS: usize = 8192;

/// The trust of one instance at one revision. Never changes: a change makes another one.
#[derive(Debug, Default)]
pub struct RevisionTrust {
    revision: u64,
    admits: bool,
    set: TrustSet,
    unusable: Vec<(Sha256, UnusableCertificate)>,
    /// Verdicts by chain: a full handshake asks twice (verifier, then the check after
    /// registration), a resumed one asks about a known chain.
    verdicts: Mutex<HashMap<Sha256, Arc<TrustPath>>>,
}

impl RevisionTrust {
    /// Refuses everybody: what a broker has before its first bundle.
    #[must_use]
    pub fn nothing() -> Self {
        Self::default()
    }

    /// The trust of `bundle`. With `admits == false` it vouches for the sessions that are
    /// open and for nobody else.
    ///
    /// Certificates known to `previous` are not read again. An active certificate that
    /// cannot be used is left out, so that its devices are refused:
    /// [`RevisionTrust::unusable`] names it.
    #[must_use]
    pub fn new(bundle: &TrustBundle, admits: bool, previous: &Self) -> Self {
        let (set, unusable) = TrustSet::of(bundle, &previous.set);
        Self { revision: bundle.revision, admits, set, unusable, verdicts: Mutex::default() }
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

    /// The CA certificates and their states.
    #[must_use]
    pub const fn set(&self) -> &TrustSet {
        &self.set
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
    pub fn admit(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<Arc<TrustPath>, Refusal> {
        if !self.admits {
            return Err(Refusal::Stale);
        }
        self.verify(chain, now)
    }

    /// Decides about a session that is open: as [`RevisionTrust::admit`], whether or not
    /// anybody new is admitted.
    ///
    /// # Errors
    /// [`Refusal`]; the session MUST be closed.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<Arc<TrustPath>, Refusal> {
        check_size(chain)?;
        let name = fingerprint(chain);
        if let Some(path) = self.verdicts().get(&name)
            && path.holds_at(now)
        {
            return Ok(Arc::clone(path));
        }
        let path = Arc::new(self.set.verify(chain, now)?);
        let mut verdicts = self.verdicts();
        // Emptied rather than evicted one by one: the set lives until the next change,
        // and a miss costs one verification.
        if verdicts.len() >= MAX_VERDICTS {
            verdicts.clear();
        }
        verdicts.insert(name, Arc::clone(&path));
        Ok(path)
    }

    fn verdicts(&self) -> MutexGuard<'_, HashMap<Sha256, Arc<TrustPath>>> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anybody whom `previous` admits may be refused now.
    pub(crate) fn is_narrower_than(&self, previous: &Self) -> bool {
        (previous.admits && !self.admits) || self.set.is_narrower_than(&previous.set)
    }
}

/// Names a chain. Lengths are part of it, so that bytes cannot move from one certificate
/// to the next.
fn fingerprint(chain: &[CertificateDer<'_>]) -> Sha256 {
    let mut bytes = Vec::with_capacity(chain.iter().map(|certificate| certificate.len() + 8).sum());
    for certificate in chain {
        bytes.extend_from_slice(&(certificate.len() as u64).to_be_bytes());
        bytes.extend_from_slice(certificate);
    }
    Sha256::of(&bytes)
}
