//! Calls that were refused: told of, bounded, and never in the log.

use std::time::Duration;

use anyhow::Context as _;
use catrust_proto::v1::{GetCaCertificateRequest, ListRefusalsRequest, Refusal};
use catrust_tests::client::{Caller, refused, refused_field};
use catrust_tests::deployment::{ACCOUNT, Identity, OPERATOR, OWNER, Plan, Replica};
use catrust_tests::eventually::eventually;
use catrust_tests::http;
use catrust_tests::instance::TestInstance;
use catrust_tests::process::Signal;
use sqlx::Row as _;
use tonic::{Code, Status};

use super::catrust;
use crate::feed::watch::Watch;
use crate::site::{Site, on_both_sites};

const PATIENCE: Duration = Duration::from_secs(30);

on_both_sites!(what_a_rule_refuses_is_listed_and_is_no_event,);

/// Every page, seven refusals a page.
async fn list(caller: &Caller, mut request: ListRefusalsRequest) -> Result<Vec<Refusal>, Status> {
    let mut refusals = Vec::new();
    request.page_size = 7;
    loop {
        let page = caller.audit.clone().list_refusals(request.clone()).await?.into_inner();
        refusals.extend(page.refusals);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return Ok(refusals);
        }
    }
}

fn of_account(account: &str) -> ListRefusalsRequest {
    ListRefusalsRequest { account_id: account.to_owned(), ..Default::default() }
}

/// Waits until so many attempts are listed; gives the rows.
async fn listed(
    caller: &Caller,
    request: ListRefusalsRequest,
    attempts: u64,
) -> anyhow::Result<Vec<Refusal>> {
    eventually(PATIENCE, &format!("{attempts} refused attempts"), async || {
        let rows = list(caller, request.clone()).await.map_err(|error| error.to_string())?;
        let found: u64 = rows.iter().map(|row| row.attempts).sum();
        if found == attempts { Ok(rows) } else { Err(format!("{rows:#?}")) }
    })
    .await
}

async fn what_a_rule_refuses_is_listed_and_is_no_event(site: &Site) -> anyhow::Result<()> {
    let instance = site.instance().await?;
    let ca = instance.new_ca().await?;
    let before = instance.bundle().await?.revision;
    for _ in 0..3 {
        let mut request = instance.inactivation("0102030405");
        request.request_id = "3f1c9e0a-1111-4222-8333-444455556666".to_owned();
        let call = instance.caller.ca.clone().inactivate_ca_certificate(request).await;
        refused(call, Code::NotFound, "FindCaBySnError")?;
    }
    refused(instance.activate("not hexadecimal").await, Code::InvalidArgument, "ParameterFieldCheckFailed")?;
    instance.inactivate(&ca.sn).await?;
    let wanted = ListRefusalsRequest { code: "FindCaBySnError".to_owned(), ..of_account(site.account()) };
    let rows = listed(&instance.caller, wanted, 3).await?;
    let row = &rows[0];
    assert_eq!(row.method, "/catrust.v1.CaCertificateService/InactivateCaCertificate");
    assert_eq!(
        (row.mqtt_instance_id.as_str(), row.source_address.as_str()),
        (instance.id.as_str(), "127.0.0.1")
    );
    assert_eq!(row.request_id, "3f1c9e0a-1111-4222-8333-444455556666");
    assert_eq!(row.account_id, site.account());
    assert!(!row.actor.is_empty() && !row.message.is_empty() && row.first_at.is_some(), "{row:?}");
    let all = listed(&instance.caller, of_account(site.account()), 4).await?;
    assert!(all.iter().any(|row| row.code == "ParameterFieldCheckFailed"), "{all:#?}");
    let of_nobody = ListRefusalsRequest { actor: "nobody".to_owned(), ..of_account(site.account()) };
    assert_eq!(list(&instance.caller, of_nobody).await?, []);
    assert_eq!(instance.bundle().await?.revision, before + 1, "the log has what happened alone");
    for (field, request) in [
        ("account_id", of_account("a b")),
        ("code", ListRefusalsRequest { code: "a b".to_owned(), ..of_account("a") }),
        ("actor", ListRefusalsRequest { actor: "a\n".to_owned(), ..of_account("a") }),
        ("page_size", ListRefusalsRequest { page_size: 101, ..of_account("a") }),
        ("page_token", ListRefusalsRequest { page_token: "x".to_owned(), ..of_account("a") }),
    ] {
        refused_field(instance.caller.audit.clone().list_refusals(request).await, field)?;
    }
    Ok(())
}

