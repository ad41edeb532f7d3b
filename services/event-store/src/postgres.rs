//! [`crate::EventStore`] on Postgres 15 or later.
//!
//! One connection appends, one renews the freshness lease, one listens for the hints that the
//! log has grown and that the fleet has changed; a pool reads what users ask, and another does
//! the server's own work. What is kept in memory
//! between two batches is used only where it is certain, under the lock, that no other
//! replica has made it wrong.

mod address;
mod append;
mod durability;
mod error;
mod freshness;
mod hint;
mod lease;
mod load;
mod memory;
mod parameters;
mod pool;
mod receipts;
mod repair;
mod row;
mod schema;
mod servers;
mod session;
mod settle;
mod shape;
mod statement;
mod write;

use std::fmt;
use std::sync::Arc;

use catrust_domain::{CommandEnvelope, Notary, Receipt};
use sqlx::{Connection as _, PgConnection};
use tokio::sync::{Mutex, watch};

pub use self::address::PgAddress;
use self::append::Appender;
use self::error::store_error;
use self::freshness::PgLeaseSource;
use self::hint::Hint;
use self::pool::{ConnectionPool, PooledConnection};
use self::repair::Repairer;
#[cfg(feature = "contract")]
pub(crate) use self::repair::statements as table_statements;
pub use self::schema::migrate;
use self::servers::DatabaseServers;
use crate::engine::Engine;
use crate::faults::Faults;
use crate::freshness::LeaseKeeper;
use crate::known::KnownLog;
use crate::queries::{Query, queries};
use crate::receipts::FleetChanges;
use crate::{Clock, CommandResults, FreshnessLease, PrimaryInUse, PublisherLease, StoreError, reads};

/// Connections for reading where nobody says. Reads are short; a replica's share of the
/// usual limit of 100 has to leave room for nine others.
const READ_CONNECTIONS: u32 = 8;

/// Connections for the server's own work: the follower, the publisher, receipts, readiness,
/// the census, each with one at a time.
const OWN_CONNECTIONS: u32 = 5;

/// ColumnValue replies forgotten by one statement: some 20 ms.
const PRUNE_CHUNK: u64 = 5_000;

queries! { LIST:
    /// $1 time, $2 how many.
    PRUNE_REPLIES = "DELETE FROM replies \
         WHERE ctid = ANY(ARRAY(SELECT ctid FROM replies WHERE created_at < $1 ORDER BY created_at LIMIT $2))";

    PRESENT = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS bigint)";
}

/// The event log in a Postgres database.
pub struct PgEventStore {
    servers: Arc<DatabaseServers>,
    known: KnownLog,
    /// `None`: that of the database.
    clock: Option<Clock>,
    /// `None` before the first batch and after a failure: the connection belongs to the
    /// runtime that it was opened on, and batches may run on another than this one.
    appender: Mutex<Option<Appender>>,
    /// For what users ask.
    readers: ConnectionPool,
    /// For the server's own work.
    own: ConnectionPool,
    hint: Hint,
    leases: LeaseKeeper,
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
    /// five for the server's own work, and those for appending, for the hint, for the freshness
    /// lease and for the publisher's lease.
    ///
    /// # Errors
    /// As [`PgEventStore::connect`].
    pub async fn connect_with(
        address: impl Into<PgAddress>,
        clock: Clock,
        read_connections: u32,
    ) -> Result<Self, StoreError> {
        let servers = Arc::new(DatabaseServers::new(address.into().options()?));
        let mut checking = session::open(&servers).await?;
        session::refuse_pooler(&mut checking, &servers).await?;
        session::check_server(&mut checking).await?;
        schema::check(&mut checking).await?;
        shape::check(&mut checking).await?;
        let log_id = reads::log_id(&mut checking).await?;
        let known = KnownLog::load(log_id, &mut checking).await?;
        let head = reads::head(&mut checking).await?;
        checking.close().await.map_err(store_error)?;
        servers.hold(log_id);
        let readers = ConnectionPool::new(&servers, read_connections);
        let own = ConnectionPool::new(&servers, OWN_CONNECTIONS);
        let hint = Hint::listen(&servers, head.position);
        let leases = LeaseKeeper::start(PgLeaseSource::new(&servers));
        let appender = Mutex::new(None);
        let clock = Some(clock);
        Ok(Self { servers, known, clock, appender, readers, own, hint, leases, faults: Faults::default() })
    }

