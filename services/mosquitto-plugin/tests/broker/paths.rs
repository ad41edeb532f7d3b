//! Ways around an inactive CA: other certificates of its key, other paths.

use crate::authority::Authority;
use crate::device::{Device, TLS12, TLS13};
use crate::mqtt::Connect;
use crate::stage::Stage;
use crate::trust::{ACTIVE, INACTIVE, SUPERSEDED};

#[tokio::test]
async fn a_renewed_certificate_with_the_same_key_falls_with_it() {
    for tls in [TLS12, TLS13] {
        let mut stage = Stage::new().await;
        let old = Authority::new("CA of A");
        let new = old.renewed();
        stage.set(&[(&old, ACTIVE), (&new, ACTIVE)]).await;
        let device = Device::tls(&stage.broker, &new, "a1", tls);
        let session = device.connect(&stage.broker).await;
        assert_eq!(stage.set(&[(&old, INACTIVE), (&new, ACTIVE)]).await.kicked, 1);
        session.closed().await;
        let error = device.attempt(&stage.broker).await.tls_refused();
        assert!(error.contains("CertificateRevoked"), "{error}");
    }
}

#[tokio::test]
async fn a_superseded_certificate_leaves_its_twins_devices_alone() {
    let mut stage = Stage::new().await;
    let old = Authority::new("CA of A");
    let new = old.renewed();
    let device = Device::new(&stage.broker, &old, "a1");
    stage.set(&[(&old, ACTIVE)]).await;
    let mut session = device.connect(&stage.broker).await;
    stage.set(&[(&old, ACTIVE), (&new, ACTIVE)]).await;
    let response = stage.set(&[(&old, SUPERSEDED), (&new, ACTIVE)]).await;
    assert_eq!((response.kicked, response.open), (0, 1));
    session.assert_alive().await;
    device.connect_with(&stage.broker, &Connect::new("a2")).await;
    // The registry knows that the twin vouches now.
    let response = stage.set(&[(&old, SUPERSEDED), (&new, SUPERSEDED)]).await;
    assert_eq!(response.open, 0);
    session.closed().await;
    device.attempt(&stage.broker).await.tls_refused();
}

#[tokio::test]
async fn a_cross_signed_path_from_an_active_ca_does_not_help() {
    for tls in [TLS12, TLS13] {
        let mut stage = Stage::new().await;
        let cross = stage.a.cross_signed_by(&stage.b);
        let device = Device::with(&stage.broker, &stage.a.device("a1"), &[&cross], tls, "a1");
        let session = device.connect(&stage.broker).await;
        stage.inactivate_a().await;
        session.closed().await;
        let error = device.attempt(&stage.broker).await.tls_refused();
        assert!(error.contains("CertificateRevoked"), "{error}");
    }
}

#[tokio::test]
async fn an_inactive_intermediate_below_an_active_root_is_no_way_in() {
    for tls in [TLS12, TLS13] {
        let mut stage = Stage::new().await;
        let root = Authority::new("root");
        let (bad, good) = (root.intermediate("bad"), root.intermediate("good"));
        stage.set(&[(&root, ACTIVE), (&bad, ACTIVE), (&good, ACTIVE)]).await;
        let out = Device::with(&stage.broker, &bad.device("a1"), &[&bad], tls, "a1");
        let stays = Device::with(&stage.broker, &good.device("b1"), &[&good], tls, "b1");
        let session = out.connect(&stage.broker).await;
        let mut other = stays.connect(&stage.broker).await;
        let response = stage.set(&[(&root, ACTIVE), (&bad, INACTIVE), (&good, ACTIVE)]).await;
        assert_eq!((response.kicked, response.open), (1, 1));
        session.closed().await;
        out.attempt(&stage.broker).await.tls_refused();
        other.assert_alive().await;
        stays.connect_with(&stage.broker, &Connect::new("b2")).await;
    }
}

#[tokio::test]
async fn an_unregistered_intermediate_that_the_device_shows_leads_to_its_root() {
    for tls in [TLS12, TLS13] {
        let mut stage = Stage::new().await;
        let upper = stage.a.intermediate("upper");
        let lower = upper.intermediate("lower");
        let device = Device::with(&stage.broker, &lower.device("a1"), &[&lower, &upper], tls, "a1");
        let without = Device::with(&stage.broker, &upper.intermediate("x").device("a2"), &[], tls, "a2");
        without.attempt(&stage.broker).await.tls_refused();
        let mut session = device.connect(&stage.broker).await;
        // On SIGHUP the broker asks again, and shows the leaf alone.
        stage.broker.reload().await;
        session.assert_alive().await;
        assert_eq!(stage.inactivate_a().await.kicked, 1);
        session.closed().await;
        device.attempt(&stage.broker).await.tls_refused();
    }
}

#[tokio::test]
async fn a_device_of_another_ca_that_uses_the_key_of_an_inactive_one_is_out() {
    let mut stage = Stage::new().await;
    let device = stage.b.device_with_key_of(&stage.a, "b1");
    let device = Device::with(&stage.broker, &device, &[], TLS13, "b1");
    let session = device.connect(&stage.broker).await;
    assert_eq!(stage.inactivate_a().await.kicked, 1);
    session.closed().await;
    device.attempt(&stage.broker).await.tls_refused();
}

#[tokio::test]
async fn two_cas_of_one_name_are_told_apart() {
    let mut stage = Stage::new().await;
    let (one, other) = (Authority::new("same name"), Authority::new("same name"));
    stage.set(&[(&one, ACTIVE), (&other, ACTIVE)]).await;
    let (first, second) = (Device::new(&stage.broker, &one, "d1"), Device::new(&stage.broker, &other, "d2"));
    let session = first.connect(&stage.broker).await;
    let mut stays = second.connect(&stage.broker).await;
    stage.set(&[(&one, INACTIVE), (&other, ACTIVE)]).await;
    session.closed().await;
    stays.assert_alive().await;
    first.attempt(&stage.broker).await.tls_refused();
    second.connect_with(&stage.broker, &Connect::new("d3")).await;
}
