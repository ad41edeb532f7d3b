//! Policies that change while the server runs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use catrust_proto::v1::{TrustMessage, UpdateInstanceRequest, WatchTrustRequest};
use catrust_tests::client::refused;
use catrust_tests::deployment::ACCOUNT;
use catrust_tests::eventually::eventually;
use catrust_tests::http;
use catrust_tests::instance::TestInstance;
use catrust_tests::process::Signal;
use sqlx::Row as _;
use tonic::{Code, Status, Streaming};

use super::{NOTICED, another_version, deployed, metrics, permit, seen_by, version};

const SWITCH: [&str; 2] = ["mq:UnregisterCaCertificate", "mq:ActiveCaCertificate"];
const ACCESS: &str = "mq:MqttInstanceAccess";

/// How often the folder changes.
const ROUNDS: usize = 30;

/// In each of them `steady` may switch, `turn` may in every other one, and `torn` has one
/// half of the permission now and the other half then: no version has ever allowed it.
fn bundle(round: usize) -> String {
    let whole = [&SWITCH[..], &[ACCESS]].concat();
    let even = round.is_multiple_of(2);
    let turn =
        if even { permit("turn", &["mq:GetCaCertificate"]) } else { permit("turn", &["mq:ListBrokers"]) };
    let torn = if even { permit("torn", &SWITCH) } else { permit("torn", &[ACCESS]) };
    format!("// round {round}\n{}{turn}{torn}", permit("steady", &whole))
}

