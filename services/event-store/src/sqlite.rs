//! [`EventStore`] in one SQLite file: the embedded default, and fit for a small
//! single node.
//!
//! Write-ahead log with `synchronous=FULL`: a commit is on the disk before it is
//! answered, and readers keep their snapshot meanwhile. Several processes may have
//! the file open; it MUST be on a local disk, since the write-ahead log needs shared
//! memory.

mod append;
mod error;
mod file_lock;
mod load;
mod receipts;
mod repair;
mod row;
mod schema;
mod session;
mod write;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use catrust_domain::{
    BrokerId, CommandEnvelope, FleetMember, Instance, InstanceId, LogHead, Receipt, RecordedEvent, Reply,
    RequestKey, SerialNumber, Sha256, Timestamp, TrustBundle,
};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{Connection as _, Sqlite, SqliteConnection};
use tokio::sync::{Mutex, broadcast, watch};
use uuid::Uuid;

use self::error::store_error;
use self::repair::Repairer;
pub use self::schema::migrate;
#[cfg(feature = "contract")]
pub(crate) use self::{
    load::LIST as LOAD, receipts::LIST as RECEIPTS, write::statements as table_statements,
};
use crate::faults::Faults;
use crate::queries::queries;
use crate::receipts::FleetChanges;
use crate::recent::Recent;
use crate::rows::Rows as _;
use crate::{
    BundleAt, CertificateView, Clock, CommandResults, EventStore, Page, PublisherLease, RebuildReport,
    Refusal, RefusalFilter, StateFilter, StoreError, TrustChangePage, TrustChangeSearch, VerifyReport,
    bundle, queries, reads, rebuild, refusals, search, tree, verify,
};

/// Connections for reading; each is a thread.
const READ_CONNECTIONS: u32 = 4;

/// Stored replies forgotten by one statement, while writers wait.
const PRUNE_CHUNK: u64 = 1_000;

queries! { LIST:
    /// $1 time, $2 how many.
    PRUNE_REPLIES = "DELETE FROM replies \
         WHERE rowid IN (SELECT rowid FROM replies WHERE created_at < $1 ORDER BY created_at LIMIT $2)";
}

/// The event log in a SQLite file.
pub struct SqliteEventStore {
    path: PathBuf,
    options: SqliteConnectOptions,
    log_id: Uuid,
    clock: Clock,
    /// `None` after a failure, until the next batch.
    writer: Mutex<Option<SqliteConnection>>,
    readers: SqlitePool,
    /// Knows this process's commits; those of others are found by reading.
    hint: watch::Sender<u64>,
    /// Knows the receipts that this process took; those of others are found by reading.
    fleet: FleetChanges,
    recent: Recent,
    faults: Faults,
}

impl SqliteEventStore {
    /// Opens the file at `path`, which MUST have been migrated.
    ///
    /// # Errors
    /// [`StoreError::SchemaMismatch`]: migrate first, or update the program; also where
    /// there is no file. [`StoreError::Unsuitable`]: it cannot be opened.
    pub async fn open(path: &Path, clock: Clock) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::SchemaMismatch { found: 0, needed: schema::needed() });
        }
        let options = session::options(path);
        let mut writer = session::open(&options).await?;
        schema::check(&mut writer).await?;
        let log_id = reads::log_id(&mut writer).await?;
        let head = reads::head(&mut writer).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READ_CONNECTIONS)
            .connect_lazy_with(options.clone().pragma("query_only", "on"));
        Ok(Self {
            path: path.to_owned(),
            options,
            log_id,
            clock,
            writer: Mutex::new(Some(writer)),
            readers,
            hint: watch::Sender::new(head.position),
            fleet: FleetChanges::new(),
            recent: Recent::default(),
            faults: Faults::default(),
        })
    }

    /// Lets the next commit die at `step`, as if the process were killed there.
    #[cfg(feature = "contract")]
    pub fn crash_at(&self, step: crate::faults::CommitStep) {
        self.faults.plant(step);
    }

    /// Raises the highest position known.
    fn raise(&self, position: u64) {
        self.hint.send_if_modified(|known| {
            let grown = position > *known;
            *known = position.max(*known);
            grown
        });
    }

    async fn reader(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        self.readers.acquire().await.map_err(store_error)
    }

    /// A connection of its own whose transaction sees one snapshot, from its first
    /// statement on.
    async fn snapshot(&self) -> Result<SqliteConnection, StoreError> {
        let mut connection = session::open(&self.options).await?;
        sqlx::raw_sql("BEGIN DEFERRED").execute(&mut connection).await.map_err(store_error)?;
        Ok(connection)
    }
}

impl fmt::Debug for SqliteEventStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteEventStore").field("path", &self.path).finish_non_exhaustive()
    }
}

#[async_trait]
impl EventStore for SqliteEventStore {
    fn log_id(&self) -> Uuid {
        self.log_id
    }

