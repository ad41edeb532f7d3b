//! Follows the log on behalf of this replica: keeps the [`Directory`] up to date
//! and hands the messages of instances that somebody watches to the in-process
//! feed.
//!
//! Woken by the store's hint, and by a clock in any case. An event that cannot be
//! read stops the follower for good, and with it the server: what it would skip
//! may be a CA that somebody still trusts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use catrust_domain::event::UndecodableEvent;
use catrust_domain::{LogEntry, error_chain};
use catrust_event_store::{EventLog, ReadModelStore, StoreError};
use catrust_trust_feed::{FeedError, InProcessFeed, MessageCache, MessageError, TrustFeed as _};
use opentelemetry::metrics::{Gauge, Meter};
use tokio_util::sync::CancellationToken;

use crate::directory::Directory;

/// How often the log is read without a hint: a hint can be lost with its connection.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Events per read.
const CHUNK: u32 = 1_000;
/// Instances per page of the first fill.
const FILL_PAGE: u32 = 500;

/// Why the follower stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FollowerError {
    /// The store refused the first fill.
    #[error("the directory of instances cannot be filled")]
    Fill(#[source] StoreError),
    /// An event of a newer version, or damaged.
    #[error("the log cannot be followed beyond position {position}")]
    Undecodable {
        /// Position of the event.
        position: u64,
        /// Why.
        #[source]
        source: UndecodableEvent,
    },
    /// No message can be made of an event.
    #[error("the log cannot be put into messages")]
    Message(#[source] MessageError),
    /// The in-process feed refused a message: a defect.
    #[error("the in-process feed is out of step")]
    Feed(#[source] FeedError),
}

/// The follower of one replica.
pub(crate) struct Follower {
    log: Arc<dyn EventLog>,
    directory: Arc<Directory>,
    feed: InProcessFeed,
    messages: Arc<MessageCache>,
    log_head: Gauge<u64>,
    position: u64,
}

impl Follower {
    /// Fills the directory, and starts at the end of the log as it was before.
    ///
    /// # Errors
    /// [`FollowerError::Fill`].
    pub(crate) async fn start(
        log: Arc<dyn EventLog>,
        read_model: &dyn ReadModelStore,
        directory: Arc<Directory>,
        messages: Arc<MessageCache>,
        meter: &Meter,
    ) -> Result<Self, FollowerError> {
        // The head first: what the list already shows beyond it is applied again,
        // which changes nothing.
        let head = log.head().await.map_err(FollowerError::Fill)?;
        let mut after = 0;
        loop {
            let page = read_model.list_instances(after, FILL_PAGE).await.map_err(FollowerError::Fill)?;
            let Some(last) = page.items.last() else { break };
            after = last.registered_position;
            page.items.iter().for_each(|instance| directory.insert(instance));
        }
        directory.start_at(&head);
        let feed = InProcessFeed::starting_after(log.log_id(), &head);
        let log_head = meter
            .u64_gauge("catrust.log.head.position")
            .with_description("Last position of the log that this replica has seen")
            .build();
        log_head.record(head.position, &[]);
        Ok(Self { log, directory, feed, messages, log_head, position: head.position })
    }

    /// The feed that the follower fills.
    #[must_use]
    pub(crate) fn feed(&self) -> InProcessFeed {
        self.feed.clone()
    }

    /// Follows until `stop`. A store that is away is waited for.
    ///
    /// # Errors
    /// All of [`FollowerError`] but `Fill`: the server MUST stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), FollowerError> {
        let mut appended = self.log.appended();
        let mut store_is_away = false;
        let mut polled: Option<Instant> = None;
        loop {
            self.take_recent().await?;
            let hinted = *appended.borrow_and_update() > self.position;
            let due = polled.is_none_or(|polled| polled.elapsed() >= POLL_INTERVAL);
            if due || (hinted && !store_is_away) {
                polled = Some(Instant::now());
                match self.log.read(self.position, CHUNK).await {
                    Ok(rows) => {
                        store_is_away = false;
                        let whole_chunk = rows.len() == CHUNK as usize;
                        for row in rows {
                            let position = row.position;
                            let undecodable = |source| FollowerError::Undecodable { position, source };
                            self.take(&LogEntry::try_from(row).map_err(undecodable)?).await?;
                        }
                        self.log_head.record(self.position, &[]);
                        if whole_chunk {
                            continue;
                        }
                    }
                    Err(error) => {
                        if !store_is_away {
                            tracing::warn!(
                                error = error_chain(&error),
                                "the log cannot be read; trying again"
                            );
                        }
                        store_is_away = true;
                    }
                }
            }
            let until_poll =
                POLL_INTERVAL.saturating_sub(polled.map_or(POLL_INTERVAL, |polled| polled.elapsed()));
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                changed = appended.changed(), if !store_is_away => {
                    // The sender lives as long as the store.
                    let _ = changed;
                }
                () = tokio::time::sleep(until_poll) => {}
            }
        }
    }

    /// Takes what this process committed itself: it need not be read back.
    async fn take_recent(&mut self) -> Result<(), FollowerError> {
        while let Some(batch) = self.log.recent(self.position) {
            for entry in &*batch {
                self.take(entry).await?;
            }
            self.log_head.record(self.position, &[]);
        }
        Ok(())
    }

    async fn take(&mut self, entry: &LogEntry) -> Result<(), FollowerError> {
        let LogEntry { row, event } = entry;
        // Who subscribes after this look reads a bundle that has the event already:
        // readers subscribe first and load the bundle then.
        if self.feed.is_followed(&row.instance_id) {
            let message = self.messages.message(entry).map_err(FollowerError::Message)?;
            self.feed.publish(std::slice::from_ref(&message)).await.map_err(FollowerError::Feed)?;
        } else {
            self.feed.advance(self.log.log_id(), row);
        }
        self.directory.apply(row, event);
        self.position = row.position;
        Ok(())
    }
}
