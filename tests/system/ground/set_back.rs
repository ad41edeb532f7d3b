//! What is refused while the log is set back, and for how long.

use anyhow::Context as _;
use catrust_proto::v1::CaCertificateState;
use catrust_tests::client::refused;
use catrust_tests::deployment::Plan;
use catrust_tests::eventually::eventually;
use catrust_tests::http;
use catrust_tests::program::repository;
use tonic::{Code, Status};

use super::stage::{NOTICED, RECOVERY, Stage};
use crate::feed::watch::Watch;

/// The commands of the runbook, without the settings file, which comes last.
fn runbook_commands() -> anyhow::Result<Vec<Vec<String>>> {
    let text = std::fs::read_to_string(repository().join("deploy/RECOVERY.md"))?;
    let settings = " --config /etc/catrust/catrust.toml";
    let commands =
        text.lines().filter_map(|line| line.trim().strip_prefix("catrust-server ")?.strip_suffix(settings));
    Ok(commands.map(|words| words.split_whitespace().map(str::to_owned).collect()).collect())
}

async fn end_of(mut watch: Watch) -> anyhow::Result<Status> {
    loop {
        if let Err(end) = watch.next().await {
            return end.downcast::<Status>();
        }
    }
}

// Ground rules 3 and 8: what a replica has read and acknowledged is evidence; no change is taken, nothing is signed, streams end with the same code,
// readiness fails with the reason, unsigned reads go on, marked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_set_back_under_running_replicas_takes_no_change_and_says_so() -> anyhow::Result<()> {
    let mut stage = Stage::set(Plan::default()).await?;
    let mut watch = Watch::open(&stage.instance, None).await?;
    watch.next_bundle().await?;
    assert_eq!(stage.log_state(&stage.instance.caller).await?, None);

    stage.set_back().await?;
    for replica in &stage.replicas {
        stage.halts(replica).await?;
        assert_eq!(stage.log_state(&replica.owner()?).await?.as_deref(), Some("set-back"));
        eventually(NOTICED, "the metric says so", async || {
            let (_, metrics) =
                http::get(&replica.admin, "/metrics").await.map_err(|error| error.to_string())?;
            let told: Vec<_> =
                metrics.lines().filter(|line| line.starts_with("catrust_log_set_back")).collect();
            let lasts = |line: &&str| line.contains("_duration_seconds") && !line.ends_with(" 0");
            if told.iter().any(lasts) { Ok(()) } else { Err(told.join("; ")) }
        })
        .await?;
    }
    let end = tokio::time::timeout(NOTICED, end_of(watch)).await.context("the watch goes on")??;
    assert_eq!(end.code(), Code::FailedPrecondition, "{end:?}");
    assert!(end.message().contains("the event log was set back"), "{end:?}");
    let opened = Watch::open(&stage.instance, None).await.map(drop);
    refused(opened, Code::FailedPrecondition, "LogSetBack")?;

    // Item by item, by the command that the runbook has.
    let commands = runbook_commands()?;
    assert_eq!(commands, [["epoch", "status"]]);
    let words: Vec<&str> = commands[0].iter().map(String::as_str).collect();
    let status = stage.deployment.command(&words).await?;
    assert_eq!(status.code, Some(1), "{status:?}");
    for ca in &stage.lost {
        let item = format!("CaCertificateInactivated of CA certificate {} in {}", ca.sn, stage.instance.id);
        assert!(status.stdout.contains(&item) && status.stdout.contains("(INACTIVE)"), "{}", status.stdout);
    }
    assert!(status.stdout.contains("The log was set back."), "{}", status.stdout);

    // Ground rule 5: verified messages of the stream are a source, also for servers that remember
    // nothing.
    stage.replicas.clear();
    // Ground rule 7: what was found is stored, signed: no replica goes on acknowledging.
    for name in ["c", "d"] {
        let restarted = stage.deployment.replica(name).await?;
        stage.halts(&restarted).await?;
        stage.replicas.push(restarted);
    }
    Ok(())
}

// Ground rule 6: a verdict, not a latch: it lasts while the evidence contradicts the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_has_its_end_again_takes_changes_again() -> anyhow::Result<()> {
    let mut stage = Stage::set(Plan::default()).await?;
    let whole = stage.deployment.postgres.image().await?;
    stage.set_back().await?;
    for replica in &stage.replicas {
        stage.halts(replica).await?;
    }
    stage.deployment.postgres.put_back(&whole).await?;
    for replica in &stage.replicas {
        let instance = stage.at(replica)?;
        for ca in &stage.lost {
            // The database has just been started again.
            let found =
                eventually(RECOVERY, "the database is read again", async || instance.get(&ca.sn).await);
            assert_eq!(found.await?.state(), CaCertificateState::Inactive);
        }
        eventually(RECOVERY, "changes are taken again", async || instance.inactivate(&stage.kept.sn).await)
            .await?;
        eventually(RECOVERY, "bundles are signed again", async || instance.bundle().await).await?;
        assert_eq!(stage.log_state(&replica.owner()?).await?, None);
    }
    let status = stage.deployment.command(&["epoch", "status"]).await?.success()?;
    assert!(status.stdout.contains("No witness contradicts the log."), "{}", status.stdout);
    Ok(())
}

// Ground rule 5: the checkpoint file is a source at the start; a start that finds no witness
// serves, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_file_tells_a_start_that_the_log_was_set_back() -> anyhow::Result<()> {
    let mut stage = Stage::set(Plan { nats: None, ..Plan::default() }).await?;
    let checkpoints = stage.deployment.files.path().join("checkpoints");
    let path = format!("{:?}", checkpoints.to_string_lossy());
    let settings = [("audit.checkpoint_file", path.as_str()), ("audit.interval_seconds", "1")];
    let witness = stage.deployment.replica_with("witness", &settings).await?;
    eventually(RECOVERY, "a checkpoint is in the file", async || {
        match std::fs::read_to_string(&checkpoints) {
            Ok(text) if !text.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    drop(witness);
    stage.replicas.clear();
    stage.set_back().await?;

    let blind = stage.deployment.replica("blind").await?;
    assert!(blind.server.output().text().contains("no witness says how far the log went"));
    let instance = stage.at(&blind)?;
    instance.bundle().await?;

    let told = stage.deployment.replica_with("told", &settings).await?;
    stage.halts(&told).await?;
    // And now every replica knows.
    stage.halts(&blind).await
}
