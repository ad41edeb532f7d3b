//! The append transaction: BEGIN IMMEDIATE takes the file's write lock, so that
//! what is loaded is what is written on. Other processes wait their turn.

use std::time::Instant;

use catrust_domain::batch::Needs;
use catrust_domain::{CommandEnvelope, LogEntry, LogHead, RequestKey, Sha256};
use sqlx::SqliteConnection;

use super::error::store_error;
use super::load::load;
use super::write::write;
use super::{SqliteEventStore, session};
use crate::damage::{self, AppendPart};
use crate::faults::{CommitStep, Crash};
use crate::ground::{self, Look};
use crate::row::corrupt;
use crate::{CommandResults, MAX_BATCH, StoreError, reads};

/// An attempt that came to its end, and the connection to use again.
type FinishedBatch = (SqliteConnection, CommandResults, LogHead, Vec<LogEntry>);

/// The one that appends, and its connection.
struct Appending<'a> {
    store: &'a SqliteEventStore,
    slot: &'a mut Option<(SqliteConnection, Instant)>,
}

impl AppendPart for Appending<'_> {
    async fn append_part(&mut self, commands: &[CommandEnvelope]) -> Result<CommandResults, StoreError> {
        self.store.append_part(self.slot, commands).await
    }
}

impl SqliteEventStore {
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
        let slot = &mut *self.writer.lock().await;
        let mut appending = Appending { store: self, slot };
        damage::append_beside_damage(&mut appending, &self.known.damage, commands).await
    }

    async fn append_part(
        &self,
        slot: &mut Option<(SqliteConnection, Instant)>,
        commands: &[CommandEnvelope],
    ) -> Result<CommandResults, StoreError> {
        // The connection is taken out, and comes back only from a finished batch: one
        // that fails, or whose caller goes away, is closed, and SQLite rolls back.
        let (connection, opened) = self.take_writer(slot).await?;
        let (connection, results, head, events) = match self.attempt(connection, commands).await {
            Err(error @ StoreError::SetBack { .. }) => {
                ground::accuse_from_memory(self).await;
                return Err(error);
            }
            attempted => attempted?,
        };
        *slot = Some((connection, opened));
        self.known.recent.push(events);
        self.raise(head.position);
        Ok(results)
    }

    async fn attempt(
        &self,
        mut connection: SqliteConnection,
        commands: &[CommandEnvelope],
    ) -> Result<FinishedBatch, StoreError> {
        begin(&mut connection).await?;
        self.faults.reach(CommitStep::Locked)?;
        // Read under the lock: along the log, time follows the order of the commits.
        let now = (self.clock)();
        let memory = self.known.memory.recall();
        let position = memory.as_ref().map_or(0, |memory| memory.mark.position());
        let look = Look {
            end: reads::head(&mut connection).await?,
            newest_begin: reads::newest_begin_of_log(&mut connection).await?,
            remembered: ground::hash_at(&mut connection, position).await?,
            evidence_state: ground::evidence_state_of(&mut connection).await?,
            memory,
        };
        let epoch = self.known.admit(&mut connection, look).await?.epoch;
        let (_, mut set) = load(&mut connection, &Needs::of(commands), epoch, now).await?;
        self.faults.reach(CommitStep::Loaded)?;
        let mut results = Vec::with_capacity(commands.len());
        for command in commands {
            let row = || Ok(command.instance_id.to_string());
            let result = set.run(command);
            results.push(result.map_err(|error| corrupt("instances", &[row()], error.to_string()))?);
        }
        self.faults.reach(CommitStep::Decided)?;
        let (head, writes) = set.finish();
        if writes.is_empty() {
            sqlx::raw_sql("ROLLBACK").execute(&mut connection).await.map_err(store_error)?;
            self.known.memory.acknowledge(&head, epoch);
            return Ok((connection, results, head, writes.events));
        }
        write(&mut connection, &writes, now).await?;
        self.faults.reach(CommitStep::Written)?;
        let event = writes.events.last().map(|entry| (entry.row.position, entry.row.hash));
        let reply = writes.replies.last().map(|stored| &stored.key);
        let connection = self.commit(connection, event, reply).await?;
        let survived = self.faults.reach(CommitStep::Committed);
        survived.map_err(|crash| StoreError::Ambiguous(crash.into()))?;
        self.known.memory.acknowledge(&head, epoch);
        Ok((connection, results, head, writes.events))
    }

    /// Commits. An error may come before or after the point of no return (a disk that
    /// fails at the fsync), so that the file is asked what became of it.
    async fn commit(
        &self,
        mut connection: SqliteConnection,
        event: Option<(u64, Sha256)>,
        reply: Option<&RequestKey>,
    ) -> Result<SqliteConnection, StoreError> {
        let Err(error) = sqlx::raw_sql("COMMIT").execute(&mut connection).await else {
            return Ok(connection);
        };
        drop(connection);
        let ask = async {
            let mut connection = session::open(&self.options).await?;
            let recorded = reads::is_recorded(&mut connection, event, reply).await?;
            Ok::<_, StoreError>(recorded.then_some(connection))
        };
        match ask.await {
            Ok(Some(connection)) => Ok(connection),
            Ok(None) => Err(store_error(error)),
            Err(unsettled) => Err(StoreError::Ambiguous(unsettled.into())),
        }
    }
}

/// Begins a transaction that holds the write lock.
pub(super) async fn begin(connection: &mut SqliteConnection) -> Result<(), StoreError> {
    sqlx::raw_sql("BEGIN IMMEDIATE").execute(connection).await.map_err(store_error).map(drop)
}

impl From<Crash> for StoreError {
    fn from(crash: Crash) -> Self {
        Self::Unavailable(crash.into())
    }
}
