//! The keys that may sign the feed, as a root key vouches for them.
//!
//! After The Update Framework (TUF): a root key that signs nothing but these sets and is
//! kept offline; a version that never falls, so that nobody brings a revoked key back; an
//! expiry, so that nobody holds newer sets back for long.

use std::collections::BTreeMap;

use catrust_domain::Timestamp;
use catrust_proto::v1 as proto;

use crate::canonical::{KeyRefusal, Keys as _, Signed as _, VerifyError, micros};
use crate::signing::TrustKeys;

/// Most keys of a set.
pub const MAX_KEYS: usize = 64;

/// Why a key set is not to be used. What was in force stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeySetError {
    /// No root key has signed it.
    #[error("no root key vouches for the key set")]
    NotVouchedFor(#[from] VerifyError),
    /// It contradicts itself.
    #[error("the key set is malformed: {0}")]
    Malformed(String),
    /// It is older than the one in force: somebody replays it, or a server has an old file.
    #[error("the key set is version {offered}, and version {version} is in force")]
    Rollback {
        /// Version in force.
        version: u64,
        /// Version of the set.
        offered: u64,
    },
    /// Two sets of one version: the root key was used twice, on different machines perhaps.
    /// The next set needs a version above both.
    #[error("the key set is version {version} as the one in force, with other content")]
    Forked {
        /// The version.
        version: u64,
    },
    /// It vouches for nothing any more.
    #[error("the key set expired at {expires_at}")]
    Expired {
        /// When.
        expires_at: Timestamp,
    },
}

/// One key of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventKey {
    /// The key, alone.
    pub public_key: TrustKeys,
    /// First moment of its validity.
    pub not_before: Timestamp,
    /// Last moment of its validity.
    pub not_after: Timestamp,
    /// Whether it is not to be believed any more.
    pub revoked: bool,
}

/// The bounds of what time it is: the truth is between the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present {
    /// Something is over when it ended before this.
    pub earliest: Timestamp,
    /// Something has not begun when it begins after this.
    pub latest: Timestamp,
}

impl Present {
    /// A clock that is exact.
    #[must_use]
    pub const fn exactly(time: Timestamp) -> Self {
        Self { earliest: time, latest: time }
    }
}

impl EventKey {
    /// Whether the key, for itself, is to be believed.
    ///
    /// # Errors
    /// All of [`KeyRefusal`] but `SetExpired`. Both ends of the validity belong to it.
    pub fn check(&self, present: Present) -> Result<(), KeyRefusal> {
        let Self { not_before, not_after, .. } = *self;
        if self.revoked {
            Err(KeyRefusal::Revoked)
        } else if present.latest < not_before {
            Err(KeyRefusal::NotYetValid { not_before })
        } else if present.earliest > not_after {
            Err(KeyRefusal::Expired { not_after })
        } else {
            Ok(())
        }
    }
}

/// A set that a root key has signed and that does not contradict itself. Only
/// [`KeySet::verified`] makes one. Whether it is new enough is for
/// [`KeyRing`](crate::KeyRing) to say.
#[derive(Clone, Debug, PartialEq)]
pub struct KeySet {
    message: proto::KeySet,
    keys: BTreeMap<String, EventKey>,
    issued_at: Timestamp,
    expires_at: Timestamp,
}

// There is no floating point in a message of it.
impl Eq for KeySet {}

impl KeySet {
    /// Checks signature and content.
    ///
    /// # Errors
    /// [`KeySetError::NotVouchedFor`], [`KeySetError::Malformed`].
    pub fn verified(message: proto::KeySet, roots: &TrustKeys) -> Result<Self, KeySetError> {
        message.verify(roots)?;
        Self::checked(message)
    }

