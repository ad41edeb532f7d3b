//! The port between the agent and what enforces trust: a verifier and its session
//! registry, a gate, a plugin.
//!
//! ```text
//! agent ─ AgentTrust ─▶ Enforcer: (1) swap the trust set (2) retire resumption (3) cut sessions
//! agent ◀─── Applied ── Enforcer
//! agent: (4) state on disk (5) receipt
//! ```

use std::sync::Arc;

use async_trait::async_trait;
use catrust_domain::{Enforcement, InstanceId, TrustBundle};

/// How well the agent knows that its bundle is the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Freshness {
    /// A valid head came within the soft budget.
    Fresh,
    /// None came within the soft budget: the last known bundle is served on, the
    /// agent looks for another source, and somebody should be told.
    SoftStale,
    /// None came within the hard budget, or the agent never had a bundle: nobody
    /// new is trusted.
    HardStale,
}

impl Freshness {
    /// Whether a new session, resumed ones included, may be accepted at all.
    #[must_use]
    pub const fn admits(self) -> bool {
        !matches!(self, Self::HardStale)
    }

    /// A word for logs, metrics and people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::SoftStale => "soft-stale",
            Self::HardStale => "hard-stale",
        }
    }
}

/// What shall be enforced from now on. Always the whole of it, never a difference:
/// an enforcer may forget everything and be told again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentTrust {
    /// The bundle, verified entry by entry: signatures, digest, and `sha256` and
    /// `spki_sha256` against the certificate. Empty at revision 0 before the first
    /// contact, which `freshness` tells from a signed empty bundle.
    pub bundle: Arc<TrustBundle>,
    /// Whether the bundle may be relied on. Where it does not
    /// [admit](Freshness::admits), the enforcer MUST refuse every new session,
    /// whatever the bundle says, and MUST keep the sessions that the bundle
    /// vouches for.
    pub freshness: Freshness,
    /// Whether the state before may never have been the log's, since its key was revoked: then
    /// a lower revision than the enforcer has is right, and the only way down.
    pub takes_back: bool,
    /// Whether the last wills of sessions that are cut now shall be published.
    /// `false` where several changes come as one bundle.
    pub with_will: bool,
    /// Reason given by the caller of the change; empty where there was none, or where
    /// several changes come as one bundle.
    pub reason: String,
}

impl AgentTrust {
    /// What an agent knows before its first contact: an empty bundle that admits
    /// nobody. Enforcers start with it.
    #[must_use]
    pub fn nothing(instance_id: InstanceId) -> Self {
        let bundle = TrustBundle {
            instance_id,
            revision: 0,
            position: 0,
            digest: TrustBundle::compute_digest(&[]),
            entries: Vec::new(),
        };
        Self {
            bundle: Arc::new(bundle),
            freshness: Freshness::HardStale,
            takes_back: false,
            with_will: false,
            reason: String::new(),
        }
    }
}

/// What an enforcer did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Sessions closed because of this trust.
    pub sessions_cut: u64,
    /// Sessions open afterwards.
    pub sessions_open: u64,
}

/// The enforcer could not do what was asked: its broker is away, or refuses. The
/// agent reports it, and asks again every second until it is done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the trust was not enforced: {reason}")]
pub struct NotApplied {
    /// What is in the way, for people. Stands in the receipt, cut to its limit.
    pub reason: String,
}

/// What makes a trust bundle true: swaps the trust set, retires resumption, cuts
/// the sessions that no longer verify.
#[async_trait]
pub trait Enforcer: Send + Sync {
    /// Enforces `trust`, in this order: (1) every handshake that ends from now on is
    /// checked against it; (2) so is every resumed one, whatever it was resumed from;
    /// (3) the live sessions that it does not vouch for are closed.
    ///
    /// Returns when all three are done, since the receipt follows at once. Called by
    /// one task, never twice at a time, with `bundle.revision` never going down. MUST
    /// be idempotent: the same bundle comes again with another freshness, and after
    /// a failure. MUST end within seconds, whatever hangs: the next change, and the news
    /// that trust is stale, wait for it.
    ///
    /// # Errors
    /// [`NotApplied`]: whatever was enforced before may be so still, or what was asked
    /// in part; the agent calls again.
    async fn apply(&self, trust: &AgentTrust) -> Result<Applied, NotApplied>;

    /// Sessions open now: for the agent's sign of life. Cheap.
    fn sessions_open(&self) -> u64;

    /// Where devices are refused: stands in each receipt.
    fn enforcement(&self) -> Enforcement;
}
