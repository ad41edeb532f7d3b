//! How the server starts, runs and leaves.
//!
//! The first SIGTERM or SIGINT drains: health says NOT_SERVING, watch streams end
//! with UNAVAILABLE, calls in progress finish, the appender commits what it took.
//! A second signal, or the end of the grace period, ends the process at once. A
//! task that ends by itself takes the process down with its reason: a server that
//! serves on without its follower would lie about being current.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The tasks that the server cannot do without.
pub(crate) struct Tasks {
    set: JoinSet<(&'static str, anyhow::Result<()>)>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self { set: JoinSet::new() }
    }
}

impl Tasks {
    /// Starts a task. It MUST run until it is told to stop.
    pub(crate) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.set.spawn(async move { (name, task.await) });
    }

    /// Waits until a task ends, and tells which and why.
    async fn first_end(&mut self) -> anyhow::Error {
        match self.set.join_next().await {
            None => anyhow!("the server has no tasks"),
            Some(Ok((name, Ok(())))) => anyhow!("the {name} ended by itself"),
            Some(Ok((name, Err(error)))) => error.context(format!("the {name} failed")),
            Some(Err(error)) => anyhow!(error).context("a task panicked"),
        }
    }

    /// Waits until every task has ended; the first failure counts.
    async fn all_ended(&mut self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        while let Some(joined) = self.set.join_next().await {
            let ended = match joined {
                Ok((name, result)) => result.with_context(|| format!("the {name} failed")),
                Err(error) => Err(anyhow!(error).context("a task panicked")),
            };
            outcome = outcome.and(ended);
        }
        outcome
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
        error = tasks.first_end() => return Err(error),
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
