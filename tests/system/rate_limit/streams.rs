//! How many streams a user may have open.

use std::time::Duration;

use catrust_proto::v1::{TrustMessage, WatchPropagationRequest, WatchTrustRequest};
use catrust_tests::client::{Caller, refused};
use catrust_tests::deployment::{ACCOUNT, Identity, Plan};
use catrust_tests::eventually::eventually;
use catrust_tests::instance::TestInstance;
use tonic::{Code, Status, Streaming};

use crate::fleet::broker::report_applied;

async fn watch(caller: &Caller, instance: &TestInstance) -> Result<Streaming<TrustMessage>, Status> {
    let request = WatchTrustRequest {
        mqtt_instance_id: instance.id.clone(),
        broker_id: "broker".to_owned(),
        ..Default::default()
    };
    Ok(caller.trust.clone().watch_trust(request).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_has_its_streams_and_no_more_until_it_closes_one() -> anyhow::Result<()> {
    let plan = Plan { nats: None, ..Plan::default() }
        .identity(Identity::with_token("many", ACCOUNT, &["mq:*"]))
        .set("grpc.max_streams_per_user", "3");
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    instance.new_ca().await?;
    let many = replica.server.caller(Some("many"))?;

    let mut watches = vec![watch(&many, &instance).await?, watch(&many, &instance).await?];
    // Someone in contact who is behind keeps this one open.
    report_applied(&instance, "behind", 1).await?;
    instance.new_ca().await?;
    let request = WatchPropagationRequest { mqtt_instance_id: instance.id.clone(), revision: 2 };
    let mut propagation = many.fleet.clone().watch_propagation(request.clone()).await?.into_inner();
    assert!(propagation.message().await?.is_some());

    let refusal = refused(watch(&many, &instance).await, Code::ResourceExhausted, "StreamNumExceed")?;
    assert!(refusal.message.contains("3 streams") && refusal.message.contains("close"), "{refusal:?}");
    let again = many.fleet.clone().watch_propagation(request).await;
    refused(again, Code::ResourceExhausted, "StreamNumExceed")?;
    // Open ones go on, and others are not touched.
    assert!(watches[0].message().await?.is_some());
    watch(&instance.caller, &instance).await?;

    drop(watches.pop());
    drop(propagation);
    for _ in 0..2 {
        let next = eventually(Duration::from_secs(10), "a closed stream makes room", async || {
            watch(&many, &instance).await
        });
        watches.push(next.await?);
    }
    refused(watch(&many, &instance).await, Code::ResourceExhausted, "StreamNumExceed")?;
    Ok(())
}
