//! What a server with a policy folder allows and refuses.

use catrust_proto::v1::{Edition, ListInstancesRequest};
use catrust_tests::client::refused;
use catrust_tests::deployment::{ACCOUNT, Identity, OWNER, Plan};
use catrust_tests::instance::TestInstance;
use catrust_tests::server::run_server;
use sqlx::Row as _;
use tonic::Code;

use super::{deployed, permit, seen_by, version};

const DENIED: (Code, &str) = (Code::PermissionDenied, "PermissionCheckFailed");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_denial_wins_and_both_actions_are_needed() -> anyhow::Result<()> {
    let switch = ["mq:UnregisterCaCertificate", "mq:ActiveCaCertificate"];
    let whole = [&switch[..], &["mq:MqttInstanceAccess"]].concat();
    let policies = permit("half", &switch)
        + &permit("other-half", &["mq:MqttInstanceAccess"])
        + &permit("whole", &whole);
    let deny = format!(
        "{{\"Version\": \"1\", \"Principal\": \"*\", \"Statement\": [{{\"Effect\": \"Deny\", \
         \"Action\": \"mq:ActiveCaCertificate\", \"Resource\": \"acs:mq:*:{ACCOUNT}:*\"}}]}}"
    );
    let names = ["half", "other-half", "whole", "nobody"];
    let (_deployment, replica) =
        deployed(&names, &[("switch.cedar", &policies), ("deny.json", &deny)]).await?;
    let instance = replica.instance().await?;
    let ca = instance.new_ca().await?;
    for token in ["half", "other-half", "nobody"] {
        let caller = seen_by(&replica, &instance, token)?;
        let refusal = refused(caller.inactivate(&ca.sn).await, DENIED.0, DENIED.1)?;
        let missing = if token == "half" { "mq:MqttInstanceAccess" } else { "mq:UnregisterCaCertificate" };
        assert!(refusal.message.contains(missing), "{token}: {refusal:?}");
        refused(caller.get(&ca.sn).await, DENIED.0, DENIED.1)?;
    }
    let whole = seen_by(&replica, &instance, "whole")?;
    assert!(whole.inactivate(&ca.sn).await?.changed);
    // Allowed by Cedar, denied by the document: for everybody, the owner included.
    for token in ["whole", OWNER] {
        let refusal =
            refused(seen_by(&replica, &instance, token)?.activate(&ca.sn).await, DENIED.0, DENIED.1)?;
        assert!(refusal.message.contains("mq:ActiveCaCertificate"), "{refusal:?}");
        assert!(
            !refusal.message.contains("deny.json"),
            "what policies there are is told in the log: {refusal:?}"
        );
    }
    let said = replica.server.output().text();
    assert!(said.contains(&format!("denied by {ACCOUNT}/deny.json:1 (statement 1)")), "{said}");
    assert!(said.contains("no policy allows it"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_of_the_call_decides_where_a_policy_asks_for_it() -> anyhow::Result<()> {
    let document = |network: &str, name: &str| {
        format!(
            "{{\"Version\": \"1\", \"Principal\": \"principal-of-{name}\", \"Statement\": [\n\
             {{\"Effect\": \"Allow\", \"Action\": \"mq:Get*\", \"Resource\": \"*\"}},\n\
             {{\"Effect\": \"Deny\", \"Action\": \"*\", \"Resource\": \"*\",\n\
               \"Condition\": {{\"NotIpAddress\": {{\"acs:SourceIp\": \"{network}\"}}}}}}]}}"
        )
    };
    let (here, elsewhere) = (document("127.0.0.0/8", "here"), document("192.0.2.0/24", "elsewhere"));
    let policies = [("here.json", here.as_str()), ("elsewhere.json", elsewhere.as_str())];
    let mut plan = Plan { nats: None, ..Plan::default() }
        .set("grpc.listen", "\"[::]:0\"")
        .set("tls.allow_plaintext", "true");
    for name in ["here", "elsewhere"] {
        plan = plan.identity(Identity::with_token(name, ACCOUNT, &[]));
    }
    for (name, text) in policies {
        plan = plan.policy(&format!("{ACCOUNT}/{name}"), text);
    }
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    // The listener has both families: it sees 127.0.0.1 as ::ffff:127.0.0.1.
    let port = replica.server.authority().rsplit(':').next().unwrap_or_default().to_owned();
    let over = |host: &str, token: &str| {
        catrust_tests::client::Caller::new(&format!("http://{host}:{port}"), Some(token))
    };
    let operator = over("127.0.0.1", catrust_tests::deployment::OPERATOR)?;
    let instance = TestInstance::register(&operator, &over("127.0.0.1", OWNER)?, ACCOUNT).await?;
    let ca = instance.new_ca().await?;
    let as_caller = |host: &str, token: &str| -> anyhow::Result<TestInstance> {
        Ok(TestInstance { caller: over(host, token)?, id: instance.id.clone() })
    };
    as_caller("127.0.0.1", "here")?.get(&ca.sn).await?;
    refused(as_caller("[::1]", "here")?.get(&ca.sn).await, DENIED.0, DENIED.1)?;
    as_caller("127.0.0.1", "here")?.get(&ca.sn).await?;
    refused(as_caller("127.0.0.1", "elsewhere")?.get(&ca.sn).await, DENIED.0, DENIED.1)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn permission_is_checked_after_the_instance_and_before_owner_and_edition() -> anyhow::Result<()> {
    let everything = "permit(principal, action, resource) unless { principal.name like \"*nobody\" };";
    let plan = Plan { nats: None, ..Plan::default() }
        .identity(Identity::with_token("stranger", "account-b", &[]))
        .identity(Identity::with_token("stranger-nobody", "account-b", &[]))
        .identity(Identity::with_token("without-policies", "account-c", &[]))
        .policy("account-b/all.cedar", everything);
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    let (operator, owner) = (replica.operator()?, replica.owner()?);
    let standard = TestInstance::of_edition(&operator, &owner, ACCOUNT, Edition::Standard).await?;
    let on = |token: &str, id: &str| -> anyhow::Result<TestInstance> {
        Ok(TestInstance { caller: replica.server.caller(Some(token))?, id: id.to_owned() })
    };
    for token in ["stranger", "stranger-nobody", "without-policies"] {
        let absent = on(token, "no-such")?.inactivate("01").await;
        refused(absent, Code::NotFound, "MqttInstanceNotFound")?;
    }
    for token in ["stranger-nobody", "without-policies"] {
        refused(on(token, &standard.id)?.inactivate("01").await, DENIED.0, DENIED.1)?;
    }
    let owner_check = on("stranger", &standard.id)?.inactivate("01").await;
    refused(owner_check, Code::PermissionDenied, "MqttOwnerCheckError")?;
    let edition_check = on(OWNER, &standard.id)?.inactivate("01").await;
    refused(edition_check, Code::FailedPrecondition, "EditionNotSupported")?;
    // A policy makes nobody an operator.
    let listed = replica
        .server
        .caller(Some("stranger"))?
        .instances
        .list_instances(ListInstancesRequest::default())
        .await;
    refused(listed, DENIED.0, DENIED.1)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_has_the_version_of_the_policies_that_allowed_it() -> anyhow::Result<()> {
    let (deployment, replica) = deployed(&[], &[("none.cedar", "")]).await?;
    let instance = replica.instance().await?;
    let ca = instance.new_ca().await?;
    instance.inactivate(&ca.sn).await?;
    let in_force = version(&replica).await?;
    let mut connection = deployment.database().await?;
    let rows = sqlx::query("SELECT DISTINCT policy_version FROM events").fetch_all(&mut connection).await?;
    let versions: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(versions, [in_force]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_folder_or_two_sources_of_permission_refuse_to_start() -> anyhow::Result<()> {
    let plan = Plan { nats: None, ..Plan::default() }
        .policy(
            &format!("{ACCOUNT}/a.cedar"),
            "permit(principal, action, resource);\npermit(principal, action);",
        )
        .policy(
            &format!("{ACCOUNT}/b.json"),
            "{\"Version\": \"1\",\n \"Principal\": \"*\",\n \"Statement\": [{}]}",
        );
    let deployment = plan.deploy().await?;
    let (config, _) = deployment.configuration("bad")?;
    let config = config.to_string_lossy().into_owned();
    for arguments in [&["serve", "--config", &config][..], &["config", "check", "--config", &config]] {
        let finished = run_server(arguments, &[]).await?;
        assert_ne!(finished.code, Some(0), "{finished:?}");
        for place in ["/a.cedar:2: ", "/b.json:3: statement 1: missing field `Effect`"] {
            assert!(finished.stderr.contains(&format!("policies/{ACCOUNT}{place}")), "{finished:?}");
        }
    }
    deployment.policies().remove(&format!("{ACCOUNT}/a.cedar"))?;
    deployment.policies().remove(&format!("{ACCOUNT}/b.json"))?;
    let identities = deployment.files.path().join("identities.toml");
    let text = std::fs::read_to_string(&identities)?;
    std::fs::write(&identities, text.replacen("token_sha256", "allow = [\"mq:*\"]\ntoken_sha256", 1))?;
    let finished = run_server(&["serve", "--config", &config], &[]).await?;
    assert_ne!(finished.code, Some(0), "{finished:?}");
    assert!(finished.stderr.contains("allow stands beside auth.policy_dir"), "{finished:?}");
    Ok(())
}
