//! A log in memory behind the store's port: what the publisher uses of it, with the
//! faults that a test asks for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use catrust_domain::{
    BrokerId, CommandEnvelope, FleetMember, Instance, InstanceId, LogHead, Receipt, RecordedEvent, Reply,
    RequestKey, SerialNumber, Sha256, Timestamp, TrustBundle,
};
use catrust_event_store::{
    BundleAt, CertificateView, CommandResults, EventStore, Page, PublisherLease, RebuildReport, Refusal,
    RefusalFilter, StateFilter, StoreError, TrustChangePage, TrustChangeSearch, VerifyReport,
};
use catrust_trust_feed::contract::SampleLog;
use tokio::sync::{broadcast, watch};
use uuid::Uuid;

/// A log that several replicas share.
#[derive(Clone)]
pub struct MemoryLog {
    log: Arc<Mutex<SampleLog>>,
    hint: Arc<watch::Sender<u64>>,
    leased: Arc<AtomicBool>,
}

impl MemoryLog {
    pub fn new() -> Self {
        Self {
            log: Arc::new(Mutex::new(SampleLog::new())),
            hint: Arc::new(watch::channel(0).0),
            leased: Arc::default(),
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
        Ok(())
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

/// What the publisher never asks for.
fn not_part_of_this<T>() -> Result<T, StoreError> {
    Err(StoreError::Unsuitable("the log in memory is for publishers alone".into()))
}

#[async_trait]
impl EventStore for MemoryStore {
    fn log_id(&self) -> Uuid {
        self.log.with(|log| log.log_id())
    }

    async fn append(&self, commands: &[CommandEnvelope]) -> Result<CommandResults, StoreError> {
        Ok(self.log.with(|log| log.append(commands, Timestamp::from_micros(0))))
    }

    fn appended(&self) -> watch::Receiver<u64> {
        self.log.hint.subscribe()
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

    async fn ping(&self) -> Result<(), StoreError> {
        self.answer()
    }

    async fn read_hashes(&self, _: u64, _: u32) -> Result<Vec<Sha256>, StoreError> {
        not_part_of_this()
    }

    async fn find_event(&self, _: Uuid) -> Result<Option<RecordedEvent>, StoreError> {
        not_part_of_this()
    }

    async fn count_tree_nodes(&self, _: u32) -> Result<u64, StoreError> {
        not_part_of_this()
    }

    async fn read_tree_nodes(&self, _: u32, _: u64, _: u32) -> Result<Vec<Sha256>, StoreError> {
        not_part_of_this()
    }

    async fn keep_tree_nodes(&self, _: u32, _: u64, _: &[Sha256]) -> Result<(), StoreError> {
        not_part_of_this()
    }

    async fn record_refusals(&self, _: &[Refusal], _: u64) -> Result<(), StoreError> {
        not_part_of_this()
    }

    async fn prune_refusals(&self, _: u64) -> Result<u64, StoreError> {
        not_part_of_this()
    }

    async fn list_refusals(
        &self,
        _: &RefusalFilter,
        _: u64,
        _: u32,
    ) -> Result<Vec<(u64, Refusal)>, StoreError> {
        not_part_of_this()
    }

    async fn find_instance(&self, _: &InstanceId) -> Result<Option<Instance>, StoreError> {
        not_part_of_this()
    }

    async fn list_instances(&self, _: u64, _: u32) -> Result<Page<Instance>, StoreError> {
        not_part_of_this()
    }

    async fn find_certificate(
        &self,
        _: &InstanceId,
        _: &SerialNumber,
    ) -> Result<Option<CertificateView>, StoreError> {
        not_part_of_this()
    }

    async fn list_certificates(
        &self,
        _: &InstanceId,
        _: StateFilter,
        _: u64,
        _: u32,
    ) -> Result<Page<CertificateView>, StoreError> {
        not_part_of_this()
    }

    async fn search_trust_changes(
        &self,
        _: &TrustChangeSearch,
        _: u64,
        _: u32,
    ) -> Result<TrustChangePage, StoreError> {
        not_part_of_this()
    }

    async fn load_bundle(&self, _: &InstanceId, _: BundleAt) -> Result<Option<TrustBundle>, StoreError> {
        not_part_of_this()
    }

    async fn read_trust_changes(
        &self,
        _: &InstanceId,
        _: u64,
        _: u32,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        not_part_of_this()
    }

    async fn find_reply(&self, _: &RequestKey) -> Result<Option<Reply>, StoreError> {
        not_part_of_this()
    }

    async fn prune_replies(&self, _: Timestamp) -> Result<u64, StoreError> {
        not_part_of_this()
    }

    async fn record_receipts(&self, _: &[Receipt]) -> Result<u64, StoreError> {
        not_part_of_this()
    }

    async fn list_brokers(&self, _: &InstanceId) -> Result<Vec<FleetMember>, StoreError> {
        not_part_of_this()
    }

    async fn list_all_brokers(
        &self,
        _: Option<(&InstanceId, &BrokerId)>,
        _: u32,
    ) -> Result<Vec<FleetMember>, StoreError> {
        not_part_of_this()
    }

    async fn forget_brokers(&self, _: Timestamp) -> Result<u64, StoreError> {
        not_part_of_this()
    }

    fn fleet_changes(&self) -> broadcast::Receiver<InstanceId> {
        broadcast::Sender::new(1).subscribe()
    }

    async fn verify(&self) -> Result<VerifyReport, StoreError> {
        not_part_of_this()
    }

    async fn rebuild(&self) -> Result<RebuildReport, StoreError> {
        not_part_of_this()
    }
}
