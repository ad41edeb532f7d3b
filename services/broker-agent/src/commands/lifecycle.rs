//! How an agent runs and leaves.
//!
//! The first SIGTERM or SIGINT drains, a second one ends the process at once. SIGHUP
//! reads the certificate again. A part that ends by itself takes the process down
//! with its reason: a gate that nobody tells what to distrust must not serve on.

use std::future::Future;
use std::time::Duration;

use anyhow::anyhow;
use catrust_trust_feed::agent::AgentEnded;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

type Ended = (&'static str, anyhow::Result<()>);

/// The parts that an agent cannot do without.
#[derive(Default)]
pub struct Tasks {
    /// Their end is the end of the drain.
    main: JoinSet<Ended>,
    /// They are aborted after it.
    helpers: JoinSet<Ended>,
}

impl Tasks {
    /// Starts a part that drains when it is told to stop.
    pub fn spawn_main(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.main.spawn(async move { (name, task.await) });
    }

    /// Starts a part that has nothing to finish.
    pub fn spawn_helper(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.helpers.spawn(async move { (name, task.await) });
    }

    async fn first_end(&mut self) -> anyhow::Error {
        let ended = tokio::select! {
            Some(ended) = self.main.join_next() => ended,
            Some(ended) = self.helpers.join_next() => ended,
            else => return anyhow!("there is nothing to run"),
        };
        match ended {
            Ok((name, Ok(()))) => anyhow!("the {name} ended by itself"),
            Ok((name, Err(error))) => error.context(format!("the {name} failed")),
            Err(error) => anyhow!(error).context("a part panicked"),
        }
    }
}

/// Runs until a signal and the drain after it, or until a part fails. `limit` bounds
/// the drain.
///
/// # Errors
/// A part ended early or failed, or the drain was not done in time.
pub async fn run_until_signal(
    mut tasks: Tasks,
    stop: &CancellationToken,
    limit: Duration,
    hang_up: impl Fn(),
    agent_ended: impl Future<Output = AgentEnded>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    tokio::pin!(agent_ended);
    loop {
        tokio::select! {
            error = tasks.first_end() => return Err(error),
            ended = &mut agent_ended => return Err(ended.into()),
            _ = hangup.recv() => hang_up(),
            _ = terminate.recv() => break tracing::info!("SIGTERM: draining"),
            _ = interrupt.recv() => break tracing::info!("SIGINT: draining"),
        }
    }
    stop.cancel();
    tokio::select! {
        _ = async { while tasks.main.join_next().await.is_some() {} } => Ok(()),
        () = tokio::time::sleep(limit) => Err(anyhow!("not drained after {} s", limit.as_secs())),
        _ = terminate.recv() => Err(anyhow!("a second signal: leaving at once")),
        _ = interrupt.recv() => Err(anyhow!("a second signal: leaving at once")),
    }
}
