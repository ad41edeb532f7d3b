//! Follows the log on behalf of this replica: keeps the [`Directory`] up to date
//! and hands the messages of instances that somebody watches to the in-process
//! feed.
//!
//! Woken by the store's hint, and by a clock in any case. An event that cannot be
//! read stops the follower for good, and with it the server: what it would skip
//! may be a CA that somebody still trusts.
//!
//! Each read proves that the log still has the row that was read last. Where it has not, the
//! database was set back, or a log epoch has begun: then everything known is read anew.
//! Nothing is read from a database server before a commit has confirmed it: a superseded one
//! would show what the log never had. Rows that were merely read show no set-back either, where
//! another server has not got them; those up to the end of a freshness lease do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use catrust_domain::event::UndecodableEvent;
use catrust_domain::{EpochInForce, Instance, LogEntry, LogEvidence, LogHead, LogMark, Verdict, error_chain};
use catrust_event_store::{Clock, EventStore, Ground as _, PrimaryInUse, StoreError};
use catrust_trust_feed::{FeedError, InProcessFeed, MessageCache, MessageError, TrustFeed as _};
use opentelemetry::metrics::{Gauge, Meter};
use tokio_util::sync::CancellationToken;

use crate::directory::Directory;
use crate::ground::{GroundJudge, LogGround};

/// How often the log is read without a hint: a hint can be lost with its connection.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Events per read.
const CHUNK: u32 = 1_000;
/// Instances per page of the first fill.
const FILL_PAGE: u32 = 500;

/// Why everything is read anew.
const MERELY_READ: &str = "the log lacks rows that were read, and that nothing relied on";

/// Why the follower stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FollowerError {
    /// The store does not answer.
    #[error("the log cannot be read")]
    Store(#[source] StoreError),
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
    store: Arc<dyn EventStore>,
    directory: Arc<Directory>,
    feed: InProcessFeed,
    messages: Arc<MessageCache>,
    judge: Arc<GroundJudge>,
    ground: LogGround,
    clock: Clock,
    log_head: Gauge<u64>,
    /// The last row that was read: the log has it, or was set back.
    seen: LogHead,
    /// Epoch of that row.
    epoch: EpochInForce,
    /// The database server that the log was last read from, and has that row.
    turn: u64,
    /// The last row that was read and is more than that: commits were acknowledged after it, or it
    /// was signed.
    relied_on: LogHead,
}

impl Follower {
    /// Fills the directory, and starts at the end of the log as it was before.
    ///
    /// # Errors
    /// [`FollowerError::Store`].
    pub(crate) async fn start(
        store: Arc<dyn EventStore>,
        directory: Arc<Directory>,
        messages: Arc<MessageCache>,
        (judge, ground): (Arc<GroundJudge>, LogGround),
        clock: Clock,
        meter: &Meter,
    ) -> Result<Self, FollowerError> {
        let (seen, epoch, turn, instances) = all_instances(&*store).await.map_err(FollowerError::Store)?;
        directory.replace(&seen, &instances);
        let feed = InProcessFeed::starting_after(store.log_id(), &seen);
        let log_head = meter
            .u64_gauge("catrust.log.head.position")
            .with_description("Last position of the log that this replica has seen")
            .build();
        log_head.record(seen.position, &[]);
        let relied_on = LogHead::EMPTY;
        Ok(Self {
            store,
            directory,
            feed,
            messages,
            judge,
            ground,
            clock,
            log_head,
            seen,
            epoch,
            turn,
            relied_on,
        })
    }

    /// The feed that the follower fills.
    #[must_use]
    pub(crate) fn feed(&self) -> InProcessFeed {
        self.feed.clone()
    }

