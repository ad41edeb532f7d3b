//! What verification and rebuild found.

use std::fmt;

/// What is wrong at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DamageKind {
    /// A row of the log is missing, or its position was changed.
    RowMissing,
    /// A row of the log cannot be read.
    RowUnreadable,
    /// A row of the log, or the one before it, is not the one that was hashed.
    ChainBroken,
    /// A row of the log contradicts those before it: its time, version or revision.
    OutOfOrder,
    /// A row of the log contradicts its own payload, or cannot be folded.
    Contradiction,
    /// The read model is not what the log folds to.
    ReadModel,
    /// The log ends before something that was once there.
    TailCut,
    /// The log has another event than was published.
    NotAsPublished,
}

impl DamageKind {
    /// Name for scripts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RowMissing => "ROW_MISSING",
            Self::RowUnreadable => "ROW_UNREADABLE",
            Self::ChainBroken => "CHAIN_BROKEN",
            Self::OutOfOrder => "OUT_OF_ORDER",
            Self::Contradiction => "CONTRADICTION",
            Self::ReadModel => "READ_MODEL",
            Self::TailCut => "TAIL_CUT",
            Self::NotAsPublished => "NOT_AS_PUBLISHED",
        }
    }
}

/// One piece of damage, named by its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What is wrong.
    pub kind: DamageKind,
    /// Position in the log; `None` where the damage is in the read model.
    pub position: Option<u64>,
    /// What is wrong, with the names of the instance or certificate concerned.
    pub description: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.position {
            Some(position) => write!(f, "position {position}: {}", self.description),
            None => write!(f, "read model: {}", self.description),
        }
    }
}

/// What [`crate::Maintenance::verify`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyReport {
    /// Events walked.
    pub events: u64,
    /// Position of the last event; not `events` where rows are missing.
    pub head_position: u64,
    /// Hash of the last event, hexadecimal.
    pub head_hash: String,
    /// Instances compared.
    pub instances: u64,
    /// CA certificates compared.
    pub certificates: u64,
    /// Damage found, at most 100 pieces, in the order of positions.
    pub damage: Vec<Damage>,
}

impl VerifyReport {
    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.damage.is_empty()
    }
}

/// What [`crate::Maintenance::rebuild`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RebuildReport {
    /// Events folded.
    pub events: u64,
    /// Instances written.
    pub instances: u64,
    /// CA certificates written.
    pub certificates: u64,
    /// Instances whose old digest differed from the folded one, ascending.
    pub differing_instances: Vec<String>,
}

/// What a migration did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MigrationReport {
    /// Schema version found; 0 for an empty database.
    pub from: i64,
    /// Schema version now.
    pub to: i64,
}
