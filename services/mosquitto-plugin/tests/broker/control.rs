//! The control topic: what is refused, and who may speak there.

use catrust_domain::Sha256;
use catrust_mosquitto_control::{REQUEST_TOPIC, RESPONSE_TOPIC, Renewal, RequestOutcome};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use crate::authority::Authority;
use crate::device::Device;
use crate::eventually::{LIMIT, eventually};
use crate::mosquitto::{Broker, Settings};
use crate::mqtt::{self, Connect};
use crate::stage::Stage;
use crate::trust::{ACTIVE, INACTIVE, bundle, digest};

#[tokio::test]
async fn what_is_not_a_request_is_refused_and_changes_nothing() {
    let mut stage = Stage::new().await;
    let mut session = stage.device_a("a1").connect(&stage.broker).await;
    let whole = serde_json::to_vec(&bundle(9, &[])).unwrap();
    let cut_short = &whole[..whole.len() / 2];
    for payload in [&b""[..], b"{}", b"null", b"\xff\xfe", b"[1,2", cut_short, &[b'['; 20_000]] {
        let response = stage.agent.send_raw(payload).await;
        assert_eq!((response.outcome, response.revision, response.open), (RequestOutcome::Refused, 1, 1));
        assert!(response.reason.starts_with("the request is malformed"), "{}", response.reason);
    }
    session.assert_alive().await;
    stage.device_b("b1").connect(&stage.broker).await;
    assert!(stage.broker.is_running());
}

#[tokio::test]
async fn an_empty_bundle_must_say_that_it_is_meant() {
    let mut stage = Stage::new().await;
    let mut session = stage.device_a("a1").connect(&stage.broker).await;
    let mut empty = bundle(2, &[]);
    empty.explicit_empty = false;
    let reason = stage.agent.refused(empty.clone()).await;
    assert!(reason.contains("is empty"), "{reason}");
    session.assert_alive().await;
    empty.explicit_empty = true;
    assert_eq!(stage.agent.apply(empty).await.kicked, 1);
    session.closed().await;
}

#[tokio::test]
async fn a_forged_bundle_has_another_digest() {
    let mut stage = Stage::new().await;
    let intruder = Authority::new("intruder");
    let mut forged = bundle(2, &[(&stage.a, ACTIVE), (&intruder, ACTIVE)]);
    forged.digest = digest(&[(&stage.a, ACTIVE), (&stage.b, ACTIVE)]);
    let reason = stage.agent.refused(forged).await;
    assert!(reason.contains("digest of the entries"), "{reason}");
    // A state turned over is another digest as well.
    let mut turned = bundle(2, &[(&stage.a, ACTIVE), (&stage.b, ACTIVE)]);
    turned.digest = digest(&[(&stage.a, INACTIVE), (&stage.b, ACTIVE)]);
    stage.agent.refused(turned).await;
    Device::new(&stage.broker, &intruder, "x").attempt(&stage.broker).await.tls_refused();
}

#[tokio::test]
async fn an_older_revision_or_another_one_of_the_same_number_is_refused() {
    let mut stage = Stage::new().await;
    stage.set_a(ACTIVE).await;
    stage.inactivate_a().await;
    let (a, b) = (&stage.a, &stage.b);
    let reason = stage.agent.refused(bundle(2, &[(a, ACTIVE), (b, ACTIVE)])).await;
    assert!(reason.contains("revision 2 is older than revision 3"), "{reason}");
    let reason = stage.agent.refused(bundle(3, &[(a, ACTIVE), (b, ACTIVE)])).await;
    assert!(reason.contains("with another digest"), "{reason}");
    Device::new(&stage.broker, a, "a1").attempt(&stage.broker).await.tls_refused();
    // The same once more is no mistake.
    stage.agent.apply(bundle(3, &[(a, INACTIVE), (b, ACTIVE)])).await;
}

#[tokio::test]
async fn a_bundle_of_another_instance_is_refused() {
    let mut stage = Stage::new().await;
    let mut foreign = bundle(2, &[(&stage.a, INACTIVE)]);
    foreign.instance_id = "other".parse().unwrap();
    let reason = stage.agent.refused(foreign.clone()).await;
    assert!(reason.contains("for the instance other"), "{reason}");
    // With the option, the first one already.
    let settings = Settings { options: "plugin_opt_instance elsewhere".to_owned(), ..Settings::default() };
    let broker = Broker::start(&settings).await;
    let mut agent = crate::agent::Agent::connect(&broker).await;
    agent.refused(foreign).await;
}

#[tokio::test]
async fn entries_that_are_no_certificates_or_come_twice_are_refused() {
    let mut stage = Stage::new().await;
    let mut damaged = bundle(2, &[(&stage.a, ACTIVE), (&stage.b, ACTIVE)]);
    damaged.entries[1].certificate.truncate(40);
    assert!(stage.agent.refused(damaged).await.contains("entry 1 is not a certificate"));
    let twice = bundle(2, &[(&stage.a, INACTIVE), (&stage.a, ACTIVE)]);
    assert!(stage.agent.refused(twice).await.contains("entry 1 repeats a certificate"));
    stage.device_a("a1").connect(&stage.broker).await;
}

