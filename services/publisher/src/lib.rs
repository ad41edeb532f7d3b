//! Copies the log to the feed: every event, at the sequence that is its position.
//!
//! There is no cursor table. The end of the feed *is* the cursor: its last message
//! names the row that it was made of, and the hash of that row covers every row
//! before it. At the start, after any error, and every few seconds, the publisher
//! reads that end and compares it with the log ([`alignment`]):
//!
//! ```text
//! the log:   1 2 3 4 5 6 7 8 9          (the record)
//! the feed:  1 2 3 4 5 6                same hash at 6: go on with 7
//! the feed:  1 2 3 4 5 6'               another hash:   not ours; set it aside, go on with 1
//! the feed:  1 2 … 12                   ahead:          not ours; the same
//! the feed:  a b c d e f                another log:    somebody else's; leave it alone
//! the feed:  (empty)                    go on with 1
//! ```
//!
//! Any number of publishers may run at once: a message is stored at its position or
//! nowhere, and all of them make the same bytes. The lease only saves work, and
//! decides who may set a feed aside. A replica without it stands by, and publishes all the
//! same when the feed falls behind the log for a second: the holder may be paused, or
//! cut off from NATS.
//!
//! Nothing that a feed held is deleted: it is set aside, and another one takes its place. Where
//! there may be no further one, heads and new changes still go out, past the feed ([`live`]).
//!
//! Where another database server takes over, what was read from the one before counts for nothing:
//! the end of the feed is compared with the log again, and nothing is published before a commit has
//! shown that the new one is in charge.
//!
//! Delivery is at least once, in the order of positions; a feed that was away for
//! hours is brought up to date at the rate of JetStream, and new changes do not wait for that.

mod alignment;
mod failure;
mod heads;
mod known_keys;
mod live;
mod read_ground;
mod role;
mod status;
mod witness;

use std::sync::Arc;
use std::time::Duration;

use catrust_domain::{LogEntry, LogHead, RecordedEvent, Timestamp, error_chain};
use catrust_event_store::{Clock, EventLog, Ground, PrimaryInUse};
use catrust_signing::{KeySet, SigningKey};
use catrust_trust_feed::{FeedError, FeedMessage, FeedTail, MessageCache, MessageError, TrustFeed};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use alignment::Misfit;
use alignment::{Alignment, Seen, align};
pub use failure::PublishError;
use failure::Trouble;
pub use heads::HeadSource;
pub use known_keys::{KnownKeys, SignedMessage, SignedRow};
pub use read_ground::ReadGround;
use role::Role;
pub use status::{PublisherHooks, PublisherStatus};

/// Events per read of the log.
const CHUNK: u32 = 1_000;
/// How often the log is read without a hint: a hint can be lost with its connection.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How often the end of the feed is compared with the log while all seems well: a feed
/// can be wiped without a word.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Pauses after failures: from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often the streams are counted.
const COUNT_INTERVAL: Duration = Duration::from_secs(60);
/// Events of a chunk that are decoded and signed on the spot; more would hold up other tasks.
const SIGNED_IN_PLACE: usize = 16;

/// What a publisher works with.
pub struct PublisherParts {
    /// The log that is copied.
    pub log: Arc<dyn EventLog>,
    /// Where it is copied to.
    pub feed: Arc<dyn TrustFeed>,
    /// Makes the messages, each one once for the whole replica.
    pub messages: Arc<MessageCache>,
    /// Signs the heads.
    pub key: Arc<SigningKey>,
    /// The key set in force, which goes before the heads; `None` where agents have the key pinned.
    pub key_set: watch::Receiver<Option<Arc<KeySet>>>,
    /// What the heads say.
    pub heads: Arc<dyn HeadSource>,
    /// Who is told while it works.
    pub hooks: Arc<dyn PublisherHooks>,
    /// Whether a feed that holds another log may be set aside.
    pub take_over: bool,
    /// Where a feed is held against the log that the log contradicts.
    pub ground: Arc<dyn Ground>,
    /// Tells when a witness was seen.
    pub clock: Clock,
}

