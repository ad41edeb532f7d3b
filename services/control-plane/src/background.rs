//! Small tasks that run beside the calls: readiness, pruning.

use std::sync::Arc;
use std::time::Duration;

use catrust_domain::error_chain;
use catrust_event_store::{Clock, CommandStore, Maintenance};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::admin::Unreadiness;
use crate::fleet::census::agree;
use crate::ground::LogGround;
use crate::lifecycle::Stages;

/// How often the store is asked whether it is there, and how long it may take.
const PING_INTERVAL: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// How often old replies are forgotten.
const PRUNE_INTERVAL: Duration = Duration::from_secs(3600);

/// Keeps health and readiness true: serving while the store answers and the ground is sound,
/// until `unready`.
/// `services` are the names that health knows, besides the empty one. Ends the
/// streams of `Watch` when the server drains: it would wait for them for ever.
pub(crate) async fn watch_readiness(
    store: Arc<dyn Maintenance>,
    mut health: HealthReporter,
    services: &'static [&'static str],
    ground: LogGround,
    readiness: watch::Sender<Unreadiness>,
    stages: Stages,
) {
    let mut ticks = interval(PING_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ground_states = ground.follow();
    loop {
        tokio::select! {
            () = stages.unready.cancelled() => {}
            _ = ground_states.changed() => {}
            _ = ticks.tick() => {}
        }
        let unready: Unreadiness = if stages.unready.is_cancelled() {
            Some("draining".into())
        } else if let Some(reason) = ground.reason() {
            Some(format!("the log was set back: {reason}").into())
        } else {
            match timeout(PING_TIMEOUT, store.ping()).await {
                Ok(Ok(())) => None,
                Ok(Err(_)) | Err(_) => Some("the database does not answer".into()),
            }
        };
        let status = if unready.is_none() { ServingStatus::Serving } else { ServingStatus::NotServing };
        let changed = readiness.send_if_modified(|known| {
            let changed = *known != unready;
            known.clone_from(&unready);
            changed
        });
        if changed {
            for service in services.iter().chain(&[""]) {
                health.set_service_status(*service, status).await;
            }
        }
        if stages.unready.is_cancelled() {
            break;
        }
    }
    stages.draining.cancelled().await;
    for service in services.iter().chain(&[""]) {
        health.clear_service_status(service).await;
    }
    stages.stopping.cancelled().await;
}

/// What is forgotten by age goes by the clock of the database, where the replica's agrees.
pub(crate) struct PruningClocks {
    pub(crate) database: Clock,
    pub(crate) own: Clock,
}

/// Forgets stored replies older than `days`.
pub(crate) async fn prune_replies(
    store: Arc<dyn CommandStore>,
    clocks: PruningClocks,
    days: u32,
    stop: CancellationToken,
) {
    let mut ticks = interval(PRUNE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let (now, own) = ((clocks.database)(), (clocks.own)());
        if !agree(now, own) {
            tracing::warn!(database = %now, replica = %own, "the clocks differ: no reply is forgotten");
            continue;
        }
        let before = now.plus_seconds(-i64::from(days) * 86_400);
        match store.prune_replies(before).await {
            Ok(0) => {}
            Ok(replies) => tracing::info!(replies, "forgot old replies"),
            Err(error) => tracing::warn!(error = error_chain(&error), "old replies could not be forgotten"),
        }
    }
}
