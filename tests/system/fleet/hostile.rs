//! Receipts from those who should not send them, and what is none at all.

use std::time::Duration;

use catrust_proto::v1::{GetPropagationRequest, ListBrokersRequest, ReportReceiptRequest};
use catrust_tests::client::refused as refused_call;
use catrust_tests::deployment::{Identity, Plan};
use catrust_tests::eventually::eventually;
use catrust_tests::http;
use catrust_tests::instance::TestInstance;
use tonic::Code;

use super::broker::{applied, brokers, publish, report, wire};

/// Value of a counter with these labels at `/metrics`; 0 where it is not there yet.
async fn counter(admin: &str, name: &str, labels: &[&str]) -> anyhow::Result<f64> {
    let (_, body) = http::get(admin, "/metrics").await?;
    let is_it = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
    let values = body.lines().filter(is_it).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    Ok(values.sum())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_receipt_is_counted_and_told_once_for_each_broker() -> anyhow::Result<()> {
    let deployment = Plan::default().deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    instance.new_ca().await?;
    let nats = wire(&deployment).await?;
    let id = &instance.id;
    let good = applied(&instance, "good", 1).await?;
    let body = |receipt: &ReportReceiptRequest| serde_json::to_vec(receipt);
    let with = |edit: fn(&mut ReportReceiptRequest)| {
        let mut receipt = ReportReceiptRequest { broker_id: "evil".to_owned(), ..good.clone() };
        edit(&mut receipt);
        body(&receipt)
    };
    let hostile: Vec<(String, Vec<u8>)> = vec![
        // Speaks for somebody else.
        (format!("catrust.v1.receipt.{id}.evil"), body(&good)?),
        ("catrust.v1.receipt.elsewhere.good".to_owned(), body(&good)?),
        // Huge, empty, garbage, deep, another message.
        (format!("catrust.v1.receipt.{id}.evil"), vec![b'a'; 900_000]),
        (format!("catrust.v1.receipt.{id}.evil"), Vec::new()),
        (format!("catrust.v1.receipt.{id}.evil"), vec![0xff; 64]),
        (format!("catrust.v1.receipt.{id}.evil"), "[".repeat(10_000).into_bytes()),
        (format!("catrust.v1.receipt.{id}.evil"), b"{\"revision\":\"-1\"}".to_vec()),
        // Fields.
        (format!("catrust.v1.receipt.{id}.evil"), with(|m| m.bundle_digest = "xyz".to_owned())?),
        (format!("catrust.v1.receipt.{id}.evil"), with(|m| m.outcome = 0)?),
        (format!("catrust.v1.receipt.{id}.evil"), with(|m| m.enforcement = 0)?),
        (format!("catrust.v1.receipt.{id}.evil"), with(|m| m.refusal = "x".repeat(600))?),
        // Names that are none, and an instance that does not exist.
        (
            format!("catrust.v1.receipt.{id}.e\u{e9}\u{202e}vil"),
            with(|m| m.broker_id = "e\u{e9}\u{202e}vil".to_owned())?,
        ),
        ("catrust.v1.receipt.unknown.evil".to_owned(), with(|m| m.mqtt_instance_id = "unknown".to_owned())?),
    ];
    let sent = hostile.len();
    for (subject, body) in hostile {
        nats.publish(subject, body.into()).await?;
    }
    publish(&nats, &good).await?;

    eventually(Duration::from_secs(10), "the good one is known", async || {
        let fleet = brokers(&instance).await.map_err(|status| format!("{status:?}"))?;
        let names: Vec<_> = fleet.iter().map(|broker| broker.broker_id.as_str()).collect();
        if names == ["good"] { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await?;
    let invalid = counter(&replica.admin, "catrust_receipts_total", &["via=\"nats\"", "outcome=\"invalid\""]);
    assert_eq!(invalid.await?, sent as f64);
    let applied = counter(&replica.admin, "catrust_receipts_total", &["via=\"nats\"", "outcome=\"applied\""]);
    assert_eq!(applied.await?, 1.0);
    let output = replica.server.output().text();
    let told = output.lines().filter(|line| line.contains("not a receipt")).count();
    assert_eq!(told, 4, "evil, good of elsewhere, the unprintable one, evil of unknown:\n{output}");
    assert!(!output.contains('\u{202e}'), "names are escaped");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reporting_and_reading_the_fleet_need_permission_and_ownership() -> anyhow::Result<()> {
    let broker = Identity::with_token("broker-token", "account-a", &["mq:ReportReceipt"]);
    let reader = Identity::with_token("reader-token", "account-a", &["mq:ListBrokers", "mq:GetPropagation"]);
    let stranger = Identity::with_token("stranger-token", "account-b", &["mq:*"]);
    let plan = Plan { nats: None, ..Plan::default() };
    let deployment = plan.identity(broker).identity(reader).identity(stranger).deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    instance.new_ca().await?;
    let receipt = applied(&instance, "b", 1).await?;
    let by =
        |token| anyhow::Ok(TestInstance { caller: replica.server.caller(Some(token))?, ..instance.clone() });
    let (broker, reader, stranger) = (by("broker-token")?, by("reader-token")?, by("stranger-token")?);
    let propagation = GetPropagationRequest { mqtt_instance_id: instance.id.clone(), revision: 0 };
    let list = ListBrokersRequest { mqtt_instance_id: instance.id.clone() };

    report(&broker, &receipt).await?;
    assert_eq!(brokers(&reader).await?.len(), 1);
    reader.caller.fleet.clone().get_propagation(propagation.clone()).await?;
    let denied = "PermissionCheckFailed";
    refused_call(report(&reader, &receipt).await, Code::PermissionDenied, denied)?;
    refused_call(brokers(&broker).await, Code::PermissionDenied, denied)?;
    let reply = broker.caller.fleet.clone().get_propagation(propagation.clone()).await;
    refused_call(reply, Code::PermissionDenied, denied)?;
    let owner = "MqttOwnerCheckError";
    refused_call(report(&stranger, &receipt).await, Code::PermissionDenied, owner)?;
    let reply = stranger.caller.fleet.clone().list_brokers(list).await;
    refused_call(reply, Code::PermissionDenied, owner)?;
    let reply = stranger.caller.fleet.clone().get_propagation(propagation).await;
    refused_call(reply, Code::PermissionDenied, owner)?;
    Ok(())
}
