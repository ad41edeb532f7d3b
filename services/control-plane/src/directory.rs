//! What this replica knows of the instances, in memory: who owns them, and how far
//! their trust has got.
//!
//! Filled from the read model at the start and by the log follower from then on,
//! so that a call needs no query to find out whose an instance is, and a head can
//! be made for each instance every two seconds. It lags the log by milliseconds;
//! rules that must not lag are checked again under the append lock.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};

use catrust_domain::{
    AccountId, Edition, Event, Instance, InstanceId, LogHead, RecordedEvent, RegionId, Sha256, Timestamp,
};
use catrust_event_store::{Clock, FreshnessLease};
use tokio::sync::watch;

use crate::ground::LogGround;

/// Ends of the log that are remembered: those of some ten seconds under full load, and a lease
/// is three seconds old at most.
const MOST_ENDS: usize = 16_384;

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
#[derive(Debug)]
pub(crate) struct Directory {
    instances: RwLock<HashMap<InstanceId, InstanceSummary>>,
    leases: watch::Receiver<Option<FreshnessLease>>,
    /// Ends of the log that it came through, the last ones.
    ends: RwLock<VecDeque<(u64, Sha256)>>,
    ground: LogGround,
}

impl Directory {
    /// An empty one, whose state is current by `leases`.
    pub(crate) fn new(leases: watch::Receiver<Option<FreshnessLease>>, ground: LogGround) -> Self {
        Self { instances: RwLock::default(), leases, ends: RwLock::default(), ground }
    }

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

