//! How publishing goes, for metrics, health and traces.

use catrust_domain::RecordedEvent;

/// A snapshot of the publisher.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublisherStatus {
    /// Last position known to be on the feed, whoever put it there.
    pub published_position: u64,
    /// Last position of the log known to the publisher; never below the one above.
    pub log_head: u64,
    /// Whether this replica holds the publisher lease.
    pub leading: bool,
    /// Whether this replica publishes for a holder that lags.
    pub covering: bool,
    /// Whether the feed answered last.
    pub feed_available: bool,
    /// How often this replica has filled the feed again from the beginning: it was
    /// set aside because it was not this log's, or had lost everything.
    pub rebuilds: u64,
    /// How many streams there are, the one in use among them; 0 until they were counted.
    pub streams: u64,
    /// Whether the feed is being filled, by more than one read of the log.
    pub filling: bool,
    /// Why the feed is not filled, where there may be no further stream, or the one that there is
    /// cannot be used: heads and new changes go out all the same, past the stream.
    pub live_only: Option<String>,
    /// Why the log is known to be set back, as the feed or another part of this server shows:
    /// nothing is published then, heads and new changes neither.
    pub set_back: Option<String>,
    /// Why publishing is interrupted, with causes; for operators, not for callers.
    pub last_error: Option<String>,
}

impl PublisherStatus {
    /// Whether this replica speaks to those who listen now: heads, and changes that the feed
    /// comes to later.
    #[must_use]
    pub fn speaks(&self) -> bool {
        let publishes = self.leading || self.covering;
        publishes && self.set_back.is_none() && (self.feed_available || self.live_only.is_some())
    }
}

/// What the publisher tells while it works. Called on its task: be quick.
pub trait PublisherHooks: Send + Sync + 'static {
    /// The event is about to be published; the span lasts until it is acknowledged.
    /// Called only while the publisher keeps up: not for each event of a backlog.
    fn publishing(&self, _event: &RecordedEvent) -> tracing::Span {
        tracing::Span::none()
    }

    /// The event is on the feed. May be called again after an interruption.
    fn published(&self, _event: &RecordedEvent) {}

    /// The feed is filled again from the beginning.
    fn rebuilding(&self, _reason: &str) {}
}

/// Tells nobody.
impl PublisherHooks for () {}
