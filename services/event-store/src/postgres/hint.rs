//! The hints that the log has grown and that the fleet has changed: own commits to
//! the log at once, everything else by NOTIFY. A notification may be lost with its
//! connection; readers also poll.
//!
//! The notification of an own commit may be here before the answer to the COMMIT. It is
//! not passed on: readers would look for a batch that is not in memory yet, and read it
//! from the database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::receipts::RECEIPTS_CHANNEL;
use super::servers::DatabaseServers;
use super::write::CHANNEL;
use crate::owned_task::OwnedTask;
use crate::receipts::FleetChanges;

/// Pause before listening again after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// After how much silence the server is asked whether it is there.
const SILENCE: Duration = Duration::from_secs(5);

/// How long the server may take to be asked something.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The highest position known, and the task that listens; ends with its store.
#[derive(Debug)]
pub(super) struct Hint {
    sender: watch::Sender<u64>,
    fleet: FleetChanges,
    /// Where the last batch ends that this process began to commit. Whoever else's batch
    /// ends there (this one came to nothing, or has replies alone) is told of by
    /// [`Hint::raise`] or found by the readers' poll.
    committing: Arc<AtomicU64>,
    listening: OwnedTask,
}

impl Hint {
    /// Starts at `position` and listens on a connection of its own.
    pub(super) fn listen(servers: &Arc<DatabaseServers>, position: u64) -> Self {
        let sender = watch::Sender::new(position);
        let fleet = FleetChanges::new();
        let committing = Arc::new(AtomicU64::new(0));
        let handler = NotificationHandler {
            sender: sender.clone(),
            fleet: fleet.clone(),
            committing: Arc::clone(&committing),
        };
        let listening = OwnedTask::spawn(listen(Arc::clone(servers), handler));
        Self { sender, fleet, committing, listening }
    }

    /// Waits until the task that listens has ended, which only a panic does.
    pub(super) async fn ended(&self) {
        self.listening.ended().await;
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.sender.subscribe()
    }

    pub(super) fn fleet(&self) -> &FleetChanges {
        &self.fleet
    }

    /// Says that a batch of this process is being committed that ends at `position`:
    /// [`Hint::raise`] follows, when it is.
    pub(super) fn committing(&self, position: u64) {
        self.committing.store(position, Ordering::Relaxed);
    }

    /// Raises the highest position known.
    pub(super) fn raise(&self, position: u64) {
        raise(&self.sender, position);
    }
}

fn raise(sender: &watch::Sender<u64>, position: u64) {
    sender.send_if_modified(|known| {
        let grown = position > *known;
        *known = position.max(*known);
        grown
    });
}

/// What is done with notifications.
struct NotificationHandler {
    sender: watch::Sender<u64>,
    fleet: FleetChanges,
    committing: Arc<AtomicU64>,
}

impl NotificationHandler {
    fn take(&self, channel: &str, payload: &str) {
        if channel == RECEIPTS_CHANNEL {
            if let Ok(id) = payload.parse() {
                self.fleet.tell(id);
            }
        } else if let Ok(position) = payload.parse()
            && position != self.committing.load(Ordering::Relaxed)
        {
            raise(&self.sender, position);
        }
    }
}

async fn listen(servers: Arc<DatabaseServers>, handler: NotificationHandler) {
    loop {
        if let Err(error) = follow(&servers, &handler).await {
            tracing::debug!(%error, "not listening to the log; trying again");
        }
        sleep(PAUSE).await;
    }
}

/// Follows the notifications until listening fails, or another server is in use.
async fn follow(servers: &DatabaseServers, handler: &NotificationHandler) -> Result<(), sqlx::Error> {
    let turn = servers.turn();
    let options = servers.address_in_use().clone();
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
    let mut listener = within(CONNECT_TIMEOUT, PgListener::connect_with(&pool)).await?;
    within(CONNECT_TIMEOUT, listener.listen_all([CHANNEL, RECEIPTS_CHANNEL])).await?;
    while servers.turn() == turn {
        match timeout(SILENCE, listener.recv()).await {
            Ok(notification) => {
                let notification = notification?;
                handler.take(notification.channel(), notification.payload());
            }
            // A server that is gone without a word is silent, too.
            Err(_) => {
                within(CONNECT_TIMEOUT, sqlx::raw_sql("SELECT 1").execute(&mut listener)).await?;
            }
        }
    }
    Ok(())
}

async fn within<T>(
    limit: Duration,
    step: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout(limit, step).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_notification_of_an_own_batch_is_not_passed_on() {
        let handler = NotificationHandler {
            sender: watch::Sender::new(7),
            fleet: FleetChanges::new(),
            committing: Arc::default(),
        };
        let hint = handler.sender.subscribe();
        handler.committing.store(9, Ordering::Relaxed);
        handler.take(CHANNEL, "9");
        assert_eq!(*hint.borrow(), 7);
        handler.take(CHANNEL, "8");
        assert_eq!(*hint.borrow(), 8);
        handler.take(CHANNEL, "12");
        assert_eq!(*hint.borrow(), 12);
    }
}
