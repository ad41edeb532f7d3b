//! TLS session resumption: the biggest leak of all.

use crate::device::{Attempt, Device, Session, TLS12, TLS12_BY_ID, TLS13, Tls};
use crate::mosquitto::Settings;
use crate::mqtt::Connect;
use crate::openssl::{argument, s_client};
use crate::stage::Stage;
use crate::trust::ACTIVE;

/// Both versions, each with tickets and with sessions that the broker keeps.
const KINDS: [(Tls, bool); 4] = [(TLS12, false), (TLS12_BY_ID, false), (TLS13, false), (TLS13, true)];

fn settings(stateful_tls13: bool, options: &str) -> Settings {
    Settings { stateful_tls13, options: options.to_owned(), ..Settings::default() }
}

/// Makes a session in full, and a second one that resumes it. The first one stays open:
/// OpenSSL forgets a kept session whose connection broke off.
async fn resumed(stage: &Stage, device: &Device) -> (Session, Session) {
    let full = device.connect_with(&stage.broker, &Connect::new("full")).await;
    let resumed = device.connect_with(&stage.broker, &Connect::new("resumed")).await;
    assert!(!full.is_resumed());
    assert!(resumed.is_resumed(), "nothing to test");
    (full, resumed)
}

#[tokio::test]
async fn a_resumed_session_is_checked_as_a_full_one_is() {
    for (tls, stateful) in KINDS {
        let mut stage = Stage::with(settings(stateful, "plugin_opt_resumption on")).await;
        let device = Device::tls(&stage.broker, &stage.a, "a1", tls);
        let (full, _resumed) = resumed(&stage, &device).await;
        let idle = device.dial(&stage.broker).await.unwrap();
        assert!(idle.is_resumed(), "{tls:?}: nothing to test");
        stage.inactivate_a().await;
        assert_eq!(idle.connect(&Connect::new("idle")).await.connect_refused(), 5, "{tls:?}");
        full.closed().await;
        // With a ticket the handshake is resumed; kept sessions went with the connections.
        match device.attempt(&stage.broker).await {
            Attempt::Connected(_) => panic!("{tls:?}: connected"),
            Attempt::ConnectRefused(code) => assert_eq!(code, 5),
            Attempt::TlsRefused(error) => assert!(stateful || tls.by_session_id, "{tls:?}: {error}"),
        }
        stage.set_a(ACTIVE).await;
        device.connect(&stage.broker).await;
    }
}

#[tokio::test]
async fn a_resumed_session_is_cut_like_any_other() {
    for (tls, stateful) in KINDS {
        let mut stage = Stage::with(settings(stateful, "plugin_opt_resumption on")).await;
        let device = Device::tls(&stage.broker, &stage.a, "a1", tls);
        let (full, resumed) = resumed(&stage, &device).await;
        assert_eq!(stage.inactivate_a().await.kicked, 2);
        full.closed().await;
        resumed.closed().await;
    }
}

#[tokio::test]
async fn unless_asked_for_nothing_is_resumed() {
    for (tls, stateful) in KINDS {
        let mut stage = Stage::with(settings(stateful, "")).await;
        let device = Device::tls(&stage.broker, &stage.a, "a1", tls);
        let mut sessions = Vec::new();
        for number in 0..3 {
            let connect = Connect::new(&format!("a{number}"));
            sessions.push(device.connect_with(&stage.broker, &connect).await);
        }
        assert!(!sessions.iter().any(Session::is_resumed), "{tls:?}");
        stage.inactivate_a().await;
        device.attempt(&stage.broker).await.tls_refused();
    }
}

#[tokio::test]
async fn a_resumed_device_behind_an_intermediate_gets_in() {
    for tls in [TLS12, TLS13] {
        let stage = Stage::with(settings(false, "plugin_opt_resumption on")).await;
        let issuer = stage.a.intermediate("below A");
        let device = Device::with(&stage.broker, &issuer.device("a1"), &[&issuer], tls, "a1");
        device.connect(&stage.broker).await;
        assert!(device.connect(&stage.broker).await.is_resumed());
    }
}

/// What a thief brings: both versions, each with a ticket and with the identifier of a
/// session that the broker keeps.
const LOOT: [(&[&str], bool); 4] =
    [(&["-tls1_2"], false), (&["-tls1_2", "-no_ticket"], false), (&["-tls1_3"], false), (&["-tls1_3"], true)];

