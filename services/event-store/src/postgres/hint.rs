//! The hint that the log has grown: own commits at once, those of other replicas
//! by NOTIFY. A notification may be lost with its connection; readers also poll.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::write::CHANNEL;

/// Pause before listening again after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// The highest position known, and the task that listens; ends with its store.
#[derive(Debug)]
pub(super) struct Hint {
    sender: watch::Sender<u64>,
    listening: JoinHandle<()>,
}

impl Hint {
    /// Starts at `position` and listens on a connection of its own.
    pub(super) fn listen(options: &PgConnectOptions, position: u64) -> Self {
        let sender = watch::Sender::new(position);
        let listening = tokio::spawn(listen(options.clone(), sender.clone()));
        Self { sender, listening }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.sender.subscribe()
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

async fn listen(options: PgConnectOptions, sender: watch::Sender<u64>) {
    let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with(options);
    loop {
        if let Err(error) = follow(&pool, &sender).await {
            tracing::debug!(%error, "not listening to the log; trying again");
        }
        sleep(PAUSE).await;
    }
}

/// Follows the notifications until listening fails.
async fn follow(pool: &sqlx::PgPool, sender: &watch::Sender<u64>) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    loop {
        if let Ok(position) = listener.recv().await?.payload().parse() {
            raise(sender, position);
        }
    }
}
