//! A log in memory, with the faults that a test asks for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use catrust_domain::{EpochInForce, InstanceId, LogEpoch, LogHead, RecordedEvent, SerialNumber};
use catrust_event_store::{EventLog, FreshnessLease, PrimaryInUse, PublisherLease, StoreError};
use catrust_trust_feed::contract::SampleLog;
use tokio::sync::watch;
use uuid::Uuid;

/// A log that several replicas share.
#[derive(Clone)]
pub struct MemoryLog {
    log: Arc<Mutex<SampleLog>>,
    hint: Arc<watch::Sender<u64>>,
    leased: Arc<AtomicBool>,
    epoch: Arc<watch::Sender<EpochInForce>>,
    primary: Arc<watch::Sender<PrimaryInUse>>,
    set_back: Arc<Mutex<Option<String>>>,
}

impl MemoryLog {
    pub fn new() -> Self {
        Self {
            log: Arc::new(Mutex::new(SampleLog::new())),
            hint: Arc::new(watch::channel(0).0),
            leased: Arc::default(),
            epoch: Arc::new(watch::channel(EpochInForce::FIRST).0),
            primary: Arc::new(watch::channel(PrimaryInUse { turn: 1, confirmed: true }).0),
            set_back: Arc::default(),
        }
    }

    /// Works on the log, and wakes those who wait for it.
    pub fn with<T>(&self, work: impl FnOnce(&mut SampleLog) -> T) -> T {
        let mut log = self.log.lock().unwrap();
        let before = log.head();
        let result = work(&mut log);
        if log.head() != before {
            self.hint.send_replace(log.head());
        }
        result
    }

    /// Puts another history in the log's place, as a restore does.
    pub fn set_to(&self, history: SampleLog) {
        *self.log.lock().unwrap() = history;
    }

    /// Puts another server in the place of the one in use, which no commit has confirmed yet.
    pub fn turn_to_another_server(&self) {
        self.primary
            .send_modify(|primary| *primary = PrimaryInUse { turn: primary.turn + 1, confirmed: false });
    }

    /// A commit has confirmed the server in use.
    pub fn confirm_server(&self) {
        self.primary.send_modify(|primary| primary.confirmed = true);
    }

    /// From now on another epoch is in force.
    pub fn begin_epoch(&self, epoch: LogEpoch) {
        self.epoch.send_modify(|in_force| in_force.epoch = epoch);
    }

    /// What another part of the server knows, so that no read gives anything.
    pub fn find_set_back(&self, reason: Option<&str>) {
        *self.set_back.lock().unwrap() = reason.map(str::to_owned);
    }

    pub fn toggle(&self, instance: &InstanceId, sn: &SerialNumber) {
        self.with(|log| log.toggle(instance, sn));
    }

    /// Appends one event to a grown log.
    pub fn toggle_any(&self) {
        self.with(|log| log.grow(log.head() + 1));
    }

    pub fn replica(&self) -> MemoryStore {
        MemoryStore { log: self.clone(), fenced: true, unreadable: None, away: Arc::default() }
    }

    /// A replica that believes to hold the lease whoever holds it.
    pub fn replica_that_ignores_the_lease(&self) -> MemoryStore {
        MemoryStore { fenced: false, ..self.replica() }
    }
}

/// One replica's view of the log.
pub struct MemoryStore {
    log: MemoryLog,
    fenced: bool,
    unreadable: Option<u64>,
    away: Arc<AtomicBool>,
}

impl MemoryStore {
    pub fn log(&self) -> MemoryLog {
        self.log.clone()
    }

    /// Makes the event at `position` one of a newer version.
    pub fn with_unreadable(self, position: u64) -> Self {
        Self { unreadable: Some(position), ..self }
    }

    /// While true, the store does not answer.
    pub fn away(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.away)
    }

    fn answer(&self) -> Result<(), StoreError> {
        if self.away.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("the test took it away".into()));
        }
        match self.log.set_back.lock().unwrap().clone() {
            Some(reason) => Err(StoreError::SetBack { reason }),
            None => Ok(()),
        }
    }
}

struct Lease(Option<Arc<AtomicBool>>);

#[async_trait]
impl PublisherLease for Lease {
    async fn is_held(&mut self) -> bool {
        true
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(leased) = &self.0 {
            leased.store(false, Ordering::Relaxed);
        }
    }
}

#[async_trait]
impl EventLog for MemoryStore {
    fn log_id(&self) -> Uuid {
        self.log.with(|log| log.log_id())
    }

    fn appended(&self) -> watch::Receiver<u64> {
        self.log.hint.subscribe()
    }

    fn primary(&self) -> watch::Receiver<PrimaryInUse> {
        self.log.primary.subscribe()
    }

    fn freshness(&self) -> watch::Receiver<Option<FreshnessLease>> {
        watch::channel(None).1
    }

    fn epoch(&self) -> watch::Receiver<EpochInForce> {
        self.log.epoch.subscribe()
    }

    async fn head(&self) -> Result<LogHead, StoreError> {
        self.answer()?;
        Ok(self.log.with(|log| log.log_head()))
    }

    async fn read(&self, after: u64, limit: u32) -> Result<Vec<RecordedEvent>, StoreError> {
        self.answer()?;
        let mut events: Vec<RecordedEvent> = self.log.with(|log| {
            log.events()
                .iter()
                .skip(usize::try_from(after).unwrap())
                .take(usize::try_from(limit).unwrap())
                .cloned()
                .collect()
        });
        for event in &mut events {
            if Some(event.position) == self.unreadable {
                event.schema_version = u16::MAX;
            }
        }
        Ok(events)
    }

    async fn try_lease_publisher(&self) -> Result<Option<Box<dyn PublisherLease>>, StoreError> {
        self.answer()?;
        if !self.fenced {
            return Ok(Some(Box::new(Lease(None))));
        }
        let free = !self.log.leased.swap(true, Ordering::Relaxed);
        Ok(free.then(|| Box::new(Lease(Some(Arc::clone(&self.log.leased)))) as Box<dyn PublisherLease>))
    }
}
