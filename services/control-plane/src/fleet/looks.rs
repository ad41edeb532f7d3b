//! One look at the fleet of an instance for all that wait for it.
//!
//! A thousand calls that wait for the brokers of one instance want to know the same after each
//! receipt. Whoever asks gets a look that began after the question; those who asked while
//! another look was under way share the next one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as SyncMutex, MutexGuard, PoisonError};

use catrust_domain::{FleetMember, InstanceId};
use catrust_event_store::{FleetStore, StoreError};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// The brokers of an instance, as one look found them.
pub(super) type Fleet = Arc<Vec<FleetMember>>;

/// The last look: when it began, and what it found; `None` where it failed.
type LastLook = Option<(Instant, Option<Fleet>)>;

/// Looks at fleets for many at once. Cheap to clone.
#[derive(Clone)]
pub(super) struct SharedLooks {
    store: Arc<dyn FleetStore>,
    /// Of instances that somebody looks at.
    instances: Arc<SyncMutex<HashMap<InstanceId, Arc<Mutex<LastLook>>>>>,
}

impl SharedLooks {
    pub(super) fn new(store: Arc<dyn FleetStore>) -> Self {
        Self { store, instances: Arc::default() }
    }

    /// The brokers of an instance, as they were after this call.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn look(&self, id: &InstanceId) -> Result<Fleet, StoreError> {
        let asked = Instant::now();
        let instance = Arc::clone(self.instances().entry(id.clone()).or_default());
        let looked = self.look_after(asked, id, &instance).await;
        let mut instances = self.instances();
        // Its place in the map, and this one: nobody else looks.
        if Arc::strong_count(&instance) <= 2 {
            instances.remove(id);
        }
        looked
    }

    async fn look_after(
        &self,
        asked: Instant,
        id: &InstanceId,
        instance: &Mutex<LastLook>,
    ) -> Result<Fleet, StoreError> {
        let mut last = instance.lock().await;
        match &*last {
            Some((began, Some(fleet))) if *began >= asked => return Ok(Arc::clone(fleet)),
            Some((began, None)) if *began >= asked => {
                return Err(StoreError::Unavailable("the look that was shared failed".into()));
            }
            _ => {}
        }
        let began = Instant::now();
        let looked = self.store.list_brokers(id).await.map(Arc::new);
        *last = Some((began, looked.as_ref().ok().map(Arc::clone)));
        looked
    }

    fn instances(&self) -> MutexGuard<'_, HashMap<InstanceId, Arc<Mutex<LastLook>>>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use async_trait::async_trait;
    use catrust_domain::{BrokerId, Receipt, Timestamp};
    use tokio::sync::{Semaphore, broadcast};

    use super::*;

    /// Counts looks, each of which waits for a permit.
    struct SlowFleet {
        looks: AtomicU32,
        permits: Semaphore,
    }

    #[async_trait]
    impl FleetStore for SlowFleet {
        async fn record_receipts(&self, _: &[Receipt]) -> Result<u64, StoreError> {
            Ok(0)
        }

        async fn list_brokers(&self, _: &InstanceId) -> Result<Vec<FleetMember>, StoreError> {
            self.looks.fetch_add(1, Ordering::Relaxed);
            self.permits.acquire().await.unwrap().forget();
            Ok(Vec::new())
        }

        async fn list_all_brokers(
            &self,
            _: Option<(&InstanceId, &BrokerId)>,
            _: u32,
        ) -> Result<Vec<FleetMember>, StoreError> {
            Ok(Vec::new())
        }

        async fn forget_brokers(&self, _: Timestamp) -> Result<u64, StoreError> {
            Ok(0)
        }

        fn fleet_changes(&self) -> broadcast::Receiver<InstanceId> {
            broadcast::channel(1).1
        }
    }

    /// Ground rule 20: one look per instance for all that wait.
    #[tokio::test(start_paused = true)]
    async fn those_who_ask_during_a_look_share_the_next_one() {
        let store = Arc::new(SlowFleet { looks: AtomicU32::new(0), permits: Semaphore::new(0) });
        let looks = SharedLooks::new(Arc::clone(&store) as Arc<dyn FleetStore>);
        let id: InstanceId = "post-cn-0123456789a".parse().unwrap();
        let ask = || {
            let (looks, id) = (looks.clone(), id.clone());
            tokio::spawn(async move { looks.look(&id).await.map(|fleet| fleet.len()) })
        };
        let first = ask();
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        // They may know something that the first look began too early for.
        let others: Vec<_> = (0..1_000).map(|_| ask()).collect();
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        store.permits.add_permits(2);
        assert_eq!(first.await.unwrap().unwrap(), 0);
        for other in others {
            assert_eq!(other.await.unwrap().unwrap(), 0);
        }
        assert_eq!(store.looks.load(Ordering::Relaxed), 2);
        assert!(looks.instances().is_empty(), "nobody looks any more");
    }
}
