//! Two replicas, NATS, and a database of a primary and a standby that every commit waits for.

use catrust_tests::deployment::{Deployment, Plan, Replica};
use catrust_tests::instance::TestInstance;
use catrust_tests::postgres::{Durability, Postgres};

pub struct Pair {
    /// Its database is the primary.
    pub deployment: Deployment,
    pub standby: Postgres,
    pub replicas: Vec<Replica>,
    /// As each of the replicas serves it.
    pub instances: Vec<TestInstance>,
}

impl Pair {
    pub async fn deploy() -> anyhow::Result<Self> {
        let mut deployment = Plan { durability: Durability::Full, ..Plan::default() }.deploy().await?;
        let standby = deployment.postgres.standby("one").await?;
        deployment.postgres.wait_for_standbys("one").await?;
        let (first, second) = (deployment.postgres.port(), standby.port());
        let url = format!("\"postgres://catrust_app@127.0.0.1:{first},127.0.0.1:{second}/catrust\"");
        let durable = ("database.durability", "\"synchronous\"");
        deployment.set("database.url", &url);
        let mut replicas = Vec::new();
        for name in ["a", "b"] {
            replicas.push(deployment.replica_with(name, &[durable]).await?);
        }
        let first = replicas[0].instance().await?;
        let mut instances = Vec::new();
        for replica in &replicas {
            instances.push(TestInstance { caller: replica.owner()?, id: first.id.clone() });
        }
        Ok(Self { deployment, standby, replicas, instances })
    }
}
