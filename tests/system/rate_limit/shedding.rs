//! An overloaded server sheds inactivations last.

use std::time::Duration;

use anyhow::Context as _;
use catrust_proto::v1::GetCaCertificateRequest;
use catrust_tests::client::{Caller, Refusal, refused};
use catrust_tests::deployment::{ACCOUNT, Deployment, Identity, Plan, Replica};
use catrust_tests::instance::TestInstance;
use tokio::task::JoinSet;
use tonic::{Code, Status};

/// Calls in work at once; a fifth of them for inactivations alone, and half of them for
/// one user.
const PLACES: usize = 10;

const USERS: [&str; 4] = ["one", "two", "three", "four"];

async fn deployed() -> anyhow::Result<(Deployment, Replica)> {
    let mut plan = Plan { nats: None, ..Plan::default() }
        .set("grpc.max_concurrent_requests", &PLACES.to_string())
        .set("grpc.default_deadline_ms", "60000");
    for user in USERS {
        plan = plan.identity(Identity::with_token(user, ACCOUNT, &["mq:*"]));
    }
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    Ok((deployment, replica))
}

async fn read(caller: Caller, request: GetCaCertificateRequest) -> Result<(), Status> {
    caller.ca.clone().get_ca_certificate(request).await.map(drop)
}

/// Waits until `refused` of the calls are answered, each as overloaded; the others go on.
async fn sheds<T: std::fmt::Debug + 'static>(
    calls: &mut JoinSet<Result<T, Status>>,
    refused: usize,
) -> anyhow::Result<()> {
    for number in 1..=refused {
        let answer = tokio::time::timeout(Duration::from_secs(2), calls.join_next()).await;
        let answer = answer.with_context(|| format!("call {number} of {refused} is not shed"))?;
        let Err(status) = answer.context("no call")?? else { anyhow::bail!("a call of a stopped store") };
        let refusal = Refusal::of(&status)?;
        anyhow::ensure!((refusal.status, refusal.code.as_str()) == (Code::Unavailable, "SystemOverFlow"));
        anyhow::ensure!(refusal.retry_after.is_some(), "{refusal:?}");
    }
    anyhow::ensure!(calls.try_join_next().is_none(), "the others are in work");
    Ok(())
}

/// Postgres stops, so that calls stay in work for as long as the test wants; not for
/// longer than the store's own bounds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_inactivation_finds_a_place_when_reads_do_not() -> anyhow::Result<()> {
    let (deployment, replica) = deployed().await?;
    let instance = replica.instance().await?;
    let mut certificates = Vec::new();
    for _ in 0..USERS.len() {
        certificates.push(instance.new_ca().await?.sn);
    }
    let request =
        GetCaCertificateRequest { mqtt_instance_id: instance.id.clone(), sn: certificates[0].clone() };
    let mut callers = Vec::new();
    for user in USERS {
        callers.push(replica.server.caller(Some(user))?);
        read(callers[callers.len() - 1].clone(), request.clone()).await?;
    }

    deployment.postgres.pause();
    let mut reads = JoinSet::new();
    for caller in &callers[..2] {
        for _ in 0..PLACES / 2 {
            reads.spawn(read(caller.clone(), request.clone()));
        }
    }
    sheds(&mut reads, PLACES / 5).await?;
    let late = read(callers[2].clone(), request.clone()).await;
    refused(late, Code::Unavailable, "SystemOverFlow")?;

    // A fifth of the places is kept for inactivations: so many go on, while the other
    // inactivations and every read are refused.
    let mut saved = JoinSet::new();
    for (caller, sn) in callers.iter().zip(certificates) {
        let instance = TestInstance { caller: caller.clone(), id: instance.id.clone() };
        saved.spawn(async move { instance.inactivate(&sn).await });
    }
    sheds(&mut saved, USERS.len() - PLACES / 5).await?;
    let late = read(callers[2].clone(), request).await;
    refused(late, Code::Unavailable, "SystemOverFlow")?;

    deployment.postgres.resume();
    for outcome in saved.join_all().await {
        assert!(outcome?.changed);
    }
    for outcome in reads.join_all().await {
        outcome?;
    }
    Ok(())
}
