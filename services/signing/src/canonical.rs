//! What a signature covers: the signing input of each message, exactly as the
//! head of `trust_service.proto` says.
//!
//! Netstrings, so that no two messages share an input: the context, then every
//! field but `signature` in the order of field numbers. A message that cannot be
//! written down exactly (a missing time, a fraction of a microsecond, an unknown
//! enum value) can be neither signed nor verified, since somebody could change
//! what the input does not tell.

use std::ops::Deref;

use catrust_domain::event_log::put_netstring;
use catrust_proto::Timestamp;
use catrust_proto::v1::{
    CaCertificateState, EventKey, Head, InactivationScope, KeySet, LogEvent, Signature, TrustBundle,
    TrustChange, TrustEntry,
};

use crate::signing::SigningKey;

/// A field that has no canonical form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("field {field} is missing or has no canonical form")]
pub struct NotCanonical {
    /// Name of the field, as in the contract.
    pub field: &'static str,
}

/// Why a message is not to be trusted. None of them is worth a retry: refuse the
/// message, and take a bundle from another source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// There is no signature.
    #[error("the message is not signed")]
    Unsigned,
    /// The signing key is not among those that the reader was given, nor in the key set.
    #[error("the message is signed with the key {key_id:?}, which is neither pinned nor in the key set")]
    UnknownKey {
        /// Name of the key, as the message gives it.
        key_id: String,
    },
    /// The signature is good, and its key is not to be believed at this time.
    #[error("the message is signed with the key {key_id:?}")]
    UnusableKey {
        /// Name of the key.
        key_id: String,
        /// Why not.
        #[source]
        reason: KeyRefusal,
    },
    /// The signature is not over this message.
    #[error("the signature does not match the message")]
    BadSignature,
    /// The message has no canonical form.
    #[error("the message has no canonical form")]
    NotCanonical(#[from] NotCanonical),
}

/// Why a key that is known is not to be believed at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyRefusal {
    /// It is stolen, or feared to be.
    #[error("the key is revoked")]
    Revoked,
    /// Its time has not come, or this machine's clock is behind.
    #[error("the key is not valid before {not_before}")]
    NotYetValid {
        /// First moment of its validity.
        not_before: catrust_domain::Timestamp,
    },
    /// Its time is over, or this machine's clock is ahead.
    #[error("the key expired at {not_after}")]
    Expired {
        /// Last moment of its validity.
        not_after: catrust_domain::Timestamp,
    },
    /// The set that names the key vouches for nothing any more: somebody holds newer
    /// sets back, or nobody has made one in time.
    #[error("the key set expired at {expires_at}; a newer one has to be vouched for with the root key")]
    SetExpired {
        /// When.
        expires_at: catrust_domain::Timestamp,
    },
}

/// Keys that somebody believes, at one moment.
pub trait Keys {
    /// Checks that the named key made `signature` over `bytes`, and is to be believed.
    ///
    /// # Errors
    /// [`VerifyError::UnknownKey`], [`VerifyError::BadSignature`],
    /// [`VerifyError::UnusableKey`].
    fn check(&self, key_id: &str, bytes: &[u8], signature: &[u8]) -> Result<(), VerifyError>;
}

/// A message whose signature was checked against keys that are believed. Only
/// [`Signed::verified`] makes one.
#[derive(Clone, Debug, PartialEq)]
pub struct Verified<M>(M);

impl<M> Verified<M> {
    /// The message.
    pub fn into_inner(self) -> M {
        self.0
    }
}

impl<M> Deref for Verified<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.0
    }
}

/// A message of the feed that carries a signature.
pub trait Signed: Sized {
    /// The first netstring of the input: one message can't pass for another kind, or for
    /// another version of its own.
    const CONTEXT: &'static str;

