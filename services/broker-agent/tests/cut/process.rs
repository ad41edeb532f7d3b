//! The process: `catrust-agent gate` without a server, as it starts, refuses and
//! leaves.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use catrust_trust_feed::SigningKey;
use rustls::client::Tls12Resumption;
use rustls::version::TLS13;
use tempfile::TempDir;

use crate::fixtures::Ca;
use crate::harness::{Client, PATIENCE};

struct Process {
    child: Child,
    _dir: TempDir,
    server_ca: Ca,
}

impl Process {
    /// Starts a gate whose server and broker are not there.
    fn start(trust_key: &str) -> Self {
        let (dir, server_ca) = (TempDir::new().unwrap(), Ca::new("gate CA"));
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let (certificate, key) = server_ca.server();
        std::fs::write(path("gate.pem"), certificate).unwrap();
        std::fs::write(path("gate.key"), key).unwrap();
        std::fs::write(path("trust.pub.pem"), trust_key).unwrap();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", env!("CARGO_BIN_EXE_catrust-agent")])
            .args(["gate", "--server", "http://127.0.0.1:1", "--instance", "fleet", "--broker-id", "g"])
            .args(["--listen", "127.0.0.1:0", "--upstream", "127.0.0.1:1", "--drain", "0.1"])
            .args(["--cert", &path("gate.pem"), "--key", &path("gate.key")])
            .args(["--trust-key", &path("trust.pub.pem"), "--state-dir", &path("state")])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self { child, _dir: dir, server_ca }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success(), "kill {name}");
    }

    /// Waits for the end; gives the exit code and what was said on standard error.
    fn end(mut self) -> (Option<i32>, String) {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(started.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        let errors = std::io::read_to_string(self.child.stderr.take().unwrap()).unwrap();
        (status.code(), errors)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only where it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn public_key() -> String {
    SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap().public_key_pem()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_any_server_it_listens_refuses_everybody_and_leaves_when_told() {
    let mut process = Process::start(&public_key());
    let mut line = String::new();
    BufReader::new(process.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("listening on tls://").expect(&line).parse().unwrap();
    let device = Ca::new("A").device("a1");
    let server_ca = &process.server_ca.der;
    let client = Client::with(address, server_ca, &device, &TLS13, Tls12Resumption::Disabled);
    let error = client.must_be_refused().await;
    assert!(error.to_string().contains("AccessDenied"), "{error}");
    // Reads the certificate again, and is no reason to leave.
    process.signal("-HUP");
    client.must_be_refused().await;
    process.signal("-TERM");
    let (code, errors) = process.end();
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("certificate and key are read again"), "{errors}");
}

#[test]
fn without_a_key_that_may_sign_it_does_not_start() {
    let process = Process::start("not a key");
    let (code, errors) = process.end();
    assert_eq!(code, Some(1), "{errors}");
    assert!(errors.contains("--trust-key") && errors.contains("trust.pub.pem"), "{errors}");
}
