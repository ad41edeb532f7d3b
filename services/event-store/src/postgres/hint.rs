//! The hints that the log has grown and that the fleet has changed: own commits to
//! the log at once, everything else by NOTIFY. A notification may be lost with its
//! connection; readers also poll.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::receipts::RECEIPTS_CHANNEL;
use super::write::CHANNEL;
use crate::receipts::FleetChanges;

/// Pause before listening again after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// The highest position known, and the task that listens; ends with its store.
#[derive(Debug)]
pub(super) struct Hint {
    sender: watch::Sender<u64>,
    fleet: FleetChanges,
    listening: JoinHandle<()>,
}

impl Hint {
    /// Starts at `position` and listens on a connection of its own.
    pub(super) fn listen(options: &PgConnectOptions, position: u64) -> Self {
        let sender = watch::Sender::new(position);
        let fleet = FleetChanges::new();
        let listening = tokio::spawn(listen(options.clone(), sender.clone(), fleet.clone()));
        Self { sender, fleet, listening }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.sender.subscribe()
    }

    pub(super) fn fleet(&self) -> &FleetChanges {
        &self.fleet
    }

    /// Raises the highest position known.
    pub(super) fn raise(&self, position: u64) {
        raise(&self.sender, position);
    }
}

impl Drop for Hint {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

fn raise(sender: &watch::Sender<u64>, position: u64) {
    sender.send_if_modified(|known| {
        let grown = position > *known;
        *known = position.max(*known);
        grown
    });
}

async fn listen(options: PgConnectOptions, sender: watch::Sender<u64>, fleet: FleetChanges) {
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
    loop {
        if let Err(error) = follow(&pool, &sender, &fleet).await {
            tracing::debug!(%error, "not listening to the log; trying again");
        }
        sleep(PAUSE).await;
    }
}

/// Follows the notifications until listening fails.
async fn follow(
    pool: &sqlx::PgPool,
    sender: &watch::Sender<u64>,
    fleet: &FleetChanges,
) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen_all([CHANNEL, RECEIPTS_CHANNEL]).await?;
    loop {
        let notification = listener.recv().await?;
        if notification.channel() == RECEIPTS_CHANNEL {
            if let Ok(id) = notification.payload().parse() {
                fleet.tell(id);
            }
        } else if let Ok(position) = notification.payload().parse() {
            raise(sender, position);
        }
    }
}
