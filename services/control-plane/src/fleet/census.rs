//! Counts the fleet for the metrics, and forgets brokers that have long been silent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use catrust_domain::{ContactBudget, FleetMember, Progress, error_chain};
use catrust_event_store::{Clock, FleetStore, StoreError};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Gauge, Meter};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::directory::Directory;

/// How often the brokers are counted.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);
/// How often rows of forgotten brokers are removed. Nobody sees them in between.
const FORGET_INTERVAL: Duration = Duration::from_secs(3_600);
/// Brokers per read.
const PAGE: u32 = 1_000;
/// The states of a broker, as the metrics name them.
const STATES: [&str; 4] = ["applied", "pending", "refused", "lost"];

pub(crate) struct Census {
    store: Arc<dyn FleetStore>,
    directory: Arc<Directory>,
    clock: Clock,
    budget: ContactBudget,
    brokers: Gauge<u64>,
}

impl Census {
    /// Of the brokers in `store`, by the revisions of `directory`.
    #[must_use]
    pub(crate) fn new(
        store: Arc<dyn FleetStore>,
        directory: Arc<Directory>,
        clock: Clock,
        budget: ContactBudget,
        meter: &Meter,
    ) -> Self {
        let brokers = meter
            .u64_gauge("catrust.brokers")
            .with_description("Brokers of all instances, by their state with the current revision")
            .build();
        Self { store, directory, clock, budget, brokers }
    }

    /// Runs until `stop`. A store that is away is asked again at the next turn.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut count = interval(COUNT_INTERVAL);
        count.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut forget = interval(FORGET_INTERVAL);
        forget.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let done = tokio::select! {
                () = stop.cancelled() => return,
                _ = count.tick() => self.count().await,
                _ = forget.tick() => self.forget().await,
            };
            if let Err(error) = done {
                tracing::debug!(error = error_chain(&error), "the brokers cannot be counted now");
            }
        }
    }

    async fn count(&self) -> Result<(), StoreError> {
        let mut counts: BTreeMap<&str, u64> = STATES.into_iter().map(|state| (state, 0)).collect();
        let mut last = None;
        loop {
            let after = last.as_ref().map(|(instance, broker)| (instance, broker));
            let page = self.store.list_all_brokers(after, PAGE).await?;
            let Some(end) = page.last() else { break };
            last = Some((end.broker.instance_id.clone(), end.broker.broker_id.clone()));
            for state in page.iter().filter_map(|member| self.state(member)) {
                *counts.entry(state).or_default() += 1;
            }
        }
        for (state, brokers) in counts {
            self.brokers.record(brokers, &[KeyValue::new("state", state)]);
        }
        Ok(())
    }

    /// Where a broker stands with the current revision; `None` for a forgotten one.
    fn state(&self, member: &FleetMember) -> Option<&'static str> {
        let now = (self.clock)();
        if member.is_forgotten(now, &self.budget) {
            return None;
        }
        if member.is_lost(now, &self.budget) {
            return Some("lost");
        }
        let current = self.directory.find(&member.broker.instance_id).map_or(0, |known| known.revision);
        Some(match member.progress(current, now, &self.budget) {
            Progress::Applied => "applied",
            Progress::Pending => "pending",
            Progress::Refused(_) => "refused",
            Progress::Lost => "lost",
        })
    }

    async fn forget(&self) -> Result<(), StoreError> {
        let seconds = i64::try_from(self.budget.forget_after.as_secs()).unwrap_or(i64::MAX);
        let brokers = self.store.forget_brokers((self.clock)().plus_seconds(-seconds)).await?;
        if brokers > 0 {
            tracing::info!(brokers, "forgot brokers that have long been silent");
        }
        Ok(())
    }
}
