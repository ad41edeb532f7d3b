//! [`crate::EventStore`] on Postgres 15 or later.
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
use std::time::Duration;

use catrust_domain::{CommandEnvelope, Receipt};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection as _, PgConnection, Postgres};
use tokio::sync::{Mutex, watch};
use uuid::Uuid;

pub use self::address::PgAddress;
use self::append::Appender;
use self::error::store_error;
use self::hint::Hint;
use self::repair::Repairer;
#[cfg(feature = "contract")]
pub(crate) use self::repair::statements as table_statements;
pub use self::schema::migrate;
use crate::engine::Engine;
use crate::faults::Faults;
use crate::queries::{Query, queries};
use crate::receipts::FleetChanges;
use crate::recent::Recent;
use crate::{Clock, CommandResults, PublisherLease, StoreError, reads};

/// Connections for reading where nobody says. Reads are short; a replica's share of the
/// usual limit of 100 has to leave room for nine others.
const READ_CONNECTIONS: u32 = 8;

/// How long a read waits for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// ColumnValue replies forgotten by one statement: some 20 ms.
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

impl Engine for PgEventStore {
    type Connection = PgConnection;
    type Reader = PoolConnection<Postgres>;
    type Writer = PoolConnection<Postgres>;
    type Repairer = Repairer;

    const BEGIN: &'static str = "BEGIN";
    const PRUNE_CHUNK: u64 = PRUNE_CHUNK;

    fn identity(&self) -> Uuid {
        self.log_id
    }

    fn memory(&self) -> &Recent {
        &self.recent
    }

    fn growth(&self) -> watch::Receiver<u64> {
        self.hint.subscribe()
    }

    fn fleet(&self) -> &FleetChanges {
        self.hint.fleet()
    }

    async fn reader(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        self.readers.acquire().await.map_err(store_error)
    }

    async fn snapshot(&self) -> Result<PgConnection, StoreError> {
        let mut connection = session::open(&self.options).await?;
        let begin = sqlx::raw_sql("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
        begin.execute(&mut connection).await.map_err(store_error)?;
        Ok(connection)
    }

    async fn writer(&self) -> Result<Self::Writer, StoreError> {
        self.reader().await
    }

    async fn repairer(&self) -> Result<Repairer, StoreError> {
        Repairer::open(&self.options).await
    }

    async fn append_batch(&self, commands: &[CommandEnvelope]) -> Result<CommandResults, StoreError> {
        self.append_batch(commands).await
    }

    async fn take_receipts(&self, receipts: &[Receipt]) -> Result<u64, StoreError> {
        self.take_receipts(receipts).await
    }

    async fn try_lease(&self) -> Result<Option<Box<dyn PublisherLease>>, StoreError> {
        lease::try_lease(&self.options).await
    }

    fn prune_replies() -> &'static Query {
        &PRUNE_REPLIES
    }

    fn error(error: sqlx::Error) -> StoreError {
        store_error(error)
    }
}
