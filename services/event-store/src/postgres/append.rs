//! The append transaction: lock, load, decide, write, commit. Four round trips.
//!
//! The lock is only a queue. What makes positions dense and ordered is the primary
//! key: a transaction writes `head + 1`, and its snapshot saw `head` committed. The
//! lock is taken in a statement of its own, since under READ COMMITTED the snapshot
//! of the next statement is younger than the wait; one statement that locks and
//! loads would load what was there before it waited.

use std::time::Duration;

use catrust_domain::batch::Needs;
use catrust_domain::{CommandEnvelope, LogHead, RecordedEvent};
use sqlx::{Connection as _, PgConnection};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::error::{is_lock_timeout, store_error};
use super::load::load;
use super::settle::{self, Evidence, Outcome};
use super::write::{WRITE_TIMEOUT, write};
use super::{PgEventStore, session};
use crate::columns::corrupt;
use crate::faults::{CommitStep, Crash};
use crate::{CommandResults, MAX_BATCH, StoreError};

/// Begins, and queues for the log: two statements in one round trip. The number
/// spells `catrustA`.
const BEGIN_AND_LOCK: &str =
    "BEGIN ISOLATION LEVEL READ COMMITTED; SELECT pg_advisory_xact_lock(7161132917441393729)";

/// The server gives up the wait after 2 s; this only bounds a server that is gone.
const LOCK_TIMEOUT: Duration = Duration::from_secs(4);

/// How long loading may take before its connection counts as lost.
const LOAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a COMMIT may take before its outcome is asked for on another connection.
/// Longer than a standby's usual pause: a commit that waits for it is not lost.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// A batch is repeated once: on a fresh connection, what failed for a reason of the
/// old one goes through, and what fails again would fail a third time.
const ATTEMPTS: u32 = 2;

/// Why an attempt came to nothing.
pub(super) enum Failure {
    /// Nothing was recorded; another attempt may do.
    NotRecorded(StoreError),
    /// Another attempt is no use, or not safe.
    Final(StoreError),
}

/// An attempt that came to its end, and the connection to use again.
struct Done {
    connection: PgConnection,
    results: CommandResults,
    head: LogHead,
    events: Vec<RecordedEvent>,
}

impl PgEventStore {
    pub(super) async fn append_batch(
        &self,
        commands: &[CommandEnvelope],
    ) -> Result<CommandResults, StoreError> {
        if commands.len() > MAX_BATCH {
            let text = format!("a batch of {} commands, at most {MAX_BATCH} are taken", commands.len());
            return Err(StoreError::Internal(text.into()));
        }
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut slot = self.appender.lock().await;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            // The connection is taken out, and comes back only from a finished
            // attempt: one that fails, or whose caller goes away, is closed, and
            // the server rolls back.
            let connection = match slot.take() {
                Some(connection) => connection,
                None => session::open_appender(&self.options).await?,
            };
            match self.attempt(connection, commands).await {
                Ok(done) => {
                    *slot = Some(done.connection);
                    self.recent.push(done.events);
                    self.hint.raise(done.head.position);
                    return Ok(done.results);
                }
                Err(Failure::NotRecorded(error)) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "a batch was not recorded");
                    last = Some(error);
                }
                Err(Failure::Final(error)) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| StoreError::Internal("no attempt was made".into())))
    }

    async fn attempt(
        &self,
        mut connection: PgConnection,
        commands: &[CommandEnvelope],
    ) -> Result<Done, Failure> {
        lock(&mut connection).await?;
        self.faults.reach(CommitStep::Locked)?;
        // Read under the lock: along the log, time follows the order of the commits.
        let now = (self.clock)();
        let loaded = timeout(LOAD_TIMEOUT, load(&mut connection, &Needs::of(commands), now)).await;
        let (before, mut set) = loaded.map_err(unavailable)??;
        self.faults.reach(CommitStep::Loaded)?;
        let mut results = Vec::with_capacity(commands.len());
        for command in commands {
            let result = set.run(command).map_err(|error| {
                let row = Ok(command.instance_id.to_string());
                Failure::Final(corrupt("instances", &[row], error.to_string()))
            })?;
            results.push(result);
        }
        self.faults.reach(CommitStep::Decided)?;
        let (head, writes) = set.finish();
        if writes.is_empty() {
            let ended = timeout(LOAD_TIMEOUT, sqlx::raw_sql("ROLLBACK").execute(&mut connection)).await;
            ended.map_err(unavailable)?.map_err(store_error)?;
            return Ok(Done { connection, results, head, events: writes.events });
        }
        let written = write(&mut connection, &writes, &before, &head, now);
        let xid = timeout(WRITE_TIMEOUT, written).await.map_err(unavailable)??;
        self.faults.reach(CommitStep::Written)?;
        let evidence = Evidence {
            xid,
            event: writes.events.last().map(|event| (event.position, event.hash)),
            reply: writes.replies.last().map(|stored| stored.key.clone()),
        };
        let connection = self.commit(connection, &evidence).await?;
        self.faults
            .reach(CommitStep::Committed)
            .map_err(|crash| Failure::Final(StoreError::Ambiguous(crash.into())))?;
        Ok(Done { connection, results, head, events: writes.events })
    }

    /// Commits; where the answer is lost, finds out what became of it.
    async fn commit(
        &self,
        mut connection: PgConnection,
        evidence: &Evidence,
    ) -> Result<PgConnection, Failure> {
        let lost: StoreError =
            match timeout(COMMIT_TIMEOUT, sqlx::raw_sql("COMMIT").execute(&mut connection)).await {
                Ok(Ok(_)) => return Ok(connection),
                // The server itself says that it did not commit.
                Ok(Err(error @ sqlx::Error::Database(_))) if !settle::is_ambiguous(&error) => {
                    return Err(store_error(error).into());
                }
                Ok(Err(error)) => store_error(error),
                Err(late) => StoreError::Unavailable(late.into()),
            };
        drop(connection.close_hard().await);
        match settle::settle(&self.options, evidence).await {
            Ok((Outcome::Committed, connection)) => Ok(connection),
            Ok((Outcome::Aborted, _)) => Err(Failure::NotRecorded(lost)),
            Err(error) => Err(Failure::Final(error)),
        }
    }
}

/// Begins a transaction that holds the append lock.
pub(super) async fn lock(connection: &mut PgConnection) -> Result<(), Failure> {
    match timeout(LOCK_TIMEOUT, sqlx::raw_sql(BEGIN_AND_LOCK).execute(connection)).await {
        Ok(Ok(_)) => Ok(()),
        // Whoever holds it is slow; another wait would only make the queue longer.
        Ok(Err(error)) if is_lock_timeout(&error) => Err(Failure::Final(store_error(error))),
        Ok(Err(error)) => Err(store_error(error).into()),
        Err(late) => Err(unavailable(late)),
    }
}

fn unavailable(late: Elapsed) -> Failure {
    Failure::NotRecorded(StoreError::Unavailable(late.into()))
}

impl Failure {
    /// The error alone, for a caller that does not repeat.
    pub(super) fn into_error(self) -> StoreError {
        match self {
            Self::NotRecorded(error) | Self::Final(error) => error,
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::NotRecorded(error),
            other => Self::Final(other),
        }
    }
}

impl From<Crash> for Failure {
    fn from(crash: Crash) -> Self {
        Self::Final(StoreError::Unavailable(crash.into()))
    }
}
