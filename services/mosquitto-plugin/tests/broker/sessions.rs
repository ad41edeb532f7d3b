//! Live sessions: who is cut, how, and who is not.

use catrust_mosquitto_control::Renewal;

use crate::device::{Device, Session, TLS12, TLS13};
use crate::eventually::{LIMIT, eventually};
use crate::mosquitto::Settings;
use crate::mqtt::{self, Connect};
use crate::stage::Stage;
use crate::trust::{ACTIVE, INACTIVE, bundle, bundle_of};

#[tokio::test]
async fn live_sessions_of_the_inactive_ca_end_and_the_others_stay() {
    let mut stage = Stage::new().await;
    let (mut cut, mut kept) = (Vec::new(), Vec::new());
    for tls in [TLS12, TLS13] {
        for number in 0..5 {
            let name = format!("{:?}-{number}", tls.version.version);
            let a = Device::tls(&stage.broker, &stage.a, &format!("a-{name}"), tls);
            let b = Device::tls(&stage.broker, &stage.b, &format!("b-{name}"), tls);
            cut.push(a.connect(&stage.broker).await);
            kept.push(b.connect(&stage.broker).await);
        }
    }
    let response = stage.inactivate_a().await;
    assert_eq!((response.kicked, response.open), (10, 10));
    for session in cut {
        session.closed().await;
    }
    for session in &mut kept {
        session.assert_alive().await;
    }
}

#[tokio::test]
async fn an_mqtt_5_session_is_told_that_it_was_an_administrator() {
    let mut stage = Stage::new().await;
    let connect = Connect { version: 5, ..Connect::new("a1") };
    let session = stage.device_a("a1").connect_with(&stage.broker, &connect).await;
    stage.inactivate_a().await;
    let (last, _) = session.closed().await;
    let last = last.unwrap();
    assert_eq!((last.kind, last.body.first()), (mqtt::DISCONNECT, Some(&0x98)));
}

async fn listener(stage: &Stage) -> Session {
    let mut session = stage.device_b("listener").connect(&stage.broker).await;
    assert_eq!(session.subscribe("#").await, 0);
    session
}

#[tokio::test]
async fn last_wills_are_published_only_when_the_change_says_so() {
    let mut stage = Stage::new().await;
    let mut listener = listener(&stage).await;
    let connect = |name: &str| Connect {
        will: Some((format!("will/{name}"), "gone".to_owned())),
        ..Connect::new(name)
    };
    for (name, with_will) in [("silent", false), ("loud", true)] {
        stage.set_a(ACTIVE).await;
        let device = stage.device_a(name);
        let session = device.connect_with(&stage.broker, &connect(name)).await;
        stage.revision += 1;
        let mut change = bundle(stage.revision, &[(&stage.a, INACTIVE), (&stage.b, ACTIVE)]);
        change.with_will = with_will;
        assert_eq!(stage.agent.apply(change).await.kicked, 1);
        session.closed().await;
    }
    // The first will that comes is that of the second device.
    let packet = listener.next().await.unwrap();
    assert_eq!(mqtt::published(&packet), ("will/loud".to_owned(), b"gone".to_vec()));
}

#[tokio::test]
async fn a_client_identifier_taken_over_by_another_ca_belongs_to_that_ca() {
    let mut stage = Stage::new().await;
    let same = Connect::new("same");
    let first = stage.device_a("a1").connect_with(&stage.broker, &same).await;
    let mut second = stage.device_b("b1").connect_with(&stage.broker, &same).await;
    first.closed().await;
    let response = stage.inactivate_a().await;
    assert_eq!((response.kicked, response.open), (0, 1));
    second.assert_alive().await;
    // And the other way round.
    stage.set_a(ACTIVE).await;
    let third = stage.device_a("a1").connect_with(&stage.broker, &same).await;
    second.closed().await;
    assert_eq!(stage.inactivate_a().await.kicked, 1);
    third.closed().await;
    // A refused device does not disturb the session whose identifier it claims.
    let mut owner = stage.device_b("b1").connect_with(&stage.broker, &same).await;
    stage.device_a("a1").attempt_with(&stage.broker, &same).await.tls_refused();
    owner.assert_alive().await;
}

#[tokio::test]
async fn the_registry_forgets_every_session_that_ends() {
    let mut stage = Stage::new().await;
    let device = stage.device_a("a1");
    // Orderly, by a protocol error, abruptly.
    for last_words in [vec![0xe0, 0], Connect::new("a1").encode(), Vec::new()] {
        let mut session = device.connect(&stage.broker).await;
        session.assert_alive().await;
        if last_words.is_empty() {
            drop(session);
        } else {
            session.send(&last_words).await;
            session.closed().await;
        }
        eventually(LIMIT, "the registry is empty", async || match stage.set_a(ACTIVE).await.open {
            0 => Ok(()),
            open => Err(format!("{open} sessions")),
        })
        .await
        .unwrap();
    }
    // The broker chooses the identifier.
    let session = device.connect_with(&stage.broker, &Connect::new("")).await;
    assert_eq!(stage.inactivate_a().await.kicked, 1);
    session.closed().await;
}