    /// The context of this message: a later version's where it holds what the first one
    /// has no place for.
    fn context(&self) -> &'static str {
        Self::CONTEXT
    }

    /// Appends every field but the signature to `input`.
    ///
    /// # Errors
    /// [`NotCanonical`] names the field.
    fn put_fields(&self, input: &mut SigningInput) -> Result<(), NotCanonical>;

    /// Where the signature is.
    fn signature(&self) -> Option<&Signature>;

    /// Puts a signature in.
    fn set_signature(&mut self, signature: Signature);

    /// The bytes that the signature covers.
    ///
    /// # Errors
    /// [`NotCanonical`] names the field.
    fn signing_input(&self) -> Result<Vec<u8>, NotCanonical> {
        let mut input = SigningInput::default();
        input.text(self.context());
        self.put_fields(&mut input)?;
        Ok(input.0)
    }

    /// Signs the message, over any signature that it has.
    ///
    /// # Errors
    /// [`NotCanonical`] names the field.
    fn sign(&mut self, key: &SigningKey) -> Result<(), NotCanonical> {
        let value = key.sign(&self.signing_input()?);
        self.set_signature(Signature { key_id: key.key_id().to_owned(), value });
        Ok(())
    }

    /// Checks the signature. Says nothing about instance, revision or time: those
    /// are the reader's to check.
    ///
    /// # Errors
    /// [`VerifyError`].
    fn verify(&self, keys: &impl Keys) -> Result<(), VerifyError> {
        let signature = self.signature().ok_or(VerifyError::Unsigned)?;
        keys.check(&signature.key_id, &self.signing_input()?, &signature.value)
    }

    /// Checks the signature and says so in the type.
    ///
    /// # Errors
    /// [`VerifyError`].
    fn verified(self, keys: &impl Keys) -> Result<Verified<Self>, VerifyError> {
        self.verify(keys)?;
        Ok(Verified(self))
    }
}

/// A signing input in the making.
#[derive(Debug, Default)]
pub struct SigningInput(Vec<u8>);

impl SigningInput {
    /// Appends a string as it is.
    pub fn text(&mut self, text: &str) {
        put_netstring(&mut self.0, text.as_bytes());
    }

    /// Appends bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        put_netstring(&mut self.0, bytes);
    }

    /// Appends an integer in decimal.
    pub fn number(&mut self, number: u64) {
        self.text(&number.to_string());
    }

    /// Appends `true` or `false`.
    pub fn flag(&mut self, flag: bool) {
        self.text(if flag { "true" } else { "false" });
    }

    /// Appends a time as microseconds since the epoch, in decimal.
    ///
    /// # Errors
    /// [`NotCanonical`] where it is missing, out of range, or finer than that.
    pub fn time(&mut self, field: &'static str, time: Option<&Timestamp>) -> Result<(), NotCanonical> {
        let micros = time.and_then(micros).ok_or(NotCanonical { field })?;
        self.text(&micros.to_string());
        Ok(())
    }

    fn entry(&mut self, entry: &TrustEntry) -> Result<(), NotCanonical> {
        let mut nested = Self::default();
        nested.text(&entry.sn);
        nested.text(&entry.sha256);
        nested.text(&entry.spki_sha256);
        nested.text(&entry.subject);
        nested.text(&entry.subject_key_id);
        nested.text(&entry.issuer);
        nested.time("not_before", entry.not_before.as_ref())?;
        nested.time("not_after", entry.not_after.as_ref())?;
        nested.text(&entry.ca_content);
        let state = CaCertificateState::try_from(entry.state).map_err(|_| NotCanonical { field: "state" })?;
        nested.text(state.as_str_name());
        let scope = InactivationScope::try_from(entry.inactivation_scope)
            .map_err(|_| NotCanonical { field: "inactivation_scope" })?;
        nested.text(scope.as_str_name());
        put_netstring(&mut self.0, &nested.0);
        Ok(())
    }

    fn event_key(&mut self, key: &EventKey) -> Result<(), NotCanonical> {
        let mut nested = Self::default();
        nested.text(&key.key_id);
        nested.text(&key.public_key);
        nested.time("not_before", key.not_before.as_ref())?;
        nested.time("not_after", key.not_after.as_ref())?;
        nested.flag(key.revoked);
        put_netstring(&mut self.0, &nested.0);
        Ok(())
    }
}

/// Microseconds since the epoch; `None` where the time is not a whole number of them.
pub fn micros(time: &Timestamp) -> Option<i64> {
    let whole = (0..1_000_000_000).contains(&time.nanos) && time.nanos % 1_000 == 0;
    let micros = time.seconds.checked_mul(1_000_000)?.checked_add(i64::from(time.nanos / 1_000))?;
    whole.then_some(micros)
}

/// A time as the contract has it.
#[must_use]
pub fn timestamp(time: catrust_domain::Timestamp) -> Timestamp {
    let micros = time.micros();
    // The remainder is below a million, so that the nanoseconds fit.
    let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap_or_default();
    Timestamp { seconds: micros.div_euclid(1_000_000), nanos }
}

// === impl Signed ===

