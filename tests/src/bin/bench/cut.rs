//! From the call to the end of the device's session, through everything: gRPC, the
//! log on Postgres, NATS, the agent, the broker.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use catrust_tests::broker::{Broker, Device};
use catrust_tests::certificates::Ca;
use catrust_tests::deployment::{Deployment, Replica};
use catrust_tests::eventually::eventually;

use crate::latencies;
use crate::reading::Latencies;

/// Changes measured at each broker.
const CUTS: usize = 200;

/// Latencies of a gate and of a Mosquitto with the plugin.
pub async fn call_to_closed(deployment: &Deployment, replica: &Replica) -> anyhow::Result<[Latencies; 2]> {
    let servers = Ca::root("servers")?;
    let mut found = Vec::new();
    for kind in ["gate", "plugin"] {
        let instance = replica.instance().await?;
        let ca = instance.new_ca().await?;
        let broker = match kind {
            "gate" => Broker::gate(deployment, replica, &instance.id, &servers).await?,
            _ => Broker::plugin(deployment, replica, &instance.id, &servers).await?,
        };
        let device = Device::new("measured", &ca, &servers)?;
        let mut cuts = Vec::with_capacity(CUTS);
        for _ in 0..CUTS {
            let session = eventually(Duration::from_secs(20), "the device is let in", async || {
                device.connect(&broker.address).await.map_err(|error| format!("{error:#}"))
            })
            .await
            .context(kind)?;
            let closed = tokio::spawn(session.closed());
            let called = Instant::now();
            instance.inactivate(&ca.sn).await?;
            let closed =
                tokio::time::timeout(Duration::from_secs(20), closed).await.context("never cut")??;
            cuts.push(closed.saturating_duration_since(called));
            instance.activate(&ca.sn).await?;
        }
        found.push(latencies(cuts));
    }
    <[Latencies; 2]>::try_from(found).map_err(|_| anyhow::anyhow!("two brokers were measured"))
}
