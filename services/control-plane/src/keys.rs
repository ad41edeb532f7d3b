//! What this server signs with, and the key set that vouches for it.
//!
//! Without a key set, agents have the server's public key pinned. With one, an offline root
//! key vouches for every key that a replica may sign with; the server hands the set out,
//! word for word, and takes it again from its file while it runs. It never signs a set and never
//! holds a root key.

pub(crate) mod expiry;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use catrust_domain::{Notary, Seal, Timestamp, error_chain};
use catrust_event_store::Clock;
use catrust_proto::v1 as proto;
use catrust_signing::{
    Adoption, KeyRefusal, KeyRing, KeySet, KeySetError, Keys as _, Present, SigningKey, TrustKeys,
    VerifyError,
};
use opentelemetry::metrics::Meter;
use tokio::sync::watch;

use crate::config::SigningConfig;
use crate::reload::{Content, Reload, ReloadInstruments, read_files};

/// The keys of a server.
#[derive(Debug)]
pub(crate) struct ServerKeys {
    active: Arc<SigningKey>,
    set: watch::Sender<Option<Arc<KeySet>>>,
    /// Where the set comes from.
    source: Option<KeySetSource>,
}

#[derive(Debug)]
struct KeySetSource {
    file: PathBuf,
    roots: TrustKeys,
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
    pub(crate) fn load(config: &SigningConfig, now: Timestamp) -> anyhow::Result<Self> {
        let key_file = config.key_file.as_deref().context("signing.key_file is not set")?;
        let mut keys = Self::from(Arc::new(SigningKey::load(key_file).context("signing.key_file")?));
        let (Some(file), Some(root)) = (&config.key_set_file, &config.root_key_file) else { return Ok(keys) };
        let roots = TrustKeys::load([root]).context("signing.root_key_file")?;
        let source = KeySetSource { file: file.clone(), roots };
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
    pub(crate) const fn active(&self) -> &Arc<SigningKey> {
        &self.active
    }

    /// Name of the key to sign with.
    #[must_use]
    pub(crate) fn key_id(&self) -> &str {
        self.active.key_id()
    }

    /// The set in force, as it was signed.
    #[must_use]
    pub(crate) fn key_set(&self) -> Option<proto::KeySet> {
        self.set.borrow().as_ref().map(|set| set.message().clone())
    }

    /// Whom this server believes about what was signed before: itself, and the keys that the
    /// set names. With [`KeyRing::on_record`] expired ones count, and revoked ones do not.
    #[must_use]
    pub(crate) fn ring(&self) -> KeyRing {
        let roots = self.source.as_ref().map(|source| source.roots.clone()).unwrap_or_default();
        let mut ring = KeyRing::new(TrustKeys::from(&*self.active), roots);
        if let Some(set) = self.key_set()
            && let Err(error) = ring.restore(set)
        {
            // It was verified with the same root keys when it came.
            tracing::error!(error = error_chain(&error), "the key set in force cannot be used");
        }
        ring
    }

    /// The keys whose signatures of any time count: those that are not revoked. An expired key
    /// does not take back what it signed.
    #[must_use]
    pub(crate) fn on_record(&self) -> TrustKeys {
        let Some(set) = self.set.borrow().clone() else { return TrustKeys::from(&*self.active) };
        let mut keys = TrustKeys::default();
        set.keys().filter(|(_, key)| !key.revoked).for_each(|(_, key)| keys.extend(key.public_key.clone()));
        keys
    }

    /// The keys of [`ServerKeys::on_record`], and those that are revoked.
    fn on_file(&self) -> TrustKeys {
        let mut keys = self.on_record();
        if let Some(set) = self.set.borrow().as_ref() {
            set.keys().for_each(|(_, key)| keys.extend(key.public_key.clone()));
        }
        keys
    }

    /// Follows the set in force.
    #[must_use]
    pub(crate) fn follow(&self) -> watch::Receiver<Option<Arc<KeySet>>> {
        self.set.subscribe()
    }

    /// The set's file, to be read again; `None` where there is no set.
    #[must_use]
    pub(crate) fn key_set_file(self: &Arc<Self>, clock: Clock) -> Option<Arc<KeySetFile>> {
        self.source.is_some().then(|| Arc::new(KeySetFile { keys: Arc::clone(self), clock }))
    }

    /// Puts the set of `message` in force where it is newer and vouches for this server's key.
    ///
    /// # Errors
    /// Why it is not to be used, and what to do; what was in force stays.
    fn adopt(
        &self,
        message: proto::KeySet,
        source: &KeySetSource,
        now: Timestamp,
    ) -> Result<Adoption, String> {
        let Some(held) = self.set.borrow().clone() else { return Ok(Adoption::Known) };
        let Some(set) = source.next(message, &held, self.key_id(), now)? else { return Ok(Adoption::Known) };
        let (version, keys) = (set.version(), set.keys().count());
        tracing::info!(version, keys, expires_at = %set.expires_at(), "a newer key set is in force");
        self.set.send_replace(Some(set));
        Ok(Adoption::New)
    }
}

impl Notary for ServerKeys {
    fn key_id(&self) -> Option<String> {
        let key_id = self.key_id();
        self.on_record().contains(key_id).then(|| key_id.to_owned())
    }

