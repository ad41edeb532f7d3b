//! Brokers that fall silent: lost after a while, heard again, forgotten at last.

use std::time::Duration;

use catrust_proto::v1::{InactivateCaCertificateRequest, wait};
use catrust_tests::deployment::Plan;
use catrust_tests::eventually::eventually;
use catrust_tests::http;
use catrust_tests::instance::TestInstance;
use catrust_tests::server::Server;

use super::broker::{brokers, counts, propagation, reaches, report_applied, wait_for};

const SOON: Duration = Duration::from_secs(10);

/// With a budget of 2 s. `silent` says nothing any more, `alive` gives signs of life.
async fn fall_silent(instance: &TestInstance) -> anyhow::Result<()> {
    let ca = instance.new_ca().await?;
    for name in ["alive", "silent"] {
        report_applied(instance, name, 1).await?;
    }
    instance.inactivate(&ca.sn).await?;
    report_applied(instance, "alive", 2).await?;
    assert_eq!(counts(&propagation(instance, 2).await?), [1, 1, 0, 0], "in contact so far");

    eventually(SOON, "the silent broker is lost, the other one is not", async || {
        report_applied(instance, "alive", 2).await.map_err(|error| format!("{error:#}"))?;
        let fleet = brokers(instance).await.map_err(|status| format!("{status:?}"))?;
        let lost: Vec<_> = fleet.iter().map(|b| (b.broker_id.as_str(), b.lost)).collect();
        if lost == [("alive", false), ("silent", true)] { Ok(()) } else { Err(format!("{lost:?}")) }
    })
    .await?;
    let found = propagation(instance, 2).await?;
    assert_eq!((counts(&found), found.lost_broker_ids), ([1, 0, 0, 1], vec!["silent".to_owned()]));
    assert_eq!(counts(&propagation(instance, 1).await?), [2, 0, 0, 0], "what it applied, it applied");

    // All that are not lost have it; of two brokers one is no quorum.
    let mut client = instance.caller.ca.clone();
    let mut waited = async |target, timeout| {
        let request = InactivateCaCertificateRequest {
            wait: wait_for(target, timeout),
            ..instance.inactivation(&ca.sn)
        };
        report_applied(instance, "alive", 2).await?;
        anyhow::Ok(client.inactivate_ca_certificate(request).await?.into_inner().propagation)
    };
    let all = waited(wait::Target::AppliedByAll, Duration::from_secs(60));
    let all = tokio::time::timeout(SOON, all).await??;
    assert_eq!(all.map(|found| counts(&found)), Some([1, 0, 0, 1]));
    let quorum = waited(wait::Target::AppliedByQuorum, Duration::from_millis(100)).await?;
    assert_eq!(quorum.map(|found| counts(&found)), Some([1, 0, 0, 1]));

    report_applied(instance, "silent", 1).await?;
    let found = propagation(instance, 2).await?;
    assert_eq!(found.pending_broker_ids, ["silent"], "heard again");
    Ok(())
}

/// A wait for all ends when the last missing broker is lost, though nobody says so.
async fn losing_the_last_one_ends_a_wait(instance: &TestInstance) -> anyhow::Result<()> {
    let ca = instance.new_ca().await?;
    let current = instance.bundle().await?.revision;
    report_applied(instance, "alive", current).await?;
    report_applied(instance, "silent", current).await?;
    let wait = wait_for(wait::Target::AppliedByAll, Duration::from_secs(60));
    let request = InactivateCaCertificateRequest { wait, ..instance.inactivation(&ca.sn) };
    let mut client = instance.caller.ca.clone();
    let change = client.inactivate_ca_certificate(request);
    let alive = async {
        let mut signs_of_life = tokio::time::interval(Duration::from_millis(200));
        loop {
            signs_of_life.tick().await;
            let said = async {
                let revision = instance.bundle().await?.revision;
                report_applied(instance, "alive", revision).await
            };
            if let Err(error) = said.await {
                return error;
            }
        }
    };
    let reply = tokio::select! {
        reply = change => reply?.into_inner(),
        error = alive => return Err(error),
        () = tokio::time::sleep(Duration::from_secs(20)) => anyhow::bail!("still waiting for a lost broker"),
    };
    assert_eq!(reply.propagation.map(|found| counts(&found)), Some([1, 0, 0, 1]));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_brokers_are_lost_by_the_embedded_server() -> anyhow::Result<()> {
    let data = tempfile::tempdir()?;
    let server = Server::dev_with(data.path(), &[("CATRUST_FLEET__LOST_AFTER_SECONDS", "2")]).await?;
    let caller = server.caller(None)?;
    let instance = TestInstance::register(&caller, &caller, "dev").await?;
    fall_silent(&instance).await?;
    losing_the_last_one_ends_a_wait(&instance).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_brokers_are_lost_and_then_forgotten_in_production() -> anyhow::Result<()> {
    let plan = Plan { nats: None, ..Plan::default() }.set("fleet.lost_after_seconds", "2");
    let deployment = plan.set("fleet.forget_after_hours", "2").deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    fall_silent(&instance).await?;
    losing_the_last_one_ends_a_wait(&instance).await?;

    let mut connection = deployment.database().await?;
    let hours = "UPDATE broker_receipts SET received_at = received_at - interval '3 hours' \
                 WHERE broker_id = 'silent'";
    sqlx::raw_sql(hours).execute(&mut connection).await?;
    let revision = instance.bundle().await?.revision;
    report_applied(&instance, "alive", revision).await?;
    reaches(&instance, 0, [1, 0, 0, 0], SOON).await?;
    assert_eq!(brokers(&instance).await?.len(), 1, "it has dropped out, its row is still there");
    report_applied(&instance, "silent", revision).await?;
    reaches(&instance, 0, [2, 0, 0, 0], SOON).await?;

    eventually(Duration::from_secs(30), "the brokers are counted by their states", async || {
        let (_, body) = http::get(&replica.admin, "/metrics").await.map_err(|error| format!("{error:#}"))?;
        let lines: Vec<_> = body.lines().filter(|line| line.starts_with("catrust_brokers{")).collect();
        let count = |state: &str| {
            let label = format!("state=\"{state}\"");
            let line = lines.iter().find(|line| line.contains(&label))?;
            line.rsplit(' ').next()?.parse::<u32>().ok()
        };
        let total: Option<u32> = ["applied", "pending", "refused", "lost"].into_iter().map(count).sum();
        if total == Some(2) { Ok(()) } else { Err(lines.join("\n")) }
    })
    .await
}
