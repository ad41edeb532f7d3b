//! What the broker is told about a device that is cut.

use std::time::Duration;

use catrust_trust_feed::agent::AgentTrust;
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::broker::{FakeBroker, Seen};
use crate::fixtures::{ACTIVE, Ca, INACTIVE, trust};
use crate::harness::{CONNECT, DISCONNECT, Gate, soon, until};
use crate::mosquitto::{Mosquitto, Observer, connect, connect_with_will, publish};

async fn last_seen(broker: &FakeBroker) -> Seen {
    let seen =
        until("the broker's side ends", || broker.seen(), |seen| seen.last().is_some_and(|seen| seen.ended));
    seen.await.pop().unwrap()
}

/// Connects a device, lets it send `bytes`, and cuts it.
async fn cut_after(
    arguments: &[&str],
    with_will: bool,
    bytes: &[u8],
    passed: impl Fn(&Seen) -> bool,
) -> (Gate, Seen) {
    let (broker, a) = (FakeBroker::tcp().await, Ca::new("A"));
    let gate = Gate::start(&broker.address, arguments).await;
    gate.apply(&trust(1, &[(&a, ACTIVE)])).await;
    let mut device = gate.client(&a.device("a1"), &TLS13).must_connect().await;
    device.tls.write_all(bytes).await.unwrap();
    until("the bytes arrive", || broker.seen().pop().unwrap(), passed).await;
    let next = AgentTrust { with_will, ..trust(2, &[(&a, INACTIVE)]) };
    assert_eq!(gate.apply(&next).await.sessions_cut, 1);
    device.closed().await;
    (gate, last_seen(&broker).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_is_told_disconnect_unless_the_will_was_asked_for() {
    let plain = CONNECT.to_vec();
    let ended = [CONNECT, &DISCONNECT].concat();
    for (arguments, with_will, expected) in [
        (&[][..], false, &ended),
        (&[], true, &plain),
        (&["--last-will", "suppress"], true, &ended),
        (&["--last-will", "send"], false, &plain),
    ] {
        let (_, seen) = cut_after(arguments, with_will, &[], |_| true).await;
        assert_eq!(seen.bytes, *expected, "{arguments:?} {with_will}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_packet_that_was_not_whole_is_not_passed_on() {
    let whole = publish("t", "1");
    let sent = [whole.as_slice(), &publish("t", "2")[..5]].concat();
    let length = CONNECT.len() + whole.len();
    let (_, seen) = cut_after(&[], false, &sent, |seen| seen.bytes.len() >= length).await;
    assert_eq!(seen.bytes, [CONNECT, &whole, &DISCONNECT].concat());
}

#[tokio::test(flavor = "multi_thread")]
async fn inside_a_long_packet_nothing_is_said() {
    // PUBLISH of 1,000,000 bytes, of which 40,000 come.
    let mut bytes = vec![0x30, 0xc0, 0x84, 0x3d];
    bytes.resize(40_000, 0);
    let length = CONNECT.len() + bytes.len();
    let (gate, seen) = cut_after(&[], false, &bytes, |seen| seen.bytes.len() == length).await;
    assert_eq!(seen.bytes, [CONNECT, &bytes].concat());
    assert_eq!(gate.parts.metrics.wills_suppressed.get(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_publishes_the_last_will_only_when_it_was_asked_for() {
    let (broker, a) = (Mosquitto::start().await, Ca::new("A"));
    let gate = Gate::start(&broker.address, &[]).await;
    let client = gate.client(&a.device("a1"), &TLS13);
    let mut observer = Observer::connect(&broker);
    for (revision, (level, with_will)) in
        (0..).step_by(2).zip([(4, false), (5, false), (4, true), (5, true), (4, false)])
    {
        gate.apply(&trust(revision + 1, &[(&a, ACTIVE)])).await;
        let mut device = client.handshake().await.unwrap();
        device.tls.write_all(&connect_with_will("dev", "will", level)).await.unwrap();
        let mut connack = vec![0; 4];
        soon("CONNACK", device.tls.read_exact(&mut connack)).await.unwrap();
        assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:?}");

        gate.apply(&AgentTrust { with_will, ..trust(revision + 2, &[(&a, INACTIVE)]) }).await;
        device.tls.read_to_end(&mut connack).await.ok();
        if with_will {
            assert_eq!(observer.hear(), "will", "level {level}");
        }
        // The broker has looked at the device's end before it answers the second.
        for topic in ["first", "second"] {
            observer.say(topic);
            assert_eq!(observer.hear(), topic, "level {level}, with_will {with_will}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_another_ca_takes_the_client_id_over() {
    let (broker, a, b) = (Mosquitto::start().await, Ca::new("A"), Ca::new("B"));
    let gate = Gate::start(&broker.address, &[]).await;
    gate.apply(&trust(1, &[(&a, ACTIVE), (&b, ACTIVE)])).await;
    let (client_a, client_b) = (gate.client(&a.device("a"), &TLS13), gate.client(&b.device("b"), &TLS13));
    let mut first = client_a.must_connect().await;
    let mut second = client_b.must_connect().await;
    first.closed().await;
    assert_eq!(gate.apply(&trust(2, &[(&a, INACTIVE), (&b, ACTIVE)])).await.sessions_open, 1);
    second.must_live().await;
    assert_eq!(connect("d"), CONNECT);
}

/// A socket that is closed with unread bytes sends a reset, and where a segment was
/// lost on the way the reset comes first.
#[tokio::test(flavor = "multi_thread")]
async fn the_gate_waits_for_the_broker_to_close_after_disconnect() {
    let (socket, a) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), Ca::new("A"));
    let gate = Gate::start(&socket.local_addr().unwrap().to_string(), &[]).await;
    gate.apply(&trust(1, &[(&a, ACTIVE)])).await;
    let mut device = gate.client(&a.device("a1"), &TLS13).handshake().await.unwrap();
    device.tls.write_all(CONNECT).await.unwrap();
    let (mut broker, _) = soon("the gate comes", socket.accept()).await.unwrap();
    // More than the device, which reads nothing, and all buffers on the way take.
    let flood = tokio::time::timeout(Duration::from_millis(300), broker.write_all(&[0; 50_000_000]));
    assert!(flood.await.is_err());

    assert_eq!(gate.apply(&trust(2, &[(&a, INACTIVE)])).await.sessions_cut, 1);
    let mut bytes = vec![0; CONNECT.len() + DISCONNECT.len()];
    soon("DISCONNECT", broker.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(bytes, [CONNECT, &DISCONNECT].concat());
    let end = tokio::time::timeout(Duration::from_millis(100), broker.read(&mut [0])).await;
    assert!(end.is_err(), "the gate has closed first: {end:?}");
}
