//! The fleet as every replica sees it, and waiting for it.

use std::sync::Arc;
use std::time::Duration;

use catrust_domain::{
    ContactBudget, FleetMember, InstanceId, Propagation, WaitTarget, error_chain, propagation,
};
use catrust_event_store::{Clock, FleetStore, StoreError};
use tokio::sync::Semaphore;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::looks::SharedLooks;

/// How often a fleet is looked at without a hint: a hint can be lost with its
/// connection, and silence has none.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest time between two looks of one reader, so that a fleet of a thousand
/// brokers that report one after another costs some looks, and not a thousand.
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);

/// Answers for the fleet from the store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct FleetView {
    store: Arc<dyn FleetStore>,
    looks: SharedLooks,
    clock: Clock,
    budget: ContactBudget,
    waiting: Arc<Semaphore>,
}

impl FleetView {
    /// `most_waiting` calls may wait for brokers at once.
    #[must_use]
    pub(crate) fn new(
        store: Arc<dyn FleetStore>,
        clock: Clock,
        budget: ContactBudget,
        most_waiting: usize,
    ) -> Self {
        let waiting = Arc::new(Semaphore::new(most_waiting.clamp(1, Semaphore::MAX_PERMITS)));
        let looks = SharedLooks::new(Arc::clone(&store));
        Self { store, looks, clock, budget, waiting }
    }

    /// The brokers of an instance, ascending by name, and whether each is lost.
    /// Forgotten ones are left out.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn brokers(&self, id: &InstanceId) -> Result<Vec<(FleetMember, bool)>, StoreError> {
        let fleet = self.store.list_brokers(id).await?;
        let now = (self.clock)();
        let known = fleet.into_iter().filter(|member| !member.is_forgotten(now, &self.budget));
        let with_contact = |member: FleetMember| {
            let lost = member.is_lost(now, &self.budget);
            (member, lost)
        };
        Ok(known.map(with_contact).collect())
    }

    /// How far a revision has got.
    ///
    /// # Errors
    /// Those of the store.
    pub(crate) async fn propagation(
        &self,
        id: &InstanceId,
        revision: u64,
    ) -> Result<Propagation, StoreError> {
        let fleet = self.looks.look(id).await?;
        Ok(propagation(&fleet, revision, (self.clock)(), &self.budget))
    }

    /// Follows an instance. To be called before the first look at it, so that nothing
    /// is lost between the two.
    #[must_use]
    pub(crate) fn changes(&self, id: &InstanceId) -> Changes {
        Changes { id: id.clone(), hints: self.store.fleet_changes(), looked: Instant::now() }
    }

    /// Waits until a revision has got as far as `target`, `until` at most or until
    /// `draining`; gives how far it is then, `None` where that could not be found out in
    /// time. Never fails: what the caller did before has happened.
    ///
    /// A waiting call keeps its place among the calls in progress, since it holds
    /// memory and a stream like any other. So that waiting calls can never take the
    /// places of the others, their number is bounded below that of the places; one
    /// beyond it looks once and does not wait.
    pub(crate) async fn wait(
        &self,
        id: &InstanceId,
        revision: u64,
        target: WaitTarget,
        until: Instant,
        draining: &CancellationToken,
    ) -> Option<Propagation> {
        let place = self.waiting.try_acquire();
        let mut changes = self.changes(id);
        let mut last = None;
        while let Ok(looked) = timeout_at(until, self.propagation(id, revision)).await {
            match looked {
                Ok(found) => {
                    let done = found.satisfies(target);
                    last = Some(found);
                    if done {
                        break;
                    }
                }
                Err(error) => {
                    tracing::debug!(error = error_chain(&error), "the fleet cannot be read; looking again");
                }
            }
            if place.is_err() {
                break;
            }
            tokio::select! {
                () = changes.next() => {}
                () = sleep_until(until) => break,
                () = draining.cancelled() => break,
            }
        }
        last
    }
}

/// When to look at an instance again.
pub(crate) struct Changes {
    id: InstanceId,
    hints: Receiver<InstanceId>,
    looked: Instant,
}

impl Changes {
    /// Returns when the fleet may have changed since the last return, or when silence
    /// may have made a difference.
    pub(crate) async fn next(&mut self) {
        let poll = self.looked + POLL_INTERVAL;
        tokio::select! {
            () = self.hinted() => {}
            () = sleep_until(poll) => {}
        }
        sleep_until(self.looked + BETWEEN_LOOKS).await;
        // The next read covers what these hints announced.
        while !matches!(self.hints.try_recv(), Err(TryRecvError::Empty | TryRecvError::Closed)) {}
        self.looked = Instant::now();
    }

    async fn hinted(&mut self) {
        loop {
            match self.hints.recv().await {
                Ok(id) if id != self.id => {}
                Ok(_) | Err(RecvError::Lagged(_)) => return,
                // The store is closed: the server is stopping.
                Err(RecvError::Closed) => sleep(POLL_INTERVAL).await,
            }
        }
    }
}
