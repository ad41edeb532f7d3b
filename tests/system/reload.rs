//! Files that change while the server runs: certificates, client CAs, identities.

use std::time::Duration;

use catrust_proto::v1::{TrustMessage, WatchTrustRequest};
use catrust_tests::certificates::{Ca, Leaf};
use catrust_tests::client::{Caller, refused};
use catrust_tests::deployment::{ACCOUNT, Deployment, Identity, OPERATOR, OWNER, Plan, Replica};
use catrust_tests::eventually::eventually;
use catrust_tests::http;
use catrust_tests::instance::TestInstance;
use catrust_tests::process::Signal;
use catrust_tests::tls::Tls;
use tonic::{Code, Status, Streaming};

/// How long a change may take to be noticed: two looks, on a busy machine.
const NOTICED: Duration = Duration::from_secs(30);
const NAME: &str = "spiffe://example.org/reader";

fn reader() -> Identity {
    let mut reader = Identity::with_token("unused", ACCOUNT, &["mq:*"]);
    reader.token = None;
    reader.certificate = Some(NAME.to_owned());
    reader
}

struct Setting {
    tls: Tls,
    _deployment: Deployment,
    replica: Replica,
    id: String,
}

async fn deployed() -> anyhow::Result<Setting> {
    let tls = Tls::new()?;
    let plan = tls.plan(Plan { nats: None, ..Plan::default() }).identity(reader());
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    let operator = tls.caller(&replica.server, None, Some(OPERATOR))?;
    let owner = tls.caller(&replica.server, None, Some(OWNER))?;
    let id = TestInstance::register(&operator, &owner, ACCOUNT).await?.id;
    Ok(Setting { tls, _deployment: deployment, replica, id })
}

async fn watch(caller: &Caller, id: &str) -> Result<Streaming<TrustMessage>, Status> {
    let request = WatchTrustRequest { mqtt_instance_id: id.to_owned(), ..WatchTrustRequest::default() };
    let mut messages = caller.trust.clone().watch_trust(request).await?.into_inner();
    messages.message().await?.ok_or_else(|| Status::internal("no first message"))?;
    Ok(messages)
}

/// Reads to the end of a stream, which must be an error.
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
    tokio::time::timeout(NOTICED, reading).await?
}

async fn gauge(replica: &Replica, what: &str, refused: bool) -> anyhow::Result<()> {
    let wanted = format!(" {}", u8::from(refused));
    eventually(NOTICED, "the gauge of refused files", async || {
        let text = http::get(&replica.admin, "/metrics").await?.1;
        let told = text.lines().find(|line| {
            line.starts_with("catrust_reload_refused") && line.contains(&format!("what=\"{what}\""))
        });
        anyhow::ensure!(told.is_some_and(|line| line.ends_with(&wanted)), "{told:?}");
        Ok(())
    })
    .await
}

