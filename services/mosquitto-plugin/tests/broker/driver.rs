//! The agent's driver, against the plugin in a real broker.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use catrust_broker_agent::mosquitto::{MosquittoEnforcer, MosquittoSettings};
use catrust_device_trust::Certificate;
use catrust_domain::{CaState, CertificateFacts, Timestamp, TrustBundle, TrustEntry};
use catrust_trust_feed::agent::{AgentTrust, Enforcement, Enforcer as _, Freshness};

use crate::authority::Authority;
use crate::device::{Attempt, Device};
use crate::eventually::{LIMIT, eventually};
use crate::mosquitto::{Broker, Settings};
use crate::mqtt::Connect;
use crate::trust::{ACTIVE, INACTIVE};

fn settings(socket: &Path) -> MosquittoSettings {
    MosquittoSettings {
        control_socket: socket.to_owned(),
        mosquitto_config: None,
        check: false,
        agent_user: "catrust-agent".to_owned(),
        lease: Duration::from_secs(600),
        answer_timeout: Duration::from_secs(5),
    }
}

fn entry(ca: &Authority, state: CaState) -> TrustEntry {
    let certificate = Certificate::read(&ca.der).unwrap();
    let seconds = |seconds: i64| Timestamp::from_micros(0).plus_seconds(seconds);
    let facts = CertificateFacts {
        sn: "01".parse().unwrap(),
        sha256: certificate.id.sha256,
        spki_sha256: certificate.id.spki_sha256,
        subject: String::new(),
        subject_key_id: String::new(),
        issuer: String::new(),
        not_before: seconds(certificate.validity.not_before),
        not_after: seconds(certificate.validity.not_after),
        ca_content: ca.pem.clone(),
    };
    TrustEntry { facts: Arc::new(facts), state }
}

fn trust(revision: u64, states: &[(&Authority, CaState)]) -> AgentTrust {
    let entries: Vec<_> = states.iter().map(|(ca, state)| entry(ca, *state)).collect();
    let bundle = TrustBundle {
        instance_id: "factory".parse().unwrap(),
        revision,
        position: revision,
        digest: TrustBundle::compute_digest(&entries),
        entries,
    };
    AgentTrust {
        bundle: Arc::new(bundle),
        freshness: Freshness::Fresh,
        takes_back: false,
        with_will: false,
        reason: String::new(),
    }
}

#[tokio::test]
async fn a_change_is_enforced_when_the_driver_says_so() {
    let broker = Broker::start(&Settings::default()).await;
    let (a, b) = (Authority::new("CA of A"), Authority::new("CA of B"));
    let enforcer = MosquittoEnforcer::start(settings(&broker.admin_socket()));
    assert_eq!(enforcer.enforcement(), Enforcement::Tls);
    enforcer.apply(&trust(1, &[(&a, ACTIVE), (&b, ACTIVE)])).await.unwrap();
    let (device, other) = (Device::new(&broker, &a, "a1"), Device::new(&broker, &b, "b1"));
    let session = device.connect(&broker).await;
    let mut kept = other.connect(&broker).await;
    let applied = enforcer.apply(&trust(2, &[(&a, INACTIVE), (&b, ACTIVE)])).await.unwrap();
    assert_eq!((applied.sessions_cut, applied.sessions_open), (1, 1));
    assert_eq!(enforcer.sessions_open(), 1);
    session.closed().await;
    device.attempt(&broker).await.tls_refused();
    kept.assert_alive().await;
    // The same again is no mistake, an empty bundle neither.
    enforcer.apply(&trust(2, &[(&a, INACTIVE), (&b, ACTIVE)])).await.unwrap();
    let applied = enforcer.apply(&trust(3, &[])).await.unwrap();
    assert_eq!((applied.sessions_cut, applied.sessions_open), (1, 0));
    enforcer.apply(&trust(4, &[(&a, ACTIVE)])).await.unwrap();
    device.connect(&broker).await;
}

#[tokio::test]
async fn stale_trust_admits_nobody_and_keeps_the_sessions_that_it_vouches_for() {
    let broker = Broker::start(&Settings::default()).await;
    let (a, b) = (Authority::new("CA of A"), Authority::new("CA of B"));
    let enforcer = MosquittoEnforcer::start(settings(&broker.admin_socket()));
    enforcer.apply(&trust(1, &[(&a, ACTIVE), (&b, ACTIVE)])).await.unwrap();
    let session = Device::new(&broker, &a, "a1").connect(&broker).await;
    let device = Device::new(&broker, &b, "b1");
    let mut kept = device.connect(&broker).await;
    let soft = AgentTrust { freshness: Freshness::SoftStale, ..trust(1, &[(&a, ACTIVE), (&b, ACTIVE)]) };
    enforcer.apply(&soft).await.unwrap();
    device.connect_with(&broker, &Connect::new("b2")).await;
    let hard = AgentTrust { freshness: Freshness::HardStale, ..trust(2, &[(&a, INACTIVE), (&b, ACTIVE)]) };
    enforcer.apply(&hard).await.unwrap();
    session.closed().await;
    kept.assert_alive().await;
    device.attempt_with(&broker, &Connect::new("b3")).await.tls_refused();
    enforcer.apply(&trust(2, &[(&a, INACTIVE), (&b, ACTIVE)])).await.unwrap();
    device.connect_with(&broker, &Connect::new("b4")).await;
}

