//! What this replica knows of the instances, in memory: who owns them, and how far
//! their trust has got.
//!
//! Filled from the read model at the start and by the log follower from then on,
//! so that a call needs no query to find out whose an instance is, and a head can
//! be made for each instance every two seconds. It lags the log by milliseconds;
//! rules that must not lag are checked again under the append lock.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use catrust_domain::{AccountId, Edition, Event, Instance, InstanceId, RecordedEvent, RegionId, Sha256};

/// What the directory knows of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InstanceSummary {
    /// Name.
    pub(crate) instance_id: InstanceId,
    /// Region.
    pub(crate) region_id: RegionId,
    /// Owner.
    pub(crate) owner_account_id: AccountId,
    /// Edition.
    pub(crate) edition: Edition,
    /// Log position of the last change of owner or edition.
    pub(crate) updated_position: u64,
    /// Number of trust changes.
    pub(crate) revision: u64,
    /// Log position of the last trust change; 0 before the first.
    pub(crate) trust_position: u64,
    /// Digest of the trust bundle.
    pub(crate) bundle_digest: Sha256,
}

impl From<&Instance> for InstanceSummary {
    fn from(instance: &Instance) -> Self {
        Self {
            instance_id: instance.instance_id.clone(),
            region_id: instance.region_id.clone(),
            owner_account_id: instance.owner_account_id.clone(),
            edition: instance.edition,
            updated_position: instance.updated_position,
            revision: instance.revision,
            trust_position: instance.trust_position,
            bundle_digest: instance.bundle_digest,
        }
    }
}

/// The instances that this replica knows.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    instances: RwLock<HashMap<InstanceId, InstanceSummary>>,
    confirmed: RwLock<Option<Instant>>,
}

impl Directory {
    /// Takes in an instance as the read model has it, unless more is known already.
    pub(crate) fn insert(&self, instance: &Instance) {
        let next = InstanceSummary::from(instance);
        let mut instances = self.instances.write().unwrap_or_else(PoisonError::into_inner);
        match instances.get_mut(&next.instance_id) {
            None => {
                instances.insert(next.instance_id.clone(), next);
            }
            Some(known) => {
                if next.updated_position > known.updated_position {
                    known.owner_account_id = next.owner_account_id;
                    known.edition = next.edition;
                    known.updated_position = next.updated_position;
                }
                if next.revision > known.revision {
                    known.revision = next.revision;
                    known.trust_position = next.trust_position;
                    known.bundle_digest = next.bundle_digest;
                }
            }
        }
    }

    /// Takes in an event of the log. Older ones than what is known change nothing.
    pub(crate) fn apply(&self, recorded: &RecordedEvent, event: &Event) {
        let mut instances = self.instances.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::InstanceRegistered(payload) => {
                instances.entry(recorded.instance_id.clone()).or_insert_with(|| InstanceSummary {
                    instance_id: recorded.instance_id.clone(),
                    region_id: payload.region_id.clone(),
                    owner_account_id: payload.owner_account_id.clone(),
                    edition: payload.edition,
                    updated_position: recorded.position,
                    revision: 0,
                    trust_position: 0,
                    bundle_digest: catrust_domain::set_hash::SetHash::empty().digest(),
                });
            }
            Event::InstanceUpdated(payload) => {
                if let Some(known) = instances.get_mut(&recorded.instance_id)
                    && recorded.position > known.updated_position
                {
                    known.owner_account_id = payload.owner_account_id.clone();
                    known.edition = payload.edition;
                    known.updated_position = recorded.position;
                }
            }
            _ => {
                if let (Some(known), Some(revision), Some(digest)) =
                    (instances.get_mut(&recorded.instance_id), recorded.revision, recorded.bundle_digest)
                    && revision > known.revision
                {
                    known.revision = revision;
                    known.trust_position = recorded.position;
                    known.bundle_digest = digest;
                }
            }
        }
    }

    /// Finds an instance. `None` means that it is not known here yet: ask the store.
    #[must_use]
    pub(crate) fn find(&self, id: &InstanceId) -> Option<InstanceSummary> {
        self.instances.read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// All instances, in no order.
    #[must_use]
    pub(crate) fn all(&self) -> Vec<InstanceSummary> {
        self.instances.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Notes that a read of the log that began at `asked` showed nothing beyond what
    /// the directory knows.
    pub(crate) fn confirm(&self, asked: Instant) {
        *self.confirmed.write().unwrap_or_else(PoisonError::into_inner) = Some(asked);
    }

    /// Whether the directory was up to date with the log within `age`. A head MUST
    /// NOT be signed otherwise: it would call a revision current that may not be.
    #[must_use]
    pub(crate) fn is_fresh(&self, age: Duration) -> bool {
        self.confirmed
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|confirmed| confirmed.elapsed() <= age)
    }
}
