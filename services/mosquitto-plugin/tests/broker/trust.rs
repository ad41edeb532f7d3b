//! Trust bundles, as the agent makes them.

use catrust_device_trust::Certificate;
use catrust_domain::set_hash::SetHash;
use catrust_domain::trust_bundle::canonical_entry;
use catrust_domain::{CaState, InactivationScope, Sha256};
use catrust_mosquitto_control::{Bundle, Entry};

use crate::authority::Authority;

pub const ACTIVE: CaState = CaState::Active;
pub const INACTIVE: CaState = CaState::Inactive(InactivationScope::Key);
pub const SUPERSEDED: CaState = CaState::Inactive(InactivationScope::Certificate);

/// A bundle that admits devices for an hour.
pub fn bundle(revision: u64, states: &[(&Authority, CaState)]) -> Bundle {
    let states: Vec<_> = states.iter().map(|(ca, state)| (ca.der.as_slice(), *state)).collect();
    bundle_of(revision, &states)
}

/// The same, of certificates alone.
pub fn bundle_of(revision: u64, states: &[(&[u8], CaState)]) -> Bundle {
    let entries: Vec<_> = states.iter().map(|(der, state)| Entry::new(der, *state)).collect();
    let mut hash = SetHash::empty();
    for (der, state) in states {
        let id = Certificate::read(der).unwrap().id;
        hash.add(&canonical_entry(&id.sha256, &id.spki_sha256, *state));
    }
    Bundle {
        instance_id: "factory".parse().unwrap(),
        revision,
        digest: hash.digest(),
        explicit_empty: entries.is_empty(),
        entries,
        admit_for_ms: 3_600_000,
        with_will: false,
        takes_back: false,
    }
}

pub fn digest(states: &[(&Authority, CaState)]) -> Sha256 {
    bundle(1, states).digest
}
