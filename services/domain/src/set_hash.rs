//! LtHash16: a hash of a set that is updated in constant time.
//!
//! Lattice multiset hash of Bellare and Micciancio (1997), with the parameters of
//! Lewi, Kim, Maykov and Weis, "Securing Update Propagation with Homomorphic
//! Hashing" (2019): 1,024 words of 16 bits, about 200 bits of security. Elements
//! are expanded with the BLAKE3 XOF. An element added and subtracted again
//! leaves no trace, and the order does not matter, so the appender pays for the
//! entry that changed and not for the bundle's size.

use std::fmt;

use sha2::Digest as _;

use crate::digest::Sha256;

/// Words of the state.
const WORDS: usize = 1024;
/// Bytes of the state as stored.
pub const SET_HASH_LENGTH: usize = WORDS * 2;

const DIGEST_CONTEXT: &[u8] = b"catrust/bundle-digest/v1\0";

/// The state of an LtHash16 over a set of elements.
#[derive(Clone, PartialEq, Eq)]
pub struct SetHash(Box<[u16; WORDS]>);

impl SetHash {
    /// The hash of the empty set.
    #[must_use]
    pub fn empty() -> Self {
        Self(Box::new([0; WORDS]))
    }

    /// Adds an element. Adding it twice is not the same as adding it once.
    pub fn add(&mut self, element: &[u8]) {
        self.combine(element, u16::wrapping_add);
    }

    /// Takes an element away that was added before.
    pub fn subtract(&mut self, element: &[u8]) {
        self.combine(element, u16::wrapping_sub);
    }

    fn combine(&mut self, element: &[u8], operation: fn(u16, u16) -> u16) {
        let mut expanded = [0_u8; SET_HASH_LENGTH];
        let mut hasher = blake3::Hasher::new();
        hasher.update(element);
        hasher.finalize_xof().fill(&mut expanded);
        for (word, pair) in self.0.iter_mut().zip(expanded.as_chunks::<2>().0) {
            *word = operation(*word, u16::from_le_bytes(*pair));
        }
    }

    /// The state as stored: little-endian words.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Reads a stored state; `None` unless it has [`SET_HASH_LENGTH`] bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != SET_HASH_LENGTH {
            return None;
        }
        let mut words = Box::new([0; WORDS]);
        for (word, pair) in words.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *word = u16::from_le_bytes(*pair);
        }
        Some(Self(words))
    }

    /// The bundle digest: a short name for the state.
    #[must_use]
    pub fn digest(&self) -> Sha256 {
        let mut hasher = sha2::Sha256::new();
        hasher.update(DIGEST_CONTEXT);
        hasher.update(self.to_bytes());
        Sha256(hasher.finalize().into())
    }
}

impl Default for SetHash {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for SetHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SetHash({})", self.digest())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn order_does_not_matter_and_subtraction_undoes(
            mut elements in proptest::collection::vec(any::<[u8; 8]>(), 1..12),
            gone in any::<[u8; 9]>(),
        ) {
            let mut forward = SetHash::empty();
            elements.iter().for_each(|e| forward.add(e));
            elements.reverse();
            let mut backward = SetHash::empty();
            backward.add(&gone);
            elements.iter().for_each(|e| backward.add(e));
            prop_assert_ne!(forward.digest(), backward.digest());
            backward.subtract(&gone);
            prop_assert_eq!(forward.digest(), backward.digest());
            prop_assert_eq!(SetHash::from_bytes(&forward.to_bytes()), Some(forward));
        }
    }

    /// The digest is on the wire: a change of these values breaks every agent. They
    /// were computed with Python's `hashlib` and `blake3`.
    #[test]
    fn known_values_stay() {
        let mut hash = SetHash::empty();
        let empty = "4dfcad6172b1c4784b2090677a2c6f51cd616ac7700aa5940fb805e683c47571";
        assert_eq!(hash.digest().to_string(), empty);
        hash.add(b"element");
        let one = "535976a9b11c619788f0a06b2314911fe6fd80a85897b6af85f4f6b10b7caa45";
        assert_eq!(hash.digest().to_string(), one);
    }

    #[test]
    fn a_state_of_another_length_is_refused() {
        for length in [0, 1, SET_HASH_LENGTH - 1, SET_HASH_LENGTH + 1] {
            assert_eq!(SetHash::from_bytes(&vec![0; length]), None, "{length}");
        }
    }

    #[test]
    fn an_element_added_twice_counts_twice() {
        let mut once = SetHash::empty();
        once.add(b"element");
        let mut twice = once.clone();
        twice.add(b"element");
        assert_ne!(once.digest(), twice.digest());
        twice.subtract(b"element");
        assert_eq!(once.digest(), twice.digest());
    }
}
