//! `catrust-agent mosquitto`: the driver of the catrust plugin, put together.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use catrust_broker_agent::mosquitto::{MosquittoEnforcer, MosquittoSettings, check_configuration};
use catrust_trust_feed::agent::Agent;
use clap::Args;
use tokio_util::sync::CancellationToken;

use super::feed::FeedArguments;
use super::gate::announce;
use super::lifecycle::{Tasks, run_until_signal};

/// There is nothing to drain: devices are connected to the broker itself.
const GRACE: Duration = Duration::from_secs(5);

/// Arguments of `catrust-agent mosquitto`.
#[derive(Debug, Args)]
pub struct MosquittoArguments {
    #[command(flatten)]
    feed: FeedArguments,
    #[command(flatten, next_help_heading = "Mosquitto")]
    mosquitto: MosquittoSettings,
}

/// Drives the plugin until a signal. What the broker was told stays in force for the
/// length of the lease.
///
/// # Errors
/// The broker's configuration would defeat the plugin, the agent cannot start, or it
/// ended by itself. A broker that is away is none: it is waited for.
pub async fn run(arguments: MosquittoArguments) -> anyhow::Result<()> {
    let MosquittoArguments { feed, mosquitto } = arguments;
    check_configuration(&mosquitto)?;
    if mosquitto.check {
        println!("nothing has to be changed");
        return Ok(());
    }
    let address = format!("unix:{}", mosquitto.control_socket.display());
    let enforcer = Arc::new(MosquittoEnforcer::start(mosquitto));
    let agent =
        Agent::start(feed.settings()?, Arc::clone(&enforcer) as _).await.context("the agent cannot start")?;
    let stop = CancellationToken::new();
    let mut tasks = Tasks::default();
    tasks.spawn_main("driver", {
        let stop = stop.clone();
        async move {
            // Its end, or the wish that it end.
            let _ = stop.run_until_cancelled(enforcer.ended()).await;
            Ok(())
        }
    });
    announce(&address, &agent).await?;
    let hang_up = || tracing::info!("SIGHUP: there is nothing to read again");
    let outcome = run_until_signal(tasks, &stop, GRACE, hang_up, agent.ended()).await;
    agent.stop().await;
    outcome
}
