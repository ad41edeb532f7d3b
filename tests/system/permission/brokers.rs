//! Brokers' identities: each for its own instance and its own name, whatever policies say.

use catrust_proto::v1::{
    Edition, Enforcement, GetTrustBundleRequest, ListBrokersRequest, ListInstancesRequest, ReceiptOutcome,
    RegisterInstanceRequest, ReportReceiptRequest, WatchTrustRequest,
};
use catrust_tests::client::{Caller, refused};
use catrust_tests::deployment::{ACCOUNT, Identity, Plan, Replica};
use catrust_tests::instance::TestInstance;
use catrust_tests::issuer::{self, Key, Publisher, claims};
use serde_json::json;
use tonic::{Code, Status};

const OWN: &str = "fleet-a";
const OTHER: &str = "fleet-b";

/// What a broker's identity may not do is one refusal, whatever is asked.
fn bound<T: std::fmt::Debug>(answer: Result<T, Status>) -> anyhow::Result<()> {
    let refusal = refused(answer, Code::PermissionDenied, "PermissionCheckFailed")?;
    anyhow::ensure!(refusal.message.contains("this identity is a broker's"), "{refusal:?}");
    Ok(())
}

async fn bundle(caller: &Caller, instance: &str) -> Result<(), Status> {
    let request = GetTrustBundleRequest { mqtt_instance_id: instance.to_owned(), at: None };
    caller.trust.clone().get_trust_bundle(request).await.map(drop)
}

/// Opens the stream and reads its first message.
async fn watch(caller: &Caller, instance: &str, broker: &str) -> Result<(), Status> {
    let request = WatchTrustRequest {
        mqtt_instance_id: instance.to_owned(),
        broker_id: broker.to_owned(),
        ..WatchTrustRequest::default()
    };
    let mut messages = caller.trust.clone().watch_trust(request).await?.into_inner();
    messages.message().await.map(drop)
}

async fn report(caller: &Caller, instance: &str, broker: &str) -> Result<(), Status> {
    let request = ReportReceiptRequest {
        mqtt_instance_id: instance.to_owned(),
        broker_id: broker.to_owned(),
        outcome: ReceiptOutcome::Refused.into(),
        refusal: "a test".to_owned(),
        enforcement: Enforcement::Tls.into(),
        ..ReportReceiptRequest::default()
    };
    caller.trust.clone().report_receipt(request).await.map(drop)
}

/// `gate-1` of [`OWN`] does its work, and nothing else.
async fn is_confined(replica: &Replica, broker: &Caller) -> anyhow::Result<()> {
    bundle(broker, OWN).await?;
    for name in ["gate-1", ""] {
        watch(broker, OWN, name).await?;
    }
    report(broker, OWN, "gate-1").await?;

    bound(watch(broker, OWN, "gate-2").await)?;
    bound(report(broker, OWN, "gate-2").await)?;
    bound(bundle(broker, OTHER).await)?;
    bound(watch(broker, OTHER, "gate-1").await)?;
    bound(report(broker, OTHER, "gate-1").await)?;
    let own = TestInstance { caller: broker.clone(), id: OWN.to_owned() };
    bound(own.code().await)?;
    bound(own.get("ABCD").await)?;
    bound(own.inactivate("ABCD").await)?;
    bound(own.activate("ABCD").await)?;
    bound(own.delete("ABCD").await)?;
    bound(broker.instances.clone().list_instances(ListInstancesRequest::default()).await)?;
    let brokers = ListBrokersRequest { mqtt_instance_id: OWN.to_owned() };
    bound(broker.fleet.clone().list_brokers(brokers.clone()).await)?;
    // The receipt in another's name left no trace, its own did.
    let known = replica.owner()?.fleet.list_brokers(brokers).await?.into_inner().brokers;
    let known: Vec<_> = known.iter().map(|broker| broker.broker_id.as_str()).collect();
    assert_eq!(known, ["gate-1"]);
    Ok(())
}

async fn register(replica: &Replica, id: &str) -> anyhow::Result<()> {
    let request = RegisterInstanceRequest {
        mqtt_instance_id: id.to_owned(),
        region_id: "r".to_owned(),
        owner_account_id: ACCOUNT.to_owned(),
        edition: Edition::Platinum.into(),
        ..Default::default()
    };
    replica.operator()?.instances.register_instance(request).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_brokers_entry_is_good_for_that_broker_alone() -> anyhow::Result<()> {
    let mut broker = Identity::with_token("broker-token", ACCOUNT, &["mq:*"]);
    broker.broker = Some((OWN.to_owned(), "gate-1".to_owned()));
    let deployment = Plan { nats: None, ..Plan::default() }.identity(broker).deploy().await?;
    let replica = deployment.replica("a").await?;
    for id in [OWN, OTHER] {
        register(&replica, id).await?;
    }
    is_confined(&replica, &replica.server.caller(Some("broker-token"))?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_brokers_token_of_the_issuer_is_too() -> anyhow::Result<()> {
    let key = Key::es256("k")?;
    let publisher = Publisher::start(&[&key]).await?;
    let everything = "permit(principal == Principal::\"broker\", action, resource);";
    let deployment = issuer::plan(Plan { nats: None, ..Plan::default() })
        .policy(&format!("{ACCOUNT}/broker.cedar"), everything)
        .set("auth.jwt.key_set_url", &format!("{:?}", publisher.url()))
        .set("auth.jwt.broker_claim", "\"https://example.org/broker\"")
        .deploy()
        .await?;
    let replica = deployment.replica("a").await?;
    for id in [OWN, OTHER] {
        register(&replica, id).await?;
    }
    let mut claims = claims("broker");
    claims["mqtt_instance_id"] = json!(OWN);
    let half = key.token(&claims);
    refused(
        bundle(&replica.server.caller(Some(&half))?, OWN).await,
        Code::Unauthenticated,
        "Unauthenticated",
    )?;
    claims["https://example.org/broker"] = json!("gate-1");
    is_confined(&replica, &replica.server.caller(Some(&key.token(&claims)))?).await
}
