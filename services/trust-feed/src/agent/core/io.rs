//! What goes into the core, and what comes out.

use std::time::Duration;

use catrust_domain::{InstanceId, Sha256, Timestamp};
use catrust_proto::v1 as proto;
use catrust_signing::KeyRing;

use super::{MessageRefusal, Refused, SourceKind};
use crate::agent::enforcer::{AgentTrust, Applied, NotApplied};

/// One moment by two clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Time since some fixed moment; never steps.
    pub monotonic: Duration,
    /// Time of day; may step.
    pub wall: Timestamp,
}

/// What the core has to know beforehand.
#[derive(Clone, Debug)]
pub struct CoreSettings {
    /// Instance whose trust is followed; messages of others are refused.
    pub instance_id: InstanceId,
    /// Keys that may sign, and root keys that may name others.
    pub keys: KeyRing,
    /// How many servers there are to ask. Without a saved state several are asked at once,
    /// and the highest bundle counts.
    pub servers: usize,
    /// Age of the last head up to which the bundle is fresh.
    pub soft_budget: Duration,
    /// Age of the last head up to which the bundle is relied on.
    pub hard_budget: Duration,
    /// How far the clocks of server and agent may differ.
    pub clock_skew: Duration,
}

/// A message as it came. Nothing about it is checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// The full set.
    Bundle(proto::TrustBundle),
    /// One change.
    Change(Box<proto::TrustChange>),
    /// Sign of life.
    Head(proto::Head),
    /// A head that repeats the nonce that this agent has sent with a question.
    Answer {
        /// The head. That its nonce is the right one is checked; its signature is not.
        head: proto::Head,
        /// When the question was sent, by the monotonic clock.
        asked_at: Duration,
    },
    /// The keys that may sign the others.
    KeySet(Box<proto::KeySet>),
}

/// What was saved, as it was read. Nothing about it is checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SavedState {
    /// The last bundle.
    pub bundle: proto::TrustBundle,
    /// The changes saved after it, in order. Some may be older than the bundle.
    pub changes: Vec<proto::TrustChange>,
    /// The last head that was saved.
    pub head: Option<proto::Head>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// First of all: the key set that the disk holds.
    LoadedKeys(Box<proto::KeySet>),
    /// Then: what else the disk holds.
    Loaded(Option<Box<SavedState>>),
    /// A message came.
    Message(SourceKind, Message),
    /// Something came that is no message.
    Unreadable(SourceKind),
    /// A source has a connection.
    SourceUp(SourceKind),
    /// A source has lost its connection.
    SourceLost(SourceKind),
    /// The bundle that was asked for does not come.
    SnapshotFailed,
    /// Every server has answered [`Output::AskEveryServer`], or the time for it is up.
    EveryServerAsked,
    /// The result of [`Output::Apply`].
    Enforced {
        /// Revision of the bundle that was to be enforced.
        revision: u64,
        /// What the enforcer says.
        result: Result<Applied, NotApplied>,
    },
    /// The result of [`Output::Persist`] and [`Output::PersistAgain`].
    Persisted {
        /// Revision that the output named.
        revision: u64,
        /// What went wrong.
        result: Result<(), String>,
    },
    /// Time has passed. At least twice a second.
    Tick,
}

/// A message to keep on disk, exactly as it was signed.
#[derive(Clone, Debug, PartialEq)]
pub enum SavedMessage {
    /// A new beginning: what was saved before is not needed any more.
    Bundle(Box<proto::TrustBundle>),
    /// Follows what was saved before.
    Change(Box<proto::TrustChange>),
    /// In place of the head that was saved before.
    Head(Box<proto::Head>),
    /// In place of the key set that was saved before.
    KeySet(Box<proto::KeySet>),
}

/// Why trust is to be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyCause {
    /// It was on disk.
    Saved,
    /// A bundle came.
    Bundle,
    /// A change came.
    Change,
    /// The freshness changed, the bundle did not.
    Freshness,
    /// The enforcer failed before.
    Retry,
}

/// What an agent says about a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The revision.
    pub revision: u64,
    /// Digest of the bundle that is enforced.
    pub digest: Sha256,
    /// `Ok`: swapped, retired, cut, and on disk. `Err`: why not.
    pub outcome: Result<Applied, String>,
    /// W3C trace context of the call behind it; empty where there is none, or many.
    pub traceparent: String,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Ask the enforcer. Answer with [`Input::Enforced`].
    Apply {
        /// What to enforce.
        trust: AgentTrust,
        /// Why.
        cause: ApplyCause,
    },
    /// Put a message on disk. Answer with [`Input::Persisted`].
    Persist {
        /// Revision of the state with this record.
        revision: u64,
        /// The message.
        record: SavedMessage,
    },
    /// Put on disk what failed before. Answer with [`Input::Persisted`].
    PersistAgain {
        /// Revision of the state.
        revision: u64,
    },
    /// Tell the control plane, and repeat it as the sign of life.
    Receipt(Statement),
    /// Tell the control plane and the log.
    Refused(Refused),
    /// What the disk holds cannot be used: keep it aside, and tell the log.
    Discard(MessageRefusal),
    /// The same of the key set that the disk holds.
    DiscardKeys(MessageRefusal),
    /// Ask a server for a bundle. It comes as a message, or [`Input::SnapshotFailed`] does.
    NeedSnapshot,
    /// Ask every server for a bundle, for 2 s. What comes are messages, and then
    /// [`Input::EveryServerAsked`].
    AskEveryServer,
    /// Open another stream in place of the one over gRPC, at the next server, and with
    /// another nonce.
    OpenAnotherStream,
    /// Lean on this source from now on.
    SwitchTo(SourceKind),
    /// For the first time, trust is enforced that admits somebody.
    Ready,
}
