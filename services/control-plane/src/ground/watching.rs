//! Keeps the state true: holds witnesses against the log at the start, looks at it every second, and
//! tells the metrics.

use std::sync::Arc;
use std::time::Duration;

use catrust_domain::{LogEvidence, error_chain};
use catrust_event_store::{EventStore, Ground as _, StoreError};
use opentelemetry::metrics::{Gauge, Meter};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{GroundJudge, GroundState, LogGround};

/// How often the log is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Says when the log is set back, and when that is over.
pub(crate) struct GroundWatcher {
    store: Arc<dyn EventStore>,
    judge: Arc<GroundJudge>,
    ground: LogGround,
    set_back: Gauge<u64>,
    duration: Gauge<f64>,
    epoch: Gauge<u64>,
}

impl GroundWatcher {
    /// Makes the watcher, with its instruments.
    pub(crate) fn new(
        store: Arc<dyn EventStore>,
        judge: Arc<GroundJudge>,
        ground: LogGround,
        meter: &Meter,
    ) -> Self {
        let gauge = |name: &'static str, description: &'static str| {
            meter.u64_gauge(name).with_description(description).build()
        };
        Self {
            store,
            judge,
            ground,
            set_back: gauge(
                "catrust.log.set_back",
                "1 while the log was set back, and nothing is changed or signed",
            ),
            duration: meter
                .f64_gauge("catrust.log.set_back.duration")
                .with_unit("s")
                .with_description("How long the log has been set back; 0 while it is not")
                .build(),
            epoch: gauge("catrust.log.epoch", "Number of the log epoch in force"),
        }
    }

    /// Holds what was signed before this process against the log.
    ///
    /// # Errors
    /// The store does not answer.
    pub(crate) async fn start(&self, witnesses: &[LogEvidence]) -> Result<(), StoreError> {
        for evidence in witnesses {
            let verdict = self.judge.accuse(evidence).await?;
            tracing::info!(%evidence, ?verdict, "a witness of the log from before this start");
        }
        self.tell();
        Ok(())
    }

    /// Looks until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut states = self.ground.follow();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                // The sender is here.
                _ = states.changed() => {
                    self.tell();
                    continue;
                }
                _ = ticks.tick() => {}
            }
            match self.judge.look().await {
                Ok(()) => {}
                // Neither sound nor lost: what was known stays. Without answers no head is signed.
                Err(error) => tracing::debug!(error = error_chain(&error), "the ground cannot be looked at"),
            }
            self.tell();
        }
    }

    fn tell(&self) {
        let since = match &*self.ground.follow().borrow() {
            GroundState::Sound | GroundState::Doubted => None,
            GroundState::SetBack { since, .. } => Some(since.elapsed()),
        };
        self.set_back.record(u64::from(since.is_some()), &[]);
        self.duration.record(since.unwrap_or_default().as_secs_f64(), &[]);
        self.epoch.record(self.store.epoch().borrow().epoch.0.into(), &[]);
    }
}
