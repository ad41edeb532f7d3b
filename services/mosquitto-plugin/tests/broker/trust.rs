//! Trust bundles, as the agent makes them.

use catrust_domain::set_hash::SetHash;
use catrust_domain::trust_bundle::canonical_entry;
use catrust_domain::{CaState, InactivationScope, Sha256};
use catrust_mosquitto::certificate::Certificate;
use catrust_mosquitto_control::{Bundle, Entry};

use crate::authority::Authority;

pub const ACTIVE: CaState = CaState::Active;
pub const INACTIVE: CaState = CaState::Inactive(InactivationScope::Key);
pub const SUPERSEDED: CaState = CaState::Inactive(InactivationScope::Certificate);

/// A bundle that admits devices for an hour.
pub fn bundle(revision: u64, states: &[(&Authority, CaState)]) -> Bundle {
    let entries: Vec<_> = states.iter().map(|(ca, state)| Entry::new(&ca.der, *state)).collect();
    let digest = digest(states);
    Bundle {
        instance_id: "factory".parse().unwrap(),
        revision,
        digest,
        explicit_empty: entries.is_empty(),
        entries,
        admit_for_ms: 3_600_000,
        with_will: false,
    }
}

pub fn digest(states: &[(&Authority, CaState)]) -> Sha256 {
    let mut hash = SetHash::empty();
    for (ca, state) in states {
        let link = Certificate::parse(&ca.der).unwrap().link;
        hash.add(&canonical_entry(&link.sha256, &link.spki_sha256, *state));
    }
    hash.digest()
}
