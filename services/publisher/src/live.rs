//! New changes of trust, past the feed: what the feed does not have a moment after its commit
//! goes at once to whoever listens.
//!
//! ```text
//! the log:    1 2 3 … 90 000 90 001
//! the feed:   1 2 3 … 17 000                   being filled, or there may be no further stream
//! live:                      90 001            now, on a subject that no stream holds
//! ```
//!
//! The message is the one that the feed comes to later, byte by byte, so that whoever hears
//! both has it once.

use std::sync::Arc;
use std::time::Duration;

use catrust_domain::{LogEntry, error_chain};
use tokio_util::sync::CancellationToken;

use crate::failure::PublishError;
use crate::{CHUNK, POLL_INTERVAL, Publisher, PublisherStatus, decode, work_on};

/// How long the feed may take for a change before it goes past the feed. Not while it is being
/// filled.
const GRACE: Duration = Duration::from_millis(50);

/// Sends them while this replica publishes, until `shutdown`.
pub(super) async fn send(publisher: &Publisher, shutdown: &CancellationToken) {
    let sending = async {
        let mut sender = LiveSender { publisher, sent: None, turn: publisher.primary().turn };
        loop {
            if let Err(error) = sender.turn().await {
                // Told by the publishing task, which meets the same.
                tracing::debug!(error = error_chain(&error), "changes could not be sent past the feed");
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
    };
    shutdown.run_until_cancelled(sending).await;
}

struct LiveSender<'a> {
    publisher: &'a Publisher,
    /// Last position that was sent or need not be; `None` while the feed keeps up.
    sent: Option<u64>,
    /// The database server that these positions are of.
    turn: u64,
}

impl LiveSender<'_> {
    /// Waits for news, and sends what the feed does not have in time.
    async fn turn(&mut self) -> Result<(), PublishError> {
        let log = &self.publisher.parts.log;
        let mut appended = log.appended();
        let known = *appended.borrow_and_update();
        let status = self.publisher.status.borrow().clone();
        let turn = self.publisher.primary().turn;
        if std::mem::replace(&mut self.turn, turn) != turn {
            self.sent = None;
        }
        if !self.publisher.speaks() {
            self.sent = None;
        } else if status.filling || status.live_only.is_some() {
            // The hint may be lost, and nobody else looks at the end of the log meanwhile.
            let head = log.head().await?.position;
            self.send_up_to(head, &status).await?;
        } else if known > status.published_position && !self.comes_by_itself(known).await {
            self.send_up_to(known, &status).await?;
        } else {
            self.sent = None;
        }
        // The sender lives as long as the store.
        let _ = tokio::time::timeout(POLL_INTERVAL, appended.changed()).await;
        Ok(())
    }

    async fn comes_by_itself(&self, position: u64) -> bool {
        let mut status = self.publisher.status.subscribe();
        let comes = status.wait_for(|status| status.published_position >= position || !status.speaks());
        tokio::time::timeout(GRACE, comes).await.is_ok()
    }

    /// Sends the changes up to `head`, of older ones the newest thousand.
    async fn send_up_to(&mut self, head: u64, status: &PublisherStatus) -> Result<(), PublishError> {
        let oldest = status.published_position.max(head.saturating_sub(u64::from(CHUNK)));
        // Above the end of the log it is of a history that has ended.
        let sent = self.sent.filter(|sent| *sent <= head);
        let mut after = sent.map_or(oldest, |sent| sent.max(status.published_position));
        while after < head {
            let entries = self.entries_after(after).await?;
            let Some(last) = entries.last().map(|entry| entry.row.position) else { break };
            if !self.publisher.speaks() || self.publisher.primary().turn != self.turn {
                break;
            }
            for entry in entries.iter().filter(|entry| entry.event.trust_effect().is_some()) {
                let message = self.publisher.parts.messages.message(entry)?;
                self.publisher.parts.feed.publish_live(&message).await?;
            }
            after = last;
            self.sent = Some(after);
        }
        Ok(())
    }

    async fn entries_after(&self, after: u64) -> Result<Arc<[LogEntry]>, PublishError> {
        let log = &self.publisher.parts.log;
        if let Some(batch) = log.recent(after) {
            return Ok(batch);
        }
        let rows = log.read(after, CHUNK).await?;
        let (entries, stopped) = work_on(rows.len(), || decode(rows)).await;
        match stopped {
            Some(error) if entries.is_empty() => Err(error.into()),
            _ => Ok(entries.into()),
        }
    }
}
