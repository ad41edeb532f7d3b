//! The append transaction: lock, load, decide, write, commit. Four round trips, or
//! three where the rows are in memory from the batch before.
//!
//! The lock is only a queue. What makes positions dense and ordered is the primary
//! key: a transaction writes `head + 1`, and its snapshot saw `head` committed. The
//! lock is taken in a statement of its own, since under READ COMMITTED the snapshot
//! of the next statement is younger than the wait; one statement that locks and
//! loads would load what was there before it waited.
//!
//! ColumnValue replies are never in memory. A batch whose rows all are is run as if no
//! request were a repeat; the write tells when one was, since its reply is there
//! already, and the batch is run again with what it did not load.

use std::time::Duration;

use catrust_domain::batch::{Needs, WorkingSet, Writes};
use catrust_domain::read_model::ReadModel;
use catrust_domain::{CommandEnvelope, LogEntry, LogEpoch, LogEvidence, LogHead, Timestamp};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::error::{is_lock_timeout, store_error};
use super::load::load;
use super::memory::{LogEnd, Memory};
use super::servers::DatabaseServers;
use super::settle::{self, CommitOutcome, Evidence};
use super::write::{WRITE_TIMEOUT, WriteOutcome, write};
use super::{PgEventStore, session};
use crate::damage::{self, AppendPart};
use crate::faults::{CommitStep, Crash};
use crate::ground::{self, Look};
use crate::row::corrupt;
use crate::{CommandResults, MAX_BATCH, StoreError};

/// Makes `EXECUTE append_lock` queue for the log. Prepared by name, since a plan for it
/// would be made with each batch. The number spells `catrustA`.
pub(super) const PREPARE_APPEND_LOCK: &str =
    "PREPARE append_lock AS SELECT pg_advisory_xact_lock(7161132917441393729)";

/// Begins, and queues for the log: two statements in one round trip.
macro_rules! begin_and_lock {
    () => {
        "BEGIN ISOLATION LEVEL READ COMMITTED; EXECUTE append_lock"
    };
}

/// The server gives up the wait after 2 s; this only bounds a server that is gone.
const LOCK_TIMEOUT: Duration = Duration::from_secs(4);

/// How long loading may take before its connection counts as lost.
const LOAD_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a COMMIT may take before its outcome is asked for on another connection.
/// With the time for that it is longer than a standby's usual pause: a commit that waits for it
/// is not lost.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(4);

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

/// What appends: a connection, and what its last batch left in memory.
pub(super) struct Appender {
    connection: PgConnection,
    /// Number of the server that it leads to.
    turn: u64,
    memory: Option<Memory>,
}

/// An attempt that came to its end, and the appender to use again.
struct FinishedBatch {
    appender: Appender,
    results: CommandResults,
    head: LogHead,
    events: Vec<LogEntry>,
}

/// A batch that is decided, and not yet written.
struct Decision {
    results: CommandResults,
    before: LogHead,
    after: LogHead,
    writes: Writes,
    model: ReadModel,
    /// Whether requests that may be repeats were run without looking.
    unseen_replies: bool,
}

impl Appender {
    async fn open(servers: &DatabaseServers) -> Result<Self, StoreError> {
        let (connection, turn) = session::open_appender(servers).await?;
        Ok(Self { connection, turn, memory: None })
    }
}

/// The one that appends, and its connection.
struct Appending<'a> {
    store: &'a PgEventStore,
    slot: &'a mut Option<Appender>,
}