    async fn append(&self, commands: &[CommandEnvelope]) -> Result<CommandResults, StoreError> {
        self.append_batch(commands).await
    }

    fn recent(&self, after: u64) -> Option<Arc<[RecordedEvent]>> {
        self.recent.after(after)
    }

    fn appended(&self) -> watch::Receiver<u64> {
        self.hint.subscribe()
    }

    async fn head(&self) -> Result<LogHead, StoreError> {
        reads::head(&mut *self.reader().await?).await
    }

    async fn read(&self, after: u64, limit: u32) -> Result<Vec<RecordedEvent>, StoreError> {
        reads::events_after(&mut *self.reader().await?, after, limit).await
    }

    async fn read_hashes(&self, after: u64, limit: u32) -> Result<Vec<Sha256>, StoreError> {
        tree::hashes_after(&mut *self.reader().await?, after, limit).await
    }

    async fn find_event(&self, event_id: Uuid) -> Result<Option<RecordedEvent>, StoreError> {
        tree::find_event(&mut *self.reader().await?, event_id).await
    }

    async fn count_tree_nodes(&self, level: u32) -> Result<u64, StoreError> {
        tree::count_nodes(&mut *self.reader().await?, level).await
    }

    async fn read_tree_nodes(&self, level: u32, first: u64, limit: u32) -> Result<Vec<Sha256>, StoreError> {
        tree::nodes(&mut *self.reader().await?, level, first, limit).await
    }

    async fn keep_tree_nodes(&self, level: u32, first: u64, nodes: &[Sha256]) -> Result<(), StoreError> {
        let mut connection = session::open(&self.options).await?;
        tree::keep_nodes(&mut connection, level, first, nodes).await
    }

    async fn find_instance(&self, id: &InstanceId) -> Result<Option<Instance>, StoreError> {
        reads::find_instance(&mut *self.reader().await?, id).await
    }

    async fn list_instances(&self, after: u64, limit: u32) -> Result<Page<Instance>, StoreError> {
        reads::list_instances(&mut *self.reader().await?, after, limit).await
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
        bundle::load(&mut *self.reader().await?, id, at).await
    }

    async fn read_trust_changes(
        &self,
        id: &InstanceId,
        after_revision: u64,
        limit: u32,
    ) -> Result<Vec<RecordedEvent>, StoreError> {
        reads::read_trust_changes(&mut *self.reader().await?, id, after_revision, limit).await
    }

    async fn find_reply(&self, key: &RequestKey) -> Result<Option<Reply>, StoreError> {
        reads::find_reply(&mut *self.reader().await?, key).await
    }

    async fn prune_replies(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut connection = session::open(&self.options).await?;
        let mut pruned = 0;
        loop {
            let gone = connection.execute(&PRUNE_REPLIES, &[before.into(), PRUNE_CHUNK.into()]).await?;
            pruned += gone;
            if gone < PRUNE_CHUNK {
                return Ok(pruned);
            }
        }
    }

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
        reads::list_all_brokers(&mut *self.reader().await?, after, limit).await
    }

    async fn forget_brokers(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut connection = session::open(&self.options).await?;
        connection.execute(&queries::FORGET_BROKERS, &[before.into()]).await
    }

    fn fleet_changes(&self) -> broadcast::Receiver<InstanceId> {
        self.fleet.subscribe()
    }

    async fn record_refusals(&self, refusals: &[Refusal], kept_per_caller: u64) -> Result<(), StoreError> {
        let mut connection = session::open(&self.options).await?;
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(store_error)?;
        refusals::record(&mut *transaction, refusals, kept_per_caller).await?;
        transaction.commit().await.map_err(store_error)
    }

    async fn prune_refusals(&self, kept: u64) -> Result<u64, StoreError> {
        let mut connection = session::open(&self.options).await?;
        connection.execute(&refusals::PRUNE, &[kept.into()]).await
    }

    async fn list_refusals(
        &self,
        filter: &RefusalFilter,
        before: u64,
        limit: u32,
    ) -> Result<Vec<(u64, Refusal)>, StoreError> {
        refusals::list(&mut *self.reader().await?, filter, before, limit).await
    }

    async fn try_lease_publisher(&self) -> Result<Option<Box<dyn PublisherLease>>, StoreError> {
        file_lock::try_lease(&self.path)
    }

    async fn verify(&self) -> Result<VerifyReport, StoreError> {
        verify::verify(&mut self.snapshot().await?).await
    }

    async fn rebuild(&self) -> Result<RebuildReport, StoreError> {
        let snapshot = self.snapshot().await?;
        let mut repairer = Repairer::open(&self.options).await?;
        rebuild::rebuild(snapshot, &mut repairer).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.reader().await?.ping().await.map_err(store_error)
    }
}
