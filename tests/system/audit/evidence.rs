//! Checkpoints, exports and proofs: what leaves the database, and holds without it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use catrust_proto::v1::audit_service_client::AuditServiceClient;
use catrust_proto::v1::prove_event_request::Event;
use catrust_proto::v1::{ProveEventRequest, ProveEventResponse};
use catrust_tests::client::{refused, refused_field};
use catrust_tests::deployment::{Deployment, OWNER, Plan, Replica};
use catrust_tests::eventually::eventually;
use catrust_tests::foreign::script;
use catrust_tests::http;
use catrust_tests::instance::TestInstance;
use futures::StreamExt as _;
use serde_json::Value;
use tonic::{Code, Status};

use super::catrust;
use super::ledger::{LAST, Ledger, MIDDLE};

const PATIENCE: Duration = Duration::from_secs(30);

/// A deployment whose replicas sign a checkpoint every second.
async fn signing(settings: &[(&str, &str)]) -> anyhow::Result<Deployment> {
    let mut plan = Plan::default().set("audit.interval_seconds", "1");
    for (key, value) in settings {
        plan = plan.set(key, value);
    }
    plan.deploy().await
}

/// Sizes of the checkpoints in a file.
fn sizes(path: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines
        .windows(2)
        .filter(|pair| pair[0].starts_with("catrust/log/"))
        .filter_map(|pair| pair[1].parse().ok())
        .collect()
}

