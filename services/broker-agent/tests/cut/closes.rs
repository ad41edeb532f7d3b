//! What an inactivation closes, for TLS 1.2 and 1.3.

use std::time::{Duration, SystemTime};

use catrust_decision_table::Authority;
use catrust_trust_feed::agent::{AgentTrust, Freshness};
use rustls::HandshakeKind;
use rustls::client::Tls12Resumption;
use tokio::io::AsyncWriteExt as _;

use crate::broker::FakeBroker;
use crate::fixtures::{ACTIVE, Ca, Device, INACTIVE, SUPERSEDED, trust, trust_of};
use crate::harness::{CONNECT, Gate, VERSIONS, until};

#[tokio::test(flavor = "multi_thread")]
async fn live_sessions_and_new_handshakes_end_and_come_back_with_the_ca() {
    for version in VERSIONS {
        let (broker, a, b) = (FakeBroker::tcp().await, Ca::new("A"), Ca::new("B"));
        let gate = Gate::start(&broker.address, &[]).await;
        let (client_a, client_b) =
            (gate.client(&a.device("a1"), version), gate.client(&b.device("b1"), version));
        client_a.must_be_refused().await;

        gate.apply(&trust(1, &[(&a, ACTIVE), (&b, ACTIVE)])).await;
        let (mut device_a, mut device_b) = (client_a.must_connect().await, client_b.must_connect().await);
        device_a.must_live().await;

        let applied = gate.apply(&trust(2, &[(&a, INACTIVE), (&b, ACTIVE)])).await;
        assert_eq!((applied.sessions_cut, applied.sessions_open), (1, 1));
        device_a.closed().await;
        client_a.must_be_refused().await;
        device_b.must_live().await;

        let applied = gate.apply(&trust(3, &[(&a, ACTIVE), (&b, ACTIVE)])).await;
        assert_eq!((applied.sessions_cut, applied.sessions_open), (0, 1));
        client_a.must_connect().await.must_live().await;
        device_b.must_live().await;
    }
}

