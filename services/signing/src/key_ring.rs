//! What a reader believes: the keys that it was given, and those that the newest key set
//! names.
//!
//! ```text
//! --trust-key ─────────────────────────▶ pinned keys ─┐ unless the set revokes them
//! --root-key ─▶ roots ─▶ key set ─▶ keys ─────────────┴─▶ believed, each in its validity
//!                        version ↑ only, expires
//! ```

use std::sync::Arc;

use catrust_proto::v1 as proto;

use crate::canonical::{KeyRefusal, Keys, VerifyError};
use crate::key_set::{EventKey, KeySet, KeySetError, Present};
use crate::signing::TrustKeys;

/// Whether a key set that is in order changes anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// It is in force from now on: keep it over restarts.
    New,
    /// It is the one in force.
    Known,
}

/// See the module. Without root keys and key sets it is the pinned keys alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRing {
    pinned: TrustKeys,
    roots: TrustKeys,
    set: Option<Arc<KeySet>>,
}

impl From<TrustKeys> for KeyRing {
    fn from(pinned: TrustKeys) -> Self {
        Self::new(pinned, TrustKeys::default())
    }
}

impl KeyRing {
    /// Believes `pinned`, and key sets by `roots`, of which there is none yet.
    #[must_use]
    pub const fn new(pinned: TrustKeys, roots: TrustKeys) -> Self {
        Self { pinned, roots, set: None }
    }

    /// Whether nothing could ever be believed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pinned.is_empty() && self.roots.is_empty()
    }

    /// Whether key sets can be believed: without root keys they are to be passed over.
    #[must_use]
    pub fn takes_key_sets(&self) -> bool {
        !self.roots.is_empty()
    }

    /// The set in force.
    #[must_use]
    pub const fn set(&self) -> Option<&Arc<KeySet>> {
        self.set.as_ref()
    }

    /// Takes a key set that came from anywhere.
    ///
    /// # Errors
    /// [`KeySetError`]; the set in force stays.
    pub fn adopt(&mut self, message: proto::KeySet, present: Present) -> Result<Adoption, KeySetError> {
        let set = KeySet::verified(message, &self.roots)?;
        if let Some(held) = &self.set {
            if set.version() < held.version() {
                return Err(KeySetError::Rollback { version: held.version(), offered: set.version() });
            }
            if set.version() == held.version() {
                // What is signed counts: two signatures may be over one content.
                let same = proto::KeySet { signature: None, ..set.message().clone() }
                    == proto::KeySet { signature: None, ..held.message().clone() };
                let forked = KeySetError::Forked { version: held.version() };
                return if same { Ok(Adoption::Known) } else { Err(forked) };
            }
        }
        if set.check(present).is_err() {
            return Err(KeySetError::Expired { expires_at: set.expires_at() });
        }
        self.set = Some(Arc::new(set));
        Ok(Adoption::New)
    }

    /// Takes a key set that was in force before a restart. One that has expired meanwhile
    /// vouches for nothing, and still refuses older ones.
    ///
    /// # Errors
    /// [`KeySetError::NotVouchedFor`], [`KeySetError::Malformed`].
    pub fn restore(&mut self, message: proto::KeySet) -> Result<(), KeySetError> {
        self.set = Some(Arc::new(KeySet::verified(message, &self.roots)?));
        Ok(())
    }

    /// Whether messages by the named key are to be believed now.
    ///
    /// # Errors
    /// [`VerifyError::UnknownKey`], [`VerifyError::UnusableKey`].
    pub fn check_key(&self, key_id: &str, present: Present) -> Result<(), VerifyError> {
        if self.pinned.contains(key_id) {
            return if self.disowns(key_id) { Err(revoked(key_id)) } else { Ok(()) };
        }
        match &self.set {
            Some(set) => set.check_key(key_id, present),
            None => Err(VerifyError::UnknownKey { key_id: key_id.to_owned() }),
        }
    }

    /// Whether messages by the named key must be forgotten: it is revoked, or nobody vouches
    /// for it any more. What an expired key signed in its time stays true.
    #[must_use]
    pub fn disowns(&self, key_id: &str) -> bool {
        match self.named(key_id) {
            Some(key) => key.revoked,
            None => !self.pinned.contains(key_id),
        }
    }

    fn named(&self, key_id: &str) -> Option<&EventKey> {
        self.set.as_ref().and_then(|set| set.key(key_id))
    }

    fn knows(&self, key_id: &str) -> bool {
        self.pinned.contains(key_id) || self.named(key_id).is_some()
    }

    /// The keys as they are to be believed now.
    #[must_use]
    pub const fn at(&self, present: Present) -> KeysAt<'_> {
        KeysAt { ring: self, present: Some(present) }
    }

    /// The keys for messages that were believed before. An expired key or set does not take
    /// such a message back, a revoked key does. That the message is still current, another
    /// one has to prove.
    #[must_use]
    pub const fn on_record(&self) -> KeysAt<'_> {
        KeysAt { ring: self, present: None }
    }
}

fn revoked(key_id: &str) -> VerifyError {
    VerifyError::UnusableKey { key_id: key_id.to_owned(), reason: KeyRefusal::Revoked }
}

/// A key ring at one moment, or at any.
#[derive(Clone, Copy, Debug)]
pub struct KeysAt<'a> {
    ring: &'a KeyRing,
    present: Option<Present>,
}

impl Keys for KeysAt<'_> {
    fn check(&self, key_id: &str, bytes: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
        let ring = self.ring;
        // The signature first, so that a refusal of the key says who has really signed.
        match &ring.set {
            _ if ring.pinned.contains(key_id) => ring.pinned.check(key_id, bytes, signature)?,
            Some(set) => {
                set.check_signature(key_id, bytes, signature)?;
            }
            None => {}
        }
        match self.present {
            None if ring.knows(key_id) && ring.disowns(key_id) => Err(revoked(key_id)),
            None if ring.knows(key_id) => Ok(()),
            None => Err(VerifyError::UnknownKey { key_id: key_id.to_owned() }),
            Some(present) => ring.check_key(key_id, present),
        }
    }
}

#[cfg(test)]
mod tests;