/// Publishes for one replica. See the crate's documentation.
pub struct Publisher {
    parts: PublisherParts,
    status: watch::Sender<PublisherStatus>,
}

impl Publisher {
    /// Makes a publisher; the receiver tells how it goes.
    #[must_use]
    pub fn new(parts: PublisherParts) -> (Self, watch::Receiver<PublisherStatus>) {
        let (status, receiver) = watch::channel(PublisherStatus::default());
        (Self { parts, status }, receiver)
    }

    /// Publishes until `shutdown`. No failure ends it: it says so once, tries again,
    /// and says when it is over.
    pub async fn run(self, shutdown: CancellationToken) {
        let work = Work {
            publisher: &self,
            role: Role::default(),
            cursor: None,
            seen: None,
            conflict: None,
            owned: false,
            checked_at: Instant::now(),
            read_at: Instant::now(),
            primary: self.primary(),
            appended: self.parts.log.appended(),
            counted_at: None,
            trouble: Trouble::default(),
        };
        tokio::join!(work.run(&shutdown), heads::send(&self, &shutdown), live::send(&self, &shutdown));
    }

    /// Whether this replica speaks to those who listen now; never for a log that is set back, nor for
    /// a database server that may be a superseded one.
    fn speaks(&self) -> bool {
        self.status.borrow().speaks() && self.primary().confirmed
    }

    /// The database server in use.
    fn primary(&self) -> PrimaryInUse {
        *self.parts.log.primary().borrow()
    }

    /// Whether a feed that was never found to be ours is another installation's, rather than ours
    /// with something foreign at its end: neither its end nor its oldest message is of this log.
    /// It may be all that their agents have.
    async fn is_somebody_elses(&self, misfit: Misfit) -> Result<bool, PublishError> {
        let foreign = matches!(misfit, Misfit::OtherLog { .. } | Misfit::NoLastMessage { .. });
        if !foreign || self.parts.take_over || self.parts.feed.tail().await?.messages == 0 {
            return Ok(false);
        }
        let oldest = self.parts.feed.oldest().await?;
        Ok(oldest.is_none_or(|message| message.log_id != self.parts.log.log_id()))
    }
}

/// Runs work on some events: on the spot where they are few, else where it does not hold
/// up other tasks.
async fn work_on<T: Send + 'static>(events: usize, work: impl FnOnce() -> T + Send + 'static) -> T {
    if events <= SIGNED_IN_PLACE {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// Makes messages of events, up to the first that has none.
fn messages(cache: &MessageCache, events: &[LogEntry]) -> (Vec<FeedMessage>, Option<MessageError>) {
    let mut made = Vec::with_capacity(events.len());
    for event in events {
        match cache.message(event) {
            Ok(message) => made.push(message),
            Err(error) => return (made, Some(error)),
        }
    }
    (made, None)
}

/// Decodes rows, up to the first that cannot be.
fn decode(rows: Vec<RecordedEvent>) -> (Vec<LogEntry>, Option<MessageError>) {
    let mut entries = Vec::with_capacity(rows.len());
    for row in rows {
        let position = row.position;
        match LogEntry::try_from(row) {
            Ok(entry) => entries.push(entry),
            Err(source) => return (entries, Some(MessageError::Undecodable { position, source })),
        }
    }
    (entries, None)
}

/// The row of the last message of a feed that holds the log.
fn last_row(tail: &FeedTail) -> LogHead {
    let hash = tail.last.map_or(LogHead::EMPTY.hash, |last| last.event_hash);
    LogHead { position: tail.sequence, hash, ..LogHead::EMPTY }
}

/// Whether there is more to do at once.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Backlog {
    /// The feed has the whole log.
    CaughtUp,
    /// A whole chunk was published: there may be more.
    More,
}

/// The publishing task and what it remembers.
struct Work<'a> {
    publisher: &'a Publisher,
    role: Role,
    /// Last row known to be on the feed; `None` when its end must be read.
    cursor: Option<LogHead>,
    /// The end of the feed when it was read last.
    seen: Option<Seen>,
    /// Another event at a position that the end of the feed does not show, and when
    /// the feed was created that holds it: it stays until that feed is set aside.
    conflict: Option<(u64, Timestamp)>,
    /// Whether the feed was found to hold this log since the start.
    owned: bool,
    checked_at: Instant,
    /// When the log itself was read last: what this process committed comes without.
    read_at: Instant,
    /// The database server that the cursor was compared on.
    primary: PrimaryInUse,
    appended: watch::Receiver<u64>,
    /// When the streams were counted last.
    counted_at: Option<Instant>,
    trouble: Trouble,
}

