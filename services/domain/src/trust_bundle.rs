//! The full set of CA certificates of an instance with their states.

use std::sync::Arc;

use crate::ca_certificate::{CaCertificate, CaState, CertificateFacts, InactivationScope};
use crate::digest::Sha256;
use crate::identifiers::InstanceId;
use crate::set_hash::SetHash;

const ENTRY_CONTEXT: &[u8] = b"catrust/bundle-entry/v1\0";

/// One CA certificate in a trust bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustEntry {
    /// The certificate.
    pub facts: Arc<CertificateFacts>,
    /// Whether its devices are accepted.
    pub state: CaState,
}

impl From<&CaCertificate> for TrustEntry {
    fn from(certificate: &CaCertificate) -> Self {
        Self { facts: Arc::clone(&certificate.facts), state: certificate.state }
    }
}

/// Canonical bytes of an entry: what the bundle digest is made of. Everything
/// else about a certificate follows from the DER that `sha256` names.
#[must_use]
pub fn canonical_entry(sha256: &Sha256, spki_sha256: &Sha256, state: CaState) -> Vec<u8> {
    let (state, scope) = match state {
        CaState::Active => (1, 0),
        CaState::Inactive(InactivationScope::Key) => (2, 1),
        CaState::Inactive(InactivationScope::Certificate) => (2, 2),
    };
    [ENTRY_CONTEXT, &sha256.0, &spki_sha256.0, &[state, scope]].concat()
}

/// The trust of an instance at one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustBundle {
    /// Instance that it belongs to.
    pub instance_id: InstanceId,
    /// Revision of the instance.
    pub revision: u64,
    /// Log position of the change that made the revision; 0 at revision 0.
    pub position: u64,
    /// Digest over the entries.
    pub digest: Sha256,
    /// Entries, ascending by `sha256`.
    pub entries: Vec<TrustEntry>,
}

impl TrustBundle {
    /// Computes the digest that `entries` have, whatever `digest` says.
    #[must_use]
    pub fn compute_digest(entries: &[TrustEntry]) -> Sha256 {
        let mut hash = SetHash::empty();
        for entry in entries {
            hash.add(&canonical_entry(&entry.facts.sha256, &entry.facts.spki_sha256, entry.state));
        }
        hash.digest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timestamp::Timestamp;

    const STATES: [CaState; 3] = [
        CaState::Active,
        CaState::Inactive(InactivationScope::Key),
        CaState::Inactive(InactivationScope::Certificate),
    ];

    fn entry(number: u8, state: CaState) -> TrustEntry {
        let facts = CertificateFacts {
            sn: number.to_string().parse().unwrap(),
            sha256: Sha256([number; 32]),
            spki_sha256: Sha256([number + 16; 32]),
            subject: format!("CN={number}"),
            subject_key_id: String::new(),
            issuer: format!("CN={number}"),
            not_before: Timestamp::from_micros(0),
            not_after: Timestamp::from_micros(1),
            ca_content: String::new(),
        };
        TrustEntry { facts: Arc::new(facts), state }
    }

    /// Agents in other languages compute the same. The value was computed with
    /// Python's `hashlib` and `blake3`.
    #[test]
    fn the_known_digest_of_a_bundle_stays() {
        let mut entries: Vec<_> = (1..).zip(STATES).map(|(number, state)| entry(number, state)).collect();
        let known = "eb7f5155658925174e1aebee940a65391dcfc2e7d53fd992e6cb566979b9f2a4";
        assert_eq!(TrustBundle::compute_digest(&entries).to_string(), known);
        entries.reverse();
        assert_eq!(TrustBundle::compute_digest(&entries).to_string(), known);
    }

    #[test]
    fn an_entry_is_bound_to_certificate_key_and_state() {
        let mut seen = std::collections::BTreeSet::new();
        for state in STATES {
            for (certificate, key) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
                seen.insert(canonical_entry(&Sha256([certificate; 32]), &Sha256([key; 32]), state));
            }
        }
        assert_eq!(seen.len(), STATES.len() * 4);
    }

    #[test]
    fn an_empty_bundle_has_the_digest_of_the_empty_set() {
        assert_eq!(TrustBundle::compute_digest(&[]), SetHash::empty().digest());
    }
}