#[tokio::test]
async fn the_trust_lapses_unless_it_is_renewed() {
    let mut stage = Stage::new().await;
    let states = [(&stage.a, ACTIVE), (&stage.b, ACTIVE)];
    let mut short = bundle(2, &states);
    short.admit_for_ms = 1;
    stage.agent.apply(short).await;
    let device = Device::new(&stage.broker, &stage.b, "b1");
    eventually(LIMIT, "the trust lapses", async || match device.attempt(&stage.broker).await {
        crate::device::Attempt::TlsRefused(error) => Ok(error),
        _ => Err("a device was accepted"),
    })
    .await
    .unwrap();
    let renewal = |revision, digest| Renewal { revision, digest, admit_for_ms: 60_000 };
    let right = digest(&states);
    for wrong in [renewal(1, right), renewal(3, right), renewal(2, Sha256::ZERO)] {
        let response = stage.agent.renew(wrong).await;
        assert_eq!(response.outcome, RequestOutcome::Refused);
        assert!(response.reason.contains("send the bundle"), "{}", response.reason);
        device.attempt(&stage.broker).await.tls_refused();
    }
    let response = stage.agent.renew(renewal(2, right)).await;
    assert_eq!((response.outcome, response.revision), (RequestOutcome::Applied, 2));
    device.connect(&stage.broker).await;
}

/// The access rules of this broker permit everything to everybody.
async fn without_access_rules() -> Stage {
    let acl = "topic readwrite #\ntopic readwrite $CONTROL/#\n";
    let everything = "user catrust-agent\ntopic readwrite $CONTROL/#\npattern readwrite $CONTROL/#\n";
    Stage::with(Settings { acl: Some(format!("{acl}{everything}")), ..Settings::default() }).await
}

#[tokio::test]
async fn a_device_that_speaks_on_the_control_topic_is_refused_by_the_access_rules() {
    let mut stage = Stage::new().await;
    let mut device = stage.device_b("b1").connect(&stage.broker).await;
    let request = serde_json::to_vec(&bundle(7, &[(&stage.b, ACTIVE)])).unwrap();
    device.send(&mqtt::publish(REQUEST_TOPIC, &request, 7)).await;
    assert_eq!(device.next().await.unwrap().kind, mqtt::PUBACK);
    device.assert_alive().await;
    assert_eq!(stage.set_a(ACTIVE).await.revision, 2);
}

#[tokio::test]
async fn a_device_that_speaks_on_the_control_topic_is_refused_by_the_plugin_as_well() {
    let mut stage = without_access_rules().await;
    let mut device = stage.device_b("b1").connect(&stage.broker).await;
    let request = serde_json::to_vec(&bundle(7, &[])).unwrap();
    device.send(&mqtt::publish(REQUEST_TOPIC, &request, 7)).await;
    device.closed().await;
    assert_eq!(stage.set_a(ACTIVE).await.revision, 2);
    assert!(stage.broker.log().contains("\"b1\" is not the agent"));
}

#[tokio::test]
async fn responses_go_to_the_agent_alone() {
    let mut stage = without_access_rules().await;
    let mut curious = stage.device_b("b1").connect(&stage.broker).await;
    curious.subscribe(RESPONSE_TOPIC).await;
    curious.subscribe("$CONTROL/#").await;
    stage.inactivate_a().await;
    // The next thing that it hears is the answer to its own ping.
    curious.send(&[0xc0, 0]).await;
    assert_eq!(curious.next().await.unwrap().kind, mqtt::PINGRESP);
}

#[tokio::test]
async fn nobody_becomes_the_agent_by_its_name() {
    let mut stage = Stage::new().await;
    let agent = "catrust-agent";
    // By common name, by user name, by client identifier: its session would be taken over.
    let by_common_name = stage.device_b(agent);
    let attempt = by_common_name.attempt_with(&stage.broker, &Connect::new("x")).await;
    assert_eq!(attempt.connect_refused(), 5);
    let device = stage.device_b("b1");
    let named = Connect { user_name: Some(agent.to_owned()), ..Connect::new("x") };
    assert_eq!(device.attempt_with(&stage.broker, &named).await.connect_refused(), 5);
    let taken = Connect::new("catrust-agent-1");
    assert_eq!(device.attempt_with(&stage.broker, &taken).await.connect_refused(), 5);
    stage.set_a(ACTIVE).await;
}

#[tokio::test]
async fn the_agent_is_taken_from_its_own_socket_only() {
    let directory = tempfile::tempdir().unwrap();
    let other = directory.path().join("other.sock");
    let settings = Settings {
        options: format!("plugin_opt_control_socket {}", directory.path().join("admin.sock").display()),
        listener: format!(
            "listener 0 {}\nlistener 0 {}",
            other.display(),
            directory.path().join("admin.sock").display()
        ),
        ..Settings::default()
    };
    let broker = Broker::start(&settings).await;
    let mut agent = crate::agent::Agent::connect_to(&directory.path().join("admin.sock")).await;
    agent.apply(bundle(1, &[])).await;
    let mut stream = UnixStream::connect(&other).await.unwrap();
    let connect = Connect { user_name: Some("catrust-agent".to_owned()), ..Connect::new("x") };
    stream.write_all(&connect.encode()).await.unwrap();
    let connack = mqtt::read(&mut stream).await.unwrap().unwrap();
    assert_eq!((connack.kind, connack.body[1]), (mqtt::CONNACK, 5));
    drop(broker);
}
