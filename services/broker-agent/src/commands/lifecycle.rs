//! How an agent runs and leaves.
//!
//! The first SIGTERM or SIGINT drains, a second one ends the process at once. SIGHUP
//! reads the certificate again. A part that ends by itself takes the process down
//! with its reason: a gate that nobody tells what to distrust must not serve on.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use anyhow::anyhow;
use catrust_trust_feed::agent::AgentEnded;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

/// The parts that an agent cannot do without.
#[derive(Default)]
pub struct Tasks {
    /// Their end is the end of the drain.
    main: JoinSet<anyhow::Result<()>>,
    /// They are aborted after it.
    helpers: JoinSet<anyhow::Result<()>>,
    names: HashMap<Id, &'static str>,
}

impl Tasks {
    /// Starts a part that drains when it is told to stop.
    pub fn spawn_main(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let id = self.main.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Starts a part that has nothing to finish.
    pub fn spawn_helper(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        let id = self.helpers.spawn(task).id();
        self.names.insert(id, name);
    }

    async fn first_end(&mut self) -> anyhow::Error {
        let ended = tokio::select! {
            Some(ended) = self.main.join_next_with_id() => ended,
            Some(ended) = self.helpers.join_next_with_id() => ended,
            else => return anyhow!("there is nothing to run"),
        };
        let name = |id: Id| self.names.get(&id).copied().unwrap_or("part");
        match ended {
            Ok((id, Ok(()))) => anyhow!("the {} ended by itself", name(id)),
            Ok((id, Err(error))) => error.context(format!("the {} failed", name(id))),
            Err(error) => anyhow!("the {} panicked: {error}", name(error.id())),
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

#[cfg(test)]
mod tests {
    use super::*;

    async fn outcome(
        spawn: impl FnOnce(&mut Tasks),
        agent_ended: impl Future<Output = AgentEnded>,
    ) -> String {
        let mut tasks = Tasks::default();
        tasks.spawn_main("listener", std::future::pending());
        tasks.spawn_helper("admin listener", std::future::pending());
        spawn(&mut tasks);
        let stop = CancellationToken::new();
        let hour = Duration::from_secs(3_600);
        let outcome = run_until_signal(tasks, &stop, hour, || {}, agent_ended).await;
        format!("{:#}", outcome.unwrap_err())
    }

    #[tokio::test]
    async fn no_part_is_survived_by_the_others() {
        let agent = std::future::pending;
        let ended = outcome(|tasks| tasks.spawn_helper("expiry watch", async { Ok(()) }), agent()).await;
        assert_eq!(ended, "the expiry watch ended by itself");
        let failed = async { Err(anyhow!("no socket")) };
        let failed = outcome(|tasks| tasks.spawn_main("acceptor", failed), agent()).await;
        assert_eq!(failed, "the acceptor failed: no socket");
        let panic = async { panic!("out of hands") };
        let panicked = outcome(|tasks| tasks.spawn_helper("certificate watch", panic), agent()).await;
        assert!(panicked.starts_with("the certificate watch panicked"), "{panicked}");
        let agent_died = outcome(|_| {}, async { AgentEnded }).await;
        assert_eq!(agent_died, AgentEnded.to_string());
    }
}
