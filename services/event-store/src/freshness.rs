//! Freshness leases: what a replica may call current, and for how long.
//!
//! A read shows that the log had an end; it does not show that the server that answered is
//! still the one that others write to. A commit of full durability does, where standbys have to
//! acknowledge it: a server that was superseded gets no such acknowledgement. So each replica
//! commits once a second, and reads the end of the log on the same connection after it.

use std::time::Duration;

use catrust_domain::{LogHead, Timestamp};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::StoreError;
use crate::owned_task::OwnedTask;

/// How often a lease is renewed.
const INTERVAL: Duration = Duration::from_secs(1);

/// How old a lease may be.
const LONGEST_AGE: Duration = Duration::from_secs(3);

/// A moment by a clock of this machine that goes on while it is suspended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(Duration);

impl BootTime {
    /// The present moment.
    #[must_use]
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        // Neither part is negative: the clock begins at 0.
        let (seconds, nanos) = (now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0));
        Self(Duration::new(seconds, nanos))
    }

    /// Time since then; 0 for a later moment.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

/// That the log ended so at a moment, by a server to which a commit of this replica was
/// acknowledged in that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreshnessLease {
    /// The end of the log, read after the commit on the same connection.
    pub end: LogHead,
    /// Time of the commit by the clock of the database: what is signed as current by this
    /// lease is so as of this time.
    pub issued_at: Timestamp,
    /// Before the commit was sent.
    pub taken_at: BootTime,
}

impl FreshnessLease {
    /// Whether it is young enough for something to be signed by it.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.taken_at.elapsed() <= LONGEST_AGE
    }

    /// The present time by the clock of the database, as far as this lease tells: its time, and
    /// what has passed since.
    #[must_use]
    pub fn database_time(&self) -> Timestamp {
        let passed = i64::try_from(self.taken_at.elapsed().as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_micros(self.issued_at.micros().saturating_add(passed))
    }
}

/// Renews leases until it is dropped.
#[derive(Debug)]
pub(crate) struct LeaseKeeper {
    leases: watch::Receiver<Option<FreshnessLease>>,
    keeping: OwnedTask,
}

/// Where leases come from.
pub(crate) trait LeaseSource: Send + 'static {
    /// Commits, then reads the end of the log: both, and the time of the commit.
    fn renew(&mut self) -> impl Future<Output = Result<(LogHead, Timestamp), StoreError>> + Send;

    /// The last renewal failed, or was given up in the middle.
    fn failed(&mut self) {}
}

impl LeaseKeeper {
    pub(crate) fn start(mut source: impl LeaseSource) -> Self {
        let (sender, leases) = watch::channel(None);
        let keeping = OwnedTask::spawn(async move {
            let mut ticks = interval(INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let taken_at = BootTime::now();
                match timeout(LONGEST_AGE, source.renew()).await {
                    Ok(Ok((end, issued_at))) => {
                        sender.send_replace(Some(FreshnessLease { end, issued_at, taken_at }));
                    }
                    Ok(Err(error)) => {
                        tracing::debug!(error = &error as &dyn std::error::Error, "no freshness lease");
                        source.failed();
                    }
                    Err(_) => {
                        tracing::debug!("a freshness lease was not acknowledged in time");
                        source.failed();
                    }
                }
            }
        });
        Self { leases, keeping }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Option<FreshnessLease>> {
        self.leases.clone()
    }

    /// Waits until the task that renews them has ended, which only a panic does.
    pub(crate) async fn ended(&self) {
        self.keeping.ended().await;
    }
}
