//! Evidence that the log once had an end or a row, and the verdict whether it still has.
//!
//! Evidence is what a replica acknowledged or signed itself, or something with a valid
//! signature by a server key that is not revoked; whoever makes a [`LogEvidence`] MUST
//! have verified that. A sequence number, a bare receipt or an unsigned row is none: a
//! stolen login must not be able to stop the log.
//!
//! The verdict is no latch: it holds for as long as the evidence contradicts the log.

use std::fmt;

use uuid::Uuid;

use crate::digest::Sha256;
use crate::event_log::{LogHead, put_netstring};
use crate::identifiers::InstanceId;
use crate::log_epoch::{EpochInForce, LogEpoch, revision_count, spell_revision};
use crate::timestamp::Timestamp;

/// What the signature of a stored [`LogEvidence`] is over, and nothing else is.
const CONTEXT: &str = "catrust/log-evidence/v1";

/// Something that shows what the log once had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEvidence {
    /// Epoch that it belongs to: that of the row, of the head or bundle, of the checkpoint.
    pub epoch: LogEpoch,
    /// What it shows.
    pub mark: LogMark,
    /// Who shows it, for people: "this server", "the stream CATRUST", "broker b-1".
    pub witness: String,
    /// When this server saw it.
    pub seen_at: Timestamp,
}

/// What the log had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogMark {
    /// A row.
    Row {
        /// Its position.
        position: u64,
        /// Its hash.
        hash: Sha256,
    },
    /// The trust of an instance, as a change, a head or a bundle says it.
    Trust {
        /// The instance.
        instance_id: InstanceId,
        /// Position of the change that made the revision; 0 before the first.
        position: u64,
        /// The revision, in the epoch of the evidence.
        revision: u64,
        /// Digest of the bundle at the revision.
        digest: Sha256,
    },
    /// A checkpoint over the whole log.
    Checkpoint {
        /// Number of rows.
        size: u64,
        /// Root of the Merkle tree over them.
        root: Sha256,
    },
}

/// What a log says now, as far as a mark asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogView {
    /// The epoch in force.
    pub epoch: EpochInForce,
    /// The end of the log.
    pub end: LogHead,
    /// The row at [`LogMark::position`]; `None` where there is none.
    pub row: Option<MarkedRow>,
    /// Root of the tree of the size of a checkpoint; `None` where it was not computed.
    pub root: Option<Sha256>,
}

/// The row at the position of a mark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MarkedRow {
    /// Its hash.
    pub hash: Sha256,
    /// Instance that it belongs to.
    pub instance_id: InstanceId,
    /// Revision that it made; trust changes only.
    pub revision: Option<u64>,
    /// Digest of the bundle after it; trust changes only.
    pub digest: Option<Sha256>,
}

/// What a piece of evidence comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The log has what the evidence shows.
    Agrees,
    /// The evidence is of an epoch that has ended: what it shows may be lost, which halts nothing.
    Ended,
    /// The log does not have it: it was set back.
    SetBack(Contradiction),
    /// The evidence is of a later epoch: this log has been superseded.
    Superseded,
}

impl Verdict {
    /// Whether nothing may be acknowledged or signed while it holds.
    #[must_use]
    pub const fn halts(&self) -> bool {
        matches!(self, Self::SetBack(_) | Self::Superseded)
    }
}

/// How a log contradicts evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contradiction {
    /// It ends before.
    Shorter {
        /// Where it ends.
        end: u64,
    },
    /// It has another row, or another tree, there.
    Other,
}

impl LogMark {
    /// The position up to which the log must reach; 0 where nothing is asked of it.
    #[must_use]
    pub const fn position(&self) -> u64 {
        match self {
            Self::Row { position, .. } | Self::Trust { position, .. } => *position,
            Self::Checkpoint { size, .. } => *size,
        }
    }

    /// Its kind, as stored and signed.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Row { .. } => "ROW",
            Self::Trust { .. } => "TRUST",
            Self::Checkpoint { .. } => "CHECKPOINT",
        }
    }

    /// Whether the row or tree of `log` at [`LogMark::position`] is the one that it shows.
    fn is_kept_by(&self, log: &LogView) -> bool {
        match self {
            Self::Row { hash, .. } => log.row.as_ref().is_some_and(|row| row.hash == *hash),
            Self::Trust { instance_id, revision, digest, .. } => log.row.as_ref().is_some_and(|row| {
                row.instance_id == *instance_id
                    // The row may be of an epoch before: its revision is lifted since.
                    && row.revision.map(revision_count) == Some(revision_count(*revision))
                    && row.digest == Some(*digest)
            }),
            Self::Checkpoint { root, .. } => log.root.is_none_or(|found| found == *root),
        }
    }
}

impl LogEvidence {
    /// The bytes that are signed where the evidence is stored.
    #[must_use]
    pub fn statement(&self, log_id: Uuid) -> Vec<u8> {
        let Self { epoch, mark, witness, seen_at } = self;
        let mut statement = Vec::new();
        let mut text = |text: &str| put_netstring(&mut statement, text.as_bytes());
        text(CONTEXT);
        text(&log_id.to_string());
        text(&epoch.to_string());
        text(mark.kind());
        match mark {
            LogMark::Row { position, hash } => {
                text(&position.to_string());
                text(&hash.to_string());
            }
            LogMark::Trust { instance_id, position, revision, digest } => {
                text(instance_id.as_str());
                text(&position.to_string());
                text(&revision.to_string());
                text(&digest.to_string());
            }
            LogMark::Checkpoint { size, root } => {
                text(&size.to_string());
                text(&root.to_string());
            }
        }
        text(witness);
        text(&seen_at.micros().to_string());
        statement
    }
}

/// Says what `evidence` comes to before `log`. One function for whoever asks: the appender,
/// the follower, the publisher, and the start.
#[must_use]
pub fn verdict(evidence: &LogEvidence, log: &LogView) -> Verdict {
    if evidence.epoch < log.epoch.epoch {
        return Verdict::Ended;
    }
    if evidence.epoch > log.epoch.epoch {
        return Verdict::Superseded;
    }
    let position = evidence.mark.position();
    if position > log.end.position {
        return Verdict::SetBack(Contradiction::Shorter { end: log.end.position });
    }
    // Before the first change there is no row to ask.
    if position == 0 || evidence.mark.is_kept_by(log) {
        return Verdict::Agrees;
    }
    Verdict::SetBack(Contradiction::Other)
}

impl fmt::Display for LogEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has seen {}", self.witness, self.mark)?;
        if self.epoch != LogEpoch::FIRST {
            write!(f, " in epoch {}", self.epoch)?;
        }
        Ok(())
    }
}

impl fmt::Display for LogMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row { position, hash } => write!(f, "position {position} with hash {hash}"),
            Self::Trust { instance_id, position, revision, .. } => {
                write!(f, "{} of {instance_id} at position {position}", spell_revision(*revision))
            }
            Self::Checkpoint { size, root } => {
                write!(f, "a checkpoint over {size} positions with root {root}")
            }
        }
    }
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shorter { end } => write!(f, "the log ends at position {end}"),
            Self::Other => f.write_str("the log has something else there"),
        }
    }
}

#[cfg(test)]
mod tests;
