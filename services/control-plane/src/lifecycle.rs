//! How the server starts, runs and leaves.
//!
//! The first SIGTERM or SIGINT drains: health says NOT_SERVING, watch streams end
//! with UNAVAILABLE, calls in progress finish, the appender commits what it took.
//! A second signal, or the end of the grace period, ends the process at once. A
//! task that ends by itself, or panics, takes the process down with its reason: a
//! server that serves on without its follower would lie about being current.
//!
//! What is not among the tasks is either made for one call or connection and ends with it (a
//! panic there ends that call), or waited for by a task (work moved off the runtime's threads),
//! or costs telemetry alone (the exporters' threads).

mod fault;

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

pub(crate) use self::fault::may_fail_on_demand;

/// How long the other tasks may take to leave in order when one has died: nothing that the
/// server still says may rest on the dead one for longer.
const LAST_GASP: Duration = Duration::from_secs(5);

/// How much of that the calls in progress may take.
const LAST_CALLS: Duration = Duration::from_secs(3);

/// The tasks that the server cannot do without.
#[derive(Default)]
pub(crate) struct Tasks {
    set: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    /// Starts a task. It MUST run until it is told to stop.
    pub(crate) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        tracing::debug!(part = name, "started");
        let handle = self.set.spawn(may_fail_on_demand(name, task, || Ok(())));
        self.names.insert(handle.id(), name);
    }

    /// Waits until a task ends, and tells which and why.
    async fn first_end(&mut self) -> anyhow::Error {
        match self.set.join_next_with_id().await {
            None => anyhow!("the server has no tasks"),
            Some(Ok((id, Ok(())))) => anyhow!("the {} ended by itself", self.name(id)),
            Some(Ok((id, Err(error)))) => error.context(format!("the {} failed", self.name(id))),
            Some(Err(error)) => self.panic(&error),
        }
    }

    /// Waits until every task has ended; the first failure counts.
    async fn all_ended(&mut self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        while let Some(joined) = self.set.join_next_with_id().await {
            let ended = match joined {
                Ok((id, result)) => result.with_context(|| format!("the {} failed", self.name(id))),
                Err(error) => Err(self.panic(&error)),
            };
            outcome = outcome.and(ended);
        }
        outcome
    }

    fn name(&self, id: Id) -> &'static str {
        self.names.get(&id).copied().unwrap_or("task")
    }

    fn panic(&self, error: &JoinError) -> anyhow::Error {
        anyhow!("the {} panicked: {error}", self.name(error.id()))
    }
}

/// The stages of leaving, each a token that tasks watch.
#[derive(Clone, Default)]
pub(crate) struct Stages {
    /// Health and readiness say no; everything else goes on.
    pub(crate) unready: CancellationToken,
    /// No new work: streams end, the listener closes.
    pub(crate) draining: CancellationToken,
    /// No work left to come: appender, publisher and follower end.
    pub(crate) stopping: CancellationToken,
}

/// Runs until a signal and the drain after it, or until a task fails.
///
/// `drain_delay` passes between "not ready" and the end of service, for load
/// balancers to notice; `grace` bounds everything after that.
///
/// # Errors
/// A task ended early or failed, or the grace period was over.
pub(crate) async fn run(
    mut tasks: Tasks,
    stages: Stages,
    drain_delay: Duration,
    grace: Duration,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        error = tasks.first_end() => return Err(leave_without_it(tasks, stages, error).await),
        _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
        _ = interrupt.recv() => tracing::info!("SIGINT: draining"),
    }
    let drain = async {
        stages.unready.cancel();
        tokio::time::sleep(drain_delay).await;
        stages.draining.cancel();
        tasks.all_ended().await
    };
    tokio::select! {
        outcome = drain => outcome,
        () = tokio::time::sleep(drain_delay + grace) => Err(anyhow!("the grace period of {} s is over", grace.as_secs())),
        _ = terminate.recv() => Err(anyhow!("a second signal: leaving at once")),
        _ = interrupt.recv() => Err(anyhow!("a second signal: leaving at once")),
    }
}

/// Ends what is left after a task has died of `error`: callers hear so, streams end, what was
/// taken in is committed, all within [`LAST_GASP`].
async fn leave_without_it(mut tasks: Tasks, stages: Stages, error: anyhow::Error) -> anyhow::Error {
    tracing::error!(error = format!("{error:#}"), "a part of the server has died: the process ends with it");
    stages.unready.cancel();
    stages.draining.cancel();
    // Where the listener is the dead one, nobody says that the last call has ended.
    let stopping = async {
        let _ = tokio::time::timeout(LAST_CALLS, stages.stopping.cancelled()).await;
        stages.stopping.cancel();
        std::future::pending().await
    };
    let all_ended = async {
        tokio::select! {
            outcome = tasks.all_ended() => outcome,
            never = stopping => never,
        }
    };
    if tokio::time::timeout(LAST_GASP, all_ended).await.is_err() {
        tracing::error!("other parts did not leave in time");
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn outcome_with(task: impl Future<Output = anyhow::Result<()>> + Send + 'static) -> (String, bool) {
        let (mut tasks, stages) = (Tasks::default(), Stages::default());
        tasks.spawn("clock", task);
        let (left, leaving) = tokio::sync::oneshot::channel();
        let draining = stages.draining.clone();
        tasks.spawn("listener", async move {
            draining.cancelled().await;
            let _ = left.send(());
            Ok(())
        });
        let error = run(tasks, stages, Duration::from_secs(60), Duration::from_secs(60)).await.unwrap_err();
        (format!("{error:#}"), leaving.await.is_ok())
    }

    #[tokio::test]
    async fn a_task_that_ends_takes_the_others_down_in_order() {
        assert_eq!(outcome_with(async { Ok(()) }).await, ("the clock ended by itself".to_owned(), true));
        let failing = async { Err(anyhow!("it is late")) };
        assert_eq!(outcome_with(failing).await, ("the clock failed: it is late".to_owned(), true));
    }

    #[tokio::test]
    async fn a_task_that_panics_is_named() {
        let (error, in_order) = outcome_with(async { panic!("out of hands") }).await;
        assert!(error.starts_with("the clock panicked") && error.contains("out of hands"), "{error}");
        assert!(in_order);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_leave_is_not_waited_for() {
        let mut tasks = Tasks::default();
        tasks.spawn("clock", async { Ok(()) });
        tasks.spawn("deaf one", std::future::pending());
        let started = tokio::time::Instant::now();
        let day = Duration::from_secs(86_400);
        let error = run(tasks, Stages::default(), day, day).await.unwrap_err();
        assert_eq!(error.to_string(), "the clock ended by itself");
        assert!(started.elapsed() <= LAST_GASP + Duration::from_secs(1));
    }
}
