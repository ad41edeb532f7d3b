//! The one task of a replica that writes: it takes what is queued and commits it
//! as a batch.
//!
//! There is no linger. While a batch commits, others queue; an idle appender
//! commits a lone command at once. Batches are filled round-robin over accounts,
//! so that one busy account delays the others by its share only.
//!
//! It has a thread and a runtime of its own. On the runtime of the calls, the answers of
//! one batch (some thirty tasks at once) would run before the next batch may go on, and
//! the log would wait for them several times per batch.
//!
//! The queue is bounded. Inactivations may fill it to the brim, everything else
//! only four fifths of it.

mod instruments;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context as _;
use catrust_domain::{AccountId, Command, CommandEnvelope, Rejection, Reply, error_chain};
use catrust_event_store::{CommandStore, MAX_BATCH, StoreError};
use opentelemetry::metrics::Meter;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use self::instruments::AppenderInstruments;
use crate::error::ApiError;
use crate::ground::LogGround;
use crate::lifecycle::may_fail_on_demand;

/// What a command came to: the outer error is the store's.
type CommandOutcome = Result<Result<Reply, Rejection>, ApiError>;

struct PendingCommand {
    envelope: CommandEnvelope,
    answer: Answer,
}

/// Where the outcome goes; closed where the caller has gone.
type Answer = oneshot::Sender<CommandOutcome>;

/// Commands that are committed together, and where their outcomes go.
#[derive(Default)]
struct CommandBatch {
    envelopes: Vec<CommandEnvelope>,
    answers: Vec<Answer>,
}

/// Commands that wait, by account.
#[derive(Default)]
struct CommandQueue {
    by_account: HashMap<AccountId, VecDeque<PendingCommand>>,
    /// Accounts with waiting commands, in the order of their turns.
    turns: VecDeque<AccountId>,
    length: usize,
    closed: bool,
}

impl CommandQueue {
    fn push(&mut self, pending: PendingCommand) {
        let account = pending.envelope.context.account_id.clone();
        let waiting = self.by_account.entry(account.clone()).or_default();
        if waiting.is_empty() {
            self.turns.push_back(account);
        }
        waiting.push_back(pending);
        self.length += 1;
    }

    /// The next command in turn.
    fn pop(&mut self) -> Option<PendingCommand> {
        let account = self.turns.pop_front()?;
        let waiting = self.by_account.get_mut(&account)?;
        let pending = waiting.pop_front();
        if waiting.is_empty() {
            self.by_account.remove(&account);
        } else {
            self.turns.push_back(account);
        }
        self.length -= usize::from(pending.is_some());
        pending
    }

    /// Drops the commands whose callers have gone: they hold places that others need.
    fn forget_the_gone(&mut self) {
        for waiting in self.by_account.values_mut() {
            waiting.retain(|pending| !pending.answer.is_closed());
        }
        self.by_account.retain(|_, waiting| !waiting.is_empty());
        let by_account = &self.by_account;
        self.turns.retain(|account| by_account.contains_key(account));
        self.length = by_account.values().map(VecDeque::len).sum();
    }

    /// Up to [`MAX_BATCH`] commands whose callers still wait.
    fn take_batch(&mut self) -> CommandBatch {
        let mut batch = CommandBatch::default();
        while batch.envelopes.len() < MAX_BATCH {
            match self.pop() {
                Some(pending) if pending.answer.is_closed() => {}
                Some(PendingCommand { envelope, answer }) => {
                    batch.envelopes.push(envelope);
                    batch.answers.push(answer);
                }
                None => break,
            }
        }
        batch
    }
}

impl CommandBatch {
    /// Takes the second half away.
    fn split(&mut self) -> Self {
        let half = self.envelopes.len() / 2;
        Self { envelopes: self.envelopes.split_off(half), answers: self.answers.split_off(half) }
    }
}

/// Hands commands to the appender task. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Appender {
    queue: Arc<Mutex<CommandQueue>>,
    filled: Arc<Notify>,
    capacity: usize,
    /// Hears from the store that the log was set back.
    ground: LogGround,
    instruments: Arc<AppenderInstruments>,
}

