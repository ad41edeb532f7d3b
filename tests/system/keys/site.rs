//! An instance with two CAs and an agent in front of a broker, as a device meets them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use catrust_tests::broker::{Broker, Device, Session};
use catrust_tests::certificates::Ca;
use catrust_tests::deployment::{Deployment, Replica};
use catrust_tests::eventually::eventually;
use catrust_tests::instance::TestInstance;
use tokio::task::JoinHandle;

/// How long something may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(40);

/// See the module.
pub struct Site {
    pub instance: TestInstance,
    pub broker: Broker,
    /// Its CA is never touched.
    pub steady: Device,
    /// Its CA is turned off and on.
    pub switched: Device,
    pub switched_sn: String,
}

/// Which agent stands in front of which broker.
#[derive(Clone, Copy)]
pub enum Kind {
    Gate,
    Mosquitto,
}

impl Site {
    pub async fn new(deployment: &Deployment, replica: &Replica, kind: Kind) -> anyhow::Result<Self> {
        let instance = replica.instance().await?;
        let (servers, steady, switched) =
            (Ca::root("brokers")?, instance.new_ca().await?, instance.new_ca().await?);
        let broker = match kind {
            Kind::Gate => Broker::gate(deployment, replica, &instance.id, &servers).await?,
            Kind::Mosquitto => Broker::plugin(deployment, replica, &instance.id, &servers).await?,
        };
        let site = Self {
            steady: Device::new("steady-1", &steady, &servers)?,
            switched: Device::new("switched-1", &switched, &servers)?,
            switched_sn: switched.sn.clone(),
            instance,
            broker,
        };
        site.admits(&site.steady).await?;
        Ok(site)
    }

    /// Waits until a device gets in.
    pub async fn admits(&self, device: &Device) -> anyhow::Result<Session> {
        let address = &self.broker.address;
        eventually(SOON, "the device gets in", async || match device.connect(address).await {
            Ok(session) => Ok(session),
            Err(error) => Err(format!("{error:#}")),
        })
        .await
    }

    /// Waits until a device is kept out.
    pub async fn refuses(&self, device: &Device) -> anyhow::Result<()> {
        let address = &self.broker.address;
        eventually(SOON, "the device is kept out", async || match device.connect(address).await {
            Ok(_) => Err("it gets in"),
            Err(_) => Ok(()),
        })
        .await
    }

    /// Turns the switched CA off, and on again, at a replica, and waits for it at the
    /// broker each time.
    pub async fn switches(&self, replica: &Replica) -> anyhow::Result<()> {
        let instance = TestInstance { caller: replica.owner()?, id: self.instance.id.clone() };
        let session = self.admits(&self.switched).await?;
        instance.inactivate(&self.switched_sn).await?;
        tokio::time::timeout(SOON, session.closed()).await?;
        self.refuses(&self.switched).await?;
        instance.activate(&self.switched_sn).await?;
        self.admits(&self.switched).await?;
        Ok(())
    }

    /// Waits until the agent has said `text`.
    pub async fn agent_says(&self, text: &str) -> anyhow::Result<()> {
        eventually(SOON, &format!("the agent says {text:?}"), async || {
            let said = self.broker.agent_output().text();
            if said.contains(text) { Ok(()) } else { Err(format!("it has said:\n{said}")) }
        })
        .await
    }

    /// Whether the agent has never been in doubt.
    pub fn agent_was_content(&self) -> anyhow::Result<()> {
        let said = self.broker.agent_output().lines();
        let troubled = said.iter().find(|line| {
            line.contains("refused kind=") || line.contains("soft budget:") || line.contains("hard budget:")
        });
        anyhow::ensure!(troubled.is_none(), "the agent was not content: {troubled:?}");
        anyhow::ensure!(self.broker.agent_runs(), "the agent has ended");
        Ok(())
    }
}

/// A device that connects again and again, and must never be refused.
pub struct Regular {
    stop: Arc<AtomicBool>,
    connected: Arc<AtomicU64>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Regular {
    pub fn begin(site: &Site) -> Self {
        let (stop, connected) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (device, address) = (site.steady.clone(), site.broker.address.clone());
        let task = tokio::spawn({
            let (stop, connected) = (Arc::clone(&stop), Arc::clone(&connected));
            async move {
                while !stop.load(Ordering::Relaxed) {
                    drop(device.connect(&address).await?);
                    connected.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Ok(())
            }
        });
        Self { stop, connected, task }
    }

    /// Ends; gives how often the device got in, every time that it came.
    pub async fn end(self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await??;
        Ok(self.connected.load(Ordering::Relaxed))
    }
}
