//! The database killed, paused or full, and the server killed: nothing that was
//! acknowledged is lost, and everything comes back by itself.

use std::time::{Duration, Instant};

use catrust_proto::v1::{CaCertificateState, GetInstanceRequest};
use catrust_tests::certificates::request_id;
use catrust_tests::client::{Refusal, refused};
use catrust_tests::deployment::{Deployment, Plan, Replica};
use catrust_tests::eventually::eventually;
use catrust_tests::instance::TestInstance;
use catrust_tests::postgres::Durability;
use catrust_tests::process::Launcher;
use catrust_tests::program::built;
use catrust_tests::server::{Server, run_server};
use tonic::{Code, Status};

use crate::feed::nats::agrees_with_log;

/// How long the server may take to work again once the database does.
const RECOVERY: Duration = Duration::from_secs(30);

async fn durable() -> anyhow::Result<(Deployment, Replica)> {
    let deployment = Plan { durability: Durability::Full, ..Plan::default() }.deploy().await?;
    let replica = deployment.replica("a").await?;
    Ok((deployment, replica))
}

/// Flips `sn` with one request id until it is acknowledged; gives the position and
/// every refusal on the way.
pub async fn insist(instance: &TestInstance, sn: &str, off: bool) -> anyhow::Result<(u64, Vec<Status>)> {
    let (id, started) = (request_id(), Instant::now());
    let mut refusals = Vec::new();
    loop {
        let mut client = instance.caller.ca.clone();
        let outcome = if off {
            let mut request = instance.inactivation(sn);
            request.request_id = id.clone();
            client.inactivate_ca_certificate(request).await.map(|reply| reply.into_inner().position)
        } else {
            let mut request = instance.activation(sn);
            request.request_id = id.clone();
            client.activate_ca_certificate(request).await.map(|reply| reply.into_inner().position)
        };
        match outcome {
            Ok(position) => return Ok((position, refusals)),
            Err(status) if started.elapsed() < 2 * RECOVERY => refusals.push(status),
            Err(status) => anyhow::bail!("still refused after {:?}: {status:?}", started.elapsed()),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub fn all_unavailable(refusals: &[Status]) -> anyhow::Result<()> {
    for status in refusals {
        if status.code() == Code::DeadlineExceeded {
            continue;
        }
        anyhow::ensure!(status.code() == Code::Unavailable, "{status:?}");
        let refusal = Refusal::of(status)?;
        anyhow::ensure!(refusal.code == "SystemOverFlow" && refusal.retry_after.is_some(), "{refusal:?}");
        for inner in ["sqlx", "connection refused", "127.0.0.1", "postgres"] {
            anyhow::ensure!(!refusal.message.to_lowercase().contains(inner), "it shows {inner}: {refusal:?}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_killed_under_load_loses_nothing_that_was_acknowledged() -> anyhow::Result<()> {
    let (mut deployment, replica) = durable().await?;
    let instance = replica.instance().await?;
    let mut callers = Vec::new();
    for _ in 0..16 {
        let ca = instance.new_ca().await?;
        let instance = instance.clone();
        callers.push(tokio::spawn(async move {
            let (mut positions, mut refusals) = (Vec::new(), Vec::new());
            let (started, mut slowest) = (Instant::now(), Duration::ZERO);
            let mut off = false;
            while started.elapsed() < Duration::from_secs(8) {
                off = !off;
                let asked = Instant::now();
                let (position, refused) = insist(&instance, &ca.sn, off).await?;
                slowest = slowest.max(asked.elapsed());
                positions.push(position);
                refusals.extend(refused);
            }
            anyhow::Ok((ca.sn, off, positions, refusals, slowest))
        }));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    deployment.postgres.kill();
    tokio::time::sleep(Duration::from_secs(1)).await;
    deployment.postgres.restart().await?;

    let mut acknowledged = Vec::new();
    let mut refused = 0;
    for caller in futures::future::join_all(callers).await {
        let (sn, off, positions, refusals, slowest) = caller??;
        all_unavailable(&refusals)?;
        // Refused meanwhile, or kept waiting until it was over: both are answers.
        assert!(slowest >= Duration::from_millis(500), "the outage was not noticed: {slowest:?} at most");
        refused += refusals.len();
        acknowledged.extend(positions);
        let expected = if off { CaCertificateState::Inactive } else { CaCertificateState::Active };
        assert_eq!(instance.get(&sn).await?.state(), expected);
    }
    acknowledged.sort_unstable();
    let count = acknowledged.len();
    acknowledged.dedup();
    assert_eq!(acknowledged.len(), count, "no position was told twice");
    deployment.command(&["verify"]).await?.success()?;
    let head = agrees_with_log(deployment.nats(), &deployment.postgres).await?;
    assert!(acknowledged.last().is_some_and(|last| *last <= head));
    println!("{count} changes acknowledged, {refused} refusals, head {head}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_database_is_told_as_unavailable_and_comes_back() -> anyhow::Result<()> {
    let (deployment, replica) = durable().await?;
    let instance = replica.instance().await?;
    let ca = instance.new_ca().await?;
    deployment.postgres.pause();
    let mut refusals = Vec::new();
    let started = Instant::now();
    while refusals.len() < 3 && started.elapsed() < RECOVERY {
        refusals.extend(instance.inactivate(&ca.sn).await.err());
    }
    deployment.postgres.resume();
    assert!(refusals.len() >= 3, "a change was acknowledged by a paused database");
    all_unavailable(&refusals)?;
    let (position, _) = insist(&instance, &ca.sn, true).await?;
    assert!(position > 0);
    assert_eq!(instance.get(&ca.sn).await?.state(), CaCertificateState::Inactive);
    deployment.command(&["verify"]).await?.success()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_fail_while_the_database_is_away_and_work_again_after() -> anyhow::Result<()> {
    let (mut deployment, replica) = durable().await?;
    let instance = replica.instance().await?;
    let ca = instance.new_ca().await?;
    deployment.postgres.kill();
    let status = instance.get("ABCD").await.expect_err("a read without a database");
    all_unavailable(&[status])?;
    deployment.postgres.restart().await?;
    eventually(RECOVERY, "reads work again", async || instance.get(&ca.sn).await).await?;
    let (mut instances, id) = (replica.operator()?.instances, instance.id.clone());
    instances.get_instance(GetInstanceRequest { mqtt_instance_id: id }).await?;
    insist(&instance, &ca.sn, true).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_server_keeps_everything_over_a_kill() -> anyhow::Result<()> {
    let data = tempfile::tempdir()?;
    let server = Server::dev(data.path()).await?;
    let caller = server.caller(None)?;
    let instance = TestInstance::register(&caller, &caller, "dev").await?;
    let ca = instance.new_ca().await?;
    let mut state = false;
    let mut known = instance.bundle().await?;
    drop(server);
    for round in 0..5 {
        let server = Server::dev(data.path()).await?;
        let instance = TestInstance { caller: server.caller(None)?, id: instance.id.clone() };
        let now = instance.bundle().await?;
        assert_eq!((&now.log_id, now.revision), (&known.log_id, known.revision), "round {round}");
        assert_eq!(now.bundle_digest, known.bundle_digest);
        let key = |bundle: &catrust_proto::v1::TrustBundle| bundle.signature.clone().map(|s| s.key_id);
        assert_eq!(key(&now), key(&known), "the signing key stays");
        state = !state;
        let changed = if state {
            instance.inactivate(&ca.sn).await?.changed
        } else {
            instance.activate(&ca.sn).await?.changed
        };
        assert!(changed);
        known = instance.bundle().await?;
        // Right after the acknowledgement: it must be on the disk.
        server.kill();
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_ends_at_its_deadline_while_the_database_hangs() -> anyhow::Result<()> {
    let plan = Plan { nats: None, ..Plan::default() }.set("grpc.default_deadline_ms", "1000");
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    let ca = instance.new_ca().await?;
    deployment.postgres.pause();
    // The client of the harness waits for 30 s: the deadline is the server's.
    let started = Instant::now();
    let reply = instance.inactivate(&ca.sn).await;
    let refusal = refused(reply, Code::DeadlineExceeded, "DeadlineExceeded")?;
    assert!(refusal.message.contains("request_id"), "what to do: {}", refusal.message);
    let took = started.elapsed();
    assert!((900..=3_000).contains(&took.as_millis()), "{took:?}");
    deployment.postgres.resume();
    insist(&instance, &ca.sn, true).await?;
    Ok(())
}

/// `prlimit --fsize` stands in for a full disk: the kernel refuses to let any file
/// grow beyond it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_loses_nothing() -> anyhow::Result<()> {
    let data = tempfile::tempdir()?;
    {
        let server = Server::dev(data.path()).await?;
        server.caller(None)?.health.check(tonic_health::pb::HealthCheckRequest::default()).await?;
    }
    let program = built("catrust-server")?;
    let mut launcher = Launcher::new("catrust-server dev (small files)", "prlimit");
    let command = launcher.command();
    // A signal at the limit would end the process; a refused write is what a full
    // disk gives.
    command.args(["--fsize=1500000", "--", "sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"]).arg(program);
    command.args(["dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data.path());
    command.env("CATRUST_RATE_LIMIT__PER_USER_PER_SECOND", "100000");
    command.env("CATRUST_RATE_LIMIT__BURST", "100000").env("CATRUST_ADMIN__LISTEN", "127.0.0.1:0");
    let server = Server::start(launcher).await?;
    let caller = server.caller(None)?;
    let instance = TestInstance::register(&caller, &caller, "dev").await?;
    let ca = instance.new_ca().await?;
    let (mut acknowledged, mut off, mut refusal) = (0, false, None);
    for _ in 0..5_000 {
        off = !off;
        let outcome = if off {
            instance.inactivate(&ca.sn).await.map(|reply| reply.position)
        } else {
            instance.activate(&ca.sn).await.map(|reply| reply.position)
        };
        match outcome {
            Ok(position) => acknowledged = position,
            Err(status) => {
                refusal = Some(status);
                break;
            }
        }
    }
    let status = refusal.expect("5,000 changes fit into 1.5 MB");
    let refusal = Refusal::of(&status)?;
    assert!(matches!(refusal.status, Code::Unavailable | Code::Internal), "{refusal:?}");
    assert!(instance.get(&ca.sn).await.is_ok(), "reads go on");
    drop(server);

    // With room again everything that was acknowledged is there, and it goes on.
    let server = Server::dev(data.path()).await?;
    let instance = TestInstance { caller: server.caller(None)?, id: instance.id };
    let now = instance.bundle().await?;
    assert!(now.position >= acknowledged, "position {} after {acknowledged}", now.position);
    instance.activate(&ca.sn).await?;
    assert!(instance.inactivate(&ca.sn).await?.position > acknowledged);
    drop(server);
    run_server(&["verify", "--data-dir", &data.path().to_string_lossy()], &[]).await?.success()?;
    Ok(())
}
