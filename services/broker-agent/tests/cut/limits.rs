//! Slow, dead, idle and too many.

use std::time::Duration;

use catrust_test_harness::eventually::eventually;
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::broker::FakeBroker;
use crate::fixtures::{ACTIVE, Ca, INACTIVE, trust};
use crate::harness::{CONNECT, Gate, PATIENCE, soon, until};

async fn gate_with_active(upstream: &str, arguments: &[&str]) -> (Gate, Ca) {
    let a = Ca::new("A");
    let gate = Gate::start(upstream, arguments).await;
    gate.apply(&trust(1, &[(&a, ACTIVE)])).await;
    (gate, a)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_does_not_come_ends() {
    let broker = FakeBroker::tcp().await;
    let (gate, _) = gate_with_active(&broker.address, &["--handshake-timeout", "0.2"]).await;
    let mut silent = TcpStream::connect(gate.address).await.unwrap();
    assert_eq!(soon("it is closed", silent.read(&mut [0])).await.unwrap(), 0);
    assert_eq!(gate.parts.metrics.handshakes_timed_out.get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_without_connect_ends_and_costs_the_broker_nothing() {
    let broker = FakeBroker::tcp().await;
    let (gate, a) = gate_with_active(&broker.address, &["--connect-timeout", "0.2"]).await;
    let client = gate.client(&a.device("a1"), &TLS13);
    client.handshake().await.unwrap().closed().await;
    let mut other = client.handshake().await.unwrap();
    other.tls.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    other.closed().await;
    assert_eq!((gate.parts.metrics.no_connect.get(), broker.seen()), (2, vec![]));
    client.must_connect().await.must_live().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_the_limit_are_closed_and_those_below_it_live() {
    let broker = FakeBroker::tcp().await;
    let (gate, a) = gate_with_active(&broker.address, &["--max-connections", "2"]).await;
    let client = gate.client(&a.device("a1"), &TLS13);
    let (mut first, second) = (client.must_connect().await, client.must_connect().await);
    client.must_be_refused().await;
    assert_eq!(gate.parts.metrics.connections_over_limit.get(), 1);
    first.must_live().await;
    drop(second);
    until("the place is free", || gate.trust.registry().open(), |open| *open == 1).await;
    eventually(PATIENCE, "the place is given back", async || client.connect().await.map(drop)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_over_the_limit_wait_their_turn() {
    let broker = FakeBroker::tcp().await;
    let arguments = ["--max-handshakes", "1", "--handshake-timeout", "0.5"];
    let (gate, a) = gate_with_active(&broker.address, &arguments).await;
    let silent = TcpStream::connect(gate.address).await.unwrap();
    let start = Instant::now();
    gate.client(&a.device("a1"), &TLS13).must_connect().await.must_live().await;
    assert!(start.elapsed() > Duration::from_millis(300), "{:?}", start.elapsed());
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_broker_ends_the_connection_and_the_next_one_is_tried_anew() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap().to_string();
    drop(socket);
    let (gate, a) = gate_with_active(&address, &[]).await;
    let client = gate.client(&a.device("a1"), &TLS13);
    client.must_be_refused().await;
    client.must_be_refused().await;
    assert_eq!(gate.parts.metrics.broker_unreachable.get(), 2);
    until("nobody is left", || gate.trust.registry().open(), |open| *open == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_reads_nothing_holds_its_device_back_and_is_given_up() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let arguments = ["--stall-timeout", "0.5"];
    let (gate, a) = gate_with_active(&socket.local_addr().unwrap().to_string(), &arguments).await;
    let mut device = gate.client(&a.device("a1"), &TLS13).handshake().await.unwrap();
    device.tls.write_all(CONNECT).await.unwrap();
    let (broker, _) = soon("the gate comes", socket.accept()).await.unwrap();
    // PUBLISH of 200 MB: far more than all buffers on the way.
    let mut sent = 0_u64;
    let mut bytes = vec![0; 16_000];
    bytes[..5].copy_from_slice(&[0x30, 0x80, 0xc2, 0xd7, 0x2f]);
    let stopped = soon("the device is held back, then closed", async {
        loop {
            match device.tls.write_all(&bytes).await {
                Ok(()) => sent += bytes.len() as u64,
                Err(_) => return sent,
            }
            bytes.fill(0);
        }
    })
    .await;
    assert!(stopped < 100_000_000, "{stopped} bytes were taken");
    assert_eq!(gate.parts.metrics.stalled.get(), 1);
    drop(broker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_reads_nothing_does_not_keep_a_cut_device_alive() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (gate, a) = gate_with_active(&socket.local_addr().unwrap().to_string(), &[]).await;
    let mut device = gate.client(&a.device("a1"), &TLS13).handshake().await.unwrap();
    device.tls.write_all(CONNECT).await.unwrap();
    let (_broker, _) = soon("the gate comes", socket.accept()).await.unwrap();
    let mut bytes = vec![0; 16_000];
    bytes[..5].copy_from_slice(&[0x30, 0x80, 0xc2, 0xd7, 0x2f]);
    while let Ok(written) =
        tokio::time::timeout(Duration::from_millis(200), device.tls.write_all(&bytes)).await
    {
        written.unwrap();
        bytes.fill(0);
    }
    let start = Instant::now();
    assert_eq!(gate.apply(&trust(2, &[(&a, INACTIVE)])).await.sessions_cut, 1);
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_reads_nothing_holds_the_broker_back() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let arguments = ["--stall-timeout", "0.5"];
    let (gate, a) = gate_with_active(&socket.local_addr().unwrap().to_string(), &arguments).await;
    let mut device = gate.client(&a.device("a1"), &TLS13).handshake().await.unwrap();
    device.tls.write_all(CONNECT).await.unwrap();
    let (mut broker, _) = soon("the gate comes", socket.accept()).await.unwrap();
    let sent = soon("the broker is held back, then closed", async {
        let mut sent = 0_u64;
        while broker.write_all(&[0; 16_000]).await.is_ok() {
            sent += 16_000;
        }
        sent
    })
    .await;
    assert!(sent < 100_000_000, "{sent} bytes were taken");
    assert_eq!(gate.parts.metrics.stalled.get(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_reads_nothing_does_not_hold_the_receipt_up() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (gate, a) = gate_with_active(&socket.local_addr().unwrap().to_string(), &[]).await;
    let mut device = gate.client(&a.device("a1"), &TLS13).handshake().await.unwrap();
    device.tls.write_all(CONNECT).await.unwrap();
    let (mut broker, _) = soon("the gate comes", socket.accept()).await.unwrap();
    let flood = tokio::time::timeout(Duration::from_millis(300), broker.write_all(&[0; 50_000_000]));
    assert!(flood.await.is_err());
    let start = Instant::now();
    assert_eq!(gate.apply(&trust(2, &[(&a, INACTIVE)])).await.sessions_cut, 1);
    assert!(start.elapsed() < Duration::from_millis(500), "{:?}", start.elapsed());
    // What was on its way may arrive still; nothing more comes after it.
    let mut bytes = Vec::new();
    let _ = soon("the session is closed", device.tls.read_to_end(&mut bytes)).await;
    assert!(bytes.len() < 50_000_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn paced_cuts_end_the_data_at_once_and_the_connections_one_by_one() {
    let broker = FakeBroker::tcp().await;
    let (gate, a) = gate_with_active(&broker.address, &["--cut-rate", "20"]).await;
    let client = gate.client(&a.device("a1"), &TLS13);
    let mut devices = Vec::new();
    for _ in 0..10 {
        devices.push(client.must_connect().await);
    }
    let start = Instant::now();
    assert_eq!(gate.apply(&trust(2, &[(&a, INACTIVE)])).await.sessions_cut, 10);
    assert!(start.elapsed() < Duration::from_millis(300), "the receipt waits: {:?}", start.elapsed());
    until("the broker's sides end", || broker.seen(), |seen| seen.iter().all(|seen| seen.ended)).await;
    for device in &mut devices {
        device.closed().await;
    }
    // Ten slots of 50 ms, the first at once.
    assert!(start.elapsed() > Duration::from_millis(430), "not paced: {:?}", start.elapsed());
}
