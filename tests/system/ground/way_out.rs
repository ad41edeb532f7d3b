//! The way out of a set-back: a new epoch, in which nothing is on that was turned off.

use std::time::Duration;

use anyhow::Context as _;
use catrust_proto::v1::CaCertificateState;
use catrust_tests::broker::{Broker, Device, Session};
use catrust_tests::certificates::Ca;
use catrust_tests::deployment::Plan;
use catrust_tests::eventually::eventually;
use catrust_tests::http;
use tokio::time::{Instant, timeout};

use super::stage::{RECOVERY, Stage, reaches};

/// From a begun epoch to a fleet that works.
const OUT_WITHIN: Duration = Duration::from_secs(10);

/// A set-back after which a CA is on that was turned off, with a broker.
struct Accident {
    stage: Stage,
    broker: Broker,
    /// Of a CA that was off, and is on in the log that was put back.
    off: (Ca, Device),
    /// Of a CA that stays on, with a session from before.
    on: (Ca, Device, Session),
}

impl Accident {
    async fn happen(plan: Plan) -> anyhow::Result<Self> {
        let mut stage = Stage::set(plan).await?;
        let servers = Ca::root("the broker's CA")?;
        let (off, on) = (stage.instance.new_ca().await?, stage.instance.new_ca().await?);
        let broker =
            Broker::gate(&stage.deployment, &stage.replicas[0], &stage.instance.id, &servers).await?;
        let device_off = Device::new("off", &off, &servers)?;
        let device_on = Device::new("on", &on, &servers)?;
        let admitted = async |device: &Device| {
            let connect = async || device.connect(&broker.address).await.map_err(|error| error.to_string());
            eventually(RECOVERY, "a device is admitted", connect).await
        };
        let (cut, stays) = (admitted(&device_off).await?, admitted(&device_on).await?);
        stage.image = stage.deployment.postgres.image().await?;
        eventually(RECOVERY, "the last inactivation", async || stage.instance.inactivate(&off.sn).await)
            .await?;
        timeout(OUT_WITHIN, cut.closed()).await.context("the device is not cut")?;
        let end = stage.instance.inactivate(&stage.kept.sn).await?.position;
        let published = stage
            .replicas
            .iter()
            .map(|replica| Box::pin(reaches(replica, "catrust_published_position", end)));
        futures::future::select_ok(published).await?;
        stage.set_back().await?;
        Ok(Self { stage, broker, off: (off, device_off), on: (on, device_on, stays) })
    }

    /// All that must hold once an epoch has begun, within [`OUT_WITHIN`] of `begun`.
    async fn ends(self, begun: Instant) -> anyhow::Result<()> {
        let Self { stage, broker, off: (off, device_off), on: (on, device_on, stays) } = self;
        let left = || OUT_WITHIN.saturating_sub(begun.elapsed());
        for replica in &stage.replicas {
            eventually(left(), "a replica is ready again", async || {
                match http::get(&replica.admin, "/readyz").await {
                    Ok((200, _)) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await?;
            let instance = stage.at(replica)?;
            eventually(left(), "the CA is off again", async || match instance.get(&off.sn).await {
                Ok(ca) if ca.state() == CaCertificateState::Inactive => Ok(()),
                other => Err(format!("{other:?}")),
            })
            .await?;
            let bundle = eventually(left(), "a bundle is signed", async || instance.bundle().await).await?;
            anyhow::ensure!(bundle.revision >> 32 > 0, "{bundle:?}");
        }
        // A new inactivation is enforced, and cuts the session that nothing has touched so far.
        let mut closed = tokio::spawn(stays.closed());
        anyhow::ensure!(timeout(Duration::from_millis(500), &mut closed).await.is_err(), "a session was cut");
        let connect = async || device_on.connect(&broker.address).await.map_err(|error| error.to_string());
        let another = eventually(left(), "a device of the CA that stayed on is admitted", connect).await?;
        anyhow::ensure!(device_off.connect(&broker.address).await.is_err(), "a CA is on that was turned off");
        let instance = stage.at(&stage.replicas[1])?;
        eventually(left(), "a change is taken", async || instance.inactivate(&on.sn).await).await?;
        timeout(left(), closed).await.context("the session from before goes on")??;
        timeout(left(), another.closed()).await.context("a session goes on")?;

        // The old stream is kept, and the new one holds the log.
        let list = stage.deployment.command(&["stream", "list"]).await?.success()?.stdout;
        let line = |name: &str| list.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        anyhow::ensure!(line("CATRUST ").contains("set aside"), "{list}");
        anyhow::ensure!(!line("CATRUST ").contains(" 0 messages"), "{list}");
        anyhow::ensure!(line("CATRUST_2 ").contains("in use"), "{list}");
        eventually(RECOVERY, "the stream holds the log", async || {
            let verified = stage.deployment.command(&["verify", "--stream"]).await;
            verified.and_then(catrust_tests::program::Completion::success)
        })
        .await?;
        let status = stage.deployment.command(&["epoch", "status"]).await?.success()?;
        anyhow::ensure!(status.stdout.contains("No witness contradicts the log."), "{status:?}");
        Ok(())
    }
}

// Ground rules 10 to 13: `status` names what is lost and the command; the epoch and what is made
// again are one transaction, the stricter of both; replicas go on without a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_begins_an_epoch_and_what_was_off_is_off_again() -> anyhow::Result<()> {
    let accident = Accident::happen(Plan::default()).await?;
    let stage = &accident.stage;
    for replica in &stage.replicas {
        stage.halts(replica).await?;
    }
    let status = stage.deployment.command(&["epoch", "status"]).await?;
    anyhow::ensure!(status.code == Some(1), "{status:?}");
    let item = format!("CaCertificateInactivated of CA certificate {}", accident.off.0.sn);
    let told =
        status.stdout.lines().any(|line| line.contains(&item) && line.contains("it is inactive again"));
    anyhow::ensure!(told, "{}", status.stdout);
    let command = status.stdout.lines().find_map(|line| line.trim().strip_prefix("catrust-server "));
    let words: Vec<&str> = command.context("status prints no command")?.split_whitespace().collect();
    let [epoch, begin, "--config", _, fork, place, "--reason", "TEXT"] = words[..] else {
        anyhow::bail!("{words:?}");
    };
    let command = [epoch, begin, fork, place, "--reason", "restored from a backup"];

    // Nobody answers here.
    let unasked = stage.deployment.command(&command).await?;
    anyhow::ensure!(unasked.code != Some(0) && unasked.stderr.contains("--yes"), "{unasked:?}");
    let (position, _) = place.split_once(':').context("the fork")?;
    let wrong = format!("{position}:{}", "ab".repeat(32));
    let other =
        stage.deployment.command(&["epoch", "begin", "--fork", &wrong, "--reason", "r", "--yes"]).await?;
    anyhow::ensure!(other.code != Some(0) && other.stderr.contains("no row with that hash"), "{other:?}");

    let begun = Instant::now();
    let done = stage.deployment.command(&[&command[..], &["--yes"]].concat()).await?.success()?;
    anyhow::ensure!(done.stdout.contains("has begun at position"), "{done:?}");
    accident.ends(begun).await
}
