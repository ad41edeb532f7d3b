//! The rules of catrust, pure: what may happen to instances and CA certificates,
//! and what follows from it.
//!
//! `decide` turns state and a command into an event or a [`Rejection`];
//! `evolve` turns state and an event into the next state. Nothing here performs
//! I/O, reads a clock or draws randomness: times and identities are arguments.
//! The crate knows nothing of gRPC, SQL or NATS, and its `Cargo.toml` keeps it so.
//!
//! Start with [`batch`], which runs a whole group commit in memory, then
//! [`instance`] and [`ca_certificate`] for the rules, [`event`] for the facts and
//! [`event_log`] for how they are chained. [`broker`] and [`mod@propagation`] are beside the
//! log: what brokers say that they did with it.

pub mod batch;
pub mod broker;
pub mod ca_certificate;
pub mod command;
pub mod digest;
pub mod error_chain;
pub mod event;
pub mod event_log;
pub mod identifiers;
pub mod incarnation;
pub mod instance;
pub mod log_epoch;
pub mod log_evidence;
pub mod propagation;
pub mod read_model;
pub mod receipt;
pub mod rejection;
pub mod seal;
pub mod serial_number;
pub mod set_hash;
pub mod timestamp;
pub mod trust_bundle;

pub use broker::{AppliedRevision, BrokerState, RefusedRevision};
pub use ca_certificate::{CaCertificate, CaState, CertificateFacts, InactivationScope};
pub use command::{Command, CommandContext, CommandEnvelope, Reply, ReplyBody, RequestKey};
pub use digest::Sha256;
pub use error_chain::error_chain;
pub use event::Event;
pub use event_log::{LogEntry, LogHead, RecordedEvent};
pub use identifiers::{AccountId, BrokerId, InstanceId, RegionId};
pub use incarnation::{NameStanding, ReceiptOrigin, Speakers};
pub use instance::{Edition, Instance};
pub use log_epoch::{EpochInForce, LogEpoch, LogEpochBegan};
pub use log_evidence::{LogEvidence, LogMark, LogView, Verdict};
pub use propagation::{ContactBudget, FleetMember, Progress, Propagation, WaitTarget, propagation};
pub use receipt::{Enforcement, Outcome, OutcomeKind, Receipt};
pub use rejection::Rejection;
pub use seal::{Notary, Seal};
pub use serial_number::SerialNumber;
pub use timestamp::Timestamp;
pub use trust_bundle::{TrustBundle, TrustEntry};