    /// By the key that signs the messages, unless it is revoked meanwhile.
    fn seal(&self, statement: &[u8]) -> Option<Seal> {
        let key_id = self.key_id();
        let value = self.on_record().contains(key_id).then(|| self.active.seal(statement))?;
        Some(Seal { key_id: key_id.to_owned(), value })
    }

    fn check(&self, statement: &[u8], seal: &Seal) -> Result<(), String> {
        let checked = self.on_record().check(&seal.key_id, statement, &seal.value);
        checked.map_err(|error| error_chain(&error))
    }

    fn check_past(&self, statement: &[u8], seal: &Seal) -> Result<(), String> {
        let checked = self.on_file().check(&seal.key_id, statement, &seal.value);
        checked.map_err(|error| error_chain(&error))
    }
}

/// The file of a server's key set. A set is signed as a whole, so that half of a file is never
/// taken for it.
pub(crate) struct KeySetFile {
    keys: Arc<ServerKeys>,
    clock: Clock,
}

#[async_trait]
impl Reload for KeySetFile {
    fn name(&self) -> &'static str {
        "key set"
    }

    fn instruments(&self, meter: &Meter) -> ReloadInstruments {
        let refused = meter
            .u64_gauge("catrust.signing.key_set.refused")
            .with_description("1 while the key set's file holds something that cannot be used")
            .build();
        ReloadInstruments { reloads: None, refused, labels: Vec::new() }
    }

    /// What is refused today may be valid tomorrow.
    fn settles(&self) -> bool {
        false
    }

    async fn read(self: Arc<Self>) -> anyhow::Result<Content> {
        let files = self.keys.source.iter().map(|source| source.file.clone()).collect();
        read_files(files, move |contents| {
            let Some(source) = &self.keys.source else { return Ok(()) };
            let adopted = source.parse(&contents[0]);
            let adopted = adopted.and_then(|message| self.keys.adopt(message, source, (self.clock)()));
            adopted.map(drop).map_err(anyhow::Error::msg)
        })
        .await
    }
}

impl KeySetSource {
    fn read(&self) -> Result<proto::KeySet, String> {
        let read = std::fs::read(&self.file);
        self.parse(&read.map_err(|error| format!("cannot read {}: {error}", self.file.display()))?)
    }

    fn parse(&self, text: &[u8]) -> Result<proto::KeySet, String> {
        serde_json::from_slice(text)
            .map_err(|error| format!("{} is no key set: {error}", self.file.display()))
    }

    /// The first set of a server's life.
    fn first(&self, message: proto::KeySet, now: Timestamp) -> Result<KeySet, KeySetError> {
        let set = KeySet::verified(message, &self.roots)?;
        match set.check(Present::exactly(now)) {
            Ok(()) => Ok(set),
            Err(_) => Err(KeySetError::Expired { expires_at: set.expires_at() }),
        }
    }

    /// The set of `message`, where it is newer than `held`.
    fn next(
        &self,
        message: proto::KeySet,
        held: &Arc<KeySet>,
        key_id: &str,
        now: Timestamp,
    ) -> Result<Option<Arc<KeySet>>, String> {
        let present = Present::exactly(now);
        let mut ring = KeyRing::new(TrustKeys::default(), self.roots.clone());
        // It is held, so that it was verified with these root keys before.
        ring.restore(held.message().clone()).map_err(|error| self.tell(&error))?;
        if ring.adopt(message, present).map_err(|error| self.tell(&error))? == Adoption::Known {
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
        let error = error_chain(error);
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
            other => error_chain(other),
        }
    }
}

#[cfg(test)]
mod tests;