    /// Follows until `stop`. A store that is away is waited for.
    ///
    /// # Errors
    /// All of [`FollowerError`] but `Store`: the server MUST stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), FollowerError> {
        let mut appended = self.store.appended();
        let mut store_is_away = false;
        let mut polled: Option<Instant> = None;
        loop {
            self.take_recent().await?;
            let hinted = *appended.borrow_and_update() > self.seen.position;
            let due = polled.is_none_or(|polled| polled.elapsed() >= POLL_INTERVAL);
            if due || (hinted && !store_is_away) {
                polled = Some(Instant::now());
                match self.look().await {
                    Ok(backlog) => {
                        store_is_away = false;
                        if backlog {
                            continue;
                        }
                    }
                    Err(FollowerError::Store(error)) => {
                        if !store_is_away {
                            tracing::warn!(
                                error = error_chain(&error),
                                "the log cannot be read; trying again"
                            );
                        }
                        store_is_away = true;
                    }
                    Err(fatal) => return Err(fatal),
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

    /// Reads on from the last row seen, which the log must still have; whether there is more.
    async fn look(&mut self) -> Result<bool, FollowerError> {
        let primary = self.primary();
        if !primary.confirmed {
            return Ok(false);
        }
        let turned = primary.turn != self.turn;
        let since = if turned { &self.relied_on } else { &self.seen };
        let rows = match self.store.read_from(since, CHUNK).await {
            Ok(rows) => rows,
            Err(StoreError::SetBack { .. }) => {
                self.found_set_back().await.map_err(FollowerError::Store)?;
                return Ok(false);
            }
            Err(error) => return Err(FollowerError::Store(error)),
        };
        if self.primary() != primary {
            // Whichever server they are from.
            return Ok(true);
        }
        // The row is there: a doubt that could not be confirmed is over.
        self.ground.regain_doubted();
        if turned {
            self.turn_to(primary.turn).await.map_err(FollowerError::Store)?;
            return Ok(true);
        }
        // Rows of another epoch are not applied onto what is known of this one.
        if *self.store.epoch().borrow() != self.epoch {
            self.begin_epoch().await.map_err(FollowerError::Store)?;
            return Ok(true);
        }
        let whole_chunk = rows.len() == CHUNK as usize;
        for row in rows {
            let position = row.position;
            let undecodable = |source| FollowerError::Undecodable { position, source };
            self.take(&LogEntry::try_from(row).map_err(undecodable)?).await?;
        }
        self.log_head.record(self.seen.position, &[]);
        self.rely_on_lease();
        Ok(whole_chunk)
    }

    fn primary(&self) -> PrimaryInUse {
        *self.store.primary().borrow()
    }

    /// Goes on with another database server, which has what is relied on: what was merely read
    /// from the one before may have been there alone.
    async fn turn_to(&mut self, turn: u64) -> Result<(), StoreError> {
        self.messages.forget();
        if *self.store.epoch().borrow() != self.epoch {
            self.begin_epoch().await?;
        } else if !is_same_row(&self.seen, &self.relied_on) {
            self.begin_anew("another database server is in use").await?;
        }
        self.turn = turn;
        Ok(())
    }

    /// What the directory came through and a commit was acknowledged after is more than read.
    fn rely_on_lease(&mut self) {
        let leases = self.store.freshness();
        if let Some(lease) = &*leases.borrow()
            && lease.end.position > self.relied_on.position
            && self.directory.came_through(&lease.end)
        {
            self.relied_on = LogHead { position: lease.end.position, hash: lease.end.hash, ..LogHead::EMPTY };
        }
    }

    /// The log has lost a row that was read here: what that comes to is for the store to
    /// confirm, on a connection of its own.
    async fn found_set_back(&mut self) -> Result<(), StoreError> {
        if *self.store.epoch().borrow() != self.epoch {
            return self.begin_epoch().await;
        }
        if self.relied_on.position == 0 {
            return self.begin_anew(MERELY_READ).await;
        }
        if self.ground.reason().is_some() {
            return Ok(());
        }
        self.ground.doubt();
        let evidence = LogEvidence {
            epoch: self.epoch.epoch,
            mark: LogMark::Row { position: self.relied_on.position, hash: self.relied_on.hash },
            witness: "this server".to_owned(),
            seen_at: (self.clock)(),
        };
        match self.judge.accuse(&evidence).await? {
            // The row is there, where commits are acknowledged.
            Verdict::Agrees => {
                if !is_same_row(&self.seen, &self.relied_on) {
                    self.begin_anew(MERELY_READ).await?;
                }
                self.ground.regain();
            }
            Verdict::Ended => self.begin_epoch().await?,
            // The judge says so to whom it concerns.
            Verdict::SetBack(_) | Verdict::Superseded => {}
        }
        Ok(())
    }

    /// Follows an epoch that has begun: what it lacks contradicts nothing any more.
    async fn begin_epoch(&mut self) -> Result<(), StoreError> {
        self.begin_anew("a log epoch has begun").await?;
        self.ground.regain();
        Ok(())
    }

    /// Builds what is known anew: the log may lack what was read before. Whether that is a
    /// set-back is not for this to say.
    async fn begin_anew(&mut self, reason: &str) -> Result<(), StoreError> {
        let (seen, epoch, turn, instances) = all_instances(&*self.store).await?;
        tracing::warn!(
            epoch = epoch.epoch.0,
            position = seen.position,
            "{reason}: what this replica knew is read anew"
        );
        self.messages.forget();
        self.directory.replace(&seen, &instances);
        self.feed.go_on_after(self.store.log_id(), &seen);
        if epoch != self.epoch {
            self.relied_on = LogHead::EMPTY;
        }
        (self.seen, self.epoch, self.turn) = (seen, epoch, turn);
        Ok(())
    }

    /// Takes what this process committed itself: it need not be read back.
    async fn take_recent(&mut self) -> Result<(), FollowerError> {
        while self.ground.reason().is_none()
            && self.primary() == (PrimaryInUse { turn: self.turn, confirmed: true })
            && *self.store.epoch().borrow() == self.epoch
            && let Some(batch) = self.store.recent(self.seen.position)
            && batch.first().is_some_and(|entry| entry.row.compute_hash(&self.seen.hash) == entry.row.hash)
        {
            for entry in &*batch {
                self.take(entry).await?;
            }
            // They were acknowledged.
            self.relied_on = self.seen;
            self.log_head.record(self.seen.position, &[]);
        }
        Ok(())
    }

    async fn take(&mut self, entry: &LogEntry) -> Result<(), FollowerError> {
        let LogEntry { row, event } = entry;
        // Who subscribes after this look reads a bundle that has the event already:
        // readers subscribe first and load the bundle then.
        let is_signed = self.feed.is_followed(&row.instance_id);
        if is_signed {
            let message = self.messages.message(entry).map_err(FollowerError::Message)?;
            self.feed.publish(std::slice::from_ref(&message)).await.map_err(FollowerError::Feed)?;
        } else {
            self.feed.advance(self.store.log_id(), row);
        }
        self.directory.apply(row, event);
        self.seen = LogHead { position: row.position, hash: row.hash, ..LogHead::EMPTY };
        if is_signed {
            self.relied_on = self.seen;
        }
        Ok(())
    }
}

fn is_same_row(one: &LogHead, other: &LogHead) -> bool {
    (one.position, one.hash) == (other.position, other.hash)
}

/// The end of the log, its epoch, the database server that said so, and all instances as they are
/// at that end or later.
async fn all_instances(
    store: &dyn EventStore,
) -> Result<(LogHead, EpochInForce, u64, Vec<Instance>), StoreError> {
    loop {
        let turn = store.primary().borrow().turn;
        // The head before the list: what the list shows beyond it is applied again, which
        // changes nothing.
        let seen = store.head().await?;
        let epoch = *store.epoch().borrow();
        let mut instances = Vec::new();
        let mut after = 0;
        loop {
            let page = store.list_instances(after, FILL_PAGE).await?;
            let Some(last) = page.items.last() else { break };
            after = last.registered_position;
            instances.extend(page.items);
        }
        // An epoch that began meanwhile counts revisions anew, and another server may have
        // another log: the list would be of both.
        if *store.epoch().borrow() == epoch && store.primary().borrow().turn == turn {
            return Ok((seen, epoch, turn, instances));
        }
    }
}
