//! The log as the publisher reads it: nothing comes of it while it is set back, so that nothing
//! of it is signed.

use std::sync::Arc;

use async_trait::async_trait;
use catrust_domain::{EpochInForce, LogEntry, LogHead, RecordedEvent};
use catrust_event_store::{EventLog, FreshnessLease, PrimaryInUse, PublisherLease, StoreError};
use tokio::sync::watch;
use uuid::Uuid;

use super::LogGround;

/// A log that is silent while it is set back.
pub(crate) struct AttentiveLog {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) ground: LogGround,
}

impl AttentiveLog {
    fn check(&self) -> Result<(), StoreError> {
        self.ground.check_log()
    }

    /// What was read, unless the ground was lost meanwhile.
    fn told<T>(&self, read: Result<T, StoreError>) -> Result<T, StoreError> {
        self.check().and(read)
    }
}

#[async_trait]
impl EventLog for AttentiveLog {
    fn log_id(&self) -> Uuid {
        self.log.log_id()
    }

    fn appended(&self) -> watch::Receiver<u64> {
        self.log.appended()
    }

    fn recent(&self, after: u64) -> Option<Arc<[LogEntry]>> {
        self.check().ok()?;
        self.log.recent(after)
    }

    fn primary(&self) -> watch::Receiver<PrimaryInUse> {
        self.log.primary()
    }

    fn freshness(&self) -> watch::Receiver<Option<FreshnessLease>> {
        self.log.freshness()
    }

    async fn head(&self) -> Result<LogHead, StoreError> {
        self.told(self.log.head().await)
    }

    async fn read(&self, after: u64, limit: u32) -> Result<Vec<RecordedEvent>, StoreError> {
        self.told(self.log.read(after, limit).await)
    }

    async fn read_from(&self, since: &LogHead, limit: u32) -> Result<Vec<RecordedEvent>, StoreError> {
        self.told(self.log.read_from(since, limit).await)
    }

    fn epoch(&self) -> watch::Receiver<EpochInForce> {
        self.log.epoch()
    }

    async fn try_lease_publisher(&self) -> Result<Option<Box<dyn PublisherLease>>, StoreError> {
        self.log.try_lease_publisher().await
    }
}