impl Work<'_> {
    async fn run(mut self, shutdown: &CancellationToken) {
        let mut appended = self.publisher.parts.log.appended();
        let mut epoch = self.publisher.parts.log.epoch();
        let mut pause = Duration::ZERO;
        loop {
            appended.borrow_and_update();
            let turn = shutdown.run_until_cancelled(self.turn()).await;
            let Some(turn) = turn else { return };
            let hinted = match turn {
                Ok(Backlog::More) => {
                    pause = Duration::ZERO;
                    continue;
                }
                Ok(Backlog::CaughtUp) => {
                    pause = Duration::ZERO;
                    self.role.publishes()
                }
                Err(error) => {
                    self.cursor = None;
                    if error.is_ordinary() {
                        self.stop_covering();
                    }
                    pause = if error.is_ordinary() && pause.is_zero() {
                        Duration::from_millis(1)
                    } else {
                        (pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE)
                    };
                    self.tell(&error);
                    false
                }
            };
            let wait = if !pause.is_zero() { pause } else { self.role.interval() };
            tokio::select! {
                () = shutdown.cancelled() => return,
                // The sender lives as long as the store.
                _ = appended.changed(), if hinted => {}
                // What stopped it may be over.
                _ = epoch.changed() => pause = Duration::ZERO,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Does what there is to do in the current role.
    async fn turn(&mut self) -> Result<Backlog, PublishError> {
        self.keep_role().await?;
        if !self.role.publishes() || !self.is_confirmed() {
            return Ok(Backlog::CaughtUp);
        }
        if self.checked_at.elapsed() >= CHECK_INTERVAL {
            self.cursor = None;
        }
        let after = match self.cursor {
            Some(row) => row,
            None => self.realign().await?,
        };
        let progress = self.publish_after(after).await?;
        if let Some(away) = self.trouble.over() {
            tracing::info!(away_ms = u64::try_from(away.as_millis()).unwrap_or(u64::MAX), "publishing again");
        }
        Ok(progress)
    }

    /// Whether a commit has confirmed the database server in use. Forgets what was read from another
    /// one: it may have been there alone.
    fn is_confirmed(&mut self) -> bool {
        let primary = self.publisher.primary();
        if primary.turn != self.primary.turn {
            self.cursor = None;
            self.publisher.parts.messages.forget();
        }
        self.primary = primary;
        primary.confirmed
    }

    /// Publishes up to a chunk of the log after the row `since`.
    async fn publish_after(&mut self, since: LogHead) -> Result<Backlog, PublishError> {
        let publisher = self.publisher;
        let after = since.position;
        let recent = publisher.parts.log.recent(after);
        let may_be_more = recent.is_some();
        let (events, head, stopped): (Arc<[LogEntry]>, _, _) = match recent {
            Some(batch) => {
                let head = batch.last().map_or(after, |entry| entry.row.position);
                (batch, head, None)
            }
            None if self.read_at.elapsed() < POLL_INTERVAL && *self.appended.borrow() <= after => {
                return Ok(Backlog::CaughtUp);
            }
            None => {
                self.read_at = Instant::now();
                let rows = publisher.parts.log.read_from(&since, CHUNK).await?;
                if publisher.primary() != self.primary {
                    // Whichever server they are from.
                    return Ok(Backlog::More);
                }
                let head = rows.last().map_or(after, |row| row.position);
                let (entries, stopped) = work_on(rows.len(), || decode(rows)).await;
                (entries.into(), head, stopped)
            }
        };
        if let Some(first) = events.first()
            && first.row.position != after + 1
        {
            return Err(PublishError::HoleInTheLog { after });
        }
        let (cache, entries) = (Arc::clone(&publisher.parts.messages), Arc::clone(&events));
        let (messages, unfit) = work_on(events.len(), move || messages(&cache, &entries)).await;
        if let Some(last) = messages.last() {
            let spans: Vec<tracing::Span> = match events.len() {
                0..=SIGNED_IN_PLACE => {
                    events.iter().map(|entry| publisher.parts.hooks.publishing(&entry.row)).collect()
                }
                _ => Vec::new(),
            };
            let outcome = publisher.parts.feed.publish(&messages).await;
            if let Err(FeedError::Conflict { position }) = &outcome {
                self.conflict = self.seen.as_ref().map(|seen| (*position, seen.created_at));
            }
            outcome?;
            self.owned = true;
            drop(spans);
            self.cursor = Some(LogHead { position: last.position, hash: last.event_hash, ..since });
            for entry in events.iter().take(messages.len()) {
                publisher.parts.hooks.published(&entry.row);
            }
            if let Some(seen) = &mut self.seen {
                seen.sequence = last.position;
            }
        }
        let published = messages.last().map_or(after, |message| message.position);
        self.note_success(published, head);
        self.note_filling(events.len() == CHUNK as usize);
        match unfit.or(stopped) {
            Some(error) => Err(error.into()),
            None if may_be_more || events.len() == CHUNK as usize => Ok(Backlog::More),
            None => Ok(Backlog::CaughtUp),
        }
    }

    /// Reads the end of the feed and finds where to go on; sets a feed aside that is not
    /// this log's.
    async fn realign(&mut self) -> Result<LogHead, PublishError> {
        let since = match self.weigh().await? {
            (Alignment::Continue { .. }, tail) => last_row(&tail),
            (Alignment::Refill, _) => {
                tracing::warn!("the feed has lost everything; filling it again from the log");
                self.note_rebuild("the feed was empty");
                LogHead::EMPTY
            }
            (Alignment::SetAside(misfit), _) => self.set_aside(misfit).await?,
        };
        self.checked_at = Instant::now();
        self.cursor = Some(since);
        if self.counted_at.is_none_or(|at| at.elapsed() >= COUNT_INTERVAL) {
            self.count_streams().await;
        }
        Ok(since)
    }

    /// Compares the end of the feed with the log, and remembers it where they fit. Gives that end
    /// as well.
    async fn weigh(&mut self) -> Result<(Alignment, FeedTail), PublishError> {
        let publisher = self.publisher;
        // The feed first: whatever it holds was in the log before.
        let tail = publisher.parts.feed.tail().await?;
        let head = publisher.parts.log.head().await?;
        let row_hash = if tail.sequence == head.position {
            Some(head.hash)
        } else if tail.sequence == 0 || tail.sequence > head.position {
            None
        } else {
            publisher.parts.log.read(tail.sequence - 1, 1).await?.first().map(|event| event.hash)
        };
        let log_id = publisher.parts.log.log_id();
        let alignment = align(&tail, head.position, row_hash, log_id, self.seen.as_ref());
        let Alignment::Continue { after } = alignment else { return Ok((alignment, tail)) };
        if let Some((position, conflicting)) = self.conflict {
            if conflicting == tail.created_at {
                return Ok((Alignment::SetAside(Misfit::OtherPast { position }), tail));
            }
            self.conflict = None;
        }
        if self.seen.as_ref().is_some_and(|seen| after < seen.sequence) {
            tracing::warn!(position = after, "the feed has lost its end; publishing it again");
        }
        self.seen = Some(Seen::from(&tail));
        self.owned |= after > 0;
        self.note_success(after, head.position);
        self.note_filling(head.position - after > u64::from(CHUNK));
        Ok((alignment, tail))
    }

    /// Sets the feed aside, when that is this replica's to do and still needed.
    async fn set_aside(&mut self, misfit: Misfit) -> Result<LogHead, PublishError> {
        if !self.owned && self.publisher.is_somebody_elses(misfit).await? {
            return Err(PublishError::SomebodyElses(misfit));
        }
        self.publisher.hear_witness().await?;
        if !self.role.holds_lease_now().await {
            return Err(PublishError::NotOurs(misfit));
        }
        // Another holder may have done it since the feed was read.
        let (misfit, made_at) = match self.weigh().await? {
            (Alignment::Continue { .. }, tail) => return Ok(last_row(&tail)),
            (Alignment::Refill, _) => return Ok(LogHead::EMPTY),
            (Alignment::SetAside(misfit), tail) => (misfit, tail.created_at),
        };
        self.publisher.parts.feed.set_aside(made_at).await?;
        tracing::error!(
            reason = %misfit,
            "the feed was not this log's; it is set aside and kept, and another one is filled in its place"
        );
        self.note_rebuild(&misfit.to_string());
        self.counted_at = None;
        Ok(LogHead::EMPTY)
    }

    async fn count_streams(&mut self) {
        self.counted_at = Some(Instant::now());
        match self.publisher.parts.feed.streams().await {
            Ok(streams) => self.publisher.status.send_modify(|status| status.streams = streams),
            // A login of an older deployment has no right on the other names.
            Err(error) => tracing::warn!(
                error = error_chain(&error),
                "the streams cannot be counted; a stream that has to be set aside could not be replaced either"
            ),
        }
    }

    fn note_rebuild(&mut self, reason: &str) {
        self.seen = None;
        self.conflict = None;
        self.publisher.status.send_modify(|status| {
            status.rebuilds += 1;
            status.published_position = 0;
            status.filling = true;
        });
        self.publisher.parts.hooks.rebuilding(reason);
    }

    fn note_success(&self, published: u64, head: u64) {
        self.publisher.status.send_if_modified(|status| {
            let next = PublisherStatus {
                published_position: published,
                log_head: head.max(published),
                feed_available: true,
                live_only: None,
                set_back: None,
                last_error: None,
                ..status.clone()
            };
            let changed = *status != next;
            *status = next;
            changed
        });
    }

    fn note_filling(&self, filling: bool) {
        self.publisher
            .status
            .send_if_modified(|status| std::mem::replace(&mut status.filling, filling) != filling);
    }

    /// Tells of a failure: each kind once, until publishing works again.
    fn tell(&mut self, error: &PublishError) {
        if error.is_ordinary() {
            return;
        }
        let text = error_chain(error);
        if self.trouble.begins(error) {
            match error {
                PublishError::Feed(FeedError::Unavailable(_)) | PublishError::Store(_) => {
                    tracing::warn!(error = text, "publishing is interrupted; trying again until it works");
                }
                _ => tracing::error!(error = text, "publishing has stopped; trying again until it works"),
            }
        }
        self.publisher.status.send_modify(|status| {
            let unusable = matches!(error, PublishError::Feed(_) | PublishError::SomebodyElses(_));
            status.live_only = None;
            status.set_back = error.set_back().map(str::to_owned);
            status.feed_available &= !unusable;
            // Somebody may have done it to the stream; who listens hears of changes all the same.
            if let PublishError::Feed(FeedError::NoFurtherStream(reason) | FeedError::Unsuitable(reason)) =
                error
            {
                status.live_only = Some(reason.clone());
            }
            status.last_error = Some(text);
        });
    }
}

#[cfg(test)]
mod tests;
