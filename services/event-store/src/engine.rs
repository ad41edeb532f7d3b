//! [`crate::EventStore`], once for both engines: what an engine has of its own is behind
//! [`Engine`], and everything else is the same statements on its connections.

use std::ops::DerefMut;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use catrust_domain::{
    BrokerId, CommandEnvelope, EpochInForce, FleetMember, Instance, InstanceId, LogEntry, LogHead, Receipt,
    RecordedEvent, Reply, RequestKey, SerialNumber, Sha256, Timestamp, TrustBundle,
};
use sqlx::{Connection, Database};
use tokio::sync::{broadcast, watch};
use tokio::time::timeout;
use uuid::Uuid;

use crate::known::KnownLog;
use crate::queries::{self, Query};
use crate::rebuild::Repair;
use crate::receipts::FleetChanges;
use crate::rows::Rows;
use crate::{
    BundleAt, CertificateView, Clock, CommandResults, CommandStore, EventLog, EvidenceStore, FleetStore,
    FreshnessLease, Maintenance, Page, PrimaryInUse, PublisherLease, ReadModelStore, RebuildReport,
    RefusalFilter, RefusalStore, RefusedCall, StateFilter, StoreError, TrustChangePage, TrustChangeSearch,
    VerifyReport, bundle, reads, rebuild, refusals, search, tree, verify,
};

/// How long the database may take to say that it is there.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// A database engine.
pub(crate) trait Engine: Send + Sync + 'static {
    type Connection: Rows + Connection<Database: Database<Connection = Self::Connection>>;
    type Reader: DerefMut<Target = Self::Connection> + Send;
    type Writer: DerefMut<Target = Self::Connection> + Send;
    type Repairer: Repair;

    /// Begins a transaction that writes.
    const BEGIN: &'static str;
    /// ColumnValue replies forgotten by one statement.
    const PRUNE_CHUNK: u64;

    fn known(&self) -> &KnownLog;
    fn growth(&self) -> watch::Receiver<u64>;
    /// Raises the highest position known, see [`EventLog::appended`].
    fn raise(&self, position: u64);
    /// By which clock events are dated where it is not the database's.
    fn clock(&self) -> Option<&Clock>;
    fn fleet(&self) -> &FleetChanges;
    /// See [`EventLog::primary`].
    fn server_in_use(&self) -> watch::Receiver<PrimaryInUse>;
    /// See [`EventLog::freshness`].
    fn leases(&self) -> watch::Receiver<Option<FreshnessLease>>;
    /// See [`Maintenance::tasks_ended`].
    fn tasks_ended(&self) -> impl Future<Output = ()> + Send;

    /// A connection for what a user asks.
    fn reader(&self) -> impl Future<Output = Result<Self::Reader, StoreError>> + Send;
    /// A connection for the server's own work, which users cannot be in the way of.
    fn own_reader(&self) -> impl Future<Output = Result<Self::Reader, StoreError>> + Send;
    /// A connection for small writes beside the log.
    fn writer(&self) -> impl Future<Output = Result<Self::Writer, StoreError>> + Send;
    /// A connection of its own whose transaction sees one snapshot.
    fn snapshot(&self) -> impl Future<Output = Result<Self::Connection, StoreError>> + Send;
    /// Says where several servers take writes: nothing that all of them must know can be begun.
    fn rivals(&self) -> impl Future<Output = Result<Option<String>, StoreError>> + Send;
    fn repairer(&self) -> impl Future<Output = Result<Self::Repairer, StoreError>> + Send;

    /// See [`CommandStore::append`].
    fn append_batch(
        &self,
        commands: &[CommandEnvelope],
    ) -> impl Future<Output = Result<CommandResults, StoreError>> + Send;
    /// See [`FleetStore::record_receipts`].
    fn take_receipts(&self, receipts: &[Receipt]) -> impl Future<Output = Result<u64, StoreError>> + Send;
    /// See [`EventLog::try_lease_publisher`].
    fn try_lease(&self) -> impl Future<Output = Result<Option<Box<dyn PublisherLease>>, StoreError>> + Send;

    /// Deletes the oldest replies. $1 before when, $2 how many.
    fn prune_replies() -> &'static Query;
    fn error(error: sqlx::Error) -> StoreError;
}

#[async_trait]
impl<E: Engine> EventLog for E {
    fn log_id(&self) -> Uuid {
        self.known().log_id
    }

    fn appended(&self) -> watch::Receiver<u64> {
        self.growth()
    }

    fn recent(&self, after: u64) -> Option<Arc<[LogEntry]>> {
        self.known().recent.after(after)
    }

    fn primary(&self) -> watch::Receiver<PrimaryInUse> {
        self.server_in_use()
    }

    fn freshness(&self) -> watch::Receiver<Option<FreshnessLease>> {
        self.leases()
    }

    async fn head(&self) -> Result<LogHead, StoreError> {
        reads::head(&mut *self.own_reader().await?).await
    }

    async fn read(&self, after: u64, limit: u32) -> Result<Vec<RecordedEvent>, StoreError> {
        reads::log_after(&mut *self.own_reader().await?, self.known(), after, limit).await
    }

    fn epoch(&self) -> watch::Receiver<EpochInForce> {
        self.known().epochs.subscribe()
    }

    async fn try_lease_publisher(&self) -> Result<Option<Box<dyn PublisherLease>>, StoreError> {
        self.try_lease().await
    }
}

#[async_trait]
impl<E: Engine> CommandStore for E {
    async fn append(&self, commands: &[CommandEnvelope]) -> Result<CommandResults, StoreError> {
        self.append_batch(commands).await
    }

    async fn find_reply(&self, key: &RequestKey) -> Result<Option<Reply>, StoreError> {
        reads::find_reply(&mut *self.reader().await?, key).await
    }

