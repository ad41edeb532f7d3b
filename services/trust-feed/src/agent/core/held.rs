//! The state of the core, and how far it has been carried out.

use std::sync::Arc;
use std::time::Duration;

use catrust_domain::{Timestamp, TrustBundle};
use catrust_proto::v1 as proto;
use catrust_signing::KeyRing;

use super::belief::Signers;
use super::{CoreSettings, MessageRefusal, Moment, SavedState};
use crate::agent::enforcer::Applied;
use crate::bundle::{self, TrustError, TrustState};
use crate::canonical::{Signed as _, Verified};
use crate::message::HEAD_VALIDITY_SECONDS;
use crate::parse;

/// See the module.
#[derive(Debug)]
pub struct CurrentTrust {
    /// The state.
    pub state: TrustState,
    /// The state as a bundle.
    pub bundle: Arc<TrustBundle>,
    /// A time at which the log certainly had the revision, by the server's clock.
    pub existed_at: Timestamp,
    /// When the state came to its revision, by the monotonic clock.
    pub moved_at: Duration,
    /// As in [`AgentTrust`](crate::agent::AgentTrust); until the enforcer has it.
    pub takes_back: bool,
    /// As in [`AgentTrust`](crate::agent::AgentTrust).
    pub with_will: bool,
    /// As in [`AgentTrust`](crate::agent::AgentTrust).
    pub reason: String,
    /// Trace context of the call that made the revision.
    pub traceparent: String,
    /// Whose word it is that the state is the log's.
    pub signers: Signers,
    /// Who signed what is on disk.
    pub saved_signers: Signers,
    /// Changes on disk after the bundle there.
    pub saved_changes: u64,
    /// Last revision that the enforcer was asked for, unless it failed.
    pub asked: Option<u64>,
    /// Last revision that the enforcer has, and what it did for it.
    pub enforced: Option<(u64, Applied)>,
    /// Revision on disk.
    pub persisted: Option<u64>,
    /// Last revision that a receipt stated.
    pub stated: Option<u64>,
}

impl CurrentTrust {
    /// A state of which nothing is carried out yet.
    pub fn new(state: TrustState, existed_at: Timestamp) -> Self {
        Self {
            bundle: Arc::new(state.bundle()),
            state,
            existed_at,
            moved_at: Duration::ZERO,
            takes_back: false,
            with_will: false,
            reason: String::new(),
            traceparent: String::new(),
            signers: Signers::default(),
            saved_signers: Signers::default(),
            saved_changes: 0,
            asked: None,
            enforced: None,
            persisted: None,
            stated: None,
        }
    }

    /// Verifies everything that was saved, as if a stranger had sent it; only that a key has
    /// expired since makes nothing untrue. The head is the caller's to compare.
    ///
    /// # Errors
    /// Whatever is wrong with any part of it.
    pub fn from_saved(
        saved: SavedState,
        settings: &CoreSettings,
        keys: &KeyRing,
    ) -> Result<(Self, Option<SavedHead>), MessageRefusal> {
        let issued_at = parse::time("issued_at", saved.bundle.issued_at.as_ref())?;
        let bundle = saved.bundle.verified(&keys.on_record())?;
        let mut held = Self::new(TrustState::new(&settings.instance_id, &bundle)?, issued_at);
        held.signers.begin(&*bundle);
        for change in saved.changes {
            let change = change.verified(&keys.on_record())?;
            held.signers.add(&*change);
            match held.state.apply(&change) {
                Ok(bundle::ChangeOutcome::Changed(parsed)) => held.existed_at = parsed.occurred_at,
                // From before the bundle: the end came between writing the two.
                Ok(bundle::ChangeOutcome::Known) => {}
                Err(TrustError::Gap { .. }) => {
                    return Err(MessageRefusal::SavedStateGap { revision: change.revision });
                }
                Err(error) => return Err(error.into()),
            }
            held.saved_changes += 1;
        }
        held.saved_signers = held.signers.clone();
        held.bundle = Arc::new(held.state.bundle());
        held.persisted = Some(held.state.revision());
        let head = match saved.head {
            Some(head) => {
                let issued_at = parse::time("issued_at", head.issued_at.as_ref())?;
                let head = head.verified(&keys.on_record())?;
                Some(SavedHead { head, issued_at })
            }
            None => None,
        };
        Ok((held, head))
    }

    /// The state moved by one change. Where the enforcer has not even the revision before,
    /// several come as one, and nobody's words hold.
    pub fn moved_by(&mut self, change: &parse::Change) {
        let alone = self.asked.is_some_and(|revision| revision + 1 == change.revision);
        self.with_will = alone && change.with_will;
        self.reason = if alone { change.reason.clone() } else { String::new() };
        self.traceparent.clone_from(&change.traceparent);
        self.existed_at = change.occurred_at;
        self.bundle = Arc::new(self.state.bundle());
    }

    /// Whether a server that shows less at `issued_at` has had time to see the revision: by the
    /// servers' clock, or, where that was set back, by how long the state is there.
    pub fn is_older_than(&self, issued_at: Timestamp, now: Moment, skew: Duration) -> bool {
        let there_for = now.monotonic.saturating_sub(self.moved_at);
        issued_at > self.existed_at.plus_seconds(HEAD_VALIDITY_SECONDS)
            || there_for > Duration::from_secs(HEAD_VALIDITY_SECONDS.unsigned_abs()) + skew
    }

    /// The state moved by a bundle that was signed at `issued_at`.
    pub fn moved_by_bundle(&mut self, issued_at: Timestamp) {
        self.with_will = false;
        self.reason.clear();
        self.traceparent.clear();
        self.existed_at = issued_at;
        self.bundle = Arc::new(self.state.bundle());
    }
}

/// A verified head from the disk.
pub struct SavedHead {
    /// The head.
    pub head: Verified<proto::Head>,
    /// When it was signed.
    pub issued_at: Timestamp,
}
