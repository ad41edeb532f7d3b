//! Running a gate: upstreams, PROXY, certificates, probes, leaving.

use std::time::Duration;

use catrust_broker_agent::gate::admin;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::broker::FakeBroker;
use crate::fixtures::{ACTIVE, Ca, trust};
use crate::harness::{CONNECT, Gate, soon, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_on_a_unix_socket_is_reached() {
    let dir = tempfile::TempDir::new().unwrap();
    let (broker, a) = (FakeBroker::unix(&dir.path().join("broker.sock")), Ca::new("A"));
    let gate = Gate::start(&broker.address, &[]).await;
    gate.apply(&trust(1, &[(&a, ACTIVE)])).await;
    gate.client(&a.device("a1"), &TLS13).must_connect().await.must_live().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_header_tells_address_version_and_common_name_before_anything_else() {
    for (version, name) in [(&TLS12, "TLSv1.2"), (&TLS13, "TLSv1.3")] {
        let (broker, a) = (FakeBroker::tcp().await, Ca::new("A"));
        let gate = Gate::start(&broker.address, &["--proxy-protocol", "v2"]).await;
        gate.apply(&trust(1, &[(&a, ACTIVE)])).await;
        let client = gate.client(&a.device("dev"), version);
        // Twice: a resumed session carries the name as well.
        for index in 0..2 {
            let mut device = client.must_connect().await;
            let local = device.tls.get_ref().0.local_addr().unwrap();
            device.must_live().await;
            let bytes = broker.seen()[index].bytes.clone();
            let (header, rest) = bytes.split_at(52);
            assert_eq!(header[..16], *b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x24");
            assert_eq!(header[16..24], [127, 0, 0, 1, 127, 0, 0, 1]);
            assert_eq!(
                header[24..28],
                [local.port().to_be_bytes(), gate.address.port().to_be_bytes()].concat()
            );
            assert_eq!(header[28..36], [0x20, 0, 21, 7, 0, 0, 0, 0]);
            assert_eq!(header[36..], *[b"\x21\0\x07", name.as_bytes(), b"\x22\0\x03dev"].concat());
            assert!(rest.starts_with(CONNECT));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn megabytes_pass_in_both_directions_at_once() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut stream, _) = socket.accept().await.unwrap();
        let (mut reader, mut writer) = stream.split();
        tokio::io::copy(&mut reader, &mut writer).await.unwrap();
    });
    let a = Ca::new("A");
    let gate = Gate::start(&address, &[]).await;
    gate.apply(&trust(1, &[(&a, ACTIVE)])).await;
    let device = gate.client(&a.device("a1"), &TLS13).handshake().await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(device.tls);
    // CONNECT, then packets of all lengths, the longest far above a buffer.
    let mut sent = CONNECT.to_vec();
    for length in (0_u32..2_000).step_by(7).chain([16_382, 16_383, 16_384, 100_000, 3_000_000]) {
        sent.extend([0x30, 0x80 | (length & 0x7f) as u8, 0x80 | (length >> 7 & 0x7f) as u8]);
        sent.extend([0x80 | (length >> 14 & 0x7f) as u8, (length >> 21) as u8]);
        sent.extend((0..length).map(|byte| byte as u8));
    }
    let expected = sent.clone();
    let write = tokio::spawn(async move {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let mut echoed = Vec::new();
    soon("the echo", reader.read_to_end(&mut echoed)).await.unwrap();
    write.await.unwrap();
    assert!(echoed == expected, "{} bytes of {}", echoed.len(), expected.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_served_without_a_restart_and_a_broken_one_is_not() {
    let (broker, a) = (FakeBroker::tcp().await, Ca::new("A"));
    let gate = Gate::start(&broker.address, &[]).await;
    gate.apply(&trust(1, &[(&a, ACTIVE)])).await;
    let client = gate.client(&a.device("a1"), &TLS13);
    let served = async || {
        // Not resumed: a resumed session shows the certificate from before.
        let device = client.forgetful().must_connect().await;
        device.tls.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let mut live = client.must_connect().await;
    let first = served().await;
    tokio::spawn({
        let (parts, stop) = (gate.parts.clone(), gate.stop.clone());
        async move { parts.watch_identity(stop).await }
    });

    let (certificate, key) = gate.server_ca.server();
    std::fs::write(gate.dir.path().join("gate.pem"), &certificate).unwrap();
    gate.parts.reload_identity();
    assert!(gate.parts.metrics.identity_reload_failures.get() > 0, "half a replacement was taken");
    assert_eq!(served().await, first);

    let before = gate.parts.metrics.identity_reloads.get();
    std::fs::write(gate.dir.path().join("gate.key"), &key).unwrap();
    let reloads = || gate.parts.metrics.identity_reloads.get();
    until("the files are noticed", reloads, |count| *count > before).await;
    assert_ne!(served().await, first);
    live.must_live().await;
}

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: gate\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("an answer", stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_metrics_tell_the_truth() {
    let (broker, a) = (FakeBroker::tcp().await, Ca::new("A"));
    let gate = Gate::start(&broker.address, &[]).await;
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let routes = admin::routes(gate.parts.clone(), gate.stop.clone());
    tokio::spawn(async move { axum::serve(socket, routes).await });

    assert!(get(address, "/healthz").await.starts_with("HTTP/1.1 200"));
    assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 503"));
    gate.apply(&trust(7, &[(&a, ACTIVE)])).await;
    assert!(get(address, "/readyz").await.starts_with("HTTP/1.1 200"));
    let mut device = gate.client(&a.device("a1"), &TLS13).must_connect().await;
    device.must_live().await;
    let metrics = get(address, "/metrics").await;
    for line in [
        "catrust_gate_sessions_open 1\n",
        "catrust_gate_trust_revision 7\n",
        "catrust_gate_trust_active 1\n",
        "catrust_gate_handshakes_total{outcome=\"full\"} 1\n",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    gate.stop.cancel();
    assert!(get(address, "/readyz").await.contains("draining"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_that_leaves_takes_nobody_in_and_closes_over_its_drain_time() {
    let (broker, a) = (FakeBroker::tcp().await, Ca::new("A"));
    let gate = Gate::start(&broker.address, &["--drain", "0.5"]).await;
    gate.apply(&trust(1, &[(&a, ACTIVE)])).await;
    let client = gate.client(&a.device("a1"), &TLS13);
    let mut devices = Vec::new();
    for _ in 0..5 {
        devices.push(client.must_connect().await);
    }
    let start = tokio::time::Instant::now();
    gate.stop.cancel();
    until("the port is closed", || std::net::TcpStream::connect(gate.address).is_err(), |closed| *closed)
        .await;
    devices[4].must_live().await;
    for device in &mut devices {
        device.closed().await;
    }
    assert!(start.elapsed() > Duration::from_millis(350), "all at once: {:?}", start.elapsed());
    soon("the gate is gone", gate.running).await.unwrap();
    let seen =
        until("the broker's sides end", || broker.seen(), |seen| seen.iter().all(|seen| seen.ended)).await;
    // No word in the devices' name: for the broker they are lost, not leaving.
    assert!(seen.iter().all(|seen| !seen.bytes.ends_with(&[0xe0, 0])), "{seen:?}");
}
