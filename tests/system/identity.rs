//! Who may call: tokens, certificates, permissions, owners.

use std::time::Duration;

use catrust_proto::v1::{GetInstanceRequest, ListInstancesRequest, RegisterCaCertificateRequest};
use catrust_tests::certificates::Ca;
use catrust_tests::client::{Caller, refused};
use catrust_tests::deployment::{ACCOUNT, Deployment, Identity, Plan, Replica};
use catrust_tests::eventually::eventually;
use catrust_tests::instance::TestInstance;
use catrust_tests::server::{launcher, run_server};
use tonic::Code;

async fn deployed(identities: &[Identity]) -> anyhow::Result<(Deployment, Replica)> {
    let plan = Plan { nats: None, identities: identities.to_vec(), ..Plan::default() };
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    Ok((deployment, replica))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_identity_no_service() -> anyhow::Result<()> {
    let (_deployment, replica) = deployed(&[]).await?;
    for token in [None, Some("wrong"), Some(""), Some(&*"x".repeat(5_000))] {
        let caller = replica.server.caller(token)?;
        // Before anything else is looked at, fields included.
        let request = GetInstanceRequest { mqtt_instance_id: "not.an.id".to_owned() };
        refused(
            caller.instances.clone().get_instance(request).await,
            Code::Unauthenticated,
            "Unauthenticated",
        )?;
        let watch = TestInstance { caller: caller.clone(), id: "x".to_owned() };
        refused(watch.bundle().await, Code::Unauthenticated, "Unauthenticated")?;
        refused(watch.inactivate("01").await, Code::Unauthenticated, "Unauthenticated")?;
    }
    let mut health = replica.server.caller(None)?.health;
    health.check(tonic_health::pb::HealthCheckRequest::default()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_without_permission_learns_nothing_about_certificates() -> anyhow::Result<()> {
    let nobody = Identity::with_token("nobody-token", ACCOUNT, &["mq:SomethingElse"]);
    let (_deployment, replica) = deployed(&[nobody]).await?;
    let instance = replica.instance().await?;
    let ca = instance.new_ca().await?;
    let code = instance.code().await?;
    let registration = instance.registration(&Ca::root("other")?, &code)?;
    let nobody =
        TestInstance { caller: replica.server.caller(Some("nobody-token"))?, id: instance.id.clone() };
    let denied = (Code::PermissionDenied, "PermissionCheckFailed");
    for sn in [ca.sn.as_str(), "ABCD"] {
        let answers = [
            refused(nobody.get(sn).await, denied.0, denied.1)?,
            refused(nobody.inactivate(sn).await, denied.0, denied.1)?,
            refused(nobody.activate(sn).await, denied.0, denied.1)?,
            refused(nobody.delete(sn).await, denied.0, denied.1)?,
        ];
        assert!(answers.iter().all(|answer| !answer.message.contains(sn)));
    }
    refused(nobody.bundle().await, denied.0, denied.1)?;
    refused(nobody.code().await, denied.0, denied.1)?;
    let mut client = nobody.caller.ca.clone();
    refused(client.register_ca_certificate(registration).await, denied.0, denied.1)?;
    let request = GetInstanceRequest { mqtt_instance_id: instance.id.clone() };
    refused(nobody.caller.instances.clone().get_instance(request).await, denied.0, denied.1)?;
    refused(
        nobody.caller.instances.clone().list_instances(ListInstancesRequest::default()).await,
        denied.0,
        denied.1,
    )?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_state_needs_the_dependent_action_too() -> anyhow::Result<()> {
    let half = Identity::with_token(
        "half-token",
        ACCOUNT,
        &["mq:UnregisterCaCertificate", "mq:ActiveCaCertificate"],
    );
    let whole = Identity::with_token(
        "whole-token",
        ACCOUNT,
        &["mq:UnregisterCaCertificate", "mq:ActiveCaCertificate", "mq:MqttInstanceAccess"],
    );
    let other_half = Identity::with_token("other-half-token", ACCOUNT, &["mq:MqttInstanceAccess"]);
    let (_deployment, replica) = deployed(&[half, whole, other_half]).await?;
    let instance = replica.instance().await?;
    let ca = instance.new_ca().await?;
    let as_token = |token: &str| -> anyhow::Result<TestInstance> {
        Ok(TestInstance { caller: replica.server.caller(Some(token))?, id: instance.id.clone() })
    };
    for token in ["half-token", "other-half-token"] {
        let denied = as_token(token)?;
        refused(denied.inactivate(&ca.sn).await, Code::PermissionDenied, "PermissionCheckFailed")?;
        refused(denied.activate(&ca.sn).await, Code::PermissionDenied, "PermissionCheckFailed")?;
    }
    let allowed = as_token("whole-token")?;
    let off = allowed.inactivate(&ca.sn).await?;
    assert!(off.changed);
    let actor = instance.get(&ca.sn).await?.actor;
    assert_eq!(actor, "principal-of-whole-token");
    assert!(allowed.activate(&ca.sn).await?.changed);
    refused(allowed.delete(&ca.sn).await, Code::PermissionDenied, "PermissionCheckFailed")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_account_is_refused_after_permission_and_before_edition() -> anyhow::Result<()> {
    let stranger = Identity::with_token("stranger-token", "account-b", &["mq:*"]);
    let mut confined = Identity::with_token("confined-token", "account-b", &["mq:*"]);
    confined.resources = vec!["acs:mq:*:account-b:*".to_owned()];
    let (_deployment, replica) = deployed(&[stranger, confined]).await?;
    let owned = replica.instance().await?;
    let ca = owned.new_ca().await?;
    let stranger =
        TestInstance { caller: replica.server.caller(Some("stranger-token"))?, id: owned.id.clone() };
    let denied = (Code::PermissionDenied, "MqttOwnerCheckError");
    for sn in [ca.sn.as_str(), "ABCD"] {
        refused(stranger.get(sn).await, denied.0, denied.1)?;
        refused(stranger.inactivate(sn).await, denied.0, denied.1)?;
        refused(stranger.activate(sn).await, denied.0, denied.1)?;
        refused(stranger.delete(sn).await, denied.0, denied.1)?;
    }
    refused(stranger.code().await, denied.0, denied.1)?;
    refused(stranger.bundle().await, denied.0, denied.1)?;
    let request = RegisterCaCertificateRequest {
        mqtt_instance_id: owned.id.clone(),
        ..owned.registration(&Ca::root("x")?, "no code")?
    };
    refused(stranger.caller.ca.clone().register_ca_certificate(request).await, denied.0, denied.1)?;
    // The instance is told as unknown before permission is looked at.
    let absent = TestInstance { id: "no-such".to_owned(), ..stranger };
    refused(absent.inactivate("01").await, Code::NotFound, "MqttInstanceNotFound")?;
    let confined =
        TestInstance { caller: replica.server.caller(Some("confined-token"))?, id: owned.id.clone() };
    refused(confined.inactivate(&ca.sn).await, Code::PermissionDenied, "PermissionCheckFailed")?;
    Ok(())
}

/// An owner could make itself Platinum, or give its instance to somebody unasked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_operators_register_change_and_list_instances() -> anyhow::Result<()> {
    let deployment = Plan { nats: None, ..Plan::default() }.deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    let mut owner = replica.owner()?.instances;
    let update = catrust_proto::v1::UpdateInstanceRequest {
        mqtt_instance_id: instance.id.clone(),
        edition: catrust_proto::v1::Edition::Platinum.into(),
        ..Default::default()
    };
    refused(owner.update_instance(update).await, Code::PermissionDenied, "PermissionCheckFailed")?;
    let register = catrust_proto::v1::RegisterInstanceRequest {
        mqtt_instance_id: "another".to_owned(),
        region_id: "r".to_owned(),
        owner_account_id: catrust_tests::deployment::ACCOUNT.to_owned(),
        edition: catrust_proto::v1::Edition::Platinum.into(),
        ..Default::default()
    };
    refused(owner.register_instance(register).await, Code::PermissionDenied, "PermissionCheckFailed")?;
    let list = owner.list_instances(ListInstancesRequest::default()).await;
    refused(list, Code::PermissionDenied, "PermissionCheckFailed")?;
    let get = catrust_proto::v1::GetInstanceRequest { mqtt_instance_id: instance.id.clone() };
    owner.get_instance(get).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_an_identity() -> anyhow::Result<()> {
    let files = tempfile::tempdir()?;
    let at = |name: &str| files.path().join(name).to_string_lossy().into_owned();
    let (server_ca, client_ca) = (Ca::root("server CA")?, Ca::root("client CA")?);
    let server = server_ca.server()?;
    std::fs::write(at("server.pem"), &server.pem)?;
    std::fs::write(at("server.key"), &server.key_pem)?;
    std::fs::write(at("clients.pem"), &client_ca.pem)?;

    let name = "spiffe://example.org/operator";
    let mut known = Identity::with_token("unused", "operators", &["mq:*"]);
    known.token = None;
    known.certificate = Some(name.to_owned());
    known.operator = true;
    let plan = Plan { nats: None, ..Plan::default() }
        .identity(known)
        .set("tls.cert_file", &format!("{:?}", at("server.pem")))
        .set("tls.key_file", &format!("{:?}", at("server.key")))
        .set("tls.client_ca_file", &format!("{:?}", at("clients.pem")));
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    let address = replica.server.address();
    assert!(address.starts_with("https://"), "{address}");

    let list = |caller: &Caller| {
        let mut client = caller.instances.clone();
        async move { client.list_instances(ListInstancesRequest::default()).await }
    };
    let known = Caller::tls(address, &server_ca.pem, Some(&client_ca.client(name)?), None)?;
    list(&known).await?;
    let stranger = client_ca.client("spiffe://example.org/stranger")?;
    let stranger = Caller::tls(address, &server_ca.pem, Some(&stranger), None)?;
    refused(list(&stranger).await, Code::Unauthenticated, "Unauthenticated")?;
    let nobody = Caller::tls(address, &server_ca.pem, None, None)?;
    refused(list(&nobody).await, Code::Unauthenticated, "Unauthenticated")?;
    let by_token = Caller::tls(address, &server_ca.pem, None, Some(catrust_tests::deployment::OPERATOR))?;
    list(&by_token).await?;
    // A certificate of another CA does not even get through the handshake.
    let forged = Ca::root("client CA")?.client(name)?;
    let forged = Caller::tls(address, &server_ca.pem, Some(&forged), None)?;
    let status = list(&forged).await.expect_err("a certificate of a stranger's CA");
    assert!(matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled), "{status:?}");
    let plaintext =
        Caller::new(&address.replace("https", "http"), Some(catrust_tests::deployment::OPERATOR))?;
    assert!(list(&plaintext).await.is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_without_identities_refuses_to_start() -> anyhow::Result<()> {
    let deployment = Plan { nats: None, ..Plan::default() }.deploy().await?;
    let (config, _) = deployment.configuration("open")?;
    let text = std::fs::read_to_string(&config)?;
    let without: String =
        text.lines().filter(|line| !line.contains("token_file")).collect::<Vec<_>>().join("\n");
    std::fs::write(&config, without)?;
    let config = config.to_string_lossy().into_owned();
    let finished = run_server(&["serve", "--config", &config], &[]).await?;
    assert_ne!(finished.code, Some(0));
    assert!(finished.stderr.contains("auth.token_file"), "{finished:?}");
    let finished = run_server(&["config", "check", "--config", &config], &[]).await?;
    assert_ne!(finished.code, Some(0), "{finished:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dev_listens_on_loopback_only_and_says_who_it_takes_everybody_for() -> anyhow::Result<()> {
    let data = tempfile::tempdir()?;
    let directory = data.path().to_string_lossy().into_owned();
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let arguments = ["dev", "--listen", listen, "--data-dir", &directory];
        let mut refused = launcher("catrust-server dev on every address")?;
        refused.command().args(arguments);
        let process = refused.start()?;
        let status = process.ended(Duration::from_secs(20)).await?;
        assert!(!status.success());
        assert!(process.output().text().contains("loopback"), "{}", process.output().text());
    }
    let server = catrust_tests::server::Server::dev(data.path()).await?;
    eventually(Duration::from_secs(10), "ready-to-paste lines", async || {
        let said = server.output().text();
        let wanted = ["grpcurl -plaintext", "catrust ", "dev"];
        if wanted.iter().all(|word| said.contains(word)) { Ok(()) } else { Err(said) }
    })
    .await
}