async fn reaches(path: &Path, size: u64) -> anyhow::Result<()> {
    eventually(PATIENCE, &format!("a checkpoint of {size} events"), async || {
        let sizes = sizes(path);
        if sizes.last() == Some(&size) { Ok(()) } else { Err(format!("{sizes:?}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkpoints_go_to_a_file_and_to_nats_and_are_the_same_on_every_replica() -> anyhow::Result<()> {
    let files = tempfile::tempdir()?;
    let path = |name: &str| files.path().join(name);
    let deployment = signing(&[]).await?;
    let mut published = deployment.nats().client().await?.subscribe("catrust.v1.checkpoint").await?;
    let mut replicas = Vec::new();
    for name in ["a", "b"] {
        let file = format!("{:?}", path(name).to_string_lossy());
        replicas.push(deployment.replica_with(name, &[("audit.checkpoint_file", &file)]).await?);
    }
    let instance = replicas[0].instance().await?;
    instance.new_ca().await?;
    let size = instance.new_ca().await?;
    let last = instance.inactivate(&size.sn).await?.position;
    for name in ["a", "b"] {
        reaches(&path(name), last).await?;
        let sizes = sizes(&path(name));
        assert!(sizes.is_sorted_by(|a, b| a < b), "nothing is signed twice: {sizes:?}");
    }
    let found = tokio::time::timeout(PATIENCE, async {
        loop {
            let message = published.next().await.context("the subscription ended")?;
            let note = String::from_utf8(message.payload.to_vec())?;
            if note.lines().nth(1) == Some(&last.to_string()) {
                return Ok::<_, anyhow::Error>(note);
            }
        }
    });
    let found = found.await??;
    for name in ["a", "b"] {
        assert!(std::fs::read_to_string(path(name))?.ends_with(&found), "one log, one note: {name}");
    }
    drop(replicas);
    let file = path("a").to_string_lossy().into_owned();
    deployment.command(&["verify", "--checkpoints", &file, "--stream"]).await?.success()?;
    Ok(())
}

/// Verifies a damaged log against checkpoints; gives the first place.
async fn first_damage(ledger: &Ledger, file: &str) -> anyhow::Result<(Option<i64>, String, String)> {
    let (code, report) = ledger.verify(&["--checkpoints", file]).await?;
    anyhow::ensure!(code == Some(1) && report["clean"] == false, "{code:?}: {report}");
    let text = |key: &str| report["first"][key].as_str().unwrap_or_default().to_owned();
    Ok((report["first"]["position"].as_i64(), text("kind"), text("description")))
}

async fn clean(ledger: &Ledger, more: &[&str]) -> anyhow::Result<()> {
    let (code, report) = ledger.verify(more).await?;
    anyhow::ensure!(code == Some(0) && report["clean"] == true, "{code:?}: {report}");
    Ok(())
}

async fn a_cut_tail_is_found_by_a_checkpoint(ledger: &Ledger) -> anyhow::Result<()> {
    let files = tempfile::tempdir()?;
    let file = files.path().join("checkpoints").to_string_lossy().into_owned();
    let note = ledger.command(&["checkpoint", "--file", &file]).await?.success()?.stdout;
    assert_eq!(note, std::fs::read_to_string(&file)?);
    assert_eq!(ledger.command(&["checkpoint", "--file", &file]).await?.success()?.stdout, note);
    assert_eq!(note, std::fs::read_to_string(&file)?, "nothing new is signed twice");
    clean(ledger, &["--checkpoints", &file]).await?;

    ledger.execute(&format!("DELETE FROM events WHERE position > {MIDDLE}")).await?;
    ledger.command(&["rebuild"]).await?.success()?;
    clean(ledger, &[]).await?;
    let (position, kind, _) = first_damage(ledger, &file).await?;
    assert_eq!((position, kind.as_str()), (Some(MIDDLE + 1), "TAIL_CUT"));
    let refused = ledger.command(&["checkpoint", "--file", &file]).await?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("does not go on from the checkpoint of 10 events"), "{refused:?}");
    assert_eq!(note, std::fs::read_to_string(&file)?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_tail_is_found_by_a_checkpoint_on_sqlite() -> anyhow::Result<()> {
    a_cut_tail_is_found_by_a_checkpoint(&Ledger::sqlite().await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_tail_is_found_by_a_checkpoint_on_postgres() -> anyhow::Result<()> {
    a_cut_tail_is_found_by_a_checkpoint(&Ledger::postgres().await?).await
}

/// A forger who computes the whole chain anew is found between the checkpoints that still
/// hold and the first that does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_chained_anew_is_found_by_the_checkpoints() -> anyhow::Result<()> {
    let ledger = Ledger::postgres().await?;
    let files = tempfile::tempdir()?;
    let file = files.path().join("checkpoints").to_string_lossy().into_owned();
    // Checkpoints of the log as it grew.
    for size in [5, MIDDLE, LAST] {
        ledger.execute(&format!("DELETE FROM events WHERE position > {size}")).await?;
        ledger.command(&["checkpoint", "--file", &file]).await?.success()?;
        ledger.restore().await?;
    }
    clean(&ledger, &["--checkpoints", &file]).await?;
    let forge = format!("UPDATE events SET actor = 'somebody else' WHERE position = {MIDDLE}");
    ledger.execute(&forge).await?;
    ledger.chain_anew(MIDDLE).await?;
    ledger.command(&["rebuild"]).await?.success()?;
    clean(&ledger, &[]).await?;
    let (position, kind, description) = first_damage(&ledger, &file).await?;
    assert_eq!((position, kind.as_str()), (Some(6), "NOT_AS_PUBLISHED"));
    assert!(
        description.contains("from here to 7") && description.contains("of 5 events holds"),
        "{description}"
    );
    Ok(())
}

/// A server whose database lost its end serves on, and signs nothing more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_signs_nothing_that_contradicts_what_it_signed() -> anyhow::Result<()> {
    let files = tempfile::tempdir()?;
    let file = files.path().join("checkpoints");
    let setting = format!("{:?}", file.to_string_lossy());
    let deployment = signing(&[("audit.checkpoint_file", &setting)]).await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    let ca = instance.new_ca().await?;
    let last = instance.inactivate(&ca.sn).await?.position;
    reaches(&file, last).await?;
    let id = instance.id.clone();
    drop(replica);
    let mut owner = deployment.database().await?;
    let cut = "SET session_replication_role = replica; DELETE FROM events WHERE position > 3";
    sqlx::raw_sql(cut).execute(&mut owner).await?;
    deployment.command(&["rebuild"]).await?.success()?;
    let replica = deployment.replica("b").await?;
    // It cannot grow into another log of the same length, either.
    let instance = TestInstance { caller: replica.owner()?, id };
    refused(instance.activate(&ca.sn).await, Code::FailedPrecondition, "LogSetBack")?;
    eventually(PATIENCE, "the missing checkpoint is counted", async || {
        let (_, text) = http::get(&replica.admin, "/metrics").await.map_err(|error| error.to_string())?;
        let line = text.lines().find(|line| {
            line.starts_with("catrust_checkpoint_failures_total{") && line.contains("reason=\"set_back\"")
        });
        line.map(drop).ok_or_else(|| "no such line".to_owned())
    })
    .await?;
    assert_eq!(sizes(&file).last(), Some(&last), "nothing was signed since");
    assert!(replica.server.output().text().contains("the log was set back"));
    Ok(())
}

/// Files of evidence about a deployment's log.
struct Evidence {
    _files: tempfile::TempDir,
    key: String,
    export: PathBuf,
    proof: PathBuf,
    checkpoints: PathBuf,
}

async fn prove(replica: &Replica, instance: &str, event: Event) -> Result<ProveEventResponse, Status> {
    let caller = replica.owner().map_err(|error| Status::internal(error.to_string()))?;
    let mut client: AuditServiceClient<_> = caller.audit.clone();
    let request = ProveEventRequest { mqtt_instance_id: instance.to_owned(), event: Some(event) };
    Ok(client.prove_event(request).await?.into_inner())
}

async fn gather(
    deployment: &Deployment,
    replica: &Replica,
    instance: &str,
    event: &str,
) -> anyhow::Result<Evidence> {
    let files = tempfile::tempdir()?;
    let at = |name: &str| files.path().join(name);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let export = at("export.jsonl");
    deployment.command(&["export", "--out", &text(&export)]).await?.success()?;
    let checkpoints = at("checkpoints");
    deployment.command(&["checkpoint", "--file", &text(&checkpoints)]).await?.success()?;
    let line = ["audit", "prove", event, "--instance", instance];
    let printed = catrust(replica.server.address(), Some(OWNER), &line).await?.success()?;
    let proof = at("proof.json");
    std::fs::write(&proof, printed.stdout)?;
    Ok(Evidence { _files: files, key: text(&deployment.trust_key()), export, proof, checkpoints })
}

/// Runs `catrust audit …` where no server is.
async fn offline(arguments: &[&str]) -> anyhow::Result<catrust_tests::program::Completion> {
    catrust("http://127.0.0.1:1", None, &[&["audit"], arguments].concat()).await
}

async fn deployed() -> anyhow::Result<(Deployment, Replica, TestInstance, String)> {
    // A proof is made against the last checkpoint that covers its event: by hand alone here.
    let plan = Plan { nats: None, ..Plan::default() }.set("audit.interval_seconds", "86400");
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    let ca = instance.new_ca().await?;
    // More than one node that is kept, and a ragged end.
    for _ in 0..140 {
        instance.inactivate(&ca.sn).await?;
        instance.activate(&ca.sn).await?;
    }
    Ok((deployment, replica, instance, ca.sn))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exports_and_proofs_hold_without_server_and_database_and_for_strangers() -> anyhow::Result<()> {
    let (deployment, replica, instance, sn) = deployed().await?;
    let evidence = gather(&deployment, &replica, &instance.id, "42").await?;
    let (export, proof) = (evidence.export.to_string_lossy(), evidence.proof.to_string_lossy());
    let checkpoints = evidence.checkpoints.to_string_lossy();
    // The log goes on; the evidence stays good. Then everything of the server is gone.
    instance.inactivate(&sn).await?;
    drop((replica, deployment.postgres));
    std::fs::write(evidence.export.with_file_name("key.pem"), std::fs::read(&evidence.key)?)?;
    let key = evidence.export.with_file_name("key.pem").to_string_lossy().into_owned();

    let line = ["verify-export", &*export, "--trust-key", &key, "--checkpoints", &*checkpoints];
    let report = offline(&[&line[..], &["-o", "json"]].concat()).await?.success()?.stdout;
    let report: Value = serde_json::from_str(&report)?;
    assert_eq!((report["events"].as_u64(), report["earlierCheckpoints"].as_u64()), (Some(283), Some(1)));
    let text = offline(&["verify-proof", &proof, "--trust-key", &key]).await?.success()?.stdout;
    for told in
        ["position", "42", &instance.id, "principal-of-owner-token", "127.0.0.1", "event 42 of the 283"]
    {
        assert!(text.contains(told), "{told}: {text}");
    }
    // From the export comes the same proof, by position and by name.
    let from_server: Value = serde_json::from_str(&std::fs::read_to_string(&evidence.proof)?)?;
    let event_id = from_server["row"]["event_id"].as_str().context("an id")?.to_owned();
    for event in ["42", &event_id] {
        let made = offline(&["prove", event, "--export", &export, "--trust-key", &key]).await?.success()?;
        assert_eq!(serde_json::from_str::<Value>(&made.stdout)?, from_server, "{event}");
    }
    let said = script("evidence.py", &[&key, &export, &proof, &checkpoints]).await?.success()?.stdout;
    let said: Value = serde_json::from_str(&said)?;
    assert_eq!((said["events"].as_u64(), said["position"].as_u64()), (Some(283), Some(42)), "{said}");
    assert_eq!(said["sizes"], serde_json::json!([283]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn evidence_that_was_touched_is_refused_and_the_place_is_named() -> anyhow::Result<()> {
    let (deployment, replica, instance, _) = deployed().await?;
    let evidence = gather(&deployment, &replica, &instance.id, "42").await?;
    let (key, changed) = (&evidence.key, evidence.export.with_file_name("changed"));
    let changed_path = changed.to_string_lossy().into_owned();
    let text = std::fs::read_to_string(&evidence.export)?;
    let lines: Vec<&str> = text.lines().collect();
    let swapped = |one: usize, other: usize| {
        let mut lines = lines.clone();
        lines.swap(one, other);
        lines.join("\n") + "\n"
    };
    let without = |range: std::ops::Range<usize>| {
        let mut lines = lines.clone();
        lines.drain(range);
        lines.join("\n") + "\n"
    };
    let replaced = |line: usize, from: &str, to: &str| {
        assert!(lines[line].contains(from), "{from} in {}", lines[line]);
        let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        lines[line] = lines[line].replacen(from, to, 1);
        lines.join("\n") + "\n"
    };
    let last = lines.len() - 1;
    for (broken, told) in [
        (replaced(42, "principal-of", "principal-uf"), "position 42: the row, or the one before it"),
        (replaced(42, "a test", "a tesu"), "position 42: the row, or the one before it"),
        (replaced(42, "\"position\":42", "\"position\":43"), "position 42: position 43 stands here"),
        (replaced(42, "{", "{\"approved_by\":\"the board\","), "position 42: not a line of an export"),
        (without(42..43), "position 42: position 43 stands here"),
        (swapped(42, 43), "position 42: position 43 stands here"),
        (without(last - 5..last), "the checkpoint is of 283 events, and 278 stand here"),
        (without(last..last + 1), "the end is missing"),
        (replaced(last, "283", "284"), "the signature does not match"),
        (text.clone() + "{}\n", "something follows the checkpoint"),
        (String::new(), "the end is missing"),
    ] {
        std::fs::write(&changed, broken)?;
        let refused = offline(&["verify-export", &changed_path, "--trust-key", key]).await?;
        assert_eq!(refused.code, Some(1), "{told}: {refused:?}");
        assert!(refused.stderr.contains(told), "{told}: {}", refused.stderr);
    }
    let proof = std::fs::read_to_string(&evidence.proof)?;
    let parsed: Value = serde_json::from_str(&proof)?;
    let first = parsed["inclusion_path"][0].as_str().context("a path")?;
    for (from, to, told) in [
        ("principal-of", "principal-uf", "the row does not have the hash"),
        ("a test", "a tesu", "the row does not have the hash"),
        (first, &"0".repeat(64), "the path does not lead"),
        ("\\n283\\n", "\\n284\\n", "the signature does not match"),
    ] {
        assert!(proof.contains(from), "{from}");
        std::fs::write(&changed, proof.replacen(from, to, 1))?;
        let refused = offline(&["verify-proof", &changed_path, "--trust-key", key]).await?;
        assert_eq!(refused.code, Some(1), "{told}: {refused:?}");
        assert!(refused.stderr.contains(told), "{told}: {}", refused.stderr);
    }
    // Another key, and a later state of the log that is not known here.
    let other =
        catrust_tests::program::run("openssl", ["genpkey", "-algorithm", "ed25519"]).await?.success()?;
    let private = changed.with_file_name("other.pem");
    std::fs::write(&private, other.stdout)?;
    let public = changed.with_file_name("other.pub.pem").to_string_lossy().into_owned();
    let arguments = ["pkey", "-in", &private.to_string_lossy(), "-pubout", "-out", &public];
    catrust_tests::program::run("openssl", arguments).await?.success()?;
    let export = evidence.export.to_string_lossy();
    let refused = offline(&["verify-export", &export, "--trust-key", &public]).await?;
    assert!(refused.code == Some(1) && refused.stderr.contains("none of the signatures"), "{refused:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_is_given_to_those_who_may_see_the_event_alone() -> anyhow::Result<()> {
    let deployment = Plan { nats: None, ..Plan::default() }.deploy().await?;
    let replica = deployment.replica("a").await?;
    let (one, other) = (replica.instance().await?, replica.instance().await?);
    let position = {
        one.new_ca().await?;
        other.new_ca().await?;
        1
    };
    let proof = prove(&replica, &one.id, Event::Position(position)).await?;
    assert_eq!(
        proof.row.map(|row| (row.position, row.event_type)),
        Some((1, "InstanceRegistered".to_owned()))
    );
    for event in [Event::Position(2), Event::Position(9_999), Event::EventId(uuid::Uuid::nil().to_string())] {
        refused(prove(&replica, &one.id, event).await, Code::NotFound, "EventNotFound")?;
    }
    refused_field(prove(&replica, &one.id, Event::Position(0)).await, "position")?;
    refused_field(prove(&replica, &one.id, Event::EventId("x".to_owned())).await, "event_id")?;
    refused(prove(&replica, "no-such", Event::Position(1)).await, Code::NotFound, "MqttInstanceNotFound")?;
    Ok(())
}

/// The vectors that are published for other implementations hold for one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_published_vectors_hold_for_strangers() -> anyhow::Result<()> {
    let vectors = catrust_tests::program::repository().join("services/evidence/vectors");
    let at = |name: &str| vectors.join(name).to_string_lossy().into_owned();
    let [key, export, proof, checkpoints] = ["key.pem", "export.jsonl", "proof.json", "checkpoints"].map(at);
    let said = script("evidence.py", &[&key, &export, &proof, &checkpoints]).await?.success()?.stdout;
    let said: Value = serde_json::from_str(&said)?;
    assert_eq!((&said["events"], &said["sizes"]), (&7.into(), &serde_json::json!([3, 5, 7])), "{said}");
    Ok(())
}
