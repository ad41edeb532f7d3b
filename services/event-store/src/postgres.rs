//! [`EventStore`] on Postgres 15 or later.
//!
//! One connection appends, a pool reads (and takes receipts in), one connection listens
//! for the hints that the log has grown and that the fleet has changed. What is kept in memory
//! between two batches is used only where it is certain, under the lock, that no other
//! replica has made it wrong.

mod address;
mod append;
mod error;
mod hint;
mod lease;
mod load;
mod memory;
mod parameters;
mod receipts;
mod repair;
mod row;
mod schema;
mod session;
mod settle;
mod shape;
mod statement;
mod write;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use catrust_domain::{
    BrokerId, CommandEnvelope, FleetMember, Instance, InstanceId, LogHead, Receipt, RecordedEvent, Reply,
    RequestKey, SerialNumber, Sha256, Timestamp, TrustBundle,
};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection as _, PgConnection, Postgres};
use tokio::sync::{Mutex, broadcast, watch};
use tokio::time::timeout;
use uuid::Uuid;

pub use self::address::PgAddress;
use self::append::Appender;
use self::error::store_error;
use self::hint::Hint;
use self::repair::Repairer;
#[cfg(feature = "contract")]
pub(crate) use self::repair::statements as table_statements;
pub use self::schema::migrate;
use crate::faults::Faults;
use crate::queries::queries;
use crate::recent::Recent;
use crate::rows::Rows as _;
use crate::{
    BundleAt, CertificateView, Clock, CommandResults, EventStore, Page, PublisherLease, RebuildReport,
    Refusal, RefusalFilter, StateFilter, StoreError, TrustChangePage, TrustChangeSearch, VerifyReport,
    bundle, queries, reads, rebuild, refusals, search, tree, verify,
};

/// Connections for reading where nobody says. Reads are short; a replica's share of the
/// usual limit of 100 has to leave room for nine others.
const READ_CONNECTIONS: u32 = 8;

/// How long a read waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long the database may take to say that it is there.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// Stored replies forgotten by one statement: some 20 ms.
const PRUNE_CHUNK: u64 = 5_000;

queries! { LIST:
    /// $1 time, $2 how many.
    PRUNE_REPLIES = "DELETE FROM replies \
         WHERE ctid = ANY(ARRAY(SELECT ctid FROM replies WHERE created_at < $1 ORDER BY created_at LIMIT $2))";
}

/// The event log in a Postgres database.
pub struct PgEventStore {
    options: PgConnectOptions,
    log_id: Uuid,
    clock: Clock,
    /// `None` before the first batch and after a failure: the connection belongs to the
    /// runtime that it was opened on, and batches may run on another than this one.
    appender: Mutex<Option<Appender>>,
    readers: PgPool,
    hint: Hint,
    recent: Recent,
    faults: Faults,
}

impl PgEventStore {
    /// Connects to the database at `address`, which MUST have been migrated.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: try again. [`StoreError::SchemaMismatch`]: migrate
    /// first, or update the program. [`StoreError::Unsuitable`]: an older server, a
    /// standby, a pooler in transaction mode, a login that may not read the tables, an
    /// address that [`PgAddress`] refuses.
    pub async fn connect(address: impl Into<PgAddress>, clock: Clock) -> Result<Self, StoreError> {
        Self::connect_with(address, clock, READ_CONNECTIONS).await
    }

    /// As [`PgEventStore::connect`], with at most `read_connections` for reading, beside
    /// those for appending, for the hint, and for the publisher's lease.
    ///
    /// # Errors
    /// As [`PgEventStore::connect`].
    pub async fn connect_with(
        address: impl Into<PgAddress>,
        clock: Clock,
        read_connections: u32,
    ) -> Result<Self, StoreError> {
        let options = address.into().options()?;
        let mut checking = session::open(&options).await?;
        session::refuse_pooler(&mut checking, &options).await?;
        session::check_server(&mut checking).await?;
        schema::check(&mut checking).await?;
        shape::check(&mut checking).await?;
        let log_id = reads::log_id(&mut checking).await?;
        let head = reads::head(&mut checking).await?;
        checking.close().await.map_err(store_error)?;
        let readers = PgPoolOptions::new()
            .max_connections(read_connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .after_connect(|connection, _| Box::pin(session::set_up(connection)))
            .connect_lazy_with(options.clone());
        let hint = Hint::listen(&options, head.position);
        let appender = Mutex::new(None);
        Ok(Self {
            options,
            log_id,
            clock,
            appender,
            readers,
            hint,
            recent: Recent::default(),
            faults: Faults::default(),
        })
    }

    /// Lets the next commit die at `step`, as if the process were killed there.
    #[cfg(feature = "contract")]
    pub fn crash_at(&self, step: crate::faults::CommitStep) {
        self.faults.plant(step);
    }

    async fn reader(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        self.readers.acquire().await.map_err(store_error)
    }

    /// A connection of its own whose transaction sees one snapshot.
    async fn snapshot(&self) -> Result<PgConnection, StoreError> {
        let mut connection = session::open(&self.options).await?;
        let begin = sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
        begin.execute(&mut connection).await.map_err(store_error)?;
        Ok(connection)
    }
}

/// The statements that are put together, with all their parts.
#[cfg(feature = "contract")]
pub(crate) fn whole_statements() -> [String; 3] {
    [load::whole_statement(), write::whole_statement(), receipts::whole_statement()]
}

impl fmt::Debug for PgEventStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgEventStore").field("log_id", &self.log_id).finish_non_exhaustive()
    }
}

#[async_trait]
impl EventStore for PgEventStore {
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
        let mut connection = self.reader().await?;
        tree::keep_nodes(&mut *connection, level, first, nodes).await
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
        let mut connection = self.reader().await?;
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
        self.reader().await?.execute(&queries::FORGET_BROKERS, &[before.into()]).await
    }

    fn fleet_changes(&self) -> broadcast::Receiver<InstanceId> {
        self.hint.fleet().subscribe()
    }

    async fn record_refusals(&self, refusals: &[Refusal], kept_per_caller: u64) -> Result<(), StoreError> {
        let mut connection = self.reader().await?;
        let mut transaction = connection.begin().await.map_err(store_error)?;
        refusals::record(&mut *transaction, refusals, kept_per_caller).await?;
        transaction.commit().await.map_err(store_error)
    }

    async fn prune_refusals(&self, kept: u64) -> Result<u64, StoreError> {
        let mut connection = self.reader().await?;
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
        lease::try_lease(&self.options).await
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
        let ping = async { self.reader().await?.ping().await.map_err(store_error) };
        timeout(PING_TIMEOUT, ping).await.map_err(|late| StoreError::Unavailable(late.into()))?
    }
}
