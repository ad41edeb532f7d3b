//! The database server that something was read from, before it is signed.

use std::time::Duration;

use catrust_event_store::{EventLog, PrimaryInUse, StoreError};
use tokio::sync::watch;
use tokio::time::timeout;

/// How long a commit may take to confirm a server; freshness leases come each second.
const CONFIRMATION: Duration = Duration::from_secs(3);

/// The server that is in use from when this is made on.
///
/// One that was superseded answers reads and does not know it: what it says is not signed
/// before it has acknowledged a commit.
pub(crate) struct ServerInUse {
    primary: watch::Receiver<PrimaryInUse>,
    turn: u64,
}

impl ServerInUse {
    /// MUST be made before what will be signed is read.
    pub(crate) fn of<L: EventLog + ?Sized>(log: &L) -> Self {
        let primary = log.primary();
        let turn = primary.borrow().turn;
        Self { primary, turn }
    }

    /// Waits until a commit has confirmed that server; what was read since may be signed then.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where none does in time, or another server is in use meanwhile:
    /// what was read MUST be read again.
    pub(crate) async fn confirmed(mut self) -> Result<(), StoreError> {
        let turn = self.turn;
        let over = self.primary.wait_for(|now| now.turn != turn || now.confirmed);
        match timeout(CONFIRMATION, over).await {
            Ok(Ok(now)) if now.turn == turn => Ok(()),
            Ok(Ok(_)) => Err(StoreError::Unavailable("another database server is in use now".into())),
            Ok(Err(closed)) => Err(StoreError::Internal(closed.into())),
            Err(late) => Err(StoreError::Unavailable(late.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(turn: u64, confirmed: bool) -> (watch::Sender<PrimaryInUse>, ServerInUse) {
        let (sender, primary) = watch::channel(PrimaryInUse { turn, confirmed });
        (sender, ServerInUse { primary, turn })
    }

    /// Ground rule 19: one durable commit before the first signature; what was read from another
    /// server is dropped.
    #[tokio::test(start_paused = true)]
    async fn only_what_a_confirmed_server_said_is_signed() {
        let (_sender, read) = reading(1, true);
        assert!(read.confirmed().await.is_ok());
        let (_sender, read) = reading(1, false);
        assert!(matches!(read.confirmed().await, Err(StoreError::Unavailable(_))));
        let (sender, read) = reading(1, false);
        let waiting = tokio::spawn(read.confirmed());
        sender.send_modify(|now| now.confirmed = true);
        assert!(waiting.await.unwrap().is_ok());
        let (sender, read) = reading(1, true);
        sender.send_replace(PrimaryInUse { turn: 2, confirmed: true });
        assert!(matches!(read.confirmed().await, Err(StoreError::Unavailable(_))));
    }
}
