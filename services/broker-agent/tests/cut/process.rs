//! The process: `catrust-agent gate` without a server, as it starts, refuses and
//! leaves.

use catrust_test_harness::process::{Launcher, Process, Signal};
use catrust_trust_feed::SigningKey;
use rustls::client::Tls12Resumption;
use rustls::version::TLS13;
use tempfile::TempDir;

use crate::fixtures::Ca;
use crate::harness::{Client, PATIENCE};

/// A gate whose server and broker are not there.
struct Gate {
    process: Process,
    _dir: TempDir,
    server_ca: Ca,
}

impl Gate {
    fn start(trust_key: &str) -> Self {
        let (dir, server_ca) = (TempDir::new().unwrap(), Ca::new("gate CA"));
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let (certificate, key) = server_ca.server();
        std::fs::write(path("gate.pem"), certificate).unwrap();
        std::fs::write(path("gate.key"), key).unwrap();
        std::fs::write(path("trust.pub.pem"), trust_key).unwrap();
        let mut launcher = Launcher::new("catrust-agent gate", env!("CARGO_BIN_EXE_catrust-agent"));
        launcher
            .command()
            .args(["gate", "--server", "http://127.0.0.1:1", "--instance", "fleet", "--broker-id", "g"])
            .args(["--listen", "127.0.0.1:0", "--upstream", "127.0.0.1:1", "--drain", "0.1"])
            .args(["--cert", &path("gate.pem"), "--key", &path("gate.key")])
            .args(["--trust-key", &path("trust.pub.pem"), "--state-dir", &path("state")]);
        Self { process: launcher.start().unwrap(), _dir: dir, server_ca }
    }

    /// Waits for the end; gives the exit code and what was said.
    async fn end(self) -> (Option<i32>, String) {
        let status = self.process.ended(PATIENCE).await.unwrap();
        (status.code(), self.process.output().text())
    }
}

fn public_key() -> String {
    SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap().public_key_pem()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_server_it_listens_refuses_everybody_and_leaves_when_told() {
    let gate = Gate::start(&public_key());
    let address = gate.process.ready(PATIENCE, "the gate listens", async || {
        let lines = gate.process.output().lines();
        let address = lines.iter().find_map(|line| line.trim().strip_prefix("listening on tls://"));
        address.map(|address| address.parse().unwrap()).ok_or("no address yet")
    });
    let address = address.await.unwrap();
    let device = Ca::new("A").device("a1");
    let server_ca = &gate.server_ca.der;
    let client = Client::with(address, server_ca, &device, &TLS13, Tls12Resumption::Disabled);
    let error = client.must_be_refused().await;
    assert!(error.to_string().contains("AccessDenied"), "{error}");
    // Reads the certificate again, and is no reason to leave.
    gate.process.signal(Signal::HUP);
    client.must_be_refused().await;
    gate.process.signal(Signal::TERM);
    let (code, errors) = gate.end().await;
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("certificate and key are read again"), "{errors}");
}

#[tokio::test]
async fn without_a_key_that_may_sign_it_does_not_start() {
    let (code, errors) = Gate::start("not a key").end().await;
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("--trust-key") && errors.contains("trust.pub.pem"), "{errors}");
}
