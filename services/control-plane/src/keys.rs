//! What this server signs with, and the key set that vouches for it.
//!
//! Without a key set, agents have the server's public key pinned. With one, an offline root
//! key vouches for every key that a replica may sign with; the server hands the set out,
//! word for word, and takes it again from its file while it runs ([`reload`]). It never
//! signs a set and never holds a root key.

pub mod reload;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use catrust_domain::Timestamp;
use catrust_proto::v1 as proto;
use catrust_signing::{
    Adopted, KeyRefusal, KeyRing, KeySet, KeySetError, Present, SigningKey, TrustKeys, VerifyError,
};
use tokio::sync::watch;

use crate::config::SigningConfig;

/// The keys of a server.
#[derive(Debug)]
pub struct ServerKeys {
    active: Arc<SigningKey>,
    set: watch::Sender<Option<Arc<KeySet>>>,
    /// Where the set comes from.
    source: Option<Source>,
}

#[derive(Debug)]
struct Source {
    file: PathBuf,
    roots: TrustKeys,
}

/// What a look at the key set's file found.
#[derive(Debug, PartialEq, Eq)]
pub enum Looked {
    /// The set in force.
    Known,
    /// A newer one, in force from now on.
    New,
    /// One that is not to be used, and why. What was in force stays.
    Refused(String),
}

impl From<Arc<SigningKey>> for ServerKeys {
    /// A key that agents have pinned, without a set.
    fn from(active: Arc<SigningKey>) -> Self {
        Self { active, set: watch::Sender::new(None), source: None }
    }
}

impl ServerKeys {
    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// A file cannot be used, or the set does not vouch for the key at `now`; the text says
    /// what to do.
    pub fn load(config: &SigningConfig, now: Timestamp) -> anyhow::Result<Self> {
        let key_file = config.key_file.as_deref().context("signing.key_file is not set")?;
        let mut keys = Self::from(Arc::new(SigningKey::load(key_file).context("signing.key_file")?));
        let (Some(file), Some(root)) = (&config.key_set_file, &config.root_key_file) else { return Ok(keys) };
        let roots = TrustKeys::load([root]).context("signing.root_key_file")?;
        let source = Source { file: file.clone(), roots };
        let message = source.read().map_err(|problem| anyhow::anyhow!("signing.key_set_file: {problem}"))?;
        let set = source.first(message, now).map_err(|error| anyhow::anyhow!("{}", source.tell(&error)))?;
        if let Err(error) = set.check_key(keys.key_id(), Present::exactly(now)) {
            bail!("signing.key_file: {}", source.tell_key(&set, &error));
        }
        keys.set.send_replace(Some(Arc::new(set)));
        keys.source = Some(source);
        Ok(keys)
    }

    /// The key to sign with.
    #[must_use]
    pub const fn active(&self) -> &Arc<SigningKey> {
        &self.active
    }

    /// Name of the key to sign with.
    #[must_use]
    pub fn key_id(&self) -> &str {
        self.active.key_id()
    }

    /// The set in force, as it was signed.
    #[must_use]
    pub fn key_set(&self) -> Option<proto::KeySet> {
        self.set.borrow().as_ref().map(|set| set.message().clone())
    }

    /// Follows the set in force.
    #[must_use]
    pub fn follow(&self) -> watch::Receiver<Option<Arc<KeySet>>> {
        self.set.subscribe()
    }

    /// Where the set comes from; `None` where there is none.
    #[must_use]
    pub fn key_set_file(&self) -> Option<&Path> {
        self.source.as_ref().map(|source| &*source.file)
    }

    /// Reads the set again, and puts a newer one in force that vouches for this server's
    /// key. Blocks.
    #[must_use]
    pub fn look(&self, now: Timestamp) -> Looked {
        let (Some(source), Some(held)) = (&self.source, self.set.borrow().clone()) else {
            return Looked::Known;
        };
        match source.next(&held, self.key_id(), now) {
            Ok(None) => Looked::Known,
            Ok(Some(set)) => {
                self.set.send_replace(Some(set));
                Looked::New
            }
            Err(problem) => Looked::Refused(problem),
        }
    }
}

impl Source {
    fn read(&self) -> Result<proto::KeySet, String> {
        let file = self.file.display();
        let text =
            std::fs::read_to_string(&self.file).map_err(|error| format!("cannot read {file}: {error}"))?;
        serde_json::from_str(&text).map_err(|error| format!("{file} is no key set: {error}"))
    }

    /// The first set of a server's life.
    fn first(&self, message: proto::KeySet, now: Timestamp) -> Result<KeySet, KeySetError> {
        let set = KeySet::verified(message, &self.roots)?;
        match set.check(Present::exactly(now)) {
            Ok(()) => Ok(set),
            Err(_) => Err(KeySetError::Expired { expires_at: set.expires_at() }),
        }
    }

    /// The set in the file, where it is newer than `held`.
    fn next(&self, held: &Arc<KeySet>, key_id: &str, now: Timestamp) -> Result<Option<Arc<KeySet>>, String> {
        let present = Present::exactly(now);
        let mut ring = KeyRing::new(TrustKeys::default(), self.roots.clone());
        // Held because it was verified with the same root keys.
        ring.restore(held.message().clone()).map_err(|error| self.tell(&error))?;
        if ring.adopt(self.read()?, present).map_err(|error| self.tell(&error))? == Adopted::Known {
            return Ok(None);
        }
        let Some(set) = ring.set().cloned() else { return Ok(None) };
        set.check_key(key_id, present).map_err(|error| self.tell_key(&set, &error))?;
        Ok(Some(set))
    }

    fn tell(&self, error: &KeySetError) -> String {
        let what_to_do = match error {
            KeySetError::NotVouchedFor(_) => "it is for another root key, or was changed after it was signed",
            KeySetError::Rollback { .. } => "put the newest file in place",
            KeySetError::Forked { .. } => "make the next version with `catrust keys vouch`",
            KeySetError::Expired { .. } => {
                "renew it with `catrust keys vouch --set FILE --root-key ROOT_KEY`"
            }
            _ => "make it with `catrust keys vouch`",
        };
        let error = crate::appender::chain(error);
        format!("signing.key_set_file: {}: {error}; {what_to_do}", self.file.display())
    }

    fn tell_key(&self, set: &KeySet, error: &VerifyError) -> String {
        let (file, version) = (self.file.display(), set.version());
        match error {
            VerifyError::UnusableKey { key_id, reason: KeyRefusal::Revoked } => format!(
                "the key {key_id} is revoked in {file} (version {version}); sign with another key of the set"
            ),
            VerifyError::UnusableKey { key_id, reason } => format!(
                "{file} (version {version}) does not vouch for the key {key_id} now: {reason}; renew it with \
                 `catrust keys vouch --add PUBLIC_KEY`, or sign with another key of the set"
            ),
            VerifyError::UnknownKey { key_id } => format!(
                "the key {key_id} is not in {file} (version {version}), so that no agent would believe this server; \
                 let the root key vouch for it with `catrust keys vouch --add PUBLIC_KEY`, or sign with a key of the \
                 set"
            ),
            other => crate::appender::chain(other),
        }
    }
}

#[cfg(test)]
mod tests;
