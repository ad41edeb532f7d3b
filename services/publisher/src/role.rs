//! Who publishes: the holder of the lease, or whoever must step in.
//!
//! ```text
//!            lease free, feed reachable               lease lost, or feed away for 3 s
//! Standby ───────────────────────────────▶ Leading ───────────────────────────────▶ Standby
//!    │  ▲                                     ▲
//!    │  └── somebody else publishes ──┐       │ lease free
//!    └── feed 1 s behind the log ──▶ Covering ┘
//! ```

use std::time::Duration;

use catrust_event_store::PublisherLease;
use tokio::time::Instant;

use crate::failure::PublishError;
use crate::{POLL_INTERVAL, Work};

/// How often a standby compares feed and log.
const STANDBY_INTERVAL: Duration = Duration::from_millis(250);
/// How often the lease is asked for, and asked after.
const LEASE_INTERVAL: Duration = Duration::from_secs(1);
/// How long the feed may be behind the log before a standby steps in.
const LAG_LIMIT: Duration = Duration::from_secs(1);
/// How long a replica covers for the holder before it looks whether it still must.
const COVER_TIME: Duration = Duration::from_secs(30);
/// How long the holder may be without feed before it lets another try.
const FEEDLESS_LIMIT: Duration = Duration::from_secs(3);

/// The part that this replica plays.
pub(super) struct Role {
    part: Part,
    lease_asked_at: Option<Instant>,
    /// Standby: since when the feed has been short of which position.
    behind: Option<(Instant, u64)>,
    /// When the feed was last reached.
    fed_at: Instant,
}

enum Part {
    Standby,
    Leading(Box<dyn PublisherLease>),
    Covering(Instant),
}

impl Default for Role {
    fn default() -> Self {
        Self { part: Part::Standby, lease_asked_at: None, behind: None, fed_at: Instant::now() }
    }
}

impl Role {
    /// Whether this replica publishes now.
    pub const fn publishes(&self) -> bool {
        !matches!(self.part, Part::Standby)
    }

    /// How long to wait when there is nothing to do.
    pub const fn interval(&self) -> Duration {
        if self.publishes() { POLL_INTERVAL } else { STANDBY_INTERVAL }
    }

    /// Whether the lease is held at this moment; asks the store.
    pub async fn holds_lease_now(&mut self) -> bool {
        match &mut self.part {
            Part::Leading(lease) => lease.is_held().await,
            Part::Standby | Part::Covering(_) => false,
        }
    }

    fn lease_is_due(&self) -> bool {
        self.lease_asked_at.is_none_or(|at| at.elapsed() >= LEASE_INTERVAL)
    }
}

impl Work<'_> {
    /// Finds out which part to play.
    pub(super) async fn keep_role(&mut self) -> Result<(), PublishError> {
        let reached = {
            let status = self.publisher.status.borrow();
            status.feed_available || status.live_only.is_some()
        };
        if reached || self.cursor.is_some() {
            self.role.fed_at = Instant::now();
        }
        match &self.role.part {
            Part::Leading(_) => self.keep_leading().await,
            Part::Covering(since) => {
                if since.elapsed() > COVER_TIME {
                    self.play(Part::Standby);
                }
                self.ask_for_lease().await?;
            }
            Part::Standby => {
                self.stand_by().await?;
                self.ask_for_lease().await?;
            }
        }
        Ok(())
    }

    async fn keep_leading(&mut self) {
        if self.role.fed_at.elapsed() > FEEDLESS_LIMIT {
            tracing::warn!("the feed is out of reach; leaving it to another replica");
            self.play(Part::Standby);
        } else if self.role.lease_is_due() {
            self.role.lease_asked_at = Some(Instant::now());
            if !self.role.holds_lease_now().await {
                tracing::warn!("the publisher lease is lost");
                self.play(Part::Standby);
            }
        }
    }

    async fn ask_for_lease(&mut self) -> Result<(), PublishError> {
        if !self.role.lease_is_due() {
            return Ok(());
        }
        self.role.lease_asked_at = Some(Instant::now());
        if let Some(lease) = self.publisher.parts.log.try_lease_publisher().await? {
            tracing::info!("this replica publishes");
            self.role.fed_at = Instant::now();
            self.play(Part::Leading(lease));
        }
        Ok(())
    }

    /// Watches the feed; an error means that it cannot be reached, so that there is no
    /// use in the lease either.
    async fn stand_by(&mut self) -> Result<(), PublishError> {
        let tail = self.publisher.parts.feed.tail().await?;
        let head = self.publisher.parts.log.head().await?.position;
        let log_id = self.publisher.parts.log.log_id();
        let ours = tail.sequence <= head && tail.last.is_some_and(|last| last.log_id == log_id);
        let published = if ours { tail.sequence } else { 0 };
        self.note_success(published, head);
        // Told already; whoever publishes tells the rest.
        let _ = self.trouble.over();
        match self.role.behind {
            _ if published >= head => self.role.behind = None,
            Some((since, target)) if published < target => {
                if since.elapsed() >= LAG_LIMIT {
                    tracing::warn!(published, head, "the publisher lags; covering for it");
                    self.play(Part::Covering(Instant::now()));
                }
            }
            _ => self.role.behind = Some((Instant::now(), head)),
        }
        Ok(())
    }

    /// Stands by again: somebody else publishes.
    pub(super) fn stop_covering(&mut self) {
        if let Part::Covering(_) = self.role.part {
            self.play(Part::Standby);
        }
    }

    fn play(&mut self, part: Part) {
        self.role.part = part;
        self.role.behind = None;
        self.cursor = None;
        self.publisher.status.send_modify(|status| {
            status.leading = matches!(self.role.part, Part::Leading(_));
            status.covering = matches!(self.role.part, Part::Covering(_));
        });
    }
}
