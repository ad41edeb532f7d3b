//! What most tests start with: a broker, its agent, and two customers' CAs, active.

use catrust_domain::CaState;
use catrust_mosquitto_control::Response;

use crate::agent::Agent;
use crate::authority::Authority;
use crate::device::Device;
use crate::mosquitto::{Broker, Settings};
use crate::trust::{ACTIVE, INACTIVE, bundle};

pub struct Stage {
    pub broker: Broker,
    pub agent: Agent,
    pub a: Authority,
    pub b: Authority,
    pub revision: u64,
}

impl Stage {
    pub async fn new() -> Self {
        Self::with(Settings::default()).await
    }

    pub async fn with(settings: Settings) -> Self {
        let broker = Broker::start(&settings).await;
        let agent = Agent::connect(&broker).await;
        let (a, b) = (Authority::new("CA of A"), Authority::new("CA of B"));
        let mut stage = Self { broker, agent, a, b, revision: 0 };
        stage.set_a(ACTIVE).await;
        stage
    }

    /// Gives A the state, and leaves B active.
    pub async fn set_a(&mut self, state: CaState) -> Response {
        self.revision += 1;
        let bundle = bundle(self.revision, &[(&self.a, state), (&self.b, ACTIVE)]);
        self.agent.apply(bundle).await
    }

    pub async fn inactivate_a(&mut self) -> Response {
        self.set_a(INACTIVE).await
    }

    /// Replaces the whole trust.
    pub async fn set(&mut self, states: &[(&Authority, CaState)]) -> Response {
        self.revision += 1;
        self.agent.apply(bundle(self.revision, states)).await
    }

    pub fn device_a(&self, name: &str) -> Device {
        Device::new(&self.broker, &self.a, name)
    }

    pub fn device_b(&self, name: &str) -> Device {
        Device::new(&self.broker, &self.b, name)
    }
}
