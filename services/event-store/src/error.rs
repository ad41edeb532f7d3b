//! What can go wrong in a store, by what the caller should do about it.

use catrust_domain::LogEpoch;

/// A failure of the store. No driver type leaves this crate: the chain goes to
/// the log, through `source`, and never to a caller.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database is away or too slow; nothing was recorded. Try again.
    #[error("the event store is unavailable")]
    Unavailable(#[source] BoxError),
    /// The connection was lost at COMMIT and the outcome could not be settled in
    /// time. The caller may repeat with the same request id, which is safe.
    #[error("the outcome of a commit is unknown")]
    Ambiguous(#[source] BoxError),
    /// The database does not have the schema of this version.
    #[error(
        "the database schema is at version {found}, this program needs {needed}; run `catrust-server migrate`, \
         of a newer program where the database is newer"
    )]
    SchemaMismatch {
        /// Version found; 0 for an empty database.
        found: i64,
        /// Version needed.
        needed: i64,
    },
    /// The database cannot be used as it is set up; the text says why and what to do.
    #[error("unsuitable database: {0}")]
    Unsuitable(String),
    /// A stored row contradicts the others. Stop, and run `catrust-server verify`.
    #[error("corrupt data in {table} at {row}: {reason}")]
    Corrupt {
        /// Table.
        table: &'static str,
        /// Key of the row.
        row: String,
        /// What it contradicts.
        reason: String,
    },
    /// The log no longer has what this process, or somebody with a server's signature, has
    /// seen of it; or a later epoch of it is known. Nothing was recorded, and nothing may be
    /// acknowledged or signed until a new log epoch has begun, or the log has it again.
    #[error("the event log was set back: {reason}")]
    SetBack {
        /// What was seen, by whom, and what the log says instead.
        reason: String,
    },
    /// What is asked for was lost with the end of its log epoch, or may have been: the log cannot
    /// say what it was.
    #[error(
        "log epoch {ended} ended: of it the log has what came up to position {fork_position}, where epoch {next} \
         goes on"
    )]
    EpochEnded {
        /// The epoch that is asked about.
        ended: LogEpoch,
        /// Last position that was kept.
        fork_position: u64,
        /// The epoch that kept it.
        next: LogEpoch,
    },
    /// Anything else, a defect of this program among them.
    #[error("the event store failed")]
    Internal(#[source] BoxError),
}

/// The inner error, for the log.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
