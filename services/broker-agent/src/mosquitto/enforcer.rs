//! The plugin as an [`Enforcer`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use catrust_trust_feed::agent::{AgentTrust, Applied, Enforcement, Enforcer, NotApplied};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::settings::MosquittoSettings;
use super::upkeep::{Assignment, Upkeep};

/// Enforces trust in a Mosquitto with the catrust plugin. Its work ends when it is
/// dropped; what the broker was told stays in force for the length of the lease.
#[derive(Debug)]
pub struct MosquittoEnforcer {
    assignments: mpsc::Sender<Assignment>,
    open: Arc<AtomicU64>,
    upkeep: JoinHandle<()>,
    /// Closed when that task has ended.
    alive: watch::Receiver<()>,
}

impl MosquittoEnforcer {
    /// Starts to look for the broker, on the current runtime.
    #[must_use]
    pub fn start(settings: MosquittoSettings) -> Self {
        let (assignments, queue) = mpsc::channel(1);
        let open = Arc::new(AtomicU64::new(0));
        let (life, alive) = watch::channel(());
        let work = Upkeep::new(settings, Arc::clone(&open)).run(queue);
        let upkeep = tokio::spawn(async move {
            let _life = life;
            work.await;
        });
        Self { assignments, open, upkeep, alive }
    }

    /// Waits until its work has ended, which only a panic does while this is there: nobody
    /// renews the broker's lease then.
    pub async fn ended(&self) {
        let mut alive = self.alive.clone();
        while alive.changed().await.is_ok() {}
    }
}

impl Drop for MosquittoEnforcer {
    fn drop(&mut self) {
        self.upkeep.abort();
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: MosquittoSettings,
    }

    #[tokio::test]
    async fn the_end_of_the_upkeep_is_noticed() {
        let settings = Line::parse_from(["agent", "--control-socket", "nowhere.sock"]).settings;
        let enforcer = MosquittoEnforcer::start(settings);
        let patience = Duration::from_millis(50);
        assert!(tokio::time::timeout(patience, enforcer.ended()).await.is_err(), "it looks for the broker");
        enforcer.upkeep.abort();
        tokio::time::timeout(Duration::from_secs(10), enforcer.ended()).await.expect("its end is noticed");
    }
}
