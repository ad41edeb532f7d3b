//! Two replicas, a database, NATS, and an image of the database that lacks the last changes.

use std::time::Duration;

use catrust_tests::certificates::Ca;
use catrust_tests::client::{Caller, refused};
use catrust_tests::deployment::{Deployment, Plan, Replica};
use catrust_tests::eventually::eventually;
use catrust_tests::http;
use catrust_tests::instance::TestInstance;
use catrust_tests::postgres::Durability;
use catrust_tests::set_back::PostgresImage;
use tonic::Code;

/// How long a replica may take to work again after the database was away.
pub const RECOVERY: Duration = Duration::from_secs(30);
/// How long a replica may take to find out that the log was set back.
pub const NOTICED: Duration = Duration::from_secs(10);

pub struct Stage {
    pub deployment: Deployment,
    pub replicas: Vec<Replica>,
    /// As the first replica serves it.
    pub instance: TestInstance,
    /// Inactivated after the image was made.
    pub lost: Vec<Ca>,
    /// Active, and not touched after the image was made.
    pub kept: Ca,
    pub image: PostgresImage,
}

impl Stage {
    /// Acknowledges three inactivations that the image lacks.
    pub async fn set(plan: Plan) -> anyhow::Result<Self> {
        let mut deployment = Plan { durability: Durability::Full, ..plan }.deploy().await?;
        let replicas = vec![deployment.replica("a").await?, deployment.replica("b").await?];
        let instance = replicas[0].instance().await?;
        let mut lost = Vec::new();
        for _ in 0..3 {
            lost.push(instance.new_ca().await?);
        }
        let kept = instance.new_ca().await?;
        let image = deployment.postgres.image().await?;
        let mut end = 0;
        for ca in &lost {
            let acknowledged = eventually(RECOVERY, "an inactivation is acknowledged", async || {
                instance.inactivate(&ca.sn).await
            });
            end = acknowledged.await?.position;
        }
        let stage = Self { deployment, replicas, instance, lost, kept, image };
        // Both have seen what will be lost.
        for replica in &stage.replicas {
            reaches(replica, "catrust_log_head_position", end).await?;
        }
        // And it has left for the fleet.
        if stage.deployment.nats.is_some() {
            let published = stage
                .replicas
                .iter()
                .map(|replica| Box::pin(reaches(replica, "catrust_published_position", end)));
            futures::future::select_ok(published).await?;
        }
        Ok(stage)
    }

    /// Puts the image back under whatever runs.
    pub async fn set_back(&mut self) -> anyhow::Result<()> {
        self.deployment.postgres.put_back(&self.image).await
    }

    /// The instance, as a replica serves it.
    pub fn at(&self, replica: &Replica) -> anyhow::Result<TestInstance> {
        Ok(TestInstance { caller: replica.owner()?, id: self.instance.id.clone() })
    }

    /// Waits until a replica says that the log was set back, and tries what it must refuse.
    pub async fn halts(&self, replica: &Replica) -> anyhow::Result<()> {
        eventually(NOTICED, "a replica is not ready because the log was set back", async || match http::get(
            &replica.admin,
            "/readyz",
        )
        .await
        {
            Ok((503, text)) if text.contains("the log was set back") => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await?;
        let instance = self.at(replica)?;
        let refusal =
            refused(instance.inactivate(&self.kept.sn).await, Code::FailedPrecondition, "LogSetBack")?;
        anyhow::ensure!(refusal.message.contains("catrust-server epoch status"), "{refusal:?}");
        refused(instance.bundle().await, Code::FailedPrecondition, "LogSetBack")?;
        Ok(())
    }

    /// What an unsigned read at a replica says of the log.
    pub async fn log_state(&self, caller: &Caller) -> anyhow::Result<Option<String>> {
        let request = catrust_proto::v1::GetCaCertificateRequest {
            mqtt_instance_id: self.instance.id.clone(),
            sn: self.kept.sn.clone(),
        };
        let reply = caller.ca.clone().get_ca_certificate(request).await?;
        let state = reply.metadata().get("catrust-log-state").map(|state| state.to_str().map(str::to_owned));
        Ok(state.transpose()?)
    }
}

/// Waits until a replica says in a metric that it has come to `position`.
pub async fn reaches(replica: &Replica, metric: &str, position: u64) -> anyhow::Result<()> {
    eventually(RECOVERY, metric, async || {
        let (_, metrics) = http::get(&replica.admin, "/metrics").await.map_err(|error| error.to_string())?;
        let mut lines = metrics.lines().filter(|line| line.starts_with(metric));
        let read = lines.find_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        match read {
            Some(read) if read >= position as f64 => Ok(()),
            read => Err(format!("{read:?} of {position}")),
        }
    })
    .await
}