impl Appender {
    /// Makes the appender and the future of its task, which ends after `stop` when
    /// the queue is empty. `capacity` commands may wait.
    ///
    /// # Errors
    /// The future fails when its thread cannot be started, or dies.
    pub(crate) fn new(
        store: Arc<dyn CommandStore>,
        capacity: usize,
        ground: LogGround,
        meter: &Meter,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = anyhow::Result<()>> + Send + use<>) {
        let appender = Self {
            queue: Arc::default(),
            filled: Arc::default(),
            capacity: capacity.max(1),
            ground,
            instruments: Arc::new(AppenderInstruments::new(meter)),
        };
        let task = may_fail_on_demand("thread of the appender", appender.clone().run(store, stop), || ());
        (appender, on_own_thread(task))
    }

    /// Queues a command and waits for its batch to be durable. A caller that stops
    /// waiting takes its command out of the queue, if it is still there.
    ///
    /// # Errors
    /// [`ApiError::Overloaded`] when the queue is full, [`ApiError::Draining`] after
    /// the end, [`ApiError::Rejected`] when a rule said no, [`ApiError::Store`].
    pub(crate) async fn submit(&self, envelope: CommandEnvelope) -> Result<Reply, ApiError> {
        let started = Instant::now();
        let name = command_name(&envelope.command);
        let outcome = self.enqueue_and_wait(envelope).await;
        self.instruments.command(name, &outcome, started.elapsed());
        outcome
    }

    async fn enqueue_and_wait(&self, envelope: CommandEnvelope) -> Result<Reply, ApiError> {
        let shed_last = matches!(envelope.command, Command::InactivateCaCertificate { .. });
        let places = if shed_last { self.capacity } else { self.capacity - self.capacity / 5 };
        let (answer, outcome) = oneshot::channel();
        {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.closed {
                return Err(ApiError::Draining);
            }
            if queue.length >= places {
                queue.forget_the_gone();
            }
            if queue.length >= places {
                return Err(ApiError::Overloaded);
            }
            queue.push(PendingCommand { envelope, answer });
        }
        self.filled.notify_one();
        outcome.await.map_err(|_| ApiError::Draining)??.map_err(ApiError::Rejected)
    }

    async fn run(self, store: Arc<dyn CommandStore>, stop: CancellationToken) {
        let _closing = ClosingQueue(&self.queue);
        loop {
            let (batch, waiting) = {
                let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                let batch = queue.take_batch();
                queue.closed = batch.envelopes.is_empty() && stop.is_cancelled();
                (batch, queue.length)
            };
            self.instruments.queue_depth(waiting);
            if !batch.envelopes.is_empty() {
                self.commit(&*store, batch).await;
            } else if stop.is_cancelled() {
                return;
            } else {
                tokio::select! {
                    () = self.filled.notified() => {}
                    () = stop.cancelled() => {}
                }
            }
        }
    }

    /// Commits a batch. One that fails for a reason of its content is halved until the
    /// command that spoils it fails alone.
    async fn commit(&self, store: &dyn CommandStore, batch: CommandBatch) {
        self.instruments.batch(batch.envelopes.len());
        let mut parts = vec![batch];
        while let Some(mut part) = parts.pop() {
            match store.append(&part.envelopes).await {
                Ok(results) => answer(part.answers, results.into_iter().map(Ok)),
                Err(StoreError::Internal(_)) if part.envelopes.len() > 1 => {
                    let second = part.split();
                    parts.extend([second, part]);
                }
                Err(error) => {
                    if let StoreError::SetBack { reason } = &error {
                        self.ground.lose(reason);
                    }
                    let commands = part.envelopes.len();
                    tracing::error!(error = error_chain(&error), commands, "a batch was not committed");
                    let shared = Arc::new(error);
                    let failure = || Err(ApiError::Store(same_failure(&shared)));
                    answer(part.answers, std::iter::repeat_with(failure));
                }
            }
        }
    }
}

/// Closes the queue and lets go of what waits in it, however the task ends: nobody would ever
/// answer those callers.
struct ClosingQueue<'a>(&'a Mutex<CommandQueue>);

impl Drop for ClosingQueue<'_> {
    fn drop(&mut self) {
        let closed = CommandQueue { closed: true, ..CommandQueue::default() };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = closed;
    }
}

/// Runs `task` to its end on a thread of its own. What it opens there (a connection, a
/// timer) is served by that thread's runtime alone.
async fn on_own_thread(task: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (done, ended) = oneshot::channel();
    std::thread::Builder::new().name("appender".to_owned()).spawn(move || {
        runtime.block_on(task);
        // Nobody waits when the server is torn down.
        let _ = done.send(());
    })?;
    ended.await.context("the thread of the appender died")
}