    /// Checks the content alone: for whoever is about to sign it.
    ///
    /// # Errors
    /// [`KeySetError::Malformed`].
    pub fn checked(message: proto::KeySet) -> Result<Self, KeySetError> {
        let malformed = |text: &str| KeySetError::Malformed(text.to_owned());
        if message.version == 0 {
            return Err(malformed("versions are counted from 1"));
        }
        if message.keys.len() > MAX_KEYS {
            return Err(malformed("it has more than 64 keys"));
        }
        let issued_at = time("issued_at", message.issued_at.as_ref())?;
        let expires_at = time("expires_at", message.expires_at.as_ref())?;
        if expires_at <= issued_at {
            return Err(malformed("it expires before it is issued"));
        }
        let mut keys = BTreeMap::new();
        for key in &message.keys {
            if keys.insert(key.key_id.clone(), event_key(key)?).is_some() {
                return Err(KeySetError::Malformed(format!("the key {} is in it twice", key.key_id)));
            }
        }
        Ok(Self { message, keys, issued_at, expires_at })
    }

    /// The set as it was signed.
    #[must_use]
    pub const fn message(&self) -> &proto::KeySet {
        &self.message
    }

    /// From 1.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.message.version
    }

    /// When it was signed.
    #[must_use]
    pub const fn issued_at(&self) -> Timestamp {
        self.issued_at
    }

    /// After this time it vouches for nothing.
    #[must_use]
    pub const fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    /// The keys by name.
    pub fn keys(&self) -> impl Iterator<Item = (&str, &EventKey)> {
        self.keys.iter().map(|(key_id, key)| (key_id.as_str(), key))
    }

    /// The named key.
    #[must_use]
    pub fn key(&self, key_id: &str) -> Option<&EventKey> {
        self.keys.get(key_id)
    }

    /// Whether the set still vouches for anything. The last moment belongs to it.
    ///
    /// # Errors
    /// [`KeyRefusal::SetExpired`].
    pub fn check(&self, present: Present) -> Result<(), KeyRefusal> {
        let expires_at = self.expires_at;
        if present.earliest > expires_at { Err(KeyRefusal::SetExpired { expires_at }) } else { Ok(()) }
    }

    /// Whether a server may sign with the named key now.
    ///
    /// # Errors
    /// [`VerifyError::UnknownKey`], [`VerifyError::UnusableKey`].
    pub fn check_key(&self, key_id: &str, present: Present) -> Result<(), VerifyError> {
        let unusable = |reason| VerifyError::UnusableKey { key_id: key_id.to_owned(), reason };
        let key = self.key(key_id).ok_or_else(|| VerifyError::UnknownKey { key_id: key_id.to_owned() })?;
        // The key first: that it is revoked says more than that the set is old.
        key.check(present).and_then(|()| self.check(present)).map_err(unusable)
    }

    /// Whether the named key made `signature`, whenever that was.
    ///
    /// # Errors
    /// [`VerifyError::UnknownKey`], [`VerifyError::BadSignature`].
    pub(crate) fn check_signature(
        &self,
        key_id: &str,
        bytes: &[u8],
        signature: &[u8],
    ) -> Result<&EventKey, VerifyError> {
        let key = self.key(key_id).ok_or_else(|| VerifyError::UnknownKey { key_id: key_id.to_owned() })?;
        key.public_key.check(key_id, bytes, signature)?;
        Ok(key)
    }
}

fn event_key(key: &proto::EventKey) -> Result<EventKey, KeySetError> {
    let malformed = |text: &str| KeySetError::Malformed(format!("the key {:?} {text}", key.key_id));
    let public_key = TrustKeys::from_pem(&key.public_key).map_err(|_| malformed("is not an Ed25519 key"))?;
    let mut names = public_key.key_ids();
    if names.next() != Some(&*key.key_id) || names.next().is_some() {
        return Err(malformed("is not named after its public key"));
    }
    drop(names);
    let not_before = time("not_before", key.not_before.as_ref())?;
    let not_after = time("not_after", key.not_after.as_ref())?;
    if not_after <= not_before {
        return Err(malformed("expires before it is valid"));
    }
    Ok(EventKey { public_key, not_before, not_after, revoked: key.revoked })
}

fn time(field: &str, time: Option<&catrust_proto::Timestamp>) -> Result<Timestamp, KeySetError> {
    let missing = || KeySetError::Malformed(format!("{field} is missing or out of range"));
    time.and_then(micros).map(Timestamp::from_micros).ok_or_else(missing)
}

#[cfg(test)]
mod tests;
