//! TLS to the servers, with a client certificate.

use std::fs;
use std::path::PathBuf;

use catrust_trust_feed::agent::{AgentSettings, GrpcSettings};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use crate::world::{Broker, GrpcServer, World};

/// A CA with a certificate for the server and one for the agent.
struct Pki {
    ca: String,
    server: (String, String),
    agent: (String, String),
}

impl Pki {
    fn new() -> Self {
        let ca_key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&ca_key).unwrap().pem();
        let issuer = Issuer::new(params, ca_key);
        let leaf = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
            (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
        };
        Self { ca, server: leaf("127.0.0.1"), agent: leaf("agent") }
    }

    fn server_config(&self) -> ServerTlsConfig {
        ServerTlsConfig::new()
            .identity(Identity::from_pem(&self.server.0, &self.server.1))
            .client_ca_root(Certificate::from_pem(&self.ca))
    }

    fn write(&self, directory: &TempDir) -> [PathBuf; 3] {
        let files = ["ca.pem", "agent.pem", "agent.key"].map(|name| directory.path().join(name));
        for (file, text) in files.iter().zip([&self.ca, &self.agent.0, &self.agent.1]) {
            fs::write(file, text).unwrap();
        }
        files
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_is_spoken_with_a_client_certificate_and_files_are_read_again() {
    let (pki, stranger, world) = (Pki::new(), Pki::new(), World::new());
    let grpc = GrpcServer::start_with(&world, Some(pki.server_config())).await;
    let directory = tempfile::tempdir().unwrap();
    let [ca, certificate, key] = stranger.write(&directory);
    let grpc = GrpcSettings {
        tls_ca_file: Some(ca),
        tls_certificate_file: Some(certificate),
        tls_key_file: Some(key),
        ..GrpcSettings::new(&grpc.url)
    };
    let broker = Broker::start(AgentSettings { grpc, ..world.settings("http://127.0.0.1:9") }).await;
    let early = tokio::time::timeout(std::time::Duration::from_millis(500), broker.agent.ready()).await;
    assert!(early.is_err(), "a server of another CA is not believed");
    pki.write(&directory);
    broker.ready().await;
}
