//! `catrust-agent gate`: the parts of a gate, put together.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use catrust_broker_agent::BrokerTrust;
use catrust_broker_agent::gate::settings::GateSettings;
pub use catrust_broker_agent::gate::settings::seconds;
use catrust_broker_agent::gate::{GateParts, Listener, admin};
use catrust_trust_feed::agent::{Agent, AgentHandle};
use clap::Args;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::feed::FeedArguments;
use super::lifecycle::{Tasks, run_until_signal};

/// How long the `listening on` line waits for the first trust, so that a script which
/// has read it can connect devices. A gate that has none by then listens, refuses
/// everybody, and says so in `/readyz` and in the log.
const FIRST_TRUST: Duration = Duration::from_secs(3);
/// What the drain may take beyond its own time.
const GRACE: Duration = Duration::from_secs(15);

/// Arguments of `catrust-agent gate`.
#[derive(Debug, Args)]
pub struct GateArguments {
    #[command(flatten)]
    feed: FeedArguments,
    #[command(flatten, next_help_heading = "Gate")]
    gate: GateSettings,
}

/// Serves until a signal.
///
/// # Errors
/// The gate cannot start, a part of it failed, or the drain took too long.
pub async fn run(arguments: GateArguments) -> anyhow::Result<()> {
    let GateArguments { feed, gate } = arguments;
    let trust = Arc::new(BrokerTrust::default());
    let parts = Arc::new(GateParts::new(gate, Arc::clone(&trust))?);
    let listener = Listener::bind(Arc::clone(&parts)).await?;
    let address = listener.address();
    let stop = CancellationToken::new();
    let mut tasks = Tasks::default();
    if let Some(listen) = &parts.settings.admin_listen {
        let socket =
            TcpListener::bind(listen).await.with_context(|| format!("{listen} cannot be listened on"))?;
        tracing::info!(address = %socket.local_addr()?, "probes and metrics");
        let routes = admin::routes(Arc::clone(&parts), stop.clone());
        tasks.spawn_helper("admin listener", async move { Ok(axum::serve(socket, routes).await?) });
    }
    let agent = Agent::start(feed.settings()?, trust.clone() as _).await.context("the agent cannot start")?;
    tasks.spawn_helper("expiry watch", {
        let stop = stop.clone();
        async move {
            trust.watch_expiry(stop).await;
            Ok(())
        }
    });
    tasks.spawn_helper("certificate watch", {
        let (parts, stop) = (Arc::clone(&parts), stop.clone());
        async move {
            parts.watch_identity(stop).await;
            Ok(())
        }
    });
    let drain_limit = parts.settings.drain + GRACE;
    tasks.spawn_main("listener", {
        let stop = stop.clone();
        async move {
            listener.run(stop).await;
            Ok(())
        }
    });
    announce(&format!("tls://{address}"), &agent).await?;
    let reload = Arc::clone(&parts);
    let outcome =
        run_until_signal(tasks, &stop, drain_limit, move || reload.reload_identity(), agent.ended()).await;
    agent.stop().await;
    outcome
}

/// Prints the one line that scripts wait for.
pub async fn announce(url: &str, agent: &AgentHandle) -> anyhow::Result<()> {
    match tokio::time::timeout(FIRST_TRUST, agent.ready()).await {
        Ok(ready) => ready?,
        Err(_) => tracing::warn!("no trust yet: every device is refused"),
    }
    let mut output = std::io::stdout().lock();
    writeln!(output, "listening on {url}")?;
    output.flush()?;
    Ok(())
}
