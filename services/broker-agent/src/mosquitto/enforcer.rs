//! The plugin as an [`Enforcer`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use catrust_trust_feed::agent::{AgentTrust, Applied, Enforcement, Enforcer, NotApplied};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::settings::MosquittoSettings;
use super::upkeep::{Assignment, Upkeep};

/// Enforces trust in a Mosquitto with the catrust plugin. Its work ends when it is
/// dropped; what the broker was told stays in force for the length of the lease.
#[derive(Debug)]
pub struct MosquittoEnforcer {
    assignments: mpsc::Sender<Assignment>,
    open: Arc<AtomicU64>,
    _task: JoinSet<()>,
}

impl MosquittoEnforcer {
    /// Starts to look for the broker, on the current runtime.
    #[must_use]
    pub fn start(settings: MosquittoSettings) -> Self {
        let (assignments, queue) = mpsc::channel(1);
        let open = Arc::new(AtomicU64::new(0));
        let mut task = JoinSet::new();
        task.spawn(Upkeep::new(settings, Arc::clone(&open)).run(queue));
        Self { assignments, open, _task: task }
    }
}

#[async_trait]
impl Enforcer for MosquittoEnforcer {
    async fn apply(&self, trust: &AgentTrust) -> Result<Applied, NotApplied> {
        let (reply, answer) = oneshot::channel();
        let gone = || NotApplied { reason: "the driver has ended".to_owned() };
        let assignment = Assignment { trust: trust.clone(), reply };
        self.assignments.send(assignment).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    fn sessions_open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Tls
    }
}
