//! A bundle's entries as a trust set.

use std::sync::Arc;

use catrust_device_trust::{Anchor, TrustSet};
use catrust_domain::set_hash::SetHash;
use catrust_domain::trust_bundle::canonical_entry;
use catrust_domain::{CaState, Sha256};
use catrust_mosquitto_control::Entry;

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

/// Makes the trust set of `entries` and computes their digest. Certificates known to
/// `previous` are not read again.
///
/// # Errors
/// [`InvalidEntries`].
pub fn trust_set(entries: &[Entry], previous: &TrustSet) -> Result<(TrustSet, Sha256), InvalidEntries> {
    let mut set = TrustSet::default();
    let mut hash = SetHash::empty();
    for (index, entry) in entries.iter().enumerate() {
        let invalid = InvalidEntries::NotACertificate(index);
        let der = entry.der().map_err(|_| invalid)?;
        let known = previous.find(&Sha256::of(&der)).map(Arc::clone);
        let anchor = known.map_or_else(|| Anchor::read(&der).map(Arc::new), Ok).map_err(|_| invalid)?;
        if set.find(&anchor.id.sha256).is_some() {
            return Err(InvalidEntries::Repeated(index));
        }
        let state = CaState::from(entry.state);
        hash.add(&canonical_entry(&anchor.id.sha256, &anchor.id.spki_sha256, state));
        // One that can vouch for nobody does not keep the others from being inactivated.
        let _ = set.add(&anchor, state);
    }
    Ok((set, hash.digest()))
}

#[cfg(test)]
mod tests {
    use catrust_domain::InactivationScope;

    use super::*;
    use crate::testing::Authority;

    #[test]
    fn the_digest_is_that_of_the_domain_and_entries_come_once() {
        let superseded = CaState::Inactive(InactivationScope::Certificate);
        let (a, b) = (Authority::new("A"), Authority::new("B"));
        let entries = [Entry::new(&a.der, CaState::Active), Entry::new(&b.der, superseded)];
        let mut hash = SetHash::empty();
        for (ca, state) in [(&b, superseded), (&a, CaState::Active)] {
            let id = Anchor::read(&ca.der).unwrap().id;
            hash.add(&canonical_entry(&id.sha256, &id.spki_sha256, state));
        }
        let (set, digest) = trust_set(&entries, &TrustSet::default()).unwrap();
        assert_eq!(digest, hash.digest());
        // Again, with what is known.
        assert_eq!(trust_set(&entries, &set).unwrap().1, digest);
        let refused = |entries: &[Entry]| trust_set(entries, &TrustSet::default()).unwrap_err();
        let twice = [Entry::new(&a.der, CaState::Active), Entry::new(&a.der, superseded)];
        assert_eq!(refused(&twice), InvalidEntries::Repeated(1));
        assert_eq!(refused(&[Entry::new(b"x", superseded)]), InvalidEntries::NotACertificate(0));
    }
}
