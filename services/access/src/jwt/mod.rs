//! JWT bearer tokens (RFC 7519) of one issuer, signed (RFC 7515), never encrypted.
//!
//! ```text
//! token ─▶ compact ─▶ key_set ─▶ signature ─▶ claims ─▶ TokenBearer
//!          size, form  kid, alg                iss aud exp nbf, who
//! ```
//!
//! What costs nothing comes first: only a well-formed token under a known key and a
//! permitted algorithm reaches the signature check, and a token that passed it is
//! remembered until its keys change. Advice followed: RFC 8725.
//!
//! Signatures are ring's, as everywhere here. What is written by hand is the reading of header
//! and claims, because that is the part that has to be strict: about `crit`, members that stand
//! twice, the use of keys, and tokens of another type.

mod algorithm;
mod claims;
mod compact;
mod fetch;
mod json;
mod key_set;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use catrust_domain::{Sha256, Timestamp};
use quick_cache::sync::Cache;
use tokio::sync::Notify;

use super::InvalidCredentials;

pub use algorithm::JwtAlgorithm;
pub use claims::{TokenBearer, TokenRules};
pub(super) use compact::looks_like_one;
pub use fetch::Endpoint;
pub use key_set::JwkSet;

/// Tokens that passed the signature check and are remembered: a service has one token or
/// two at a time, and an entry is a few hundred bytes.
const REMEMBERED: usize = 10_000;

/// Most bytes of a token; larger ones are refused unread. HTTP/2 would let 16 KiB in.
pub(crate) const MAX_TOKEN: usize = 8 * 1_024;

/// The tokens of one issuer.
#[derive(Debug)]
pub struct Tokens {
    rules: TokenRules,
    in_force: ArcSwap<KeysInForce>,
    /// When the key set was last known to be the issuer's, in microseconds.
    confirmed_at: AtomicI64,
    /// Tells the refresher that somebody shows a key that is not in the set.
    unknown_key: Notify,
}

/// A key set and what it has verified: the one goes with the other.
#[derive(Debug)]
struct KeysInForce {
    keys: JwkSet,
    verified: Cache<Sha256, Arc<TokenBearer>>,
}

impl KeysInForce {
    fn new(keys: JwkSet) -> Self {
        Self { keys, verified: Cache::new(REMEMBERED) }
    }
}

impl Tokens {
    /// Knows the rules and no key yet: every token is refused until [`Tokens::replace`].
    #[must_use]
    pub fn new(rules: TokenRules) -> Self {
        Self {
            rules,
            in_force: ArcSwap::from_pointee(KeysInForce::new(JwkSet::default())),
            confirmed_at: AtomicI64::new(i64::MIN),
            unknown_key: Notify::new(),
        }
    }

    /// Number of keys in force.
    #[must_use]
    pub fn len(&self) -> usize {
        self.in_force.load().keys.len()
    }

    /// Whether no key is in force, so that every token is refused.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts a key set in force, all at once, as the issuer's at `now`. What the old one
    /// verified is forgotten, and withdrawn where its key is gone. For one task only.
    pub fn replace(&self, mut keys: JwkSet, now: Timestamp) {
        keys.inherit(&self.in_force.load().keys);
        let after = Arc::new(KeysInForce::new(keys));
        let before = self.in_force.swap(Arc::clone(&after));
        before.keys.make_way_for(&after.keys);
        self.confirm(now);
    }

    /// The key set in force is still the issuer's at `now`.
    pub fn confirm(&self, now: Timestamp) {
        self.confirmed_at.store(now.micros(), Ordering::Release);
    }

    /// Waits until a token has shown an unknown key.
    pub async fn unknown_key(&self) {
        self.unknown_key.notified().await;
    }

    /// Checks a token that has the form of a JWT. `hash` is that of the token.
    ///
    /// # Errors
    /// Why it is not accepted, for the log.
    pub fn verify(
        &self,
        token: &str,
        hash: &Sha256,
        now: Timestamp,
    ) -> Result<Arc<TokenBearer>, InvalidCredentials> {
        let confirmed_at = self.confirmed_at.load(Ordering::Acquire);
        if now.micros().saturating_sub(confirmed_at) > micros(self.rules.max_age) {
            return Err(InvalidCredentials::invalid(
                "the key set is not there, or older than auth.jwt.max_age_seconds",
            ));
        }
        let in_force = self.in_force.load();
        let verified = match in_force.verified.get(hash) {
            Some(verified) => verified,
            None => {
                let verified = Arc::new(self.check(&in_force.keys, token)?);
                in_force.verified.insert(*hash, Arc::clone(&verified));
                verified
            }
        };
        // Also for a remembered token: it may have expired since.
        verified.lasts_at(now).map_err(InvalidCredentials::invalid)?;
        Ok(verified)
    }

    /// Everything that does not change with time.
    fn check(&self, keys: &JwkSet, token: &str) -> Result<TokenBearer, InvalidCredentials> {
        let token = compact::Token::parse(token).map_err(InvalidCredentials::malformed)?;
        let algorithm =
            self.rules.algorithms.iter().find(|known| key_set::name(**known) == token.header.algorithm);
        let Some(algorithm) = algorithm else {
            return Err(InvalidCredentials::invalid("its alg is not among auth.jwt.algorithms"));
        };
        let Some(key) = keys.find(&token.header.key_id) else {
            self.unknown_key.notify_one();
            return Err(InvalidCredentials::invalid("its kid is not in the key set"));
        };
        key.verify(*algorithm, token.signed, &token.signature).map_err(InvalidCredentials::invalid)?;
        let payload = token.payload().map_err(InvalidCredentials::invalid)?;
        self.rules.read(&payload, Arc::clone(&key.withdrawn)).map_err(InvalidCredentials::invalid)
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
