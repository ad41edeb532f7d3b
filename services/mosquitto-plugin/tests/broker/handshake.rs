//! New handshakes: who gets in, and who does not.

use rcgen::date_time_ymd;

use crate::agent::Agent;
use crate::authority::Authority;
use crate::device::{Device, TLS12, TLS13};
use crate::mosquitto::{Broker, Settings};
use crate::mqtt::Connect;
use crate::openssl::{argument, openssl, s_client};
use crate::stage::Stage;
use crate::trust::{ACTIVE, INACTIVE, bundle};

#[tokio::test]
async fn before_the_first_bundle_nobody_gets_in() {
    let broker = Broker::start(&Settings::default()).await;
    let a = Authority::new("CA of A");
    for tls in [TLS12, TLS13] {
        let error = Device::tls(&broker, &a, "d", tls).attempt(&broker).await.tls_refused();
        assert!(error.contains("HandshakeFailure"), "{error}");
    }
    // Not even devices of the CA that the broker's `cafile` names.
    Device::new(&broker, &broker.server_ca, "d").attempt(&broker).await.tls_refused();
}

#[tokio::test]
async fn a_device_of_an_inactive_ca_is_refused_in_the_handshake() {
    let mut stage = Stage::new().await;
    for tls in [TLS12, TLS13] {
        let device = Device::tls(&stage.broker, &stage.a, "a1", tls);
        stage.set_a(ACTIVE).await;
        device.connect(&stage.broker).await;
        stage.inactivate_a().await;
        let error = device.attempt(&stage.broker).await.tls_refused();
        assert!(error.contains("CertificateRevoked"), "{error}");
        stage.device_b("b1").connect(&stage.broker).await;
    }
}

#[tokio::test]
async fn a_ca_that_is_active_again_gets_its_devices_back() {
    let mut stage = Stage::new().await;
    let device = stage.device_a("a1");
    for _ in 0..3 {
        stage.set_a(ACTIVE).await;
        let session = device.connect(&stage.broker).await;
        assert_eq!(stage.inactivate_a().await.kicked, 1);
        session.closed().await;
        device.attempt(&stage.broker).await.tls_refused();
    }
}

#[tokio::test]
async fn a_ca_registered_later_needs_no_restart_and_a_deleted_one_is_out() {
    let mut stage = Stage::new().await;
    let late = Authority::new("CA of C");
    let device = Device::new(&stage.broker, &late, "c1");
    let error = device.attempt(&stage.broker).await.tls_refused();
    assert!(error.contains("UnknownCA"), "{error}");
    let (a, b) = (Authority::new("A2"), Authority::new("B2"));
    stage.set(&[(&a, ACTIVE), (&b, ACTIVE), (&late, ACTIVE)]).await;
    let session = device.connect(&stage.broker).await;
    stage.set(&[(&a, ACTIVE), (&b, ACTIVE)]).await;
    session.closed().await;
    device.attempt(&stage.broker).await.tls_refused();
}

#[tokio::test]
async fn a_connection_idle_between_tls_and_connect_is_vetoed() {
    for tls in [TLS12, TLS13] {
        let mut stage = Stage::new().await;
        let idle = Device::tls(&stage.broker, &stage.a, "a1", tls).dial(&stage.broker).await.unwrap();
        let other = Device::tls(&stage.broker, &stage.b, "b1", tls).dial(&stage.broker).await.unwrap();
        // The broker has seen the certificate by now: it answers in order, and the
        // device behind is accepted.
        stage.device_a("a2").connect(&stage.broker).await;
        stage.inactivate_a().await;
        assert_eq!(idle.connect(&Connect::new("a1")).await.connect_refused(), 5);
        other.connect(&Connect::new("b1")).await.connected();
    }
}

