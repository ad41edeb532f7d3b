//! Whose word the state rests on, when the keys that may sign change.
//!
//! A head is proof of the whole state behind its digest, whoever signed the parts; so the
//! state rests on the key of the last head that agreed with it, and on those of the changes
//! since. Two things follow when a key is not what it was:
//! - **expired**, or the set is: what it signed was true, and nobody says that it still is.
//!   The state stays, and admits nobody new.
//! - **revoked**, or dropped from the set: what it signed may never have been the log's. The
//!   next bundle by a good key counts whatever the state says.

use std::collections::BTreeSet;

use catrust_proto::v1 as proto;
use catrust_signing::{Adoption, KeyRefusal, KeyRing, KeySetError, Present, Signed, VerifyError};

use super::{Core, KEY_SET_GRACE, MessageRefusal, Moment, Output, SavedMessage};
use crate::agent::enforcer::Freshness;

/// Names of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signers(BTreeSet<String>);

impl Signers {
    /// Whoever signed `message`, and nobody before.
    pub fn begin(&mut self, message: &impl Signed) {
        self.0.clear();
        self.add(message);
    }

    /// Whoever signed `message`, too.
    pub fn add(&mut self, message: &impl Signed) {
        self.0.extend(message.signature().map(|signature| signature.key_id.clone()));
    }

    /// Whether all of them are to be believed now.
    fn are_believed(&self, keys: &KeyRing, present: Present) -> bool {
        self.0.iter().all(|key_id| keys.check_key(key_id, present).is_ok())
    }

    /// Whether something rests on a key that was revoked or dropped.
    fn are_disowned(&self, keys: &KeyRing) -> bool {
        self.0.iter().any(|key_id| keys.disowns(key_id))
    }
}

impl Core {
    /// Puts a key set from the disk in force.
    pub(super) fn load_keys(&mut self, message: proto::KeySet) {
        if self.keys.takes_key_sets()
            && let Err(error) = self.keys.restore(message)
        {
            self.outputs.push_back(Output::DiscardKeys(error.into()));
        }
    }

    /// Takes a key set that came.
    pub(super) fn take_key_set(&mut self, now: Moment, message: proto::KeySet) {
        if !self.keys.takes_key_sets() {
            return;
        }
        match self.keys.adopt(message.clone(), self.clock.present(now)) {
            Ok(Adoption::Known) => {}
            Ok(Adoption::New) => {
                let revision = self.revision().unwrap_or(0);
                let record = SavedMessage::KeySet(Box::new(message));
                self.outputs.push_back(Output::Persist { revision, record });
                self.keys_came_at = Some(now.monotonic);
                self.forget_the_disowned(now);
            }
            // Not every replica has read the newer one yet.
            Err(KeySetError::Rollback { .. })
                if self.keys_came_at.is_some_and(|at| now.monotonic.saturating_sub(at) < KEY_SET_GRACE) => {}
            Err(error) => self.refuse(now, 0, MessageRefusal::KeySet(error)),
        }
    }

    /// What is kept for later was verified with the keys of before.
    fn forget_the_disowned(&mut self, now: Moment) {
        let keys = &self.keys;
        let disowned = |key_id: Option<&proto::Signature>| key_id.is_none_or(|by| keys.disowns(&by.key_id));
        self.early.retain(|_, change| !disowned(change.signature.as_ref()));
        if self.behind.as_ref().is_some_and(|(_, head, _)| disowned(head.signature.as_ref())) {
            self.behind = None;
        }
        self.newest_head.take_if(|head| disowned(head.signature.as_ref()));
        if let Some(gathering) = &mut self.gathering {
            gathering.forget(disowned);
        }
        let Some(held) = &self.held else { return };
        // A restart shall find nothing that it cannot believe any more.
        let present = self.clock.present(now);
        let saved_well = held.saved_signers.are_believed(keys, present);
        // The saved head may be one of them.
        self.head_saved_at = None;
        if !saved_well || held.signers.are_disowned(keys) {
            self.want_snapshot(now);
        }
    }

    /// Whether a change that is not to be believed is only an old one, by a key that has
    /// expired or was dropped since: the stream keeps the last change of each CA certificate
    /// for ever. It would not count if it were believed.
    pub(super) fn is_history(&self, revision: u64, error: &VerifyError) -> bool {
        let of_old = match error {
            VerifyError::UnusableKey { reason: KeyRefusal::Expired { .. }, .. } => true,
            VerifyError::UnknownKey { .. } => self.keys.takes_key_sets(),
            _ => false,
        };
        of_old && self.revision() >= Some(revision)
    }

    /// Whether the state may never have been the log's.
    pub(super) fn is_disowned(&self) -> bool {
        self.held.as_ref().is_some_and(|held| held.signers.are_disowned(&self.keys))
    }

    /// Whether what is on disk needs a bundle by another key.
    pub(super) fn is_badly_saved(&self, now: Moment) -> bool {
        let present = self.clock.present(now);
        self.held.as_ref().is_some_and(|held| !held.saved_signers.are_believed(&self.keys, present))
    }

    /// How well the state is known to be current: by heads, and by whose they were.
    pub(super) fn freshness_at(&self, now: Moment) -> Freshness {
        if self.is_of_the_future(now) {
            return Freshness::HardStale;
        }
        let present = self.clock.present(now);
        let believed = |held: &super::held::CurrentTrust| held.signers.are_believed(&self.keys, present);
        if self.held.as_ref().is_none_or(believed) { self.clock.freshness(now) } else { Freshness::HardStale }
    }
}