    /// Forgets what is known for `instances`, read anew after the log ended at `head`: at the
    /// beginning of a log epoch, what is known may be what the log has lost.
    pub(crate) fn replace(&self, head: &LogHead, instances: &[Instance]) {
        let anew = instances.iter().map(InstanceSummary::from).map(|i| (i.instance_id.clone(), i)).collect();
        *self.instances.write().unwrap_or_else(PoisonError::into_inner) = anew;
        self.ends.write().unwrap_or_else(PoisonError::into_inner).clear();
        self.start_at(head);
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
        drop(instances);
        self.come_through(recorded.position, recorded.hash);
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

    /// When what the directory says was current, at the latest: the time of a freshness lease
    /// that is valid, where the directory came through exactly the end of the log that the lease
    /// has. `None` otherwise, and then no head may be signed: it would call a revision current
    /// that may not be.
    #[must_use]
    pub(crate) fn current_at(&self) -> Option<Timestamp> {
        // A log that was set back may end where the directory came through once.
        if !self.ground.is_sound() {
            return None;
        }
        let lease = self.leases.borrow().clone().filter(FreshnessLease::is_valid)?;
        self.came_through(&lease.end).then_some(lease.issued_at)
    }

    /// Whether the directory was exactly as the log had it at that end, not long ago.
    pub(crate) fn came_through(&self, end: &LogHead) -> bool {
        let ends = self.ends.read().unwrap_or_else(PoisonError::into_inner);
        ends.contains(&(end.position, end.hash))
    }

    /// The clock of the database, one for all replicas: as the last lease showed it, and the
    /// time since; `own` before the first. Leases are young, and what is between them counts
    /// suspension.
    pub(crate) fn database_clock(self: &Arc<Self>, own: Clock) -> Clock {
        let directory = Arc::clone(self);
        Arc::new(move || {
            let leases = directory.leases.borrow();
            leases.as_ref().map_or_else(|| own(), FreshnessLease::database_time)
        })
    }

    /// Notes where the log ended before the directory was filled.
    pub(crate) fn start_at(&self, head: &LogHead) {
        self.come_through(head.position, head.hash);
    }

    fn come_through(&self, position: u64, hash: Sha256) {
        let mut ends = self.ends.write().unwrap_or_else(PoisonError::into_inner);
        if ends.len() == MOST_ENDS {
            ends.pop_front();
        }
        ends.push_back((position, hash));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use catrust_event_store::BootTime;

    fn end(position: u64, byte: u8) -> LogHead {
        LogHead { position, hash: Sha256([byte; 32]), ..LogHead::EMPTY }
    }

    /// Ground rule 17: heads are signed only if the directory came through exactly the end that
    /// the lease has, and with the lease's time.
    #[test]
    fn only_what_came_through_the_end_of_a_valid_lease_is_current() {
        let leases = watch::Sender::new(None);
        let directory = Directory::new(leases.subscribe(), LogGround::default());
        directory.start_at(&end(7, 1));
        assert_eq!(directory.current_at(), None, "no lease");
        let issued_at = Timestamp::from_micros(5);
        let lease = |end| FreshnessLease { end, issued_at, taken_at: BootTime::now() };
        leases.send_replace(Some(lease(end(7, 1))));
        assert_eq!(directory.current_at(), Some(issued_at));
        leases.send_replace(Some(lease(end(7, 2))));
        assert_eq!(directory.current_at(), None, "another row is there");
        leases.send_replace(Some(lease(end(8, 3))));
        assert_eq!(directory.current_at(), None, "the directory is behind");
        directory.come_through(8, Sha256([3; 32]));
        directory.come_through(9, Sha256([4; 32]));
        assert_eq!(directory.current_at(), Some(issued_at), "it came through");
        leases.send_replace(Some(lease(end(6, 9))));
        assert_eq!(directory.current_at(), None, "from before it was filled: it did not come through");
    }

    /// Ground rule 23: silence, waits and pruning go by the database's clock.
    #[test]
    fn ages_go_by_the_clock_of_the_database_whatever_the_replica_s_own_says() {
        let leases = watch::Sender::new(None);
        let directory = Arc::new(Directory::new(leases.subscribe(), LogGround::default()));
        let a_year_ahead = Timestamp::from_micros(31_536_000_000_000);
        let clock = directory.database_clock(Arc::new(move || a_year_ahead));
        assert_eq!(clock(), a_year_ahead, "before the first lease there is no other");
        let issued_at = Timestamp::from_micros(5_000_000);
        let lease = FreshnessLease { end: end(7, 1), issued_at, taken_at: BootTime::now() };
        leases.send_replace(Some(lease));
        let shown = clock();
        assert!(shown >= issued_at && shown < issued_at.plus_seconds(60), "{shown}");
    }

    fn instance(name: &str, revision: u64) -> Instance {
        Instance {
            instance_id: name.parse().unwrap(),
            region_id: "r".parse().unwrap(),
            owner_account_id: "a".parse().unwrap(),
            edition: Edition::Platinum,
            revision,
            trust_position: revision,
            bundle_digest: Sha256::of(&revision.to_be_bytes()),
            set_hash: catrust_domain::set_hash::SetHash::empty(),
            certificate_count: 0,
            unspent_register_codes: Vec::new(),
            registered_at: Timestamp::FIRST,
            registered_position: 1,
            updated_at: Timestamp::FIRST,
            updated_position: 1,
            stream_version: 1,
        }
    }

    // Ground rule 13: replicas build their memory anew when the epoch appears.
    #[test]
    fn what_is_read_anew_takes_the_place_of_what_was_known() {
        let directory = Directory::new(watch::channel(None).1, LogGround::default());
        directory.insert(&instance("kept", 10));
        directory.insert(&instance("lost", 3));
        directory.insert(&instance("kept", 4));
        assert_eq!(
            directory.find(&"kept".parse().unwrap()).unwrap().revision,
            10,
            "it never falls by itself"
        );
        directory.replace(&end(4, 4), &[instance("kept", 4)]);
        assert_eq!(directory.find(&"kept".parse().unwrap()).unwrap().revision, 4);
        assert_eq!(directory.find(&"lost".parse().unwrap()), None);
    }

    // Ground rule 8: set back, no heads are signed.
    #[test]
    fn a_doubted_directory_is_not_current() {
        let end = end(7, 1);
        let lease = FreshnessLease { end, issued_at: Timestamp::FIRST, taken_at: BootTime::now() };
        let ground = LogGround::default();
        let directory = Directory::new(watch::channel(Some(lease)).1, ground.clone());
        directory.start_at(&end);
        assert!(directory.current_at().is_some());
        ground.doubt();
        assert_eq!(directory.current_at(), None, "also at an end that it came through");
        ground.regain();
        assert!(directory.current_at().is_some());
    }
}