/// Tells each caller its outcome. One that has gone meanwhile does not hear it.
fn answer(answers: Vec<Answer>, outcomes: impl Iterator<Item = CommandOutcome>) {
    for (answer, outcome) in answers.into_iter().zip(outcomes) {
        let _ = answer.send(outcome);
    }
}

/// The failure of a batch, once per caller. The whole chain is logged once, above.
fn same_failure(error: &Arc<StoreError>) -> StoreError {
    let source: Box<dyn std::error::Error + Send + Sync> = Box::new(Arc::clone(error));
    match **error {
        StoreError::Unavailable(_) => StoreError::Unavailable(source),
        StoreError::Ambiguous(_) => StoreError::Ambiguous(source),
        StoreError::SetBack { ref reason } => StoreError::SetBack { reason: reason.clone() },
        _ => StoreError::Internal(source),
    }
}

const fn command_name(command: &Command) -> &'static str {
    match command {
        Command::RegisterInstance(_) => "RegisterInstance",
        Command::UpdateInstance { .. } => "UpdateInstance",
        Command::IssueRegisterCode { .. } => "IssueRegisterCode",
        Command::RegisterCaCertificate { .. } => "RegisterCaCertificate",
        Command::InactivateCaCertificate { .. } => "InactivateCaCertificate",
        Command::ActivateCaCertificate { .. } => "ActivateCaCertificate",
        Command::DeleteCaCertificate { .. } => "DeleteCaCertificate",
    }
}

#[cfg(test)]
mod tests {
    use catrust_domain::{CommandContext, Edition};
    use uuid::Uuid;

    use super::*;

    fn pending(account: &str, number: u128) -> (PendingCommand, oneshot::Receiver<CommandOutcome>) {
        let (answer, outcome) = oneshot::channel();
        let context = CommandContext {
            event_id: Uuid::from_u128(number),
            request_id: Uuid::from_u128(number),
            fingerprint: None,
            actor: "a".into(),
            account_id: account.parse().unwrap(),
            policy_version: String::new(),
            source_address: String::new(),
            traceparent: String::new(),
        };
        let command = Command::UpdateInstance { owner_account_id: None, edition: Some(Edition::Standard) };
        let envelope = CommandEnvelope { instance_id: "i".parse().unwrap(), command, context };
        (PendingCommand { envelope, answer }, outcome)
    }

    fn order(batch: &CommandBatch) -> Vec<u128> {
        batch.envelopes.iter().map(|envelope| envelope.context.request_id.as_u128()).collect()
    }

    #[test]
    fn accounts_take_turns_and_keep_their_own_order() {
        let mut queue = CommandQueue::default();
        let mut waiting = Vec::new();
        for (account, number) in [("busy", 1), ("busy", 2), ("busy", 3), ("calm", 10), ("busy", 4)] {
            let (pending, outcome) = pending(account, number);
            queue.push(pending);
            waiting.push(outcome);
        }
        assert_eq!(order(&queue.take_batch()), [1, 10, 2, 3, 4]);
        assert_eq!(queue.length, 0);
        assert!(queue.by_account.is_empty() && queue.turns.is_empty());
    }

    #[test]
    fn a_busy_account_cannot_fill_a_batch() {
        let mut queue = CommandQueue::default();
        let mut waiting = Vec::new();
        for number in 0..1000 {
            let (pending, outcome) = pending("busy", number);
            queue.push(pending);
            waiting.push(outcome);
        }
        let (late, outcome) = pending("calm", 5000);
        queue.push(late);
        waiting.push(outcome);
        let batch = queue.take_batch();
        assert_eq!((batch.envelopes.len(), batch.answers.len()), (MAX_BATCH, MAX_BATCH));
        assert_eq!(order(&batch)[1], 5000);
    }

    #[test]
    fn commands_of_callers_that_left_are_not_run() {
        let mut queue = CommandQueue::default();
        let (gone, outcome) = pending("a", 1);
        queue.push(gone);
        drop(outcome);
        queue.forget_the_gone();
        assert!(queue.length == 0 && queue.by_account.is_empty() && queue.turns.is_empty());
        let (stays, _outcome) = pending("a", 2);
        queue.push(stays);
        assert_eq!(order(&queue.take_batch()), [2]);
    }
}