/// Ground rule 16: over a change of the log epoch, the sessions of other CAs stay untouched. A bundle of
/// a new epoch with the same content cuts nobody and ends no resumption, also where its count is lower.
#[tokio::test(flavor = "multi_thread")]
async fn a_new_log_epoch_cuts_those_whose_trust_it_takes_and_nobody_else() {
    const EPOCH: u64 = 200_000_000 << 32;
    for version in VERSIONS {
        let (broker, a, b) = (FakeBroker::tcp().await, Ca::new("A"), Ca::new("B"));
        let gate = Gate::start(&broker.address, &[]).await;
        let (client_a, client_b) =
            (gate.client(&a.device("a1"), version), gate.client(&b.device("b1"), version));
        gate.apply(&trust(7, &[(&a, ACTIVE), (&b, ACTIVE)])).await;
        let (mut device_a, mut device_b) = (client_a.must_connect().await, client_b.must_connect().await);

        let applied = gate.apply(&trust(EPOCH | 3, &[(&a, ACTIVE), (&b, ACTIVE)])).await;
        assert_eq!((applied.sessions_cut, applied.sessions_open), (0, 2));
        device_a.must_live().await;
        device_b.must_live().await;
        assert_eq!(client_b.must_connect().await.kind(), HandshakeKind::Resumed);

        let applied = gate.apply(&trust(EPOCH | 4, &[(&a, INACTIVE), (&b, ACTIVE)])).await;
        assert_eq!(applied.sessions_cut, 1);
        device_a.closed().await;
        device_b.must_live().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn resumption_of_any_kind_ends_with_the_trust() {
    let kinds = [Tls12Resumption::SessionIdOnly, Tls12Resumption::SessionIdOrTickets];
    for (resumption, version, kind) in ["tickets", "stored"]
        .into_iter()
        .flat_map(|resumption| VERSIONS.into_iter().map(move |version| (resumption, version)))
        .flat_map(|(resumption, version)| kinds.into_iter().map(move |kind| (resumption, version, kind)))
        // A gate that only has tickets does not resume by session id.
        .filter(|(resumption, _, kind)| *resumption == "stored" || *kind == kinds[1])
    {
        let what = format!("{resumption} {:?} {kind:?}", version.version);
        let (broker, a, b) = (FakeBroker::tcp().await, Ca::new("A"), Ca::new("B"));
        let gate = Gate::start(&broker.address, &["--resumption", resumption]).await;
        gate.apply(&trust(1, &[(&a, ACTIVE), (&b, ACTIVE)])).await;
        let client = gate.client_with(&a.device("a1"), version, kind);
        assert_eq!(client.must_connect().await.kind(), HandshakeKind::Full, "{what}");
        assert_eq!(client.must_connect().await.kind(), HandshakeKind::Resumed, "{what}");

        gate.apply(&trust(2, &[(&a, INACTIVE), (&b, ACTIVE)])).await;
        let before = broker.seen().len();
        client.must_be_refused().await;
        // Not one handshake became a session, not even for a moment.
        assert_eq!(gate.parts.metrics.refused_after_handshake.get(), 0, "{what}");
        assert_eq!(broker.seen().len(), before, "{what}");

        gate.apply(&trust(3, &[(&a, ACTIVE), (&b, ACTIVE)])).await;
        assert_eq!(client.must_connect().await.kind(), HandshakeKind::Full, "{what}");
        assert_eq!(client.must_connect().await.kind(), HandshakeKind::Resumed, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_resumption_each_handshake_is_a_full_one() {
    for version in VERSIONS {
        let (broker, a) = (FakeBroker::tcp().await, Ca::new("A"));
        let gate = Gate::start(&broker.address, &["--resumption", "off"]).await;
        gate.apply(&trust(1, &[(&a, ACTIVE)])).await;
        let client = gate.client(&a.device("a1"), version);
        for _ in 0..2 {
            assert_eq!(client.must_connect().await.kind(), HandshakeKind::Full);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn giving_trust_to_a_ca_costs_the_others_no_resumption() {
    let (broker, a, b) = (FakeBroker::tcp().await, Ca::new("A"), Ca::new("B"));
    let gate = Gate::start(&broker.address, &[]).await;
    gate.apply(&trust(1, &[(&a, ACTIVE), (&b, INACTIVE)])).await;
    let client = gate.client(&a.device("a1"), VERSIONS[1]);
    client.must_connect().await;
    gate.apply(&trust(2, &[(&a, ACTIVE), (&b, ACTIVE)])).await;
    assert_eq!(client.must_connect().await.kind(), HandshakeKind::Resumed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_has_not_sent_connect_ends() {
    for version in VERSIONS {
        let (broker, a) = (FakeBroker::tcp().await, Ca::new("A"));
        let gate = Gate::start(&broker.address, &[]).await;
        gate.apply(&trust(1, &[(&a, ACTIVE)])).await;
        let mut idle = gate.client(&a.device("a1"), version).handshake().await.unwrap();
        until("the session is registered", || gate.trust.registry().open(), |open| *open == 1).await;
        assert_eq!(gate.apply(&trust(2, &[(&a, INACTIVE)])).await.sessions_cut, 1);
        idle.closed().await;
        let _ = idle.tls.write_all(CONNECT).await;
        assert_eq!(broker.seen(), []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_below_an_inactive_intermediate_and_cross_signed_ones_end() {
    for version in VERSIONS {
        let (broker, root, old) = (FakeBroker::tcp().await, Ca::new("root"), Ca::new("old"));
        let (inner, other) = (root.intermediate("inner"), root.intermediate("other"));
        let gate = Gate::start(&broker.address, &[]).await;
        gate.apply(&trust(1, &[(&root, ACTIVE)])).await;
        let mut crossed = old.device("crossed");
        crossed.chain.push(old.cross_signed_by(&root));
        let clients =
            [inner.device("i"), other.device("o"), crossed].map(|device| gate.client(&device, version));
        let mut below_inner = clients[0].must_connect().await;
        let mut below_other = clients[1].must_connect().await;
        let mut below_old = clients[2].must_connect().await;

        let next = trust(2, &[(&root, ACTIVE), (&inner, INACTIVE), (&old, INACTIVE)]);
        assert_eq!(gate.apply(&next).await.sessions_cut, 2);
        below_inner.closed().await;
        below_old.closed().await;
        below_other.must_live().await;
        clients[0].must_be_refused().await;
        clients[2].must_be_refused().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_twin_keeps_the_sessions_of_a_superseded_certificate_until_the_key_falls() {
    let (broker, old) = (FakeBroker::tcp().await, Ca::new("A"));
    let (new, inner) = (old.renewed(), old.intermediate("inner"));
    let gate = Gate::start(&broker.address, &[]).await;
    gate.apply(&trust(1, &[(&old, ACTIVE)])).await;
    let mut direct = gate.client(&old.device("a1"), VERSIONS[1]).must_connect().await;
    let mut below = gate.client(&inner.device("a2"), VERSIONS[1]).must_connect().await;

    assert_eq!(gate.apply(&trust(2, &[(&old, SUPERSEDED), (&new, ACTIVE)])).await.sessions_cut, 0);
    assert_eq!(gate.trust.registry().open_below(&new.sha256()), 2);
    direct.must_live().await;
    below.must_live().await;

    assert_eq!(gate.apply(&trust(3, &[(&old, INACTIVE), (&new, ACTIVE)])).await.sessions_cut, 2);
    direct.closed().await;
    below.closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_live_session_with_the_key_of_an_inactive_ca_ends() {
    let (broker, a, b) = (FakeBroker::tcp().await, Ca::new("A"), Ca::new("B"));
    let gate = Gate::start(&broker.address, &[]).await;
    gate.apply(&trust(1, &[(&a, ACTIVE), (&b, ACTIVE)])).await;
    let mut thief = gate.client(&a.as_device_of(&b), VERSIONS[1]).must_connect().await;
    let mut honest = gate.client(&b.device("b1"), VERSIONS[1]).must_connect().await;
    assert_eq!(gate.apply(&trust(2, &[(&a, INACTIVE), (&b, ACTIVE)])).await.sessions_cut, 1);
    thief.closed().await;
    honest.must_live().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_bundle_ends_everything_and_the_gate_lives() {
    let (broker, a) = (FakeBroker::tcp().await, Ca::new("A"));
    let gate = Gate::start(&broker.address, &[]).await;
    gate.apply(&trust(1, &[(&a, ACTIVE)])).await;
    let client = gate.client(&a.device("a1"), VERSIONS[1]);
    let mut device = client.must_connect().await;
    assert_eq!(gate.apply(&trust(2, &[])).await.sessions_cut, 1);
    device.closed().await;
    client.must_be_refused().await;
    gate.apply(&trust(3, &[(&a, ACTIVE)])).await;
    client.must_connect().await.must_live().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_bundle_keeps_sessions_and_admits_nobody_resumed_ones_included() {
    let (broker, a) = (FakeBroker::tcp().await, Ca::new("A"));
    let gate = Gate::start(&broker.address, &[]).await;
    let fresh = trust(1, &[(&a, ACTIVE)]);
    gate.apply(&fresh).await;
    let client = gate.client(&a.device("a1"), VERSIONS[1]);
    let mut device = client.must_connect().await;

    let stale = AgentTrust { freshness: Freshness::HardStale, ..fresh.clone() };
    assert_eq!(gate.apply(&stale).await.sessions_cut, 0);
    device.must_live().await;
    client.must_be_refused().await;

    gate.apply(&fresh).await;
    let mut again = client.must_connect().await;
    let nothing = AgentTrust::nothing("fleet".parse().unwrap());
    assert_eq!(gate.apply(&nothing).await.sessions_cut, 2);
    device.closed().await;
    again.closed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_end_when_their_ca_expires() {
    let (broker, b) = (FakeBroker::tcp().await, Ca::new("B"));
    let gate = Gate::start(&broker.address, &[]).await;
    let end = SystemTime::now() + Duration::from_secs(3);
    let a = Ca::valid_until("A", end);
    gate.apply(&trust(1, &[(&a, ACTIVE), (&b, ACTIVE)])).await;
    let client = gate.client(&a.device("a1"), VERSIONS[1]);
    let mut device = client.must_connect().await;
    let mut other = gate.client(&b.device("b1"), VERSIONS[1]).must_connect().await;
    device.closed().await;
    assert!(SystemTime::now() + Duration::from_secs(1) > end, "ended before the CA did");
    client.must_be_refused().await;
    other.must_live().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_when_its_devices_certificate_expires() {
    let broker = FakeBroker::tcp().await;
    let gate = Gate::start(&broker.address, &[]).await;
    let a = Authority::new("A");
    gate.apply(&trust_of(1, &[(&a.der, ACTIVE)])).await;
    let end = SystemTime::now() + Duration::from_secs(3);
    let device = |device: catrust_decision_table::Device| {
        gate.client(&Device { chain: device.chain, key: device.key }, VERSIONS[1])
    };
    let (short, long) = (device(a.device_valid("a1", (-60, 3))), device(a.device("a2")));
    let (mut ends, mut stays) = (short.must_connect().await, long.must_connect().await);
    ends.closed().await;
    assert!(SystemTime::now() + Duration::from_secs(1) > end, "ended before the certificate did");
    short.must_be_refused().await;
    stays.must_live().await;
}

/// A certificate that is registered as a CA's and shown as a device's.
#[tokio::test(flavor = "multi_thread")]
async fn a_live_session_with_a_superseded_certificate_as_its_own_ends() {
    let broker = FakeBroker::tcp().await;
    let gate = Gate::start(&broker.address, &[]).await;
    let a = Authority::new("A");
    let device = a.device("a1");
    let leaf = device.chain[0].clone();
    gate.apply(&trust_of(1, &[(&a.der, ACTIVE)])).await;
    let client = gate.client(&Device { chain: device.chain, key: device.key }, VERSIONS[1]);
    let mut session = client.must_connect().await;
    let next = trust_of(2, &[(&a.der, ACTIVE), (&leaf, SUPERSEDED)]);
    assert_eq!(gate.apply(&next).await.sessions_cut, 1);
    session.closed().await;
    client.must_be_refused().await;
}