/// A ticket is a bearer credential: whoever has it needs neither certificate nor key.
#[tokio::test]
async fn a_ticket_without_its_key_is_worth_nothing_after_the_change() {
    for (version, stateful) in LOOT {
        let mut stage = Stage::with(settings(stateful, "plugin_opt_resumption on")).await;
        let device = stage.a.device("a1");
        let path = |name| argument(&stage.broker.path(name));
        std::fs::write(stage.broker.path("a1.pem"), &device.pem).unwrap();
        std::fs::write(stage.broker.path("a1.key"), &device.key_pem).unwrap();
        let (pem, key, ticket) = (path("a1.pem"), path("a1.key"), path("ticket"));
        let honest = [version, &["-cert", &pem, "-key", &key]].concat();
        let saving = [honest.as_slice(), &["-sess_out", &ticket]].concat();
        let resuming = [honest.as_slice(), &["-sess_in", &ticket]].concat();
        // TLS 1.3 with kept sessions: each is good for one resumption only.
        let steal = async |stage: &Stage| {
            let run = s_client(&stage.broker, &saving, "a1").await;
            assert_eq!((run.is_resumed(), run.connack()), (false, Some(0)), "{}", run.text());
        };
        let thief = [version, &["-sess_in", &ticket]].concat();
        steal(&stage).await;
        let run = s_client(&stage.broker, &thief, "a1").await;
        assert_eq!((run.is_resumed(), run.connack()), (true, Some(0)), "nothing to test: {}", run.text());
        steal(&stage).await;
        stage.inactivate_a().await;
        let run = s_client(&stage.broker, &thief, "a1").await;
        assert_eq!((run.is_resumed(), run.connack()), (true, Some(5)), "{version:?}: {}", run.text());
        // The device itself, resuming where that is possible again, or in full.
        for arguments in [&resuming, &honest] {
            let run = s_client(&stage.broker, arguments, "a1").await;
            assert!(matches!(run.connack(), None | Some(5)), "{version:?}: {}", run.text());
        }
    }
}

#[tokio::test]
async fn unless_asked_for_there_is_nothing_to_steal() {
    for (version, stateful) in LOOT {
        let stage = Stage::with(settings(stateful, "")).await;
        let device = stage.a.device("a1");
        let path = |name| argument(&stage.broker.path(name));
        std::fs::write(stage.broker.path("a1.pem"), &device.pem).unwrap();
        std::fs::write(stage.broker.path("a1.key"), &device.key_pem).unwrap();
        let (pem, key, ticket) = (path("a1.pem"), path("a1.key"), path("ticket"));
        let honest = [version, &["-cert", &pem, "-key", &key, "-sess_out", &ticket]].concat();
        let run = s_client(&stage.broker, &honest, "a1").await;
        assert_eq!(run.connack(), Some(0), "{}", run.text());
        // TLS 1.2 writes a session that the broker will not know; TLS 1.3 writes none.
        if stage.broker.path("ticket").exists() {
            let run = s_client(&stage.broker, &[version, &["-sess_in", &ticket]].concat(), "a1").await;
            assert_eq!((run.is_resumed(), run.connack()), (false, None), "{version:?}: {}", run.text());
        }
    }
}

/// The broker asks no plugin at CONNECT when a device wants an enhanced authentication.
#[tokio::test]
async fn an_enhanced_authentication_is_no_way_around_the_veto() {
    let mut stage = Stage::with(settings(false, "plugin_opt_resumption on")).await;
    let device = stage.device_a("a1");
    device.connect(&stage.broker).await;
    stage.inactivate_a().await;
    let method = Some("catrust".to_owned());
    let connect = Connect { version: 5, authentication_method: method, ..Connect::new("a1") };
    // Bad authentication method.
    assert_eq!(device.attempt_with(&stage.broker, &connect).await.connect_refused(), 0x8c);
}

#[tokio::test]
async fn a_lapsed_trust_refuses_resumed_sessions_too() {
    let mut stage = Stage::with(settings(false, "plugin_opt_resumption on")).await;
    let device = stage.device_a("a1");
    device.connect(&stage.broker).await;
    stage.revision += 1;
    let states = [(&stage.a, ACTIVE), (&stage.b, ACTIVE)];
    let mut lapsed = crate::trust::bundle(stage.revision, &states);
    lapsed.admit_for_ms = 0;
    stage.agent.apply(lapsed).await;
    let attempt = device.attempt_with(&stage.broker, &Connect::new("a2")).await;
    assert_eq!(attempt.connect_refused(), 5);
}