/// Calls until told to stop; counts the answers, and fails at the first wrong one.
async fn keep_calling(
    stop: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
    call: impl AsyncFn(usize) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        call(round).await?;
        calls.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

async fn switch(instance: &TestInstance, sn: &str, round: usize) -> Result<(), Status> {
    if round.is_multiple_of(2) {
        instance.inactivate(sn).await.map(drop)
    } else {
        instance.activate(sn).await.map(drop)
    }
}

/// `steady` and `torn` call without a pause while the folder changes thirty times. Not one
/// answer may be wrong: allowed where no version allows, or refused where all do. After each
/// change `turn` is answered by the new version, though what the old one said is remembered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn policies_change_under_load_without_one_wrong_answer() -> anyhow::Result<()> {
    let names = ["steady", "turn", "torn"];
    let (deployment, replica) = deployed(&names, &[("round.cedar", &bundle(0))]).await?;
    let instance = replica.instance().await?;
    let (first, second) = (instance.new_ca().await?, instance.new_ca().await?);
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));

    let mut load = tokio::task::JoinSet::new();
    let (steady, sn) = (seen_by(&replica, &instance, "steady")?, first.sn.clone());
    let allowed = async move |round| Ok(switch(&steady, &sn, round).await?);
    load.spawn(keep_calling(Arc::clone(&stop), Arc::clone(&calls), allowed));
    let (torn, sn) = (seen_by(&replica, &instance, "torn")?, second.sn.clone());
    let denied = async move |round| {
        refused(switch(&torn, &sn, round).await, Code::PermissionDenied, "PermissionCheckFailed").map(drop)
    };
    load.spawn(keep_calling(Arc::clone(&stop), Arc::clone(&calls), denied));

    let turn = seen_by(&replica, &instance, "turn")?;
    let rounds = async {
        let mut versions = vec![version(&replica).await?];
        for round in 1..=ROUNDS {
            let before = calls.load(Ordering::Relaxed);
            deployment.policies().write(&format!("{ACCOUNT}/round.cedar"), &bundle(round))?;
            replica.server.signal(Signal::HUP);
            versions.push(another_version(&replica, &versions[round - 1]).await?);
            for _ in 0..3 {
                let answer = turn.get(&second.sn).await;
                if round.is_multiple_of(2) {
                    answer?;
                } else {
                    refused(answer, Code::PermissionDenied, "PermissionCheckFailed")?;
                }
            }
            eventually(NOTICED, "the load goes on", async || match calls.load(Ordering::Relaxed) {
                now if now > before + 1 => Ok(()),
                now => Err(format!("{now} calls")),
            })
            .await?;
        }
        anyhow::Ok(versions)
    };
    let versions = rounds.await;
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended??;
    }
    let versions = BTreeSet::from_iter(versions?);
    assert_eq!(versions.len(), ROUNDS + 1);

    let mut connection = deployment.database().await?;
    let recorded =
        sqlx::query("SELECT DISTINCT policy_version FROM events").fetch_all(&mut connection).await?;
    let recorded: BTreeSet<String> = recorded.iter().map(|row| row.get(0)).collect();
    assert!(recorded.is_subset(&versions) && recorded.len() > 5, "{recorded:?} of {versions:?}");
    let by_torn = sqlx::query("SELECT count(*) FROM events WHERE actor = 'principal-of-torn'");
    assert_eq!(by_torn.fetch_one(&mut connection).await?.get::<i64, _>(0), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_folder_changes_nothing_and_says_so() -> anyhow::Result<()> {
    let alice = permit("alice", &["mq:GetCaCertificate"]);
    let (deployment, replica) = deployed(&["alice", "bob"], &[("people.cedar", &alice)]).await?;
    let instance = replica.instance().await?;
    let ca = instance.new_ca().await?;
    let (alice_sees, bob_sees) =
        (seen_by(&replica, &instance, "alice")?, seen_by(&replica, &instance, "bob")?);
    let in_force = version(&replica).await?;

    // Good news for bob and a mistake in another file: none of it comes into force.
    let folder = deployment.policies();
    folder.write(
        &format!("{ACCOUNT}/people.cedar"),
        &(alice.clone() + &permit("bob", &["mq:GetCaCertificate"])),
    )?;
    folder.write(&format!("{ACCOUNT}/mistake.json"), "{\"Version\": \"1\",\n\"Principal\": \"*\"}")?;
    replica.server.signal(Signal::HUP);
    eventually(NOTICED, "the bad folder is told", async || {
        let refused = metrics(&replica, "catrust_policy_refused").await?;
        if refused.iter().any(|line| line.ends_with(" 1")) {
            Ok(())
        } else {
            Err(anyhow::anyhow!("{refused:?}"))
        }
    })
    .await?;
    let said = replica.server.output().text();
    assert!(said.contains(&format!("{ACCOUNT}/mistake.json:2")), "{said}");
    assert!(said.contains("what was in force stays"), "{said}");
    assert_eq!(version(&replica).await?, in_force);
    alice_sees.get(&ca.sn).await?;
    refused(bob_sees.get(&ca.sn).await, Code::PermissionDenied, "PermissionCheckFailed")?;
    assert_eq!(http::get(&replica.admin, "/readyz").await?.0, 200);

    // An empty folder, as of a volume that is not mounted, is a mistake as well.
    let away = folder.path().with_file_name("away");
    std::fs::rename(folder.path(), &away)?;
    std::fs::create_dir(folder.path())?;
    replica.server.signal(Signal::HUP);
    eventually(NOTICED, "the empty folder is told", async || {
        let said = replica.server.output().text();
        if said.contains("holds no policy") { Ok(()) } else { Err(said) }
    })
    .await?;
    alice_sees.get(&ca.sn).await?;
    std::fs::remove_dir(folder.path())?;
    std::fs::rename(&away, folder.path())?;

    // Mended, it is found without a signal.
    folder.remove(&format!("{ACCOUNT}/mistake.json"))?;
    another_version(&replica, &in_force).await?;
    bob_sees.get(&ca.sn).await?;
    let refused = metrics(&replica, "catrust_policy_refused").await?;
    assert!(refused.iter().all(|line| line.ends_with(" 0")), "{refused:?}");
    let reloads = metrics(&replica, "catrust_policy_reloads_total").await?;
    assert!(
        reloads.iter().any(|line| line.contains("outcome=\"loaded\"") && line.ends_with(" 1")),
        "{reloads:?}"
    );
    Ok(())
}

/// What was allowed when a stream was opened is asked again while it is open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_ends_with_the_policy_or_the_ownership_that_allowed_it() -> anyhow::Result<()> {
    let watch =
        |names: &[&str]| names.iter().map(|name| permit(name, &["mq:WatchTrust"])).collect::<String>();
    let names = ["stays", "goes"];
    let (deployment, replica) = deployed(&names, &[("people.cedar", &watch(&names))]).await?;
    let instance = replica.instance().await?;
    let open = async |token: &str| {
        let request = WatchTrustRequest { mqtt_instance_id: instance.id.clone(), ..Default::default() };
        let mut client = seen_by(&replica, &instance, token)?.caller.trust;
        anyhow::Ok(client.watch_trust(request).await?.into_inner())
    };
    let (goes, mut stays) = (open("goes").await?, open("stays").await?);

    deployment.policies().write(&format!("{ACCOUNT}/people.cedar"), &watch(&["stays"]))?;
    let denied = end_of(goes).await?;
    assert_eq!(denied.code(), Code::PermissionDenied, "{denied:?}");
    assert!(denied.message().contains("mq:WatchTrust"), "{denied:?}");
    assert!(stays.message().await?.is_some(), "the other stream goes on");

    let request = UpdateInstanceRequest {
        mqtt_instance_id: instance.id.clone(),
        owner_account_id: "account-b".to_owned(),
        ..Default::default()
    };
    replica.operator()?.instances.update_instance(request).await?;
    let denied = end_of(stays).await?;
    assert_eq!(denied.code(), Code::PermissionDenied, "{denied:?}");
    assert!(denied.message().contains("another account"), "{denied:?}");
    Ok(())
}

/// The error that ends a stream.
async fn end_of(mut messages: Streaming<TrustMessage>) -> anyhow::Result<Status> {
    let reading = async {
        loop {
            match messages.message().await {
                Ok(Some(_)) => {}
                Ok(None) => anyhow::bail!("the stream ended without a word"),
                Err(status) => return Ok(status),
            }
        }
    };
    tokio::time::timeout(NOTICED * 2, reading).await?
}
