//! Clients that share no code with the server, and the command line.

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use catrust_tests::certificates::{OpensslCa, unique};
use catrust_tests::deployment::{ACCOUNT, OPERATOR, Plan};
use catrust_tests::foreign::{buf, script};
use catrust_tests::issuer::{self, Key, Publisher};
use catrust_tests::program::{Completion, built, finish, free_port, run};
use catrust_tests::server::Server;
use serde_json::Value;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_client_without_generated_files_uses_the_embedded_server() -> anyhow::Result<()> {
    let data = tempfile::tempdir()?;
    let server = Server::dev(data.path()).await?;
    script("client.py", &[server.authority()]).await?.success()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_client_without_generated_files_uses_a_replica() -> anyhow::Result<()> {
    let deployment = Plan::default().deploy().await?;
    let replica = deployment.replica("a").await?;
    script("client.py", &[replica.server.authority(), OPERATOR, "operators"]).await?.success()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_client_uses_a_token_of_an_issuer() -> anyhow::Result<()> {
    let key = Key::rs256("k").await?;
    let publisher = Publisher::start(&[&key]).await?;
    let everything = "permit(principal == Principal::\"python\", action, resource);";
    let deployment = issuer::plan(Plan { nats: None, ..Plan::default() })
        .policy(&format!("{ACCOUNT}/python.cedar"), everything)
        .set("auth.jwt.key_set_url", &format!("{:?}", publisher.url()))
        .set("auth.jwt.operator_claim", "\"catrust_operator\"")
        .deploy()
        .await?;
    let replica = deployment.replica("a").await?;
    let mut claims = issuer::claims("python");
    claims["catrust_operator"] = true.into();
    script("client.py", &[replica.server.authority(), &key.token(&claims), ACCOUNT]).await?.success()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buf_curl_calls_by_reflection() -> anyhow::Result<()> {
    let deployment = Plan { nats: None, ..Plan::default() }.deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    let url = format!("{}/catrust.v1.InstanceService/GetInstance", replica.server.address());
    let header = format!("authorization: Bearer {OPERATOR}");
    let call = async |id: &str| {
        let data = format!("{{\"mqttInstanceId\": {id:?}}}");
        let arguments = [
            "curl",
            "--protocol",
            "grpc",
            "--http2-prior-knowledge",
            "--reflect",
            "--reflect-header",
            &header,
            "--header",
            &header,
            "--data",
            &data,
            &url,
        ];
        run(buf()?, arguments).await
    };
    let reply = call(&instance.id).await?.success()?;
    let reply: Value = serde_json::from_str(&reply.stdout)?;
    assert_eq!(reply["instance"]["mqttInstanceId"], instance.id.as_str());
    assert_eq!(reply["instance"]["edition"], "EDITION_PLATINUM");
    let refused = call("no-such").await?;
    assert_ne!(refused.code, Some(0));
    let error: Value = serde_json::from_str(&refused.stderr)?;
    assert_eq!(
        (&error["code"], &error["details"][0]["type"]),
        (&"not_found".into(), &"google.rpc.ErrorInfo".into())
    );
    let value = error["details"][0]["value"].as_str().context("no value")?;
    let info = String::from_utf8_lossy(&STANDARD_NO_PAD.decode(value)?).into_owned();
    assert!(info.contains("MQTT_INSTANCE_NOT_FOUND") && info.contains("MqttInstanceNotFound"), "{info:?}");
    Ok(())
}

/// `catrust` as somebody at a terminal.
struct Terminal {
    server: String,
    token: Option<String>,
}

impl Terminal {
    async fn catrust(&self, arguments: &[&str]) -> anyhow::Result<Completion> {
        let mut command = tokio::process::Command::new(built("catrust")?);
        command.args(["--server", &self.server]).args(arguments);
        if let Some(token) = &self.token {
            command.env("CATRUST_TOKEN", token);
        }
        finish(command).await
    }

    async fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let finished = self.catrust(&[arguments, &["-o", "json"]].concat()).await?.success()?;
        serde_json::from_str(&finished.stdout).with_context(|| format!("no JSON: {}", finished.stdout))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_does_the_whole_path() -> anyhow::Result<()> {
    let deployment = Plan { nats: None, ..Plan::default() }.deploy().await?;
    let replica = deployment.replica("a").await?;
    let operator = Terminal { server: replica.server.address().to_owned(), token: Some(OPERATOR.to_owned()) };
    let owner = Terminal { token: Some(catrust_tests::deployment::OWNER.to_owned()), ..operator };
    let operator = Terminal { server: owner.server.clone(), token: Some(OPERATOR.to_owned()) };
    let id = unique("cli");
    let register = ["instance", "register", &id, "--region", "eu-central-1", "--account", ACCOUNT];
    operator.json(&[&register[..], &["--edition", "platinum"]].concat()).await?;
    let shown = operator.json(&["instance", "show", &id]).await?;
    assert!(shown.to_string().contains("EDITION_PLATINUM"), "{shown}");

    let code = owner.catrust(&["ca", "code", "--instance", &id, "--bare"]).await?.success()?.stdout;
    let ca = OpensslCa::new(&["rsa:2048"], &[]).await?;
    let sn = ca.sn().await?;
    std::fs::write(ca.directory().join("verification.pem"), ca.verification(code.trim()).await?)?;
    let file = |name: &str| ca.directory().join(name).to_string_lossy().into_owned();
    let (ca_file, verification_file) = (file("ca.pem"), file("verification.pem"));
    let arguments = ["ca", "register", "--instance", &id, "--name", "a CA", "--ca-file", &ca_file];
    let arguments = [&arguments[..], &["--verification-file", &verification_file]].concat();
    let registered = owner.json(&arguments).await?;
    assert_eq!(registered["sn"], sn.as_str());

    let off = owner.json(&["ca", "inactivate", &sn, "--instance", &id, "--reason", "leaked"]).await?;
    assert_eq!((&off["changed"], &off["revision"]), (&true.into(), &"2".into()), "{off}");
    owner.json(&["ca", "activate", &sn.to_lowercase(), "--instance", &id]).await?;
    let listed = owner.catrust(&["ca", "list", "--instance", &id]).await?.success()?.stdout;
    assert!(listed.contains(&sn) && listed.contains("ACTIVE"), "{listed}");
    let history = owner.catrust(&["ca", "history", "--instance", &id]).await?.success()?.stdout;
    assert!(history.contains("CaCertificateInactivated") && history.contains("leaked"), "{history}");
    let watch = ["watch", &id, "--after-revision", "0", "--until-revision", "3"];
    let watched = owner.catrust(&watch).await?.success()?.stdout;
    assert_eq!(watched.lines().count(), 3, "{watched}");
    owner.catrust(&["ca", "delete", &sn, "--instance", &id]).await?.success()?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_codes_tell_refused_usage_and_unreachable_apart() -> anyhow::Result<()> {
    let data = tempfile::tempdir()?;
    let server = Server::dev(data.path()).await?;
    let here = Terminal { server: server.address().to_owned(), token: None };
    assert_eq!(here.catrust(&["instance", "list"]).await?.code, Some(0));
    let refused = here.catrust(&["ca", "inactivate", "ABCD", "--instance", "no-such"]).await?;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("MqttInstanceNotFound"), "the code on stderr: {}", refused.stderr);
    for usage in [&["ca"][..], &["ca", "revoke"], &["nothing"], &["instance", "list", "--colour"]] {
        assert_eq!(here.catrust(usage).await?.code, Some(2), "{usage:?}");
    }
    let nowhere = Terminal { server: format!("http://127.0.0.1:{}", free_port()?), token: None };
    let unreachable = nowhere.catrust(&["--timeout", "2", "instance", "list"]).await?;
    assert_eq!(unreachable.code, Some(3), "{unreachable:?}");
    Ok(())
}
