//! Starting an agent, and holding on to it.

use std::sync::Arc;

use catrust_domain::Sha256;
use catrust_proto::v1::KeySet;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::chance;
use super::core::{Core, CoreSettings, Input, SavedState, SourceKind};
use super::driver::Driver;
use super::enforcer::{Enforcer, Freshness};
use super::receipt::{Reporter, Speaker};
use super::settings::{AgentSettings, UnusableSettings};
use super::source::{GrpcSource, NatsSource, Servers};
use super::store::{StateFileError, Store};
use super::testimony::Testimony;
use crate::feed::FeedError;
use crate::nats::NatsFeed;

/// Messages between the sources and the driver.
const INPUTS: usize = 256;
/// Random bytes that name this process.
const INCARNATION_LENGTH: usize = 16;
/// Receipts that wait for a slow server.
const RECEIPTS: usize = 64;

/// Why an agent does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The settings cannot work.
    #[error("unusable settings")]
    Settings(#[from] UnusableSettings),
    /// The settings of NATS cannot work.
    #[error("unusable settings of NATS")]
    Nats(#[source] FeedError),
    /// The state directory cannot be used.
    #[error("the state directory cannot be used")]
    Store(#[from] StateFileError),
}

/// How an agent is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentStatus {
    /// Revision that was verified last; `None` before the first bundle.
    pub revision: Option<u64>,
    /// Digest of it.
    pub digest: Option<Sha256>,
    /// Whether it may be relied on.
    pub freshness: Freshness,
    /// Source that is leaned on.
    pub source: SourceKind,
    /// Whether trust that admits somebody has been enforced since the start.
    pub ready: bool,
    /// Messages that were refused since the start, and failures of enforcer and disk.
    pub refusals: u64,
    /// The last of them.
    pub last_refusal: Option<String>,
}

/// The agent is not running any more: it panicked, or its enforcer did. Whoever serves
/// devices MUST stop: nobody tells it what to distrust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the agent has ended")]
pub struct AgentEnded;

/// The reading side, as a task.
#[derive(Debug)]
pub struct Agent;

impl Agent {
    /// Starts an agent. What is on disk is enforced when this returns; the sources are
    /// connected in the background, for ever, so that a server that is away is no
    /// failure to start.
    ///
    /// # Errors
    /// [`StartError`]. A saved state that is damaged, forged, or another instance's is
    /// none: it is put aside, loudly, and the agent starts without.
    pub async fn start(
        settings: AgentSettings,
        enforcer: Arc<dyn Enforcer>,
    ) -> Result<AgentHandle, StartError> {
        settings.check()?;
        let nats = match &settings.nats {
            Some(nats) => Some(NatsFeed::connect(nats).await.map_err(StartError::Nats)?),
            None => None,
        };
        let (store, SavedFiles { keys, state }) = open(&settings).await?;
        let (mut driver, status, inputs) = assemble(settings, enforcer, nats, store);
        match keys {
            Ok(None) => {}
            Ok(Some(keys)) => driver.handle(Input::LoadedKeys(Box::new(keys))).await,
            Err(damage) => driver.discard_keys(&damage).await,
        }
        match state {
            Ok(saved) => driver.handle(Input::Loaded(saved.map(Box::new))).await,
            Err(damage) => {
                driver.discard(&damage).await;
                driver.handle(Input::Loaded(None)).await;
            }
        }
        driver.wanted.send_replace(driver.core.active_source() == SourceKind::Grpc);
        let (stop, stopped) = oneshot::channel();
        let mut task = JoinSet::new();
        task.spawn(driver.run(inputs, stopped));
        Ok(AgentHandle { status, stop, task })
    }
}

/// What was saved, or what is wrong with it.
struct SavedFiles {
    keys: Result<Option<KeySet>, String>,
    state: Result<Option<SavedState>, String>,
}

async fn open(settings: &AgentSettings) -> Result<(Option<Store>, SavedFiles), StateFileError> {
    let Some(directory) = settings.state_directory.clone() else {
        return Ok((None, SavedFiles { keys: Ok(None), state: Ok(None) }));
    };
    let opened = tokio::task::spawn_blocking(move || {
        let mut store = Store::open(&directory)?;
        let keys = or_damage(store.load_keys())?;
        let state = or_damage(store.load())?;
        Ok((Some(store), SavedFiles { keys, state }))
    });
    match opened.await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Damage is no reason not to start.
fn or_damage<T>(read: Result<T, StateFileError>) -> Result<Result<T, String>, StateFileError> {
    match read {
        Ok(read) => Ok(Ok(read)),
        Err(StateFileError::Damaged { path, source }) => {
            Ok(Err(format!("{} is damaged: {source}", path.display())))
        }
        Err(error) => Err(error),
    }
}

/// Wires core, sources, store and receipts.
fn assemble(
    settings: AgentSettings,
    enforcer: Arc<dyn Enforcer>,
    nats: Option<NatsFeed>,
    store: Option<Store>,
) -> (Driver, watch::Receiver<AgentStatus>, mpsc::Receiver<Input>) {
    let AgentSettings { instance_id, broker_id, keys, grpc, .. } = settings;
    let core = Core::new(CoreSettings {
        instance_id: instance_id.clone(),
        keys,
        servers: grpc.servers.len(),
        soft_budget: settings.soft_budget,
        hard_budget: settings.hard_budget,
        clock_skew: settings.clock_skew,
    });
    let servers = Arc::new(Servers::new(grpc));
    let (inputs, received) = mpsc::channel(INPUTS);
    let (receipts, queue) = mpsc::channel(RECEIPTS);
    // Not before the saved state is there, whose revision the stream goes on from.
    let (wanted, is_wanted) = watch::channel(false);
    let (reopen, reopened) = watch::channel(0);
    let started = Instant::now();
    let (active, is_active) = watch::channel(core.active_source());
    let (revision, at_revision) = watch::channel(None);
    let (newest_head, newest_seen) = watch::channel(None);
    let (asking_for_bundle, bundle_asked) = watch::channel(0);
    let (status, status_seen) = watch::channel(AgentStatus {
        revision: None,
        digest: None,
        freshness: core.freshness(),
        source: core.active_source(),
        ready: false,
        refusals: 0,
        last_refusal: None,
    });
    let mut parts = JoinSet::new();
    let grpc_source = GrpcSource {
        servers: Arc::clone(&servers),
        instance_id: instance_id.clone(),
        broker_id: broker_id.clone(),
        silence: settings.soft_budget,
        wanted: is_wanted,
        reopen: reopened,
        started,
        revision: at_revision,
        newest_head: newest_seen,
        inputs: inputs.clone(),
    };
    parts.spawn(grpc_source.run());
    if let Some(feed) = nats.clone() {
        let source = NatsSource { feed, instance_id: instance_id.clone(), inputs: inputs.clone() };
        parts.spawn(source.run());
    }
    let reporter = Reporter {
        servers: Arc::clone(&servers),
        nats,
        active: is_active,
        queue,
        bundle_asked: asking_for_bundle,
    };
    parts.spawn(reporter.run());
    let driver = Driver {
        core,
        enforcer,
        store,
        speaker: Speaker { instance_id, broker_id, incarnation: chance::bytes::<INCARNATION_LENGTH>() },
        servers,
        receipt_interval: settings.receipt_interval,
        inputs,
        receipts,
        wanted,
        reopen,
        active,
        revision,
        newest_head,
        status,
        parts,
        questions: JoinSet::new(),
        started,
        last: None,
        testimony: Testimony::default(),
        bundle_asked,
    };
    (driver, status_seen, received)
}

/// A running agent. It ends when this is dropped; what it has enforced stays so.
#[derive(Debug)]
pub struct AgentHandle {
    status: watch::Receiver<AgentStatus>,
    stop: oneshot::Sender<()>,
    task: JoinSet<()>,
}

impl AgentHandle {
    /// How the agent is doing.
    #[must_use]
    pub fn status(&self) -> AgentStatus {
        self.status.borrow().clone()
    }

    /// Follows how the agent is doing. The channel closes when the agent ends.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<AgentStatus> {
        self.status.clone()
    }

    /// Waits until trust is enforced that admits somebody.
    ///
    /// # Errors
    /// [`AgentEnded`].
    pub async fn ready(&self) -> Result<(), AgentEnded> {
        self.status.clone().wait_for(|status| status.ready).await.map(|_| ()).map_err(|_| AgentEnded)
    }

    /// Waits until the agent has ended, which it only does by a panic, or when it is
    /// stopped.
    pub async fn ended(&self) -> AgentEnded {
        let mut status = self.status.clone();
        while status.changed().await.is_ok() {}
        AgentEnded
    }

    /// Ends the agent between two things that it does, and waits until it has ended.
    pub async fn stop(mut self) {
        // Fails where it has ended already.
        let _ = self.stop.send(());
        while self.task.join_next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use async_trait::async_trait;
    use catrust_domain::Enforcement;

    use super::*;
    use crate::agent::enforcer::{AgentTrust, Applied, NotApplied};
    use crate::agent::settings::GrpcSettings;

    struct NobodyEnforces;

    #[async_trait]
    impl Enforcer for NobodyEnforces {
        async fn apply(&self, _trust: &AgentTrust) -> Result<Applied, NotApplied> {
            Err(NotApplied { reason: "nobody enforces".to_owned() })
        }

        fn sessions_open(&self) -> u64 {
            0
        }

        fn enforcement(&self) -> Enforcement {
            Enforcement::Tls
        }
    }

    /// An agent without any server, whose driver `die` may harm before it runs.
    fn running(die: impl FnOnce(&mut Driver)) -> AgentHandle {
        let keys = crate::signing::TrustKeys::from(&crate::contract::key());
        let grpc = GrpcSettings::new("http://127.0.0.1:1");
        let settings = AgentSettings::new("fleet".parse().unwrap(), "broker".parse().unwrap(), keys, grpc);
        let (mut driver, status, inputs) = assemble(settings, Arc::new(NobodyEnforces), None, None);
        die(&mut driver);
        let (stop, stopped) = oneshot::channel();
        let mut task = JoinSet::new();
        task.spawn(driver.run(inputs, stopped));
        AgentHandle { status, stop, task }
    }

    async fn has_ended(agent: &AgentHandle, within: Duration) -> bool {
        tokio::time::timeout(within, agent.ended()).await.is_ok()
    }

    #[tokio::test]
    async fn an_agent_does_not_outlive_any_of_its_parts() {
        let whole = running(|_| {});
        assert!(!has_ended(&whole, Duration::from_millis(100)).await);

        let limit = Duration::from_secs(10);
        let without_sources = running(|driver| driver.parts.abort_all());
        assert!(has_ended(&without_sources, limit).await);
        let panicking = running(|driver| {
            driver.parts.spawn(async { panic!("a part dies") });
        });
        assert!(has_ended(&panicking, limit).await);
        let asking = running(|driver| {
            driver.questions.spawn(async { panic!("a question dies") });
        });
        assert!(has_ended(&asking, limit).await, "the core would wait for its answer for ever");
    }
}
