//! Starting, migrating, checking, telling and leaving.

use std::path::Path;
use std::time::{Duration, Instant};

use catrust_proto::v1::CaCertificateState;
use catrust_tests::deployment::{Deployment, Plan};
use catrust_tests::eventually::eventually;
use catrust_tests::http;
use catrust_tests::instance::TestInstance;
use catrust_tests::process::Signal;
use catrust_tests::program::repository;
use catrust_tests::server::{Server, run_server};
use sqlx::migrate::Migrator;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use crate::feed::watch::Watch;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaving_server_says_so_ends_its_streams_and_exits_in_time() -> anyhow::Result<()> {
    let plan = Plan { nats: None, ..Plan::default() }
        .set("lifecycle.drain_delay_seconds", "2")
        .set("lifecycle.shutdown_grace_seconds", "5");
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    instance.new_ca().await?;
    let mut watches = Vec::new();
    for _ in 0..20 {
        let mut watch = Watch::open(&instance, None).await?;
        watch.next_bundle().await?;
        watches.push(watch);
    }
    let mut health = replica.server.caller(None)?.health;
    let mut states = health.watch(HealthCheckRequest::default()).await?.into_inner();
    let first = states.message().await?.map(|state| state.status());
    assert_eq!(first, Some(ServingStatus::Serving));
    let (ready, _) = http::get(&replica.admin, "/readyz").await?;
    assert_eq!(ready, 200);

    let started = Instant::now();
    replica.server.signal(Signal::TERM);
    let second = tokio::time::timeout(Duration::from_secs(10), states.message()).await??;
    assert_eq!(
        second.map(|state| state.status()),
        Some(ServingStatus::NotServing),
        "not ready before draining"
    );
    let (ready, _) = http::get(&replica.admin, "/readyz").await?;
    assert_ne!(ready, 200);
    instance.bundle().await?;
    println!("a call was answered {:?} into the drain delay", started.elapsed());

    for mut watch in watches {
        let end = loop {
            if let Err(end) = watch.next().await {
                break end;
            }
        };
        let status = end.downcast_ref::<tonic::Status>();
        assert_eq!(status.map(tonic::Status::code), Some(Code::Unavailable), "{end:#}");
    }
    let status = replica.server.ended(Duration::from_secs(10)).await?;
    assert!(status.success(), "{status}");
    assert!(started.elapsed() >= Duration::from_secs(2), "the drain delay was kept");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_server_leaves_on_both_signals() -> anyhow::Result<()> {
    for signal in [Signal::TERM, Signal::INT] {
        let data = tempfile::tempdir()?;
        let server = Server::dev(data.path()).await?;
        let caller = server.caller(None)?;
        let instance = TestInstance::register(&caller, &caller, "dev").await?;
        let mut watch = Watch::open(&instance, None).await?;
        watch.next_bundle().await?;
        server.signal(signal);
        let status = server.ended(Duration::from_secs(15)).await?;
        assert!(status.success(), "{status} on {signal:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_grace_period_begins_after_the_drain_delay() -> anyhow::Result<()> {
    let plan = Plan { nats: None, ..Plan::default() }
        .set("lifecycle.drain_delay_seconds", "3")
        .set("lifecycle.shutdown_grace_seconds", "1");
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    replica.server.signal(Signal::TERM);
    let status = replica.server.ended(Duration::from_secs(10)).await?;
    assert!(status.success(), "{status}");
    Ok(())
}

/// A load balancer's connection in advance, a probe that said half a sentence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_on_which_nothing_goes_on_do_not_delay_leaving() -> anyhow::Result<()> {
    use tokio::io::AsyncWriteExt as _;
    let plan = Plan { nats: None, ..Plan::default() }
        .set("lifecycle.drain_delay_seconds", "0")
        .set("lifecycle.shutdown_grace_seconds", "20");
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    let _mute = tokio::net::TcpStream::connect(replica.server.authority()).await?;
    let mut half = tokio::net::TcpStream::connect(&replica.admin).await?;
    half.write_all(b"GET /healthz HT").await?;
    replica.operator()?.instances.list_instances(catrust_proto::v1::ListInstancesRequest::default()).await?;
    let started = Instant::now();
    replica.server.signal(Signal::TERM);
    let status = replica.server.ended(Duration::from_secs(10)).await?;
    assert!(status.success(), "{status}");
    println!("left in {:?}", started.elapsed());
    Ok(())
}

async fn unmigrated() -> anyhow::Result<Deployment> {
    Plan { nats: None, migrated: false, ..Plan::default() }.deploy().await
}

/// A server that must not come up; gives what it said.
async fn refuses_to_serve(deployment: &Deployment) -> anyhow::Result<String> {
    let process = deployment.unstarted("refused")?.start()?;
    let status = process.ended(Duration::from_secs(30)).await?;
    anyhow::ensure!(!status.success(), "it ended with {status}");
    Ok(process.output().text())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migrations_may_run_again_and_at_once() -> anyhow::Result<()> {
    let deployment = unmigrated().await?;
    let runs = futures::future::join_all((0..4).map(|_| deployment.migrate())).await;
    for run in runs {
        run?.success()?;
    }
    deployment.migrate().await?.success()?;
    deployment.grant().await?;
    let replica = deployment.replica("a").await?;
    replica.instance().await?.new_ca().await?;
    deployment.command(&["verify"]).await?.success()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_or_older_database_is_refused_by_a_message_that_names_the_cure() -> anyhow::Result<()> {
    let deployment = unmigrated().await?;
    let mut owner = deployment.database().await?;
    sqlx::raw_sql("CREATE ROLE catrust_app LOGIN").execute(&mut owner).await?;
    assert!(refuses_to_serve(&deployment).await?.contains("catrust-server migrate"));

    // The first migration alone, as an older program left it.
    let first = tempfile::tempdir()?;
    let name = "0001_event_log.sql";
    std::fs::copy(repository().join("migrations/postgres").join(name), first.path().join(name))?;
    Migrator::new(first.path()).await?.run(&mut owner).await?;
    // `roles.sql` is for the tables of its own version.
    sqlx::raw_sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO catrust_app").execute(&mut owner).await?;
    assert!(refuses_to_serve(&deployment).await?.contains("catrust-server migrate"));

    deployment.migrate().await?.success()?;
    deployment.grant().await?;
    let replica = deployment.replica("a").await?;
    replica.instance().await?.new_ca().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_with_data_survives_its_migration() -> anyhow::Result<()> {
    let deployment = Plan { nats: None, ..Plan::default() }.deploy().await?;
    let (id, sn, before) = {
        let replica = deployment.replica("a").await?;
        let instance = replica.instance().await?;
        let ca = instance.new_ca().await?;
        instance.inactivate(&ca.sn).await?;
        (instance.id.clone(), ca.sn, instance.bundle().await?)
    };
    // Back to the schema of the version before, with the data in place.
    let mut owner = deployment.database().await?;
    let back = "DROP TABLE broker_receipts; DROP TABLE tree_nodes; DROP TABLE refusals; DROP INDEX events_by_serial_number; DROP INDEX replies_by_age; DROP INDEX instances_by_owner; \
                DROP TYPE new_event, instance_change, ca_certificate_change, new_reply; \
                DROP TABLE log_evidence; DROP INDEX events_epoch_begins; \
                ALTER TABLE log_identity DROP COLUMN read_model_generation, DROP COLUMN oldest_schema_version; \
                DELETE FROM _sqlx_migrations WHERE version > 1";
    sqlx::raw_sql(back).execute(&mut owner).await?;
    assert!(refuses_to_serve(&deployment).await?.contains("catrust-server migrate"));
    deployment.migrate().await?.success()?;
    deployment.grant().await?;
    let replica = deployment.replica("a").await?;
    let instance = TestInstance { caller: replica.owner()?, id };
    let after = instance.bundle().await?;
    assert_eq!((after.log_id, after.revision, after.bundle_digest), (before.log_id, 2, before.bundle_digest));
    assert_eq!(instance.get(&sn).await?.state(), CaCertificateState::Inactive);
    assert!(instance.activate(&sn).await?.changed);
    deployment.command(&["verify"]).await?.success()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_finds_a_changed_row_and_a_changed_read_model() -> anyhow::Result<()> {
    let deployment = Plan { nats: None, ..Plan::default() }.deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    let ca = instance.new_ca().await?;
    instance.inactivate(&ca.sn).await?;
    deployment.command(&["verify"]).await?.success()?;

    let mut owner = deployment.database().await?;
    let refused = sqlx::query("UPDATE events SET actor = 'somebody else'").execute(&mut owner).await;
    assert!(refused.is_err(), "the trigger holds for the owner, too");
    let refused = sqlx::query("DELETE FROM events").execute(&mut owner).await;
    assert!(refused.is_err());

    sqlx::query("UPDATE ca_certificates SET state = 'ACTIVE', inactivation_scope = NULL")
        .execute(&mut owner)
        .await?;
    let found = deployment.command(&["verify"]).await?;
    assert_eq!(found.code, Some(1), "{found:?}");
    assert!((found.stdout + &found.stderr).contains("read model"));
    drop(replica);
    deployment.command(&["rebuild"]).await?.success()?;
    deployment.command(&["verify"]).await?.success()?;

    // A superuser can get past the trigger, not past the chain.
    let forge = "SET session_replication_role = replica; \
                 UPDATE events SET actor = 'somebody else' WHERE position = 2";
    sqlx::raw_sql(forge).execute(&mut owner).await?;
    let found = deployment.command(&["verify"]).await?;
    assert_eq!(found.code, Some(1), "{found:?}");
    assert!((found.stdout + &found.stderr).contains("position 2"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sample_configurations_are_accepted() -> anyhow::Result<()> {
    let mut checked = 0;
    for entry in std::fs::read_dir(repository().join("deploy/config"))?.flatten() {
        let path = entry.path();
        let text = std::fs::read_to_string(&path)?;
        if text.contains("[[identity]]") || path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        check_sample(&path, &text).await?;
        checked += 1;
    }
    assert!(checked >= 3, "{checked} samples");
    Ok(())
}

/// The files that a sample names do not exist here: they are made beside a copy.
async fn check_sample(path: &Path, text: &str) -> anyhow::Result<()> {
    let files = tempfile::tempdir()?;
    let beside = if text.contains("policy_dir = ") { ".beside-policies" } else { "" };
    let identities = format!("deploy/config/identities{beside}.example.toml");
    let identities = std::fs::read_to_string(repository().join(identities))?;
    let key =
        catrust_tests::program::run("openssl", ["genpkey", "-algorithm", "ed25519"]).await?.success()?.stdout;
    let ca = catrust_tests::certificates::Ca::root("sample")?;
    let leaf = ca.server()?;
    let mut copy = String::new();
    for line in text.lines() {
        let (name, content) = match line.split_once(" = ").map(|(name, _)| name) {
            Some(name @ "token_file") => (name, identities.clone()),
            Some(name @ "cert_file") => (name, leaf.pem.clone()),
            Some(name @ ("client_ca_file" | "root_ca_file")) => (name, ca.pem.clone()),
            Some(name @ "password_file") => (name, "secret".to_owned()),
            Some(name @ ("credentials_file" | "nkey_file")) => (name, "credentials".to_owned()),
            Some(name @ "key_file") if copy.contains("cert_file") => (name, leaf.key_pem.clone()),
            Some(name @ "key_file") => (name, key.clone()),
            Some("policy_dir") => {
                let policies = repository().join("deploy/policies");
                copy.push_str(&format!("policy_dir = {:?}\n", policies.to_string_lossy()));
                continue;
            }
            _ => {
                copy.push_str(line);
                copy.push('\n');
                continue;
            }
        };
        let file = files.path().join(format!("{}-{}", name, copy.len()));
        std::fs::write(&file, content)?;
        copy.push_str(&format!("{name} = {:?}\n", file.to_string_lossy()));
    }
    let config = files.path().join("config.toml");
    std::fs::write(&config, copy)?;
    let finished = run_server(&["config", "check", "--config", &config.to_string_lossy()], &[]).await?;
    anyhow::ensure!(finished.code == Some(0), "{}: {finished:?}", path.display());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_and_wrong_settings_are_named_and_secrets_are_not_printed() -> anyhow::Result<()> {
    let deployment = Plan { nats: None, ..Plan::default() }.deploy().await?;
    for (line, named) in [
        ("[grpc]\nlissten = \"127.0.0.1:0\"", "lissten"),
        ("[rate_limit]\nburst = \"many\"", "rate_limit.burst"),
        ("[rate_limit]\nburst = 0", "rate_limit.burst"),
        ("[database]\nurl = \"mysql://x:hunter2@y/z\"", "database.url"),
        ("[no_such_section]\na = 1", "no_such_section"),
    ] {
        let file = deployment.files.path().join("wrong.toml");
        std::fs::write(&file, line)?;
        let finished = run_server(&["config", "check", "--config", &file.to_string_lossy()], &[]).await?;
        let said = finished.stdout + &finished.stderr;
        assert_ne!(finished.code, Some(0), "{line}");
        assert!(said.contains(named), "{line}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    let schema = run_server(&["config", "schema"], &[]).await?.success()?.stdout;
    let schema: serde_json::Value = serde_json::from_str(&schema)?;
    assert!(schema["properties"]["rate_limit"].is_object());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_listener_tells_health_and_metrics() -> anyhow::Result<()> {
    let deployment = Plan::default().deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    let ca = instance.new_ca().await?;
    let watch = Watch::open(&instance, None).await?;
    let last = instance.inactivate(&ca.sn).await?.position;
    deployment.nats().reaches(last, Duration::from_secs(20)).await?;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(http::get(&replica.admin, path).await?.0, 200, "{path}");
    }
    assert_eq!(http::get(&replica.admin, "/nothing").await?.0, 404);
    // Commands, batches, the queue, the log's head, the published position,
    // watchers, the limiter.
    let wanted = ["command", "batch", "queue", "head", "published", "watch", "limit"];
    eventually(Duration::from_secs(20), "the metrics", async || {
        let (status, text) =
            http::get(&replica.admin, "/metrics").await.map_err(|error| format!("{error:#}"))?;
        let names: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let missing: Vec<_> =
            wanted.iter().filter(|word| !names.iter().any(|name| name.contains(**word))).collect();
        let head = format!(" {last}");
        let positions = names.iter().filter(|name| name.ends_with(&head)).count();
        match (status, missing.is_empty(), positions >= 2) {
            (200, true, true) => Ok(()),
            _ => Err(format!("{status}, missing {missing:?}, {positions} at {last}:\n{text}")),
        }
    })
    .await?;
    drop(watch);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_server_is_small() -> anyhow::Result<()> {
    let deployment = Plan::default().deploy().await?;
    let replica = deployment.replica("a").await?;
    let mebibytes = replica.server.resident_bytes()? / (1 << 20);
    println!("resident: {mebibytes} MiB, unoptimised");
    assert!(mebibytes < 80, "twice the target of the release build: {mebibytes} MiB");
    Ok(())
}