impl AppendPart for Appending<'_> {
    async fn append_part(&mut self, commands: &[CommandEnvelope]) -> Result<CommandResults, StoreError> {
        self.store.append_part(self.slot, commands).await
    }
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
        let slot = &mut *self.appender.lock().await;
        let mut appending = Appending { store: self, slot };
        damage::append_beside_damage(&mut appending, &self.known.damage, commands).await
    }

    async fn append_part(
        &self,
        slot: &mut Option<Appender>,
        commands: &[CommandEnvelope],
    ) -> Result<CommandResults, StoreError> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            // The connection is taken out, and comes back only from a finished
            // attempt: one that fails, or whose caller goes away, is closed, and
            // the server rolls back.
            let in_use = |appender: &Appender| appender.turn == self.servers.turn();
            let appender = match slot.take().filter(in_use) {
                Some(appender) => appender,
                None => Appender::open(&self.servers).await?,
            };
            match self.attempt(appender, commands).await {
                Ok(done) => {
                    self.servers.confirm(done.appender.turn);
                    *slot = Some(done.appender);
                    self.known.recent.push(done.events);
                    self.hint.raise(done.head.position);
                    return Ok(done.results);
                }
                Err(Failure::NotRecorded(error)) => {
                    self.servers.doubt();
                    tracing::warn!(error = &error as &dyn std::error::Error, "a batch was not recorded");
                    last = Some(error);
                }
                Err(Failure::Final(error)) => {
                    self.servers.doubt();
                    if matches!(error, StoreError::SetBack { .. }) {
                        ground::accuse_from_memory(self).await;
                    }
                    return Err(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| StoreError::Internal("no attempt was made".into())))
    }

    async fn attempt(
        &self,
        appender: Appender,
        commands: &[CommandEnvelope],
    ) -> Result<FinishedBatch, Failure> {
        let Appender { mut connection, turn, mut memory } = appender;
        loop {
            let (end, look, database_time) =
                lock_and_look(&mut connection, self.known.memory.recall()).await?;
            self.faults.reach(CommitStep::Locked)?;
            // Read under the lock: along the log, time follows the order of the commits.
            let now = self.clock.as_ref().map_or(database_time, |clock| clock());
            let epoch = match self.known.admit(&mut connection, look).await {
                Ok(epoch) => epoch.epoch,
                Err(error) => {
                    roll_back(&mut connection).await?;
                    return Err(error.into());
                }
            };
            let known = memory.take().filter(|memory| memory.holds(&end));
            let decided = self.decide(&mut connection, known, commands, epoch, now).await?;
            self.faults.reach(CommitStep::Decided)?;
            let Decision { results, before, after, writes, model, unseen_replies } = decided;
            if writes.is_empty() {
                roll_back(&mut connection).await?;
                self.known.memory.acknowledge(&after, epoch);
                let memory = Memory::of(end, after, model);
                let appender = Appender { connection, turn, memory };
                return Ok(FinishedBatch { appender, results, head: after, events: writes.events });
            }
            let written = write(&mut connection, &writes, &before, &after, now);
            let WriteOutcome { xid, replies } =
                timeout(WRITE_TIMEOUT, written).await.map_err(unavailable)??;
            if replies < writes.replies.len() {
                roll_back(&mut connection).await?;
                if unseen_replies {
                    continue;
                }
                let reason = "a reply is there that was not there under the lock".to_owned();
                return Err(Failure::Final(corrupt("replies", &[], reason)));
            }
            self.faults.reach(CommitStep::Written)?;
            let evidence = Evidence {
                xid,
                event: writes.events.last().map(|entry| (entry.row.position, entry.row.hash)),
                reply: writes.replies.last().map(|stored| stored.key.clone()),
            };
            self.hint.committing(after.position);
            let (connection, turn) = self.commit(connection, turn, &evidence).await?;
            self.faults
                .reach(CommitStep::Committed)
                .map_err(|crash| Failure::Final(StoreError::Ambiguous(crash.into())))?;
            self.known.memory.acknowledge(&after, epoch);
            let appender = Appender { connection, turn, memory: Memory::of(end, after, model) };
            return Ok(FinishedBatch { appender, results, head: after, events: writes.events });
        }
    }

    /// Runs the commands on what is in memory, or on that and what is loaded besides.
    async fn decide(
        &self,
        connection: &mut PgConnection,
        known: Option<Memory>,
        commands: &[CommandEnvelope],
        epoch: LogEpoch,
        now: Timestamp,
    ) -> Result<Decision, Failure> {
        let needs = Needs::of(commands);
        let (missing, model) = match known {
            Some(memory) => {
                let missing = needs.missing_from(&memory.model);
                if missing.is_replies_alone() {
                    let set = WorkingSet::new(memory.head, epoch, now, memory.model);
                    let decided = run(memory.head, set, commands)?;
                    let refused = |(result, command): (&Result<_, _>, &CommandEnvelope)| {
                        result.is_err() && command.request_key().is_some()
                    };
                    // What is refused now may have been done when it was asked first.
                    if missing.replies.is_empty() || !decided.results.iter().zip(commands).any(refused) {
                        return Ok(Decision { unseen_replies: !missing.replies.is_empty(), ..decided });
                    }
                    (Needs::of(commands), ReadModel::new())
                } else {
                    (missing, memory.model)
                }
            }
            None => (needs, ReadModel::new()),
        };
        let loaded = timeout(LOAD_TIMEOUT, load(connection, &missing, model, epoch, now)).await;
        let (before, set) = loaded.map_err(unavailable)??;
        self.faults.reach(CommitStep::Loaded)?;
        run(before, set, commands)
    }

    /// Commits; where the answer is lost, finds out what became of it.
    async fn commit(
        &self,
        mut connection: PgConnection,
        turn: u64,
        evidence: &Evidence,
    ) -> Result<(PgConnection, u64), Failure> {
        let lost: StoreError =
            match timeout(COMMIT_TIMEOUT, sqlx::raw_sql("COMMIT").execute(&mut connection)).await {
                Ok(Ok(_)) => return Ok((connection, turn)),
                // The server itself says that it did not commit.
                Ok(Err(error @ sqlx::Error::Database(_))) if !settle::is_ambiguous(&error) => {
                    return Err(store_error(error).into());
                }
                Ok(Err(error)) => store_error(error),
                Err(late) => StoreError::Unavailable(late.into()),
            };
        drop(connection.close_hard().await);
        match settle::settle(&self.servers, evidence).await {
            Ok((CommitOutcome::Committed, connection, turn)) => Ok((connection, turn)),
            Ok((CommitOutcome::Aborted, ..)) => Err(Failure::NotRecorded(lost)),
            Err(error) => Err(Failure::Final(error)),
        }
    }
}