/// Over a connection of its own.
async fn bundle_anew(
    setting: &Setting,
    server_ca: &str,
    leaf: Option<&Leaf>,
    token: Option<&str>,
) -> Result<(), Status> {
    let caller = Caller::tls(setting.replica.server.address(), server_ca, leaf, token);
    let caller = caller.map_err(|error| Status::internal(error.to_string()))?;
    TestInstance { caller, id: setting.id.clone() }.bundle().await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_server_certificate_is_shown_without_a_restart_and_a_bad_one_is_not() -> anyhow::Result<()> {
    let setting = deployed().await?;
    let (tls, old_ca) = (&setting.tls, &setting.tls.server_ca);
    let open = TestInstance {
        caller: tls.caller(&setting.replica.server, None, Some(OWNER))?,
        id: setting.id.clone(),
    };
    open.bundle().await?;

    // Half of a change: the key without its certificate.
    let new_ca = Ca::root("new server CA")?;
    let renewed = new_ca.server()?;
    tls.write("server.key", &renewed.key_pem)?;
    gauge(&setting.replica, "tls", true).await?;
    bundle_anew(&setting, &old_ca.pem, None, Some(OWNER)).await?;
    let said = setting.replica.server.output().text();
    assert!(said.contains("what was in force stays"), "{said}");
    for garbage in ["", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        tls.write("server.pem", garbage)?;
        setting.replica.server.signal(Signal::HUP);
        bundle_anew(&setting, &old_ca.pem, None, Some(OWNER)).await?;
    }

    tls.write("server.pem", &renewed.pem)?;
    eventually(NOTICED, "the new certificate is shown", async || {
        bundle_anew(&setting, &new_ca.pem, None, Some(OWNER)).await
    })
    .await?;
    gauge(&setting.replica, "tls", false).await?;
    let status =
        bundle_anew(&setting, &old_ca.pem, None, Some(OWNER)).await.expect_err("the old CA vouches no more");
    assert_ne!(status.code(), Code::Unauthenticated, "the client refuses: {status:?}");
    open.bundle().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_ca_that_is_gone_takes_its_open_connections_with_it() -> anyhow::Result<()> {
    let setting = deployed().await?;
    let (tls, server) = (&setting.tls, &setting.replica.server);
    let (leaving, staying) = (&tls.client_ca, Ca::root("another client CA")?);
    let both = [leaving, &staying];
    tls.write_client_cas(&both)?;
    let (by_leaving, by_staying) = (leaving.client(NAME)?, staying.client(NAME)?);
    eventually(NOTICED, "both CAs vouch", async || {
        bundle_anew(&setting, &tls.server_ca.pem, Some(&by_staying), None).await
    })
    .await?;
    let gone = watch(&tls.caller(server, Some(&by_leaving), None)?, &setting.id).await?;
    let mut kept = watch(&tls.caller(server, Some(&by_staying), None)?, &setting.id).await?;
    let mut by_token = watch(&tls.caller(server, None, Some(OWNER))?, &setting.id).await?;

    tls.write_client_cas(&[&staying])?;
    let status = end_of(gone).await?;
    assert!(matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled), "{status:?}");
    let status = bundle_anew(&setting, &tls.server_ca.pem, Some(&by_leaving), None).await;
    assert!(status.is_err(), "no handshake with a certificate of the CA that is gone");
    // A head every two seconds, on the same streams as before.
    for messages in [&mut kept, &mut by_token] {
        let next = tokio::time::timeout(NOTICED, messages.message()).await??;
        assert!(next.is_some(), "the stream goes on");
    }
    bundle_anew(&setting, &tls.server_ca.pem, Some(&by_staying), None).await?;

    tls.write("clients.pem", "no certificate")?;
    gauge(&setting.replica, "tls", true).await?;
    bundle_anew(&setting, &tls.server_ca.pem, Some(&by_staying), None).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_that_is_taken_out_of_the_file_is_out_with_its_streams() -> anyhow::Result<()> {
    let (stays, goes) = (
        Identity::with_token("stays-token", ACCOUNT, &["mq:*"]),
        Identity::with_token("goes-token", ACCOUNT, &["mq:*"]),
    );
    let deployment = Plan { nats: None, ..Plan::default() }.identity(stays).identity(goes).deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    let seen_by = |token: &str| -> anyhow::Result<TestInstance> {
        Ok(TestInstance { caller: replica.server.caller(Some(token))?, id: instance.id.clone() })
    };
    let (stays, goes) = (seen_by("stays-token")?, seen_by("goes-token")?);
    let mut kept = watch(&stays.caller, &instance.id).await?;
    let ended = watch(&goes.caller, &instance.id).await?;

    let path = deployment.files.path().join("identities.toml");
    let put = |text: &str| -> anyhow::Result<()> {
        std::fs::write(path.with_extension("new"), text)?;
        Ok(std::fs::rename(path.with_extension("new"), &path)?)
    };
    let before = std::fs::read_to_string(&path)?;
    put(&before.replace("account_id", "acount_id"))?;
    gauge(&replica, "identities", true).await?;
    goes.bundle().await?;

    let (without, _) =
        before.split_once("[[identity]]\nprincipal = \"principal-of-goes-token\"").expect("the last entry");
    put(without)?;
    let told = end_of(ended).await?;
    assert_eq!(told.code(), Code::Unauthenticated, "{told:?}");
    assert!(told.message().contains("withdrawn"), "{told:?}");
    refused(goes.bundle().await, Code::Unauthenticated, "Unauthenticated")?;
    gauge(&replica, "identities", false).await?;
    stays.bundle().await?;
    assert!(tokio::time::timeout(NOTICED, kept.message()).await??.is_some(), "the other stream goes on");

    // And in again, without a restart.
    put(&before)?;
    replica.server.signal(Signal::HUP);
    eventually(NOTICED, "it may call again", async || goes.bundle().await.map(drop)).await
}
