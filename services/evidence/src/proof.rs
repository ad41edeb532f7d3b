//! The proof that one event is in the log: its row, and the way from there to a signed root.

use catrust_domain::{RecordedEvent, Sha256};
use catrust_signing::TrustKeys;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
use crate::row::EvidenceRow;
use crate::tree;

/// Version of the format.
const VERSION: u32 = 1;

/// A proof, as its JSON file has it. Nothing in it is to be believed before
/// [`EventProof::verify`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventProof {
    /// Version of the format: 1.
    pub catrust_event_proof: u32,
    /// The row.
    pub row: EvidenceRow,
    /// Hash of the row before; 64 zeros for position 1.
    pub previous_hash: Sha256,
    /// Roots from the leaf's sibling upwards, RFC 9162 §2.1.3. The leaf is number
    /// `position - 1`, its bytes are the row's hash, the size is the checkpoint's.
    pub inclusion_path: Vec<Sha256>,
    /// The checkpoint: a signed note.
    pub checkpoint: String,
}

/// What a proof proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedProof {
    /// The event.
    pub event: RecordedEvent,
    /// The state of the log that it is part of.
    pub checkpoint: Checkpoint,
}

/// A proof that proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Another format.
    #[error("the proof has format {0}, this program knows {VERSION}")]
    Version(u32),
    /// The row is not the one that was hashed.
    #[error("the row does not have the hash that it shows: it was changed")]
    Row,
    /// The path leads to another root.
    #[error(
        "the path does not lead from the row to the root of the checkpoint: the event is not in that log"
    )]
    Path,
    /// The checkpoint is not to be trusted.
    #[error("the checkpoint is not to be trusted: {0}")]
    Checkpoint(#[from] CheckpointError),
}

impl EventProof {
    /// Puts a proof together.
    #[must_use]
    pub fn new(
        event: RecordedEvent,
        previous_hash: Sha256,
        inclusion_path: Vec<Sha256>,
        checkpoint: String,
    ) -> Self {
        Self { catrust_event_proof: VERSION, row: event.into(), previous_hash, inclusion_path, checkpoint }
    }

    /// Checks everything: the row against its hash, the hash against the root, the root
    /// against the signature of one of `keys`.
    ///
    /// # Errors
    /// [`ProofError`] says what does not hold; then nothing of it holds.
    pub fn verify(&self, keys: &TrustKeys) -> Result<VerifiedProof, ProofError> {
        if self.catrust_event_proof != VERSION {
            return Err(ProofError::Version(self.catrust_event_proof));
        }
        let event = RecordedEvent::from(self.row.clone());
        if event.compute_hash(&self.previous_hash) != event.hash {
            return Err(ProofError::Row);
        }
        let checkpoint = SignedCheckpoint::open(&self.checkpoint, keys)?.checkpoint;
        let index = event.position.checked_sub(1).ok_or(ProofError::Path)?;
        let root = tree::root_from_inclusion(&event.hash, index, checkpoint.size, &self.inclusion_path);
        if root != Some(checkpoint.root) {
            return Err(ProofError::Path);
        }
        Ok(VerifiedProof { event, checkpoint })
    }
}