async fn counted(replica: &Replica, code: &str) -> anyhow::Result<u64> {
    let (_, text) = http::get(&replica.admin, "/metrics").await?;
    let line = text.lines().find(|line| {
        line.starts_with("catrust_refusals_total{") && line.contains(&format!("code=\"{code}\""))
    });
    Ok(line.and_then(|line| line.rsplit(' ').next()).map_or(Ok(0), str::parse)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_account_sees_its_own_and_operators_those_whom_nobody_knew_too() -> anyhow::Result<()> {
    let plan = Plan { nats: None, ..Plan::default() }
        .identity(Identity::with_token("stranger", "account-b", &["mq:*"]))
        .identity(Identity::with_token("narrow", ACCOUNT, &["mq:GetCaCertificate"]));
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    let on = |token: Option<&str>| -> anyhow::Result<TestInstance> {
        Ok(TestInstance { caller: replica.server.caller(token)?, id: instance.id.clone() })
    };
    refused(on(Some("stranger"))?.inactivate("01").await, Code::PermissionDenied, "MqttOwnerCheckError")?;
    refused(on(Some("narrow"))?.inactivate("01").await, Code::PermissionDenied, "PermissionCheckFailed")?;
    refused(on(None)?.inactivate("01").await, Code::Unauthenticated, "Unauthenticated")?;
    refused(on(Some("no such token"))?.inactivate("01").await, Code::Unauthenticated, "Unauthenticated")?;
    let all = listed(&replica.operator()?, ListRefusalsRequest::default(), 4).await?;
    let unknown: Vec<_> = all.iter().filter(|row| row.actor.is_empty()).collect();
    assert!(unknown.iter().all(|row| row.code == "Unauthenticated" && row.mqtt_instance_id.is_empty()));
    assert_eq!(unknown.iter().map(|row| row.attempts).sum::<u64>(), 2);
    for (token, account, code) in
        [("stranger", "account-b", "MqttOwnerCheckError"), (OWNER, ACCOUNT, "PermissionCheckFailed")]
    {
        let rows = list(&replica.server.caller(Some(token))?, of_account(account)).await?;
        let told: Vec<_> =
            rows.iter().map(|row| (row.code.as_str(), row.mqtt_instance_id.as_str())).collect();
        assert_eq!(told, [(code, instance.id.as_str())], "{token}");
    }
    for code in ["PermissionCheckFailed", "MqttOwnerCheckError"] {
        assert_eq!(counted(&replica, code).await?, 1, "{code}");
    }
    assert_eq!(counted(&replica, "Unauthenticated").await?, 2);

    let stranger = replica.server.caller(Some("stranger"))?;
    refused(list(&stranger, of_account(ACCOUNT)).await, Code::PermissionDenied, "MqttOwnerCheckError")?;
    let everything = list(&stranger, ListRefusalsRequest::default()).await;
    refused(everything, Code::PermissionDenied, "PermissionCheckFailed")?;
    let narrow = list(&replica.server.caller(Some("narrow"))?, of_account(ACCOUNT)).await;
    refused(narrow, Code::PermissionDenied, "PermissionCheckFailed")?;

    let line = ["audit", "refusals", "--code", "MqttOwnerCheckError"];
    let table = catrust(replica.server.address(), Some(OPERATOR), &line).await?.success()?.stdout;
    for told in ["InactivateCaCertificate", "principal-of-stranger", "account-b", &instance.id] {
        assert!(table.contains(told), "{told}: {table}");
    }
    Ok(())
}

/// A caller over its limit is a row a minute, not a row a call; what is gathered is written
/// before the server leaves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_rate_limit_refuses_is_gathered() -> anyhow::Result<()> {
    let plan = Plan { nats: None, ..Plan::default() }
        .set("rate_limit.per_user_per_second", "5")
        .set("rate_limit.burst", "20")
        .set("lifecycle.drain_delay_seconds", "0");
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    let mut over = 0_i64;
    for _ in 0..300 {
        let request = GetCaCertificateRequest { mqtt_instance_id: instance.id.clone(), sn: "01".to_owned() };
        let call = instance.caller.ca.clone().get_ca_certificate(request).await;
        over += i64::from(call.is_err_and(|status| status.code() == Code::ResourceExhausted));
    }
    assert!(over > 50, "{over}");
    replica.server.signal(Signal::TERM);
    replica.server.ended(PATIENCE).await?;
    let mut connection = deployment.database().await?;
    let rows = sqlx::query("SELECT attempts FROM refusals WHERE code = 'RateLimitExceeded'");
    let rows = rows.fetch_all(&mut connection).await?;
    let attempts: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    assert!(attempts.len() <= 2, "one row a minute: {attempts:?}");
    assert_eq!(attempts.iter().sum::<i64>(), over);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_is_refused_all_the_time_pushes_out_its_own_rows_alone() -> anyhow::Result<()> {
    let plan = Plan { nats: None, ..Plan::default() }
        .set("audit.refusals_kept_per_caller", "10")
        .identity(Identity::with_token("loud", ACCOUNT, &["mq:*"]));
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    refused(instance.get("01").await, Code::NotFound, "FindCaBySnError")?;
    let loud = replica.server.caller(Some("loud"))?;
    for number in 0..60 {
        let instance = TestInstance { caller: loud.clone(), id: format!("no-such-{number}") };
        refused(instance.get("01").await, Code::NotFound, "MqttInstanceNotFound")?;
    }
    let newest = ListRefusalsRequest { actor: "principal-of-loud".to_owned(), ..of_account(ACCOUNT) };
    eventually(PATIENCE, "the newest of the loud caller alone", async || {
        let rows = list(&loud, newest.clone()).await.map_err(|error| error.to_string())?;
        let names: Vec<_> = rows.iter().map(|row| row.mqtt_instance_id.clone()).collect();
        if names.len() == 10 && names.contains(&"no-such-59".to_owned()) {
            Ok(())
        } else {
            Err(format!("{names:?}"))
        }
    })
    .await?;
    let quiet = ListRefusalsRequest { code: "FindCaBySnError".to_owned(), ..of_account(ACCOUNT) };
    assert_eq!(list(&loud, quiet).await?.len(), 1, "the quiet one's row is still there");
    Ok(())
}

/// A stream is looked at again and again while it is open; that is no call.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_ends_because_its_caller_may_not_go_on_was_no_refused_call() -> anyhow::Result<()> {
    let plan =
        Plan { nats: None, ..Plan::default() }.identity(Identity::with_token("leaving", ACCOUNT, &["mq:*"]));
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    let caller = replica.server.caller(Some("leaving"))?;
    let mut watch = Watch::open(&TestInstance { caller, id: instance.id.clone() }, None).await?;
    watch.next_bundle().await?;
    let identities = deployment.files.path().join("identities.toml");
    let text = std::fs::read_to_string(&identities)?;
    let (others, _) =
        text.split_once("[[identity]]\nprincipal = \"principal-of-leaving\"").context("no entry")?;
    std::fs::write(&identities, others)?;
    let end = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Err(end) = watch.next().await {
                break end;
            }
        }
    });
    let end = end.await.context("the stream goes on")?;
    assert_eq!(end.downcast_ref::<Status>().map(Status::code), Some(Code::Unauthenticated), "{end:#}");
    refused(instance.get("01").await, Code::NotFound, "FindCaBySnError")?;
    let rows = listed(&replica.operator()?, ListRefusalsRequest::default(), 1).await?;
    assert_eq!(rows[0].code, "FindCaBySnError");
    assert_eq!(counted(&replica, "Unauthenticated").await?, 0);
    Ok(())
}