#[tokio::test]
async fn a_reload_of_the_configuration_hits_no_bystander() {
    let mut stage = Stage::new().await;
    let mut a = stage.device_a("a1").connect(&stage.broker).await;
    // Without a user name, and `allow_anonymous false`: stock Mosquitto cuts it.
    let mut b = stage.device_b("b1").connect(&stage.broker).await;
    for _ in 0..3 {
        stage.broker.reload().await;
        a.assert_alive().await;
        b.assert_alive().await;
    }
    // The trust is not lost, and neither is the hook.
    assert_eq!(stage.set_a(ACTIVE).await.open, 2);
    assert_eq!(stage.inactivate_a().await.kicked, 1);
    stage.broker.reload().await;
    a.closed().await;
    b.assert_alive().await;
    stage.device_a("a1").attempt(&stage.broker).await.tls_refused();
    stage.device_b("b2").connect(&stage.broker).await;
}

#[tokio::test]
async fn live_sessions_outlive_the_currency_of_the_trust_and_new_ones_are_refused() {
    let mut stage = Stage::new().await;
    let mut session = stage.device_b("b1").connect(&stage.broker).await;
    stage.revision += 1;
    let mut lapsed = bundle(stage.revision, &[(&stage.a, ACTIVE), (&stage.b, ACTIVE)]);
    lapsed.admit_for_ms = 0;
    stage.agent.apply(lapsed).await;
    stage.broker.reload().await;
    session.assert_alive().await;
    let error = stage.device_b("b2").attempt(&stage.broker).await.tls_refused();
    assert!(error.contains("HandshakeFailure"), "{error}");
}

#[tokio::test]
async fn devices_are_known_by_their_common_name_whatever_they_say() {
    let acl = "user a1\ntopic readwrite for/a1\nuser catrust-agent\ntopic readwrite $CONTROL/ca-trust/v1/#\n";
    let settings = Settings { acl: Some(acl.to_owned()), ..Settings::default() };
    let stage = Stage::with(settings).await;
    let connect = |id: &str, name: &str| Connect { user_name: Some(name.to_owned()), ..Connect::new(id) };
    let mut impostor = stage.device_b("b1").connect_with(&stage.broker, &connect("x", "a1")).await;
    impostor.subscribe("for/a1").await;
    let mut owner = stage.device_a("a1").connect_with(&stage.broker, &connect("y", "b1")).await;
    owner.subscribe("for/a1").await;
    owner.send(&mqtt::publish("for/a1", b"secret", 2)).await;
    let mut heard = Vec::new();
    while !heard.contains(&mqtt::PUBLISH) {
        heard.push(owner.next().await.unwrap().kind);
    }
    // The broker has delivered it to whom it may concern; the impostor hears the answer
    // to its ping.
    impostor.send(&[0xc0, 0]).await;
    assert_eq!(impostor.next().await.unwrap().kind, mqtt::PINGRESP);
}

#[tokio::test]
async fn where_passwords_count_a_certificate_alone_is_not_enough() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("passwords");
    let made = std::process::Command::new("mosquitto_passwd")
        .args(["-b", "-c"])
        .arg(&file)
        .args(["user", "right"])
        .status()
        .unwrap();
    assert!(made.success());
    let settings = Settings {
        global: format!("password_file {}", file.display()),
        options: "plugin_opt_passwords check\nplugin_opt_username keep".to_owned(),
        ..Settings::default()
    };
    let mut stage = Stage::with(settings).await;
    let device = stage.device_a("a1");
    let connect = |password: &str| Connect {
        user_name: Some("user".to_owned()),
        password: Some(password.to_owned()),
        ..Connect::new("a1")
    };
    let attempt = device.attempt_with(&stage.broker, &connect("wrong")).await;
    assert_eq!(attempt.connect_refused(), 5);
    assert_eq!(device.attempt(&stage.broker).await.connect_refused(), 5);
    let session = device.connect_with(&stage.broker, &connect("right")).await;
    let response = stage.inactivate_a().await;
    assert_eq!((response.kicked, response.open), (1, 0));
    session.closed().await;
}

/// The agent renews the trust every few seconds, and with each renewal the plugin looks at
/// the clock.
#[tokio::test]
async fn a_session_ends_with_the_first_renewal_after_its_devices_certificate_has_expired() {
    let mut stage = Stage::new().await;
    let a = catrust_decision_table::Authority::new("CA of S");
    let registered = (&a.der[..], ACTIVE);
    let bundle = bundle_of(stage.revision + 1, &[registered]);
    let renewal = Renewal { revision: bundle.revision, digest: bundle.digest, admit_for_ms: 3_600_000 };
    stage.agent.apply(bundle).await;
    let (short, long) = (a.device_valid("s", (-60, 3)), a.device("l"));
    let short = Device::showing(&stage.broker, &short.chain, &short.key, TLS13);
    let long = Device::showing(&stage.broker, &long.chain, &long.key, TLS13);
    let session = short.connect_with(&stage.broker, &Connect::new("s")).await;
    let mut stays = long.connect_with(&stage.broker, &Connect::new("l")).await;
    assert_eq!(stage.agent.renew(renewal.clone()).await.kicked, 0);
    tokio::time::sleep(std::time::Duration::from_millis(4500)).await;
    let response = stage.agent.renew(renewal).await;
    assert_eq!((response.kicked, response.open), (1, 1));
    session.closed().await;
    let error = short.attempt_with(&stage.broker, &Connect::new("s")).await.tls_refused();
    assert!(error.contains("CertificateExpired"), "{error}");
    stays.assert_alive().await;
}
