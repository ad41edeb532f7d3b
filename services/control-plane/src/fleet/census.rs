//! Counts the fleet for the metrics, and forgets brokers that have long been silent.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use catrust_domain::{ContactBudget, FleetMember, Progress, Timestamp, error_chain};
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
/// How far the clocks of database and replica may differ, in seconds, for anything to be
/// forgotten by either.
const CLOCKS_AGREE: i64 = 60;
/// Brokers per read.
const PAGE: u32 = 1_000;
/// The states of a broker, as the metrics name them.
const STATES: [&str; 4] = ["applied", "pending", "refused", "lost"];

pub(crate) struct Census {
    store: Arc<dyn FleetStore>,
    directory: Arc<Directory>,
    /// The database's.
    clock: Clock,
    /// The replica's.
    own_clock: Clock,
    budget: ContactBudget,
    brokers: Gauge<u64>,
}

impl Census {
    /// Of the brokers in `store`, by the revisions of `directory`.
    #[must_use]
    pub(crate) fn new(
        store: Arc<dyn FleetStore>,
        directory: Arc<Directory>,
        own_clock: Clock,
        budget: ContactBudget,
        meter: &Meter,
    ) -> Self {
        let clock = directory.database_clock(Arc::clone(&own_clock));
        let brokers = meter
            .u64_gauge("catrust.brokers")
            .with_description("Brokers of all instances, by their state with the current revision")
            .build();
        Self { store, directory, clock, own_clock, budget, brokers }
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
        let (now, own) = ((self.clock)(), (self.own_clock)());
        if !agree(now, own) {
            tracing::warn!(
                database = %now,
                replica = %own,
                "the clocks of the database and of this replica differ: nothing is forgotten"
            );
            return Ok(());
        }
        let seconds = i64::try_from(self.budget.forget_after.as_secs()).unwrap_or(i64::MAX);
        let brokers = self.store.forget_brokers(now.plus_seconds(-seconds)).await?;
        if brokers > 0 {
            tracing::info!(brokers, "forgot brokers that have long been silent");
        }
        Ok(())
    }
}

/// Whether two clocks show the same time, more or less.
pub(crate) fn agree(one: Timestamp, other: Timestamp) -> bool {
    one.micros().abs_diff(other.micros()) <= CLOCKS_AGREE.unsigned_abs() * 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ground rule 23: nothing is pruned unless the two clocks agree within 60 s.
    #[test]
    fn clocks_that_differ_by_more_than_a_minute_do_not_agree() {
        let at = |seconds| Timestamp::from_micros(0).plus_seconds(seconds);
        for (other, expected) in [(0, true), (60, true), (-60, true), (61, false), (-61, false)] {
            assert_eq!(agree(at(0), at(other)), expected, "{other} s");
        }
        assert!(!agree(Timestamp::FIRST, Timestamp::LAST));
    }
}
