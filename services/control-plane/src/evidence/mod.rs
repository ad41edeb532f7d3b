//! The server's side of evidence: the tree over the log, signed checkpoints of it, and the
//! proofs that lead to them. What they are is in the room `evidence`; here they are made of
//! what the store has.

pub(crate) mod checkpoint_file;
pub(crate) mod checkpointer;
mod stored_tree;

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use catrust_domain::LogEpoch;
use catrust_event_store::EvidenceStore;
use catrust_evidence::{Checkpoint, EventProof, RecordedEvent, Sha256, SignedCheckpoint, SigningKey};

use crate::ground::ServerInUse;

pub(crate) use stored_tree::StoredTree;

/// Makes checkpoints and proofs.
pub(crate) struct Evidence {
    store: Arc<dyn EvidenceStore>,
    key: Arc<SigningKey>,
    origin: String,
    /// The last one made here: what every later one has to go on from.
    last: Mutex<Option<SignedCheckpoint>>,
}

/// The log does not go on from a checkpoint that was signed before: it was changed. Nothing
/// is signed any more.
#[derive(Debug, thiserror::Error)]
#[error(
    "the log of {now} events does not go on from the checkpoint of {before} events that was signed before: \
     it was cut off or changed; run `catrust-server verify` with the checkpoints"
)]
pub(crate) struct CheckpointContradiction {
    /// Size of the earlier checkpoint.
    pub(crate) before: u64,
    /// Size of the log now.
    pub(crate) now: u64,
}

impl Evidence {
    /// Name of the log and of its epoch in force, as checkpoints have it. In the first epoch it is
    /// the log's alone; each later one is a log of its own to a witness.
    fn origin(&self) -> String {
        origin_of(&self.origin, self.store.epoch().borrow().epoch)
    }

    /// The epoch that a checkpoint of this log belongs to; `None` for one of another log.
    #[must_use]
    pub(crate) fn epoch_of(&self, checkpoint: &Checkpoint) -> Option<LogEpoch> {
        let rest = checkpoint.origin.strip_prefix(&self.origin)?;
        if rest.is_empty() {
            return Some(LogEpoch::FIRST);
        }
        let epoch = LogEpoch(rest.strip_prefix('/')?.parse().ok()?);
        (checkpoint.origin == origin_of(&self.origin, epoch)).then_some(epoch)
    }

    /// Evidence of the log of `store`, under `origin`, or the name of the log where `None`.
    #[must_use]
    pub(crate) fn new(store: Arc<dyn EvidenceStore>, key: Arc<SigningKey>, origin: Option<&str>) -> Self {
        let origin = origin.map_or_else(|| format!("catrust/log/{}", store.log_id()), str::to_owned);
        Self { store, key, origin, last: Mutex::default() }
    }

    /// Takes in a checkpoint that was signed before this process began.
    pub(crate) fn remember(&self, signed: SignedCheckpoint) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_later = |known: &SignedCheckpoint| {
            let key = |signed: &SignedCheckpoint| (self.epoch_of(&signed.checkpoint), signed.checkpoint.size);
            key(known) <= key(&signed)
        };
        if last.as_ref().is_none_or(is_later) {
            *last = Some(signed);
        }
    }

    /// The last checkpoint known here.
    #[must_use]
    pub(crate) fn last(&self) -> Option<SignedCheckpoint> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Builds the tree on to the end of the log and signs a checkpoint of it; gives the last
    /// one where nothing has happened since.
    ///
    /// # Errors
    /// The store does not answer; or [`CheckpointContradiction`].
    pub(crate) async fn checkpoint(&self) -> anyhow::Result<SignedCheckpoint> {
        let server = ServerInUse::of(&*self.store);
        StoredTree::new(&*self.store).extend().await?;
        server.confirmed().await?;
        self.sign_head().await
    }

    /// As [`Evidence::checkpoint`], and writes nothing: slower where the tree is not built.
    ///
    /// # Errors
    /// As [`Evidence::checkpoint`].
    pub(crate) async fn sign_head(&self) -> anyhow::Result<SignedCheckpoint> {
        let tree = StoredTree::new(&*self.store);
        let size = self.store.head().await?.position;
        let origin = self.origin();
        // The size of an earlier epoch binds this one up to the fork alone.
        if let Some(last) = self.last().filter(|last| last.checkpoint.origin == origin) {
            let before = last.checkpoint.size;
            if size < before || tree.root(before).await? != last.checkpoint.root {
                return Err(CheckpointContradiction { before, now: size }.into());
            }
            if size == before {
                return Ok(last);
            }
        }
        let root = tree.root(size).await?;
        let checkpoint = Checkpoint { origin, size, root };
        let signed = checkpoint.sign(&self.key)?;
        self.remember(signed.clone());
        Ok(signed)
    }

    /// Proves that an event is in the log, against a checkpoint that covers it.
    ///
    /// # Errors
    /// As [`Evidence::checkpoint`].
    pub(crate) async fn prove(&self, event: RecordedEvent) -> anyhow::Result<EventProof> {
        let origin = self.origin();
        let covering = self
            .last()
            .filter(|last| last.checkpoint.size >= event.position && last.checkpoint.origin == origin);
        let signed = match covering {
            Some(signed) => signed,
            None => self.checkpoint().await?,
        };
        let index = event.position.checked_sub(1).context("an event without a position")?;
        let previous = match index {
            0 => Sha256::ZERO,
            _ => *self.store.read_hashes(index - 1, 1).await?.first().context("the row before is missing")?,
        };
        let path = StoredTree::new(&*self.store).inclusion_path(index, signed.checkpoint.size).await?;
        Ok(EventProof::new(event, previous, path, signed.note))
    }
}

fn origin_of(log: &str, epoch: LogEpoch) -> String {
    if epoch == LogEpoch::FIRST { log.to_owned() } else { format!("{log}/{epoch}") }
}
