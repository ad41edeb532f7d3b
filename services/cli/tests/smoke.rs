//! The binary against a small server of the contract: what a script sees of it.

#![expect(clippy::unwrap_used, reason = "the whole file is a test; clippy knows only of functions marked so")]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::Output;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use catrust_proto::v1 as proto;
use proto::instance_service_server::{InstanceService, InstanceServiceServer};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

const TOKEN: &str = "s3cret";

/// Knows two pages of instances, and remembers the request ids of registrations.
#[derive(Clone, Default)]
struct Registry {
    request_ids: Arc<Mutex<Vec<String>>>,
}

fn authorised<T>(request: &Request<T>) -> Result<(), Status> {
    let expected = format!("Bearer {TOKEN}");
    match request.metadata().get("authorization") {
        Some(value) if value.as_bytes() == expected.as_bytes() => Ok(()),
        _ => Err(refusal(Code::Unauthenticated, "Unauthenticated", "no valid token")),
    }
}

fn refusal(code: Code, name: &str, message: &str) -> Status {
    let metadata =
        HashMap::from([("code".to_owned(), name.to_owned()), ("request_id".to_owned(), "b9c1".to_owned())]);
    Status::with_error_details(code, message, ErrorDetails::with_error_info("REASON", "catrust", metadata))
}

fn instance(id: &str) -> proto::Instance {
    proto::Instance {
        mqtt_instance_id: id.to_owned(),
        edition: proto::Edition::Platinum.into(),
        ..Default::default()
    }
}

#[tonic::async_trait]
impl InstanceService for Registry {
    async fn register_instance(
        &self,
        request: Request<proto::RegisterInstanceRequest>,
    ) -> Result<Response<proto::RegisterInstanceResponse>, Status> {
        authorised(&request)?;
        let message = request.into_inner();
        let mut request_ids = self.request_ids.lock().unwrap();
        request_ids.push(message.request_id.clone());
        if request_ids.len() < 3 {
            return Err(Status::unavailable("the answer is lost"));
        }
        Ok(Response::new(proto::RegisterInstanceResponse {
            request_id: message.request_id,
            instance: Some(instance(&message.mqtt_instance_id)),
            changed: true,
            position: 7,
        }))
    }

    async fn update_instance(
        &self,
        _: Request<proto::UpdateInstanceRequest>,
    ) -> Result<Response<proto::UpdateInstanceResponse>, Status> {
        Err(Status::unimplemented("not in this version"))
    }

    async fn get_instance(
        &self,
        request: Request<proto::GetInstanceRequest>,
    ) -> Result<Response<proto::GetInstanceResponse>, Status> {
        authorised(&request)?;
        Err(refusal(Code::NotFound, "MqttInstanceNotFound", "the instance is not registered"))
    }

    async fn list_instances(
        &self,
        request: Request<proto::ListInstancesRequest>,
    ) -> Result<Response<proto::ListInstancesResponse>, Status> {
        authorised(&request)?;
        let (id, next) = match request.get_ref().page_token.as_str() {
            "" => ("fleet-a", "page-2"),
            _ => ("fleet-b", ""),
        };
        Ok(Response::new(proto::ListInstancesResponse {
            instances: vec![instance(id)],
            next_page_token: next.to_owned(),
            total_size: 2,
            ..Default::default()
        }))
    }
}

/// Serves until the test's runtime ends.
async fn serve(registry: Registry, tls: Option<ServerTlsConfig>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = Server::builder();
    if let Some(tls) = tls {
        server = server.tls_config(tls).unwrap();
    }
    let serving = server
        .add_service(InstanceServiceServer::new(registry))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serving);
    address
}