/// Runs the commands of a batch that begins after `before`.
fn run(before: LogHead, mut set: WorkingSet, commands: &[CommandEnvelope]) -> Result<Decision, Failure> {
    let mut results = Vec::with_capacity(commands.len());
    for command in commands {
        let result = set.run(command).map_err(|error| {
            let row = Ok(command.instance_id.to_string());
            Failure::Final(corrupt("instances", &[row], error.to_string()))
        })?;
        results.push(result);
    }
    let (after, writes, model) = set.finish_and_keep();
    Ok(Decision { results, before, after, writes, model, unseen_replies: false })
}

/// Begins a transaction that holds the append lock, and looks where the log ends: in
/// one round trip, each statement with a snapshot of its own.
async fn lock_and_look(
    connection: &mut PgConnection,
    memory: Option<LogEvidence>,
) -> Result<(LogEnd, Look, Timestamp), Failure> {
    let position = memory.as_ref().map_or(0, |memory| memory.mark.position());
    let statements = format!(concat!(begin_and_lock!(), "; EXECUTE log_end({})"), position);
    // Safe: constant text and a number.
    let rows = sqlx::raw_sql(AssertSqlSafe(statements));
    let rows = within_lock_timeout(rows.fetch_all(connection)).await?;
    let row = rows.last().ok_or_else(|| StoreError::Internal("the look at the log gave no row".into()))?;
    Ok(LogEnd::of(row, memory)?)
}

async fn roll_back(connection: &mut PgConnection) -> Result<(), Failure> {
    let ended = timeout(LOAD_TIMEOUT, sqlx::raw_sql("ROLLBACK").execute(connection)).await;
    ended.map_err(unavailable)?.map(drop).map_err(|error| store_error(error).into())
}

/// Begins a transaction that holds the append lock.
pub(super) async fn lock(connection: &mut PgConnection) -> Result<(), Failure> {
    within_lock_timeout(sqlx::raw_sql(begin_and_lock!()).execute(connection)).await.map(drop)
}

async fn within_lock_timeout<T>(
    statements: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, Failure> {
    match timeout(LOCK_TIMEOUT, statements).await {
        Ok(Ok(answer)) => Ok(answer),
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
