//! Runs the core: hands it what comes, and carries out what it says, one thing after
//! another, so that a receipt never overtakes what it states.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use catrust_domain::log_epoch::{revision_count, spell_revision};
use catrust_domain::{LogEpoch, Timestamp, error_chain};
use catrust_proto::v1::{Head, TrustBundle};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::core::{
    ApplyCause, Core, Input, MessageRefusal, Moment, Output, Refused, SavedMessage, SourceKind, Statement,
};
use super::enforcer::{AgentTrust, Enforcer, Freshness};
use super::handle::AgentStatus;
use super::receipt::{OutgoingReceipt, Speaker};
use super::source::{Servers, snapshot, snapshots};
use super::store::{StateFileError, Store};
use super::testimony::Testimony;

/// Time between two looks at the clock.
const TICK: Duration = Duration::from_millis(250);

/// Largest bundle that is sent to a server: no more fits into a call.
const MAX_BUNDLE_BYTES: usize = 3 * 1_024 * 1_024;

/// Everything that the core's outputs are carried out with.
pub struct Driver {
    pub core: Core,
    pub enforcer: Arc<dyn Enforcer>,
    /// `None` where nothing is kept, and while a blocking task has it.
    pub store: Option<Store>,
    pub speaker: Speaker,
    pub servers: Arc<Servers>,
    pub receipt_interval: Duration,
    /// Where the sources put what comes.
    pub inputs: mpsc::Sender<Input>,
    pub receipts: mpsc::Sender<OutgoingReceipt>,
    /// Whether `WatchTrust` is wanted.
    pub wanted: watch::Sender<bool>,
    /// Counts how often another stream was wanted.
    pub reopen: watch::Sender<u64>,
    pub active: watch::Sender<SourceKind>,
    pub revision: watch::Sender<Option<u64>>,
    /// The newest head, for servers.
    pub newest_head: watch::Sender<Option<Head>>,
    pub status: watch::Sender<AgentStatus>,
    /// Sources and the reporter, which run as long as the driver does.
    pub parts: JoinSet<()>,
    /// Questions on their way; they end with the driver.
    pub questions: JoinSet<()>,
    pub started: Instant,
    /// The receipt that is repeated as the sign of life.
    pub last: Option<OutgoingReceipt>,
    /// What this agent tells a server that shows less than it has.
    pub testimony: Testimony,
    /// Counts how often a server asked for the bundle.
    pub bundle_asked: watch::Receiver<u64>,
}