    /// Signs and believes by `notary` from now on. Without one no begin of a log epoch and no
    /// stored evidence is believed.
    #[must_use]
    pub fn with_notary(mut self, notary: Arc<dyn Notary>) -> Self {
        self.known.set_notary(notary);
        self
    }

    /// Dates events by the clock of the database from now on, read under the append lock, and no
    /// longer by the clock that was given: one clock for all replicas.
    #[must_use]
    pub fn dated_by_the_database(mut self) -> Self {
        self.clock = None;
        self
    }

    /// Lets the next commit die at `step`, as if the process were killed there.
    #[cfg(feature = "contract")]
    pub fn crash_at(&self, step: crate::faults::CommitStep) {
        self.faults.plant(step);
    }
}

/// The statements that are put together, with all their parts.
#[cfg(feature = "contract")]
pub(crate) fn whole_statements() -> impl Iterator<Item = String> {
    [load::whole_statement(), write::whole_statement()].into_iter().chain(receipts::whole_statements())
}

impl fmt::Debug for PgEventStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgEventStore").field("log_id", &self.known.log_id).finish_non_exhaustive()
    }
}

impl Engine for PgEventStore {
    type Connection = PgConnection;
    type Reader = PooledConnection;
    type Writer = PooledConnection;
    type Repairer = Repairer;

    const BEGIN: &'static str = "BEGIN";
    const PRUNE_CHUNK: u64 = PRUNE_CHUNK;

    fn known(&self) -> &KnownLog {
        &self.known
    }

    fn growth(&self) -> watch::Receiver<u64> {
        self.hint.subscribe()
    }

    fn raise(&self, position: u64) {
        self.hint.raise(position);
    }

    fn clock(&self) -> Option<&Clock> {
        self.clock.as_ref()
    }

    async fn tasks_ended(&self) {
        tokio::select! {
            () = self.hint.ended() => {}
            () = self.leases.ended() => {}
        }
    }

    fn fleet(&self) -> &FleetChanges {
        self.hint.fleet()
    }

    fn server_in_use(&self) -> watch::Receiver<PrimaryInUse> {
        self.servers.primary()
    }

    fn leases(&self) -> watch::Receiver<Option<FreshnessLease>> {
        self.leases.subscribe()
    }

    async fn reader(&self) -> Result<PooledConnection, StoreError> {
        self.readers.take().await
    }

    async fn own_reader(&self) -> Result<PooledConnection, StoreError> {
        self.own.take().await
    }

    async fn snapshot(&self) -> Result<PgConnection, StoreError> {
        let mut connection = session::open(&self.servers).await?;
        let begin = sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
        begin.execute(&mut connection).await.map_err(store_error)?;
        Ok(connection)
    }

    async fn writer(&self) -> Result<Self::Writer, StoreError> {
        self.own_reader().await
    }

    async fn rivals(&self) -> Result<Option<String>, StoreError> {
        self.servers.rivals().await
    }

    async fn repairer(&self) -> Result<Repairer, StoreError> {
        Repairer::open(&self.servers).await
    }

    async fn append_batch(&self, commands: &[CommandEnvelope]) -> Result<CommandResults, StoreError> {
        self.append_batch(commands).await
    }

    async fn take_receipts(&self, receipts: &[Receipt]) -> Result<u64, StoreError> {
        self.take_receipts(receipts).await
    }

    async fn try_lease(&self) -> Result<Option<Box<dyn PublisherLease>>, StoreError> {
        lease::try_lease(&self.servers).await
    }

    fn prune_replies() -> &'static Query {
        &PRUNE_REPLIES
    }

    fn error(error: sqlx::Error) -> StoreError {
        store_error(error)
    }
}