    async fn prune_replies(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut connection = self.writer().await?;
        let mut pruned = 0;
        loop {
            let binds = [before.into(), E::PRUNE_CHUNK.into()];
            let gone = connection.execute(<E as Engine>::prune_replies(), &binds).await?;
            pruned += gone;
            if gone < E::PRUNE_CHUNK {
                return Ok(pruned);
            }
        }
    }
}

#[async_trait]
impl<E: Engine> ReadModelStore for E {
    async fn find_instance(&self, id: &InstanceId) -> Result<Option<Instance>, StoreError> {
        reads::find_instance(&mut *self.reader().await?, self.known(), id).await
    }

    async fn list_instances(&self, after: u64, limit: u32) -> Result<Page<Instance>, StoreError> {
        reads::list_instances(&mut *self.reader().await?, self.known(), after, limit).await
    }

    async fn find_certificate(
        &self,
        id: &InstanceId,
        sn: &SerialNumber,
    ) -> Result<Option<CertificateView>, StoreError> {
        reads::find_certificate(&mut *self.reader().await?, id, sn).await
    }

    async fn list_certificates(
        &self,
        id: &InstanceId,
        state: StateFilter,
        after: u64,
        limit: u32,
    ) -> Result<Page<CertificateView>, StoreError> {
        reads::list_certificates(&mut *self.reader().await?, id, state, after, limit).await
    }

    async fn search_trust_changes(
        &self,
        search: &TrustChangeSearch,
        after: u64,
        limit: u32,
    ) -> Result<TrustChangePage, StoreError> {
        search::trust_changes(&mut *self.reader().await?, search, after, limit).await
    }

    async fn load_bundle(&self, id: &InstanceId, at: BundleAt) -> Result<Option<TrustBundle>, StoreError> {
        bundle::load(&mut *self.reader().await?, self.known(), id, at).await
    }

    async fn read_trust_changes(
        &self,
        id: &InstanceId,
        after_revision: u64,
        limit: u32,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        reads::read_trust_changes(&mut *self.reader().await?, id, after_revision, limit).await
    }
}

#[async_trait]
impl<E: Engine> EvidenceStore for E {
    async fn read_hashes(&self, after: u64, limit: u32) -> Result<Vec<Sha256>, StoreError> {
        tree::hashes_after(&mut *self.reader().await?, after, limit).await
    }

    async fn find_event(&self, event_id: Uuid) -> Result<Option<RecordedEvent>, StoreError> {
        tree::find_event(&mut *self.reader().await?, self.known(), event_id).await
    }

    async fn count_tree_nodes(&self, level: u32) -> Result<u64, StoreError> {
        tree::count_nodes(&mut *self.reader().await?, level).await
    }

    async fn read_tree_nodes(&self, level: u32, first: u64, limit: u32) -> Result<Vec<Sha256>, StoreError> {
        tree::nodes(&mut *self.reader().await?, level, first, limit).await
    }

    async fn keep_tree_nodes(&self, level: u32, first: u64, nodes: &[Sha256]) -> Result<(), StoreError> {
        tree::keep_nodes(&mut *self.writer().await?, level, first, nodes).await
    }
}

#[async_trait]
impl<E: Engine> FleetStore for E {
    async fn record_receipts(&self, receipts: &[Receipt]) -> Result<u64, StoreError> {
        self.take_receipts(receipts).await
    }

    async fn list_brokers(&self, id: &InstanceId) -> Result<Vec<FleetMember>, StoreError> {
        reads::list_brokers(&mut *self.reader().await?, id).await
    }

    async fn list_all_brokers(
        &self,
        after: Option<(&InstanceId, &BrokerId)>,
        limit: u32,
    ) -> Result<Vec<FleetMember>, StoreError> {
        reads::list_all_brokers(&mut *self.own_reader().await?, after, limit).await
    }

    async fn forget_brokers(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.writer().await?.execute(&queries::FORGET_BROKERS, &[before.into()]).await
    }

    fn fleet_changes(&self) -> broadcast::Receiver<InstanceId> {
        self.fleet().subscribe()
    }
}

#[async_trait]
impl<E: Engine> RefusalStore for E {
    async fn record_refusals(
        &self,
        refusals: &[RefusedCall],
        kept_per_caller: u64,
    ) -> Result<(), StoreError> {
        let mut connection = self.writer().await?;
        let mut transaction = connection.begin_with(E::BEGIN).await.map_err(E::error)?;
        refusals::record(&mut *transaction, refusals, kept_per_caller).await?;
        transaction.commit().await.map_err(E::error)
    }

    async fn prune_refusals(&self, kept: u64) -> Result<u64, StoreError> {
        self.writer().await?.execute(&refusals::PRUNE, &[kept.into()]).await
    }

    async fn list_refusals(
        &self,
        filter: &RefusalFilter,
        before: u64,
        limit: u32,
    ) -> Result<Vec<(u64, RefusedCall)>, StoreError> {
        refusals::list(&mut *self.reader().await?, filter, before, limit).await
    }
}

#[async_trait]
impl<E: Engine> Maintenance for E {
    async fn verify(&self) -> Result<VerifyReport, StoreError> {
        verify::verify(&mut self.snapshot().await?).await
    }

    async fn rebuild(&self) -> Result<RebuildReport, StoreError> {
        let snapshot = self.snapshot().await?;
        rebuild::rebuild(snapshot, &mut self.repairer().await?).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let ping = async { self.own_reader().await?.ping().await.map_err(E::error) };
        timeout(PING_TIMEOUT, ping).await.map_err(|late| StoreError::Unavailable(late.into()))?
    }

    async fn tasks_ended(&self) {
        Engine::tasks_ended(self).await;
    }
}
