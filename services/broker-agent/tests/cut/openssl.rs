//! `openssl s_client`: a ticket is a bearer credential, and ends with the trust.

use std::path::Path;
use std::process::Stdio;

use rustls::version::TLS13;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use crate::broker::FakeBroker;
use crate::fixtures::{ACTIVE, Ca, Device, INACTIVE, pem, trust};
use crate::harness::{CONNACK, CONNECT, Gate, soon};

/// Starts `openssl s_client` and sends CONNECT.
async fn s_client(gate: &Gate, arguments: &[&str]) -> Child {
    let mut child = Command::new("openssl")
        .args(["s_client", "-ign_eof", "-connect", &gate.address.to_string(), "-CAfile"])
        .arg(gate.dir.path().join("ca.pem"))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    child.stdin.as_mut().unwrap().write_all(CONNECT).await.unwrap();
    child
}

/// Reads until CONNACK or the end; gives what came, and whether it was CONNACK.
async fn answer(child: &mut Child) -> (String, bool) {
    let (mut read, stdout) = (Vec::new(), child.stdout.as_mut().unwrap());
    let connack = soon("an answer or an end", async {
        loop {
            if stdout.read_buf(&mut read).await.unwrap() == 0 {
                return false;
            }
            if read.windows(CONNACK.len()).any(|window| window == CONNACK) {
                return true;
            }
        }
    })
    .await;
    (String::from_utf8_lossy(&read).into_owned(), connack)
}

fn write_device(device: &Device, certificate: &Path, key: &Path) {
    std::fs::write(certificate, pem("CERTIFICATE", &device.chain[0])).unwrap();
    std::fs::write(key, pem("PRIVATE KEY", &device.key)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_without_its_key_is_worthless_after_the_change() {
    for version in ["-tls1_2", "-tls1_3"] {
        let (broker, a) = (FakeBroker::tcp().await, Ca::new("A"));
        let gate = Gate::start(&broker.address, &[]).await;
        gate.apply(&trust(1, &[(&a, ACTIVE)])).await;
        let path = |name: &str| gate.dir.path().join(name).to_str().unwrap().to_owned();
        let (certificate, key, session) = (path("device.pem"), path("device.key"), path("session"));
        write_device(&a.device("a1"), certificate.as_ref(), key.as_ref());

        let full = [version, "-cert", &certificate, "-key", &key];
        let mut child = s_client(&gate, &[&full[..], &["-sess_out", &session]].concat()).await;
        let (text, connack) = answer(&mut child).await;
        assert!(connack, "{version}: {text}");
        // TLS 1.3 tickets come after the handshake, and openssl writes them when they
        // have come: with or before the CONNACK.
        assert!(Path::new(&session).exists(), "{version}: {text}");

        let resume = [version, "-sess_in", &session];
        let mut child = s_client(&gate, &resume).await;
        let (text, connack) = answer(&mut child).await;
        assert!(connack && text.contains("Reused, "), "{version}, while the CA is active: {text}");

        gate.apply(&trust(2, &[(&a, INACTIVE)])).await;
        let mut child = s_client(&gate, &resume).await;
        let (text, connack) = answer(&mut child).await;
        assert!(!connack && !text.contains("Reused, "), "{version}, after the change: {text}");
        assert_eq!(gate.parts.metrics.refused_after_handshake.get(), 0, "{version}");

        let mut child = s_client(&gate, &full).await;
        let (text, connack) = answer(&mut child).await;
        assert!(!connack, "{version}, a full handshake after the change: {text}");
    }
}

/// The connection that was opened before the change, and says its ClientHello after
/// it, must not carry the old ticket key over.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_opened_before_the_change_cannot_resume_after_it() {
    let (broker, a) = (FakeBroker::tcp().await, Ca::new("A"));
    let gate = Gate::start(&broker.address, &[]).await;
    gate.apply(&trust(1, &[(&a, ACTIVE)])).await;
    let client = gate.client(&a.device("a1"), &TLS13);
    client.must_connect().await;
    let early = tokio::net::TcpStream::connect(gate.address).await.unwrap();
    crate::harness::until("it is accepted", || gate.parts.metrics.connections.get(), |count| *count == 2)
        .await;
    gate.apply(&trust(2, &[(&a, INACTIVE)])).await;
    let error = soon("the refusal", client.connect_over(early)).await.err().unwrap();
    assert!(error.to_string().contains("alert"), "{error}");
    assert_eq!(gate.parts.metrics.refused_after_handshake.get(), 0);
}
