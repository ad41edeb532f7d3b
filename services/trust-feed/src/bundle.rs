//! The reader's trust: a bundle, and the changes folded into it.
//!
//! ```text
//! verified bundle ──▶ TrustState at revision r
//! verified change r+1, onto r, digest agrees ──▶ TrustState at r+1
//! anything else ──▶ TrustState as it was, and the reason
//! ```
//!
//! Whatever is lost, repeated, reordered, replayed or forged on the way, a state is
//! always one that the log had: each step checks the digest over the whole bundle.
//! No I/O, no clock: staleness and persistence are the agent's.

use std::collections::BTreeMap;

use catrust_domain::log_epoch::spell_revision;
use catrust_domain::set_hash::SetHash;
use catrust_domain::trust_bundle::canonical_entry;
use catrust_domain::{InstanceId, LogEpoch, Sha256, TrustBundle, TrustEntry};
use catrust_proto::v1 as proto;
use uuid::Uuid;

use crate::canonical::Verified;
use crate::parse::{self, Change, InvalidMessage};

/// Why a message does not lead to a state. The state is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TrustError {
    /// Malformed although signed: the sender has a defect, or is another version.
    #[error("the message is malformed")]
    Malformed(#[from] InvalidMessage),
    /// The message belongs to another instance: somebody mixes feeds up. Refuse it.
    #[error("the message is for the instance {found}")]
    WrongInstance {
        /// Instance of the message.
        found: InstanceId,
    },
    /// The message comes from another log: the database was replaced. Needs an
    /// operator's decision, or a bundle taken as a new beginning.
    #[error("the message is from the log {found}")]
    WrongLog {
        /// Log of the message.
        found: Uuid,
    },
    /// Changes between are missing. Take a bundle.
    #[error("the change applies onto {}, and this is {}", spell_revision(*previous), spell_revision(*revision))]
    Gap {
        /// Revision of the state.
        revision: u64,
        /// Revision that the change applies onto.
        previous: u64,
    },
    /// The state after the message is not the one that the log had. Take a bundle.
    #[error("the digest of {} is {computed}, not {stated}", spell_revision(*revision))]
    DigestMismatch {
        /// Revision of the message.
        revision: u64,
        /// Digest that the message states.
        stated: Sha256,
        /// Digest that follows from the state.
        computed: Sha256,
    },
    /// A change of an earlier log epoch than the state's: that history has ended. Refuse it.
    #[error(
        "the change is of {}, and this is {}: its log epoch has ended",
        spell_revision(*offered),
        spell_revision(*revision)
    )]
    EndedEpoch {
        /// Revision of the state.
        revision: u64,
        /// Revision of the change.
        offered: u64,
    },
    /// A bundle older than the state: a rollback, or a replay. Refuse it.
    #[error("the bundle is of {}, and this is {}", spell_revision(*offered), spell_revision(*revision))]
    Rollback {
        /// Revision of the state.
        revision: u64,
        /// Revision of the bundle.
        offered: u64,
    },
}

/// What a change did to the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeOutcome {
    /// The state is now at the change's revision.
    Changed(Box<Change>),
    /// The state had it already; nothing happened.
    Known,
}

/// How a head stands to the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadVerdict {
    /// The state is current, as of the head's issue.
    Current,
    /// The state lacks changes up to `revision`, or a later log epoch has begun.
    Behind {
        /// Revision of the head.
        revision: u64,
    },
    /// The head is older than the state: says nothing.
    Older,
    /// The head is of an earlier log epoch than the state: whoever signed it does not know
    /// that its history has ended.
    Ended,
}

/// The trust of one instance, as a reader holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustState {
    log_id: Uuid,
    instance_id: InstanceId,
    revision: u64,
    position: u64,
    set_hash: SetHash,
    digest: Sha256,
    entries: BTreeMap<Sha256, TrustEntry>,
}

impl TrustState {
    /// Starts from a bundle of the reader's own instance.
    ///
    /// # Errors
    /// [`TrustError::Malformed`], [`TrustError::WrongInstance`].
    pub fn new(instance_id: &InstanceId, bundle: &Verified<proto::TrustBundle>) -> Result<Self, TrustError> {
        let (log_id, bundle) = parse::trust_bundle(bundle)?;
        if bundle.instance_id != *instance_id {
            return Err(TrustError::WrongInstance { found: bundle.instance_id });
        }
        let mut set_hash = SetHash::empty();
        let mut entries = BTreeMap::new();
        for entry in bundle.entries {
            set_hash.add(&canonical(&entry));
            entries.insert(entry.facts.sha256, entry);
        }
        Ok(Self {
            log_id,
            instance_id: bundle.instance_id,
            revision: bundle.revision,
            position: bundle.position,
            digest: bundle.digest,
            set_hash,
            entries,
        })
    }

    /// Revision of the state.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Digest of the state.
    #[must_use]
    pub const fn digest(&self) -> Sha256 {
        self.digest
    }

    /// Identity of the log that the state comes from.
    #[must_use]
    pub const fn log_id(&self) -> Uuid {
        self.log_id
    }

    /// Entries, ascending by `sha256`.
    pub fn entries(&self) -> impl Iterator<Item = &TrustEntry> {
        self.entries.values()
    }