#[tokio::test]
async fn mqtt_5_devices_are_told_that_they_are_not_authorised() {
    let mut stage = Stage::new().await;
    let idle = stage.device_a("a1").dial(&stage.broker).await.unwrap();
    stage.device_a("a2").connect(&stage.broker).await;
    stage.inactivate_a().await;
    let connect = Connect { version: 5, ..Connect::new("a1") };
    assert_eq!(idle.connect(&connect).await.connect_refused(), 0x87);
}

#[tokio::test]
async fn an_expired_ca_vouches_for_nobody_although_it_is_active() {
    let mut stage = Stage::new().await;
    let expired = Authority::with("CA of E", |params| params.not_after = date_time_ymd(2021, 1, 1));
    let early = Authority::with("CA of F", |params| params.not_before = date_time_ymd(2048, 1, 1));
    stage.set(&[(&expired, ACTIVE), (&early, ACTIVE)]).await;
    for ca in [&expired, &early] {
        for tls in [TLS12, TLS13] {
            let device = Device::tls(&stage.broker, ca, "e1", tls);
            let error = device.attempt(&stage.broker).await.tls_refused();
            assert!(error.contains("CertificateExpired"), "{error}");
        }
    }
}

#[tokio::test]
async fn an_expired_device_and_a_server_certificate_are_refused() {
    let stage = Stage::new().await;
    let expired = stage.a.device_with("a1", |params| params.not_after = date_time_ymd(2021, 1, 1));
    let device = Device::with(&stage.broker, &expired, &[], TLS13, "a1");
    let error = device.attempt(&stage.broker).await.tls_refused();
    assert!(error.contains("CertificateExpired"), "{error}");
    let server = stage.a.server();
    Device::with(&stage.broker, &server, &[], TLS13, "a2").attempt(&stage.broker).await.tls_refused();
}

#[tokio::test]
async fn zero_active_cas_put_everybody_out_and_the_broker_stays() {
    let mut stage = Stage::new().await;
    let device = stage.device_a("a1");
    let session = device.connect(&stage.broker).await;
    let response = stage.set(&[]).await;
    assert_eq!((response.kicked, response.open), (1, 0));
    session.closed().await;
    device.attempt(&stage.broker).await.tls_refused();
    let (a, b) = (Authority::new("A2"), Authority::new("B2"));
    stage.set(&[(&a, INACTIVE), (&b, INACTIVE)]).await;
    device.attempt(&stage.broker).await.tls_refused();
    stage.set_a(ACTIVE).await;
    device.connect(&stage.broker).await;
}

#[tokio::test]
async fn a_restarted_broker_trusts_nobody_until_it_is_told() {
    let mut stage = Stage::new().await;
    drop(stage.broker);
    stage.broker = Broker::start(&Settings::default()).await;
    stage.device_b("b1").attempt(&stage.broker).await.tls_refused();
    stage.agent = Agent::connect(&stage.broker).await;
    let response = stage.agent.apply(bundle(1, &[(&stage.b, ACTIVE)])).await;
    assert_eq!(response.revision, 1);
    stage.device_b("b1").connect(&stage.broker).await;
}

/// The certificates that the shortest recipe makes.
#[tokio::test]
async fn a_certificate_of_version_1_is_refused_and_the_log_says_why() {
    let stage = Stage::new().await;
    let path = |name| argument(&stage.broker.path(name));
    std::fs::write(stage.broker.path("a.pem"), &stage.a.pem).unwrap();
    std::fs::write(stage.broker.path("a.key"), stage.a.key_pem()).unwrap();
    let (ca, ca_key) = (path("a.pem"), path("a.key"));
    let (key, request, device) = (path("d.key"), path("d.csr"), path("d.pem"));
    openssl(&["req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=d", "-keyout", &key, "-out", &request]);
    openssl(&["x509", "-req", "-in", &request, "-CA", &ca, "-CAkey", &ca_key, "-days", "9", "-out", &device]);
    let run = s_client(&stage.broker, &["-cert", &device, "-key", &key], "d").await;
    assert_eq!(run.connack(), None, "{}", run.text());
    assert!(stage.broker.log().contains("of X.509 version 1"), "{}", stage.broker.log());
}
