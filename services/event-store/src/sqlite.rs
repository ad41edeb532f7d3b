//! [`crate::EventStore`] in one SQLite file: the embedded default, and fit for a small
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
mod replaced;
mod row;
mod schema;
mod session;
mod write;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use catrust_domain::{CommandEnvelope, LogHead, Notary, Receipt, Timestamp};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{Sqlite, SqliteConnection};
use tokio::sync::{Mutex, watch};

use self::error::store_error;
use self::repair::Repairer;
use self::replaced::DatabaseFile;
pub use self::schema::migrate;
#[cfg(feature = "contract")]
pub(crate) use self::{
    load::LIST as LOAD, receipts::LIST as RECEIPTS, write::statements as table_statements,
};
use crate::engine::Engine;
use crate::faults::Faults;
use crate::freshness::{LeaseKeeper, LeaseSource};
use crate::known::KnownLog;
use crate::queries::{Query, queries};
use crate::receipts::FleetChanges;
use crate::{Clock, CommandResults, FreshnessLease, PrimaryInUse, PublisherLease, StoreError, reads};

/// Connections for reading; each is a thread.
const READ_CONNECTIONS: u32 = 4;

/// ColumnValue replies forgotten by one statement, while writers wait.
const PRUNE_CHUNK: u64 = 1_000;

queries! { LIST:
    /// $1 time, $2 how many.
    PRUNE_REPLIES = "DELETE FROM replies \
         WHERE rowid IN (SELECT rowid FROM replies WHERE created_at < $1 ORDER BY created_at LIMIT $2)";

    /// SQLite asks the machine.
    PRESENT = "SELECT unixepoch() * 1000000";
}

/// The event log in a SQLite file.
pub struct SqliteEventStore {
    path: PathBuf,
    options: SqliteConnectOptions,
    known: KnownLog,
    clock: Clock,
    /// `None` after a failure, until the next batch.
    writer: Mutex<Option<(SqliteConnection, Instant)>>,
    file: Arc<DatabaseFile>,
    readers: SqlitePool,
    /// Knows this process's commits; those of others are found by reading.
    hint: watch::Sender<u64>,
    /// Knows the receipts that this process took; those of others are found by reading.
    fleet: FleetChanges,
    primary: watch::Sender<PrimaryInUse>,
    leases: LeaseKeeper,
    faults: Faults,
}

/// A file on this machine has no other server: what it shows is what was committed.
struct FileLeaseSource {
    readers: SqlitePool,
    clock: Clock,
}

impl LeaseSource for FileLeaseSource {
    async fn renew(&mut self) -> Result<(LogHead, Timestamp), StoreError> {
        let mut connection = self.readers.acquire().await.map_err(store_error)?;
        // Before the read: what the lease says held at this time.
        let issued_at = (self.clock)();
        Ok((reads::head(&mut *connection).await?, issued_at))
    }
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
        let file = Arc::new(DatabaseFile::at(path.to_owned()));
        let opened = Instant::now();
        let mut writer = session::open(&options).await?;
        schema::check(&mut writer).await?;
        let log_id = reads::log_id(&mut writer).await?;
        let known = KnownLog::load(log_id, &mut writer).await?;
        let head = reads::head(&mut writer).await?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READ_CONNECTIONS)
            .before_acquire({
                let file = Arc::clone(&file);
                move |_, metadata| {
                    let is_current = file.is_that_of(metadata.age);
                    Box::pin(async move { Ok(is_current) })
                }
            })
            .connect_lazy_with(options.clone().pragma("query_only", "on"));
        let source = FileLeaseSource { readers: readers.clone(), clock: Arc::clone(&clock) };
        Ok(Self {
            path: path.to_owned(),
            options,
            known,
            clock,
            writer: Mutex::new(Some((writer, opened))),
            file,
            readers,
            hint: watch::Sender::new(head.position),
            fleet: FleetChanges::new(),
            primary: watch::Sender::new(PrimaryInUse { turn: 0, confirmed: true }),
            leases: LeaseKeeper::start(source),
            faults: Faults::default(),
        })
    }

    /// Signs and believes by `notary` from now on. Without one no begin of a log epoch and no
    /// stored evidence is believed.
    #[must_use]
    pub fn with_notary(mut self, notary: Arc<dyn Notary>) -> Self {
        self.known.set_notary(notary);
        self
    }

    /// Lets the next commit die at `step`, as if the process were killed there.
    #[cfg(feature = "contract")]
    pub fn crash_at(&self, step: crate::faults::CommitStep) {
        self.faults.plant(step);
    }

    /// The connection that writes, with the time when it was opened: the one in `slot` where
    /// the file that it leads to is still there, otherwise another.
    async fn take_writer(
        &self,
        slot: &mut Option<(SqliteConnection, Instant)>,
    ) -> Result<(SqliteConnection, Instant), StoreError> {
        if let Some((connection, opened)) = slot.take()
            && self.file.is_that_of(opened.elapsed())
        {
            return Ok((connection, opened));
        }
        let opened = Instant::now();
        Ok((session::open(&self.options).await?, opened))
    }

    /// Raises the highest position known.
    fn raise(&self, position: u64) {
        self.hint.send_if_modified(|known| {
            let grown = position > *known;
            *known = position.max(*known);
            grown
        });
    }
}

impl fmt::Debug for SqliteEventStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteEventStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Engine for SqliteEventStore {
    type Connection = SqliteConnection;
    type Reader = PoolConnection<Sqlite>;
    type Writer = Box<SqliteConnection>;
    type Repairer = Repairer;

    const BEGIN: &'static str = "BEGIN IMMEDIATE";
    const PRUNE_CHUNK: u64 = PRUNE_CHUNK;

    fn known(&self) -> &KnownLog {
        &self.known
    }

    fn growth(&self) -> watch::Receiver<u64> {
        self.hint.subscribe()
    }

    fn raise(&self, position: u64) {
        self.raise(position);
    }

    fn clock(&self) -> Option<&Clock> {
        Some(&self.clock)
    }

    async fn tasks_ended(&self) {
        self.leases.ended().await;
    }

    fn fleet(&self) -> &FleetChanges {
        &self.fleet
    }

    fn server_in_use(&self) -> watch::Receiver<PrimaryInUse> {
        self.primary.subscribe()
    }

    fn leases(&self) -> watch::Receiver<Option<FreshnessLease>> {
        self.leases.subscribe()
    }

    async fn reader(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        self.readers.acquire().await.map_err(store_error)
    }

    async fn own_reader(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        self.reader().await
    }

    /// A connection of its own whose transaction sees one snapshot, from its first
    /// statement on.
    async fn snapshot(&self) -> Result<SqliteConnection, StoreError> {
        let mut connection = session::open(&self.options).await?;
        sqlx::raw_sql("BEGIN DEFERRED").execute(&mut connection).await.map_err(store_error)?;
        Ok(connection)
    }

    async fn writer(&self) -> Result<Self::Writer, StoreError> {
        session::open(&self.options).await.map(Box::new)
    }

    async fn rivals(&self) -> Result<Option<String>, StoreError> {
        Ok(None)
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
        file_lock::try_lease(&self.path)
    }

    fn prune_replies() -> &'static Query {
        &PRUNE_REPLIES
    }

    fn error(error: sqlx::Error) -> StoreError {
        store_error(error)
    }
}