    /// The state as a bundle.
    #[must_use]
    pub fn bundle(&self) -> TrustBundle {
        TrustBundle {
            instance_id: self.instance_id.clone(),
            revision: self.revision,
            position: self.position,
            digest: self.digest,
            entries: self.entries.values().cloned().collect(),
        }
    }

    /// Applies a change, when it applies onto exactly this revision.
    ///
    /// # Errors
    /// All of [`TrustError`] but `Rollback`; the state stays.
    pub fn apply(&mut self, change: &Verified<proto::TrustChange>) -> Result<ChangeOutcome, TrustError> {
        let change = Change::try_from(&**change)?;
        self.check_origin(&change.instance_id, change.log_id)?;
        if is_of_an_earlier_epoch(change.revision, self.revision) {
            return Err(TrustError::EndedEpoch { revision: self.revision, offered: change.revision });
        }
        if change.revision <= self.revision {
            self.check_same(change.revision, change.digest)?;
            return Ok(ChangeOutcome::Known);
        }
        if change.revision != self.revision + 1 {
            return Err(TrustError::Gap { revision: self.revision, previous: change.revision - 1 });
        }
        let sha256 = change.certificate.sha256;
        let after =
            change.state.map(|state| TrustEntry { facts: std::sync::Arc::clone(&change.certificate), state });
        let mut set_hash = self.set_hash.clone();
        if let Some(before) = self.entries.get(&sha256) {
            set_hash.subtract(&canonical(before));
        }
        if let Some(after) = &after {
            set_hash.add(&canonical(after));
        }
        let computed = set_hash.digest();
        if computed != change.digest {
            return Err(TrustError::DigestMismatch {
                revision: change.revision,
                stated: change.digest,
                computed,
            });
        }
        match after {
            Some(entry) => self.entries.insert(sha256, entry),
            None => self.entries.remove(&sha256),
        };
        self.revision = change.revision;
        self.position = change.position;
        self.set_hash = set_hash;
        self.digest = computed;
        Ok(ChangeOutcome::Changed(Box::new(change)))
    }

    /// Takes a bundle of the same log in place of the state: after a gap, or when
    /// digests disagree. Gives whether the state moved on. A bundle of a later log epoch
    /// counts for more than any of an earlier one, however few changes that epoch has had.
    ///
    /// # Errors
    /// [`TrustError::Rollback`] for an older bundle, [`TrustError::DigestMismatch`]
    /// for another one of this revision; the state stays.
    pub fn replace(&mut self, bundle: &Verified<proto::TrustBundle>) -> Result<bool, TrustError> {
        let next = Self::new(&self.instance_id, bundle)?;
        self.check_origin(&next.instance_id, next.log_id)?;
        if next.revision < self.revision {
            return Err(TrustError::Rollback { revision: self.revision, offered: next.revision });
        }
        self.check_same(next.revision, next.digest)?;
        let moved = next.revision > self.revision;
        *self = next;
        Ok(moved)
    }

    /// Compares the state with a head. Whether the head is still valid is for the
    /// caller's clock to say.
    ///
    /// # Errors
    /// [`TrustError::WrongInstance`], [`TrustError::WrongLog`],
    /// [`TrustError::DigestMismatch`], [`TrustError::Malformed`].
    pub fn compare(&self, head: &Verified<proto::Head>) -> Result<HeadVerdict, TrustError> {
        let instance_id = parse::parse("mqtt_instance_id", &head.mqtt_instance_id)?;
        self.check_origin(&instance_id, parse::parse("log_id", &head.log_id)?)?;
        self.check_same(head.revision, parse::sha256("bundle_digest", &head.bundle_digest)?)?;
        Ok(match head.revision.cmp(&self.revision) {
            std::cmp::Ordering::Less if is_of_an_earlier_epoch(head.revision, self.revision) => {
                HeadVerdict::Ended
            }
            std::cmp::Ordering::Less => HeadVerdict::Older,
            std::cmp::Ordering::Equal => HeadVerdict::Current,
            std::cmp::Ordering::Greater => HeadVerdict::Behind { revision: head.revision },
        })
    }

    fn check_origin(&self, instance_id: &InstanceId, log_id: Uuid) -> Result<(), TrustError> {
        if *instance_id != self.instance_id {
            return Err(TrustError::WrongInstance { found: instance_id.clone() });
        }
        if log_id != self.log_id {
            return Err(TrustError::WrongLog { found: log_id });
        }
        Ok(())
    }

    /// Two messages of one revision must agree, or the log was forked.
    fn check_same(&self, revision: u64, stated: Sha256) -> Result<(), TrustError> {
        if revision == self.revision && stated != self.digest {
            return Err(TrustError::DigestMismatch { revision, stated, computed: self.digest });
        }
        Ok(())
    }
}

fn is_of_an_earlier_epoch(revision: u64, than: u64) -> bool {
    LogEpoch::of_revision(revision) < LogEpoch::of_revision(than)
}

fn canonical(entry: &TrustEntry) -> Vec<u8> {
    canonical_entry(&entry.facts.sha256, &entry.facts.spki_sha256, entry.state)
}

#[cfg(test)]
mod tests;