#[tokio::test]
async fn what_the_plugin_refuses_is_not_applied_and_says_why() {
    let broker = Broker::start(&Settings::default()).await;
    let a = Authority::new("CA of A");
    let enforcer = MosquittoEnforcer::start(settings(&broker.admin_socket()));
    enforcer.apply(&trust(2, &[(&a, INACTIVE)])).await.unwrap();
    let error = enforcer.apply(&trust(1, &[(&a, ACTIVE)])).await.unwrap_err();
    assert!(error.reason.contains("revision 1 is older than revision 2"), "{error}");
    // The connection is as good as before.
    enforcer.apply(&trust(3, &[(&a, ACTIVE)])).await.unwrap();
}

#[tokio::test]
async fn a_broker_that_comes_back_is_told_the_trust_again() {
    let mut broker = Broker::start(&Settings::default()).await;
    let a = Authority::new("CA of A");
    let enforcer = MosquittoEnforcer::start(settings(&broker.admin_socket()));
    enforcer.apply(&trust(5, &[(&a, ACTIVE)])).await.unwrap();
    let device = Device::new(&broker, &a, "a1");
    device.connect(&broker).await;
    broker.kill();
    let error = enforcer.apply(&trust(5, &[(&a, ACTIVE)])).await.unwrap_err();
    assert!(error.reason.contains("admin.sock cannot be opened"), "{error}");
    assert_eq!(enforcer.sessions_open(), 0);
    broker.restart().await;
    eventually(LIMIT, "the device is back, and nobody called apply", async || {
        match device.attempt(&broker).await {
            Attempt::Connected(_) => Ok(()),
            Attempt::TlsRefused(error) => Err(error),
            Attempt::ConnectRefused(code) => Err(format!("CONNACK {code}")),
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_driver_that_has_gone_leaves_a_trust_that_lapses() {
    let broker = Broker::start(&Settings::default()).await;
    let a = Authority::new("CA of A");
    let lease = Duration::from_millis(400);
    let settings = MosquittoSettings { lease, ..settings(&broker.admin_socket()) };
    let enforcer = MosquittoEnforcer::start(settings);
    enforcer.apply(&trust(1, &[(&a, ACTIVE)])).await.unwrap();
    let device = Device::new(&broker, &a, "a1");
    let begin = std::time::Instant::now();
    // Renewals carry it over many leases.
    while begin.elapsed() < lease * 4 {
        device.connect(&broker).await;
    }
    let mut session = device.connect(&broker).await;
    drop(enforcer);
    eventually(LIMIT, "the trust lapses", async || {
        match device.attempt_with(&broker, &Connect::new("a2")).await {
            Attempt::TlsRefused(_) => Ok(()),
            Attempt::Connected(_) | Attempt::ConnectRefused(_) => Err("not refused in TLS"),
        }
    })
    .await
    .unwrap();
    session.assert_alive().await;
}

#[tokio::test]
async fn the_driver_says_what_is_missing_on_the_brokers_side() {
    let a = Authority::new("CA of A");
    let without_rule =
        Settings { acl: Some("user somebody\ntopic read x\n".to_owned()), ..Settings::default() };
    let broker = Broker::start(&without_rule).await;
    let hasty =
        MosquittoSettings { answer_timeout: Duration::from_millis(300), ..settings(&broker.admin_socket()) };
    let error = MosquittoEnforcer::start(hasty).apply(&trust(1, &[(&a, ACTIVE)])).await.unwrap_err();
    assert!(error.reason.contains("topic readwrite $CONTROL/ca-trust/v1/#"), "{error}");
    let other_name = Settings { options: "plugin_opt_agent_user boss".to_owned(), ..Settings::default() };
    let broker = Broker::start(&other_name).await;
    let enforcer = MosquittoEnforcer::start(settings(&broker.admin_socket()));
    let error = enforcer.apply(&trust(1, &[(&a, ACTIVE)])).await.unwrap_err();
    assert!(error.reason.contains("refuses the agent (CONNACK 5)"), "{error}");
}
