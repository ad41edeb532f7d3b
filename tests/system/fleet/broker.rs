//! A broker as the control plane sees it: somebody who sends receipts.

use std::time::Duration;

use anyhow::Context as _;
use catrust_proto::v1::get_trust_bundle_request::At;
use catrust_proto::v1::{
    Broker, Enforcement, GetPropagationRequest, GetTrustBundleRequest, ListBrokersRequest, Propagation,
    ReceiptOutcome, ReportReceiptRequest, Wait, wait,
};
use catrust_tests::deployment::Deployment;
use catrust_tests::eventually::eventually;
use catrust_tests::instance::TestInstance;
use tonic::Status;

/// A broker that says it has applied `revision`, with the log's digest.
pub async fn applied(
    instance: &TestInstance,
    broker: &str,
    revision: u64,
) -> anyhow::Result<ReportReceiptRequest> {
    let request =
        GetTrustBundleRequest { mqtt_instance_id: instance.id.clone(), at: Some(At::Revision(revision)) };
    let reply = instance.caller.trust.clone().get_trust_bundle(request).await?.into_inner();
    let digest = reply.bundle.context("a reply without a bundle")?.bundle_digest;
    Ok(ReportReceiptRequest {
        broker_id: broker.to_owned(),
        mqtt_instance_id: instance.id.clone(),
        revision,
        bundle_digest: digest,
        outcome: ReceiptOutcome::Applied.into(),
        enforcement: Enforcement::Tls.into(),
        sessions_cut: 3,
        sessions_open: 40,
        applied_at: Some(catrust_proto::Timestamp { seconds: 1_772_366_400, nanos: 0 }),
        ..Default::default()
    })
}

/// A broker that says it refuses `revision`.
pub fn refused(instance: &TestInstance, broker: &str, revision: u64, why: &str) -> ReportReceiptRequest {
    ReportReceiptRequest {
        broker_id: broker.to_owned(),
        mqtt_instance_id: instance.id.clone(),
        revision,
        outcome: ReceiptOutcome::Refused.into(),
        refusal: why.to_owned(),
        enforcement: Enforcement::Connect.into(),
        sessions_open: 41,
        ..Default::default()
    }
}

/// Sends a receipt by gRPC.
pub async fn report(instance: &TestInstance, receipt: &ReportReceiptRequest) -> Result<(), Status> {
    instance.caller.trust.clone().report_receipt(receipt.clone()).await.map(drop)
}

/// Sends a receipt of `broker` at `revision` by gRPC.
pub async fn report_applied(instance: &TestInstance, broker: &str, revision: u64) -> anyhow::Result<()> {
    Ok(report(instance, &applied(instance, broker, revision).await?).await?)
}

/// The fleet as `instance`'s caller is told.
pub async fn brokers(instance: &TestInstance) -> Result<Vec<Broker>, Status> {
    let request = ListBrokersRequest { mqtt_instance_id: instance.id.clone() };
    Ok(instance.caller.fleet.clone().list_brokers(request).await?.into_inner().brokers)
}

/// The only broker of a fleet.
pub async fn only_broker(instance: &TestInstance) -> anyhow::Result<Broker> {
    let mut brokers = brokers(instance).await?;
    anyhow::ensure!(brokers.len() == 1, "one broker was expected: {brokers:?}");
    brokers.pop().context("no broker")
}

/// How far `revision` has got; the current one where 0.
pub async fn propagation(instance: &TestInstance, revision: u64) -> Result<Propagation, Status> {
    let request = GetPropagationRequest { mqtt_instance_id: instance.id.clone(), revision };
    let reply = instance.caller.fleet.clone().get_propagation(request).await?.into_inner();
    reply.propagation.ok_or_else(|| Status::internal("a reply without a propagation"))
}

/// A client on NATS, as soon as a replica is there: it hears from its first moment on,
/// and an earlier receipt would be lost until the next sign of life.
pub async fn wire(deployment: &Deployment) -> anyhow::Result<async_nats::Client> {
    deployment.nats().stream().await?;
    deployment.nats().client().await
}

/// Sends a receipt as an agent does on NATS.
pub async fn publish(client: &async_nats::Client, receipt: &ReportReceiptRequest) -> anyhow::Result<()> {
    let subject = format!("catrust.v1.receipt.{}.{}", receipt.mqtt_instance_id, receipt.broker_id);
    client.publish(subject, serde_json::to_vec(receipt)?.into()).await?;
    Ok(client.flush().await?)
}

/// Asks to wait for brokers.
pub fn wait_for(target: wait::Target, timeout: Duration) -> Option<Wait> {
    Some(Wait { target: target.into(), timeout: Some(timeout.into()) })
}

/// Waits for the revision as agents do, and reports it for each of `names`.
pub async fn apply_when_there(instance: &TestInstance, names: &[&str], revision: u64) -> anyhow::Result<()> {
    eventually(Duration::from_secs(20), &format!("revision {revision}"), async || {
        match instance.bundle().await {
            Ok(bundle) if bundle.revision >= revision => Ok(()),
            Ok(bundle) => Err(format!("revision {}", bundle.revision)),
            Err(status) => Err(format!("{status:?}")),
        }
    })
    .await?;
    for name in names {
        report_applied(instance, name, revision).await?;
    }
    Ok(())
}

/// Applied, pending, refused, lost.
pub fn counts(propagation: &Propagation) -> [u32; 4] {
    [propagation.applied, propagation.pending, propagation.refused, propagation.lost]
}

/// Waits until `revision` has got as far as `expected`.
pub async fn reaches(
    instance: &TestInstance,
    revision: u64,
    expected: [u32; 4],
    within: Duration,
) -> anyhow::Result<Propagation> {
    eventually(within, &format!("{expected:?} at revision {revision}"), async || {
        match propagation(instance, revision).await {
            Ok(found) if counts(&found) == expected => Ok(found),
            Ok(found) => Err(format!("{found:?}")),
            Err(status) => Err(format!("{status:?}")),
        }
    })
    .await
}