impl Driver {
    /// Runs until it is stopped, or one of its parts ends, which only a panic does: without a
    /// source or its receipts an agent must not pass for a whole one.
    pub async fn run(mut self, mut inputs: mpsc::Receiver<Input>, mut stop: oneshot::Receiver<()>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut life = tokio::time::interval(self.receipt_interval);
        life.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = &mut stop => return,
                Some(ended) = self.parts.join_next() => {
                    let why = ended.err().map_or_else(|| "it ended by itself".to_owned(), |e| e.to_string());
                    tracing::error!(why, "a part of the agent has died: the agent ends with it");
                    return;
                }
                Some(ended) = self.questions.join_next() => if let Err(error) = ended {
                    tracing::error!(%error, "asking for a bundle panicked: the agent ends with it");
                    return;
                },
                Some(input) = inputs.recv() => self.handle(input).await,
                _ = tick.tick() => self.handle(Input::Tick).await,
                _ = life.tick() => self.repeat(),
                Ok(()) = self.bundle_asked.changed() => self.send_bundle().await,
            }
        }
    }

    /// Hands an input in, and carries everything out that follows.
    pub async fn handle(&mut self, input: Input) {
        self.core.handle(self.now(), input);
        while let Some(output) = self.core.poll() {
            if let Some(result) = self.carry_out(output).await {
                self.core.handle(self.now(), result);
            }
        }
        self.publish();
    }

    fn now(&self) -> Moment {
        Moment { monotonic: self.started.elapsed(), wall: wall_clock() }
    }

    async fn carry_out(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Apply { trust, cause } => return Some(self.apply(&trust, cause).await),
            Output::Persist { revision, record } => {
                if let SavedMessage::KeySet(set) = &record {
                    tracing::info!(
                        version = set.version,
                        keys = set.keys.len(),
                        "a newer key set is in force"
                    );
                }
                let result = self.with_store(|store| store.write(record)).await;
                return Some(Input::Persisted { revision, result });
            }
            Output::PersistAgain { revision } => {
                let result = self.with_store(Store::flush).await;
                return Some(Input::Persisted { revision, result });
            }
            Output::Receipt(statement) => self.state(&statement),
            Output::Refused(refused) => self.refused(refused),
            Output::Discard(refusal) => self.discard(&refusal.text()).await,
            Output::DiscardKeys(refusal) => self.discard_keys(&refusal.text()).await,
            Output::NeedSnapshot => self.ask_for_snapshot(),
            Output::AskEveryServer => self.ask_every_server(),
            Output::OpenAnotherStream => self.reopen.send_modify(|count| *count += 1),
            Output::SwitchTo(source) => self.switch(source),
            Output::Ready => tracing::info!("trust is enforced; devices are admitted"),
        }
        None
    }

    async fn apply(&mut self, trust: &AgentTrust, cause: ApplyCause) -> Input {
        let revision = trust.bundle.revision;
        let started = Instant::now();
        let result = self.enforcer.apply(trust).await;
        let duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        match (&result, cause) {
            (Ok(_), ApplyCause::Freshness) => tell_freshness(trust.freshness, revision),
            (Ok(applied), _) => tracing::info!(
                epoch = LogEpoch::of_revision(revision).0,
                revision = revision_count(revision),
                freshness = trust.freshness.as_str(),
                sessions_cut = applied.sessions_cut,
                sessions_open = applied.sessions_open,
                duration_us,
                reason = trust.reason,
                "trust applied"
            ),
            (Err(error), _) => {
                let revision = spell_revision(revision);
                tracing::error!(revision, reason = error.reason, "trust was not enforced");
            }
        }
        Input::Enforced { revision, result }
    }

    async fn with_store(
        &mut self,
        work: impl FnOnce(&mut Store) -> Result<(), StateFileError> + Send + 'static,
    ) -> Result<(), String> {
        self.with_reading(work).await.unwrap_or(Ok(()))
    }

    /// Works with the store off the runtime's threads: it waits for the disk. `None` where
    /// nothing is kept.
    async fn with_reading<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Store) -> Result<T, StateFileError> + Send + 'static,
    ) -> Option<Result<T, String>> {
        let mut store = self.store.take()?;
        let done = tokio::task::spawn_blocking(move || {
            let result = work(&mut store);
            (store, result)
        });
        match done.await {
            Ok((store, result)) => {
                self.store = Some(store);
                Some(result.map_err(|error| error_chain(&error)))
            }
            // A panic in the store: its defect must not pass for success.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Puts the saved state aside, and says so.
    pub async fn discard(&mut self, reason: &str) {
        tracing::error!(
            reason,
            "the saved state is refused and put aside; starting without it, and without protection \
             against an older one"
        );
        if let Err(error) = self.with_store(Store::discard).await {
            tracing::error!(error, "the refused state cannot be put aside");
        }
    }

    /// Puts the saved key set aside, and says so.
    pub async fn discard_keys(&mut self, reason: &str) {
        tracing::error!(
            reason,
            "the saved key set is refused and put aside; starting without it, and without protection \
             against an older one"
        );
        if let Err(error) = self.with_store(Store::discard_keys).await {
            tracing::error!(error, "the refused key set cannot be put aside");
        }
    }

    fn state(&mut self, statement: &Statement) {
        let receipt = self.receipt(statement);
        self.last = Some(receipt.clone());
        self.report(receipt);
    }

    fn refused(&mut self, refused: Refused) {
        let Refused { refusal, revision, digest, untold } = refused;
        let reason = refusal.text();
        let spelled = spell_revision(revision);
        tracing::error!(kind = refusal.kind(), revision = spelled, untold, reason, "refused");
        self.status.send_modify(|status| {
            status.refusals += 1 + untold;
            status.last_refusal = Some(reason.clone());
        });
        let statement = Statement { revision, digest, outcome: Err(reason), traceparent: String::new() };
        let receipt = self.receipt(&statement);
        // These hold until a receipt says otherwise; a refused message does not.
        if matches!(refusal, MessageRefusal::NotApplied { .. } | MessageRefusal::NotPersisted { .. }) {
            self.last = Some(receipt.clone());
        }
        self.report(receipt);
    }

    fn receipt(&self, statement: &Statement) -> OutgoingReceipt {
        let enforcer = &self.enforcer;
        self.speaker.receipt(statement, enforcer.enforcement(), enforcer.sessions_open(), wall_clock())
    }

    fn report(&mut self, mut receipt: OutgoingReceipt) {
        let now = self.now();
        receipt.request.newest_head =
            self.core.evidence(now).filter(|_| self.testimony.may_give(now.monotonic)).cloned();
        receipt.request.sequence = self.testimony.next_sequence();
        if self.receipts.try_send(receipt).is_err() {
            tracing::debug!("too many receipts are waiting; the sign of life will say it");
        }
    }

    /// The sign of life: the last statement again, with the sessions of now.
    fn repeat(&mut self) {
        if let Some(last) = &mut self.last {
            last.request.sessions_open = self.enforcer.sessions_open();
            let receipt = last.clone();
            self.report(receipt);
        }
    }

    /// Sends the saved bundle to a server that has asked for it.
    async fn send_bundle(&mut self) {
        if !self.testimony.may_give_bundle(self.started.elapsed()) {
            return;
        }
        let Some(mut receipt) = self.last.clone() else { return };
        match self.with_reading(|store| store.load_bundle()).await {
            Some(Ok(Some(bundle))) if size(&bundle) <= MAX_BUNDLE_BYTES => {
                let revision = spell_revision(bundle.revision);
                tracing::warn!(revision, "a server may have lost what this agent has: sending the bundle");
                receipt.request.newest_bundle = Some(bundle);
                self.report(receipt);
            }
            Some(Ok(Some(bundle))) => tracing::error!(
                bytes = size(&bundle),
                "a server asks for the bundle, which is too large to be sent"
            ),
            Some(Ok(None)) | None => tracing::warn!("a server asks for the bundle, and none is kept on disk"),
            Some(Err(error)) => tracing::error!(error, "a server asks for the bundle, which cannot be read"),
        }
    }

    fn ask_for_snapshot(&mut self) {
        let servers = Arc::clone(&self.servers);
        let instance_id = self.speaker.instance_id.clone();
        let inputs = self.inputs.clone();
        self.questions.spawn(async move {
            let messages = match snapshot(&servers, &instance_id).await {
                Ok(snapshot) => snapshot,
                Err(error) => {
                    tracing::warn!(error = error.text(), "cannot get a bundle; trying again");
                    // Fails when the agent has gone, as below.
                    let _ = inputs.send(Input::SnapshotFailed).await;
                    return;
                }
            };
            for message in messages {
                let _ = inputs.send(Input::Message(SourceKind::Grpc, message)).await;
            }
        });
    }

    fn ask_every_server(&mut self) {
        let servers = Arc::clone(&self.servers);
        let instance_id = self.speaker.instance_id.clone();
        let inputs = self.inputs.clone();
        self.questions.spawn(async move {
            snapshots(&servers, &instance_id, &inputs).await;
            // Fails when the agent has gone.
            let _ = inputs.send(Input::EveryServerAsked).await;
        });
    }

    fn switch(&self, source: SourceKind) {
        match source {
            SourceKind::Nats => tracing::info!("heads come by NATS: leaning on it"),
            SourceKind::Grpc => tracing::warn!("no heads come by NATS: leaning on gRPC"),
        }
        self.active.send_replace(source);
        self.wanted.send_replace(source == SourceKind::Grpc);
    }

    /// Tells whoever watches the agent.
    fn publish(&self) {
        self.newest_head.send_if_modified(|head| {
            let newest = self.core.newest_head();
            let changed = head.as_ref() != newest;
            if changed {
                *head = newest.cloned();
            }
            changed
        });
        self.revision.send_if_modified(|revision| {
            let before = std::mem::replace(revision, self.core.revision());
            before != *revision
        });
        self.status.send_if_modified(|status| {
            let next = AgentStatus {
                revision: self.core.revision(),
                digest: self.core.bundle().map(|bundle| bundle.digest),
                freshness: self.core.freshness(),
                source: self.core.active_source(),
                ready: self.core.is_ready(),
                ..status.clone()
            };
            let changed = *status != next;
            *status = next;
            changed
        });
    }
}

/// Bytes of a bundle on the wire, rather more than less.
fn size(bundle: &TrustBundle) -> usize {
    bundle.entries.iter().map(|entry| entry.ca_content.len() + entry.subject.len() + 2_048).sum()
}

fn tell_freshness(freshness: Freshness, revision: u64) {
    let revision = spell_revision(revision);
    match freshness {
        Freshness::Fresh => tracing::info!(revision, "trust is fresh"),
        Freshness::SoftStale => {
            tracing::warn!(revision, "no head within the soft budget: the last known bundle is served on");
        }
        Freshness::HardStale => {
            tracing::error!(revision, "no head within the hard budget: nobody new is admitted");
        }
    }
}

/// The wall clock; before 1970 is 1970.
fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