impl Signed for TrustBundle {
    const CONTEXT: &'static str = "catrust/trust-bundle/v1";

    fn put_fields(&self, input: &mut SigningInput) -> Result<(), NotCanonical> {
        input.text(&self.log_id);
        input.text(&self.mqtt_instance_id);
        input.number(self.revision);
        input.number(self.position);
        input.text(&self.bundle_digest);
        for entry in &self.entries {
            input.entry(entry)?;
        }
        input.time("issued_at", self.issued_at.as_ref())
    }

    fn signature(&self) -> Option<&Signature> {
        self.signature.as_ref()
    }

    fn set_signature(&mut self, signature: Signature) {
        self.signature = Some(signature);
    }
}

impl Signed for TrustChange {
    const CONTEXT: &'static str = "catrust/trust-change/v1";

    fn put_fields(&self, input: &mut SigningInput) -> Result<(), NotCanonical> {
        input.text(&self.log_id);
        input.number(self.position);
        input.text(&self.event_id);
        input.text(&self.event_type);
        input.text(&self.mqtt_instance_id);
        input.number(self.revision);
        input.number(self.previous_revision);
        input.text(&self.bundle_digest);
        input.entry(self.entry.as_ref().ok_or(NotCanonical { field: "entry" })?)?;
        input.flag(self.deleted);
        input.flag(self.with_will);
        input.text(&self.reason);
        input.time("occurred_at", self.occurred_at.as_ref())?;
        input.text(&self.event_hash);
        input.text(&self.traceparent);
        Ok(())
    }

    fn signature(&self) -> Option<&Signature> {
        self.signature.as_ref()
    }

    fn set_signature(&mut self, signature: Signature) {
        self.signature = Some(signature);
    }
}

impl Signed for Head {
    const CONTEXT: &'static str = "catrust/head/v1";

    fn context(&self) -> &'static str {
        if self.nonce.is_empty() { Self::CONTEXT } else { "catrust/head/v2" }
    }

    fn put_fields(&self, input: &mut SigningInput) -> Result<(), NotCanonical> {
        input.text(&self.log_id);
        input.text(&self.mqtt_instance_id);
        input.number(self.revision);
        input.number(self.position);
        input.text(&self.bundle_digest);
        input.time("issued_at", self.issued_at.as_ref())?;
        input.time("valid_until", self.valid_until.as_ref())?;
        if !self.nonce.is_empty() {
            input.bytes(&self.nonce);
        }
        Ok(())
    }

    fn signature(&self) -> Option<&Signature> {
        self.signature.as_ref()
    }

    fn set_signature(&mut self, signature: Signature) {
        self.signature = Some(signature);
    }
}

impl Signed for LogEvent {
    const CONTEXT: &'static str = "catrust/log-event/v1";

    fn context(&self) -> &'static str {
        if self.epoch == 0 { Self::CONTEXT } else { "catrust/log-event/v2" }
    }

    fn put_fields(&self, input: &mut SigningInput) -> Result<(), NotCanonical> {
        input.text(&self.log_id);
        input.number(self.position);
        input.text(&self.event_id);
        input.text(&self.event_type);
        input.number(u64::from(self.schema_version));
        input.text(&self.mqtt_instance_id);
        input.text(&self.payload);
        input.text(&self.actor);
        input.text(&self.request_id);
        input.time("occurred_at", self.occurred_at.as_ref())?;
        input.text(&self.event_hash);
        input.text(&self.traceparent);
        // Left out in the first epoch: what was signed before there were any stays valid.
        if self.epoch != 0 {
            input.number(u64::from(self.epoch));
        }
        Ok(())
    }

    fn signature(&self) -> Option<&Signature> {
        self.signature.as_ref()
    }

    fn set_signature(&mut self, signature: Signature) {
        self.signature = Some(signature);
    }
}

impl Signed for KeySet {
    const CONTEXT: &'static str = "catrust/key-set/v1";

    fn put_fields(&self, input: &mut SigningInput) -> Result<(), NotCanonical> {
        input.number(self.version);
        for key in &self.keys {
            input.event_key(key)?;
        }
        input.time("issued_at", self.issued_at.as_ref())?;
        input.time("expires_at", self.expires_at.as_ref())
    }

    fn signature(&self) -> Option<&Signature> {
        self.signature.as_ref()
    }

    fn set_signature(&mut self, signature: Signature) {
        self.signature = Some(signature);
    }
}

#[cfg(test)]
mod tests;
