//! What proves to an outsider that the log was not tampered with: a Merkle tree over the
//! hashes of its rows, signed checkpoints of it, exports, and proofs that an event is in it.
//!
//! The log's own hash chain shows that rows fit each other; whoever has the database could
//! chain them anew. A checkpoint leaves the database: size and root of the tree ([`tree`],
//! RFC 9162), signed ([`checkpoint`], C2SP tlog-checkpoint). A [`proof`] leads from an event to
//! such a root in a few hashes; an [`export`] is the whole log, to be checked from its first
//! line to its last.
//!
//! Pure: no network, no database, no clock, no randomness. Servers make evidence with it, and
//! the command line checks it with the same code; `vectors/` and `tests/foreign/evidence.py`
//! are for those who would rather trust their own.

pub mod checkpoint;
pub mod export;
pub mod proof;
pub mod row;
pub mod tree;

pub use catrust_domain::Timestamp;
pub use catrust_domain::{RecordedEvent, Sha256};
pub use catrust_signing::{SigningKey, TrustKeys};
pub use checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
pub use export::{ExportError, ExportFooter, ExportHeader, ExportReport, ExportVerifier};
pub use proof::{EventProof, ProofError, VerifiedProof};
pub use row::EvidenceRow;
pub use tree::{Frontier, Span};