async fn catrust(server: &str, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_catrust"));
    command.env_clear().env("CATRUST_TOKEN", TOKEN).env("CATRUST_SERVER", server);
    command.args(arguments).kill_on_drop(true);
    tokio::time::timeout(Duration::from_secs(60), command.output()).await.expect("catrust ends").unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_with_the_same_request_id() {
    let registry = Registry::default();
    let server = format!("http://{}", serve(registry.clone(), None).await);
    let arguments =
        ["instance", "register", "fleet-a", "--region", "r", "--account", "1", "--edition", "platinum"];
    let output = catrust(&server, &arguments).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("recorded at position 7"), "{}", text(&output.stdout));
    let request_ids = registry.request_ids.lock().unwrap().clone();
    assert_eq!(request_ids.len(), 3);
    assert!(request_ids.iter().all(|id| *id == request_ids[0] && id.len() == 36), "{request_ids:?}");
}

#[tokio::test]
async fn a_list_goes_through_every_page_and_json_is_one_reply() {
    let server = format!("http://{}", serve(Registry::default(), None).await);
    let output = catrust(&server, &["instance", "list", "-o", "json"]).await;
    let reply: proto::ListInstancesResponse = serde_json::from_slice(&output.stdout).unwrap();
    let names: Vec<_> = reply.instances.iter().map(|found| found.mqtt_instance_id.as_str()).collect();
    assert_eq!((names, reply.total_size), (vec!["fleet-a", "fleet-b"], 2));

    let output = catrust(&server, &["instance", "list", "--limit", "1"]).await;
    let table = text(&output.stdout);
    assert_eq!(table.lines().count(), 2, "{table}");
    assert!(table.lines().nth(1).unwrap().starts_with("fleet-a   -       -      PLATINUM"), "{table}");
}

#[tokio::test]
async fn a_refusal_is_exit_1_with_code_and_request_id_on_stderr() {
    let server = format!("http://{}", serve(Registry::default(), None).await);
    let output = catrust(&server, &["instance", "show", "absent"]).await;
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(1), String::new()));
    let expected = "catrust: MqttInstanceNotFound: the instance is not registered\n  request id b9c1\n";
    assert_eq!(text(&output.stderr), expected);
}

#[tokio::test]
async fn a_call_that_is_not_built_yet_is_exit_1_and_says_so() {
    let server = format!("http://{}", serve(Registry::default(), None).await);
    for arguments in [&["fleet", "status", "fleet-a"][..], &["fleet", "propagation", "fleet-a"]] {
        let output = catrust(&server, arguments).await;
        assert_eq!(output.status.code(), Some(1));
        let stderr = text(&output.stderr);
        assert!(stderr.contains("the server does not offer this call"), "{stderr}");
    }
}

#[tokio::test]
async fn wrong_usage_is_exit_2() {
    let server = "http://127.0.0.1:1";
    let missing = ["ca", "register", "--instance", "i", "--name", "n", "--ca-file", "absent.pem"];
    let unreadable = [&missing[..], &["--verification-file", "absent.pem"]].concat();
    for arguments in [&missing[..], &unreadable, &["ca"], &["instance", "update", "fleet-a"]] {
        let output = catrust(server, arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output.stderr));
    }
}

#[tokio::test]
async fn an_absent_server_is_exit_3_within_the_timeout() {
    // Bound and dropped: nobody listens there now.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let output = catrust(&format!("http://{address}"), &["instance", "list", "--timeout", "1"]).await;
    assert_eq!(output.status.code(), Some(3));
    let stderr = text(&output.stderr);
    assert!(stderr.contains(&format!("no answer from http://{address}")), "{stderr}");
}

#[tokio::test]
async fn tls_checks_the_server_against_the_given_ca() {
    let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let identity = Identity::from_pem(key.cert.pem(), key.signing_key.serialize_pem());
    let tls = ServerTlsConfig::new().identity(identity);
    let server = format!("https://{}", serve(Registry::default(), Some(tls)).await);
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, pem: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    let (ours, theirs) = (write("ca.pem", key.cert.pem()), write("other.pem", other.cert.pem()));

    let output = catrust(&server, &["instance", "list", "--tls-ca-file", &ours]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let output = catrust(&server, &["instance", "list", "--timeout", "1", "--tls-ca-file", &theirs]).await;
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stdout));
    let output = catrust(&server, &["instance", "list"]).await;
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
}
