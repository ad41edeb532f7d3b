use catrust_domain::CaState;
use catrust_mosquitto_control::Entry;

use super::*;
use crate::testing::{Authority, Device};

const KEY: ClientKey = ClientKey(1);
const OTHER: ClientKey = ClientKey(2);

fn now() -> Moment {
    let calendar = UnixTime::since_unix_epoch(Duration::from_secs(1_700_000_000));
    Moment { calendar, instant: Instant::now() }
}

fn later(now: Moment, milliseconds: u64) -> Moment {
    Moment { instant: now.instant + Duration::from_millis(milliseconds), ..now }
}

fn request(revision: u64, states: &[(&Authority, CaState)], admit_for_ms: u64) -> Vec<u8> {
    let entries: Vec<_> = states.iter().map(|(ca, state)| Entry::new(&ca.der, *state)).collect();
    let digest = trust_set(&entries, &TrustSet::default()).unwrap().1;
    let bundle = Bundle {
        instance_id: "factory".parse().unwrap(),
        revision,
        digest,
        explicit_empty: entries.is_empty(),
        entries,
        admit_for_ms,
        with_will: true,
        takes_back: false,
    };
    serde_json::to_vec(&Request { id: 7, body: RequestBody::Bundle(bundle) }).unwrap()
}

fn apply(engine: &mut Engine, request: &[u8], now: Moment) -> Effect {
    let controlled = engine.control(request, now);
    assert_eq!(
        (controlled.response.outcome, controlled.response.reason.as_str()),
        (RequestOutcome::Applied, "")
    );
    assert_eq!(controlled.response.id, 7);
    controlled
}

fn client(device: &Device, id: &str) -> Client {
    Client { client_id: id.to_owned(), certificate: Some(device.der.clone()), ..Client::default() }
}

fn local(user_name: Option<&str>) -> Client {
    Client {
        client_id: "x".to_owned(),
        user_name: user_name.map(str::to_owned),
        socket: Some("admin.sock".to_owned()),
        certificate: None,
    }
}

const STALE: Decision = Decision::Deny(Denial::Certificate(Refusal::Stale));

#[test]
fn without_a_bundle_nobody_is_accepted_but_the_agent() {
    let a = Authority::new("A");
    let mut engine = Engine::default();
    let device = a.device("d");
    assert_eq!(engine.handshake(std::slice::from_ref(&device.der), now()), Err(Refusal::Stale));
    assert_eq!(engine.connect(KEY, client(&device, "d"), now()), STALE);
    assert_eq!(engine.connect(KEY, local(Some("catrust-agent")), now()), Decision::Agent);
    assert_eq!(engine.open(), 0);
}

#[test]
fn clients_without_certificates_are_sorted_by_where_they_come_from() {
    let remote = |name: Option<&str>| Client { socket: None, ..local(name) };
    let mut engine = Engine::default();
    assert_eq!(engine.connect(KEY, local(None), now()), Decision::Defer);
    assert_eq!(engine.connect(KEY, remote(None), now()), Decision::Deny(Denial::NoCertificate));
    let claim = remote(Some("catrust-agent"));
    assert_eq!(engine.connect(KEY, claim.clone(), now()), Decision::Deny(Denial::AgentName));
    assert!(!engine.is_agent(&claim));
    let mut open = Engine::new(Options { certificateless: Certificateless::Defer, ..Options::default() });
    assert_eq!(open.connect(KEY, remote(None), now()), Decision::Defer);
    assert_eq!(open.connect(KEY, claim, now()), Decision::Deny(Denial::AgentName));
    let elsewhere = Some("other.sock".to_owned());
    let mut strict = Engine::new(Options { control_socket: elsewhere, ..Options::default() });
    let agent = local(Some("catrust-agent"));
    assert_eq!(strict.connect(KEY, agent.clone(), now()), Decision::Deny(Denial::AgentName));
    assert!(!strict.is_agent(&agent));
}

#[test]
fn a_device_gets_its_common_name_or_its_fingerprint_as_user_name() {
    let a = Authority::new("A");
    let mut engine = Engine::default();
    apply(&mut engine, &request(1, &[(&a, CaState::Active)], 1000), now());
    let named = a.device("d1");
    let admitted = Decision::Admit(Some("d1".to_owned()));
    assert_eq!(engine.connect(KEY, client(&named, "x"), now()), admitted);
    let nameless = a.device("");
    let name = format!("sha256-{}", Sha256::of(&nameless.der));
    assert_eq!(engine.connect(OTHER, client(&nameless, "y"), now()), Decision::Admit(Some(name)));
    let mut keeps = Engine::new(Options { user_name: UserName::Keep, ..Options::default() });
    apply(&mut keeps, &request(1, &[(&a, CaState::Active)], 1000), now());
    assert_eq!(keeps.connect(KEY, client(&named, "x"), now()), Decision::Admit(None));
}

#[test]
fn the_trust_lapses_for_new_sessions_and_not_for_live_ones() {
    let a = Authority::new("A");
    let (device, begin) = (a.device("d"), now());
    let mut engine = Engine::default();
    apply(&mut engine, &request(1, &[(&a, CaState::Active)], 1000), begin);
    assert!(engine.handshake(std::slice::from_ref(&device.der), later(begin, 999)).is_ok());
    let admitted = engine.connect(KEY, client(&device, "d"), later(begin, 999));
    assert!(matches!(admitted, Decision::Admit(_)));
    let lapsed = later(begin, 1000);
    assert_eq!(engine.handshake(std::slice::from_ref(&device.der), lapsed), Err(Refusal::Stale));
    assert_eq!(engine.connect(OTHER, client(&device, "e"), lapsed), STALE);
    // As the broker asks again on SIGHUP.
    assert_eq!(engine.connect(KEY, client(&device, "d"), lapsed), admitted);
    // Another device at the same address is not that session.
    assert_eq!(engine.connect(KEY, client(&a.device("f"), "d"), lapsed), STALE);
}

#[test]
fn a_change_names_the_sessions_to_kick_and_a_refused_one_names_none() {
    let (a, b) = (Authority::new("A"), Authority::new("B"));
    let inactive = CaState::Inactive(catrust_domain::InactivationScope::Key);
    let mut engine = Engine::default();
    apply(&mut engine, &request(1, &[(&a, CaState::Active), (&b, CaState::Active)], 1000), now());
    engine.connect(KEY, client(&a.device("a"), "a"), now());
    engine.connect(OTHER, client(&b.device("b"), "b"), now());
    let older = engine.control(&request(0, &[(&a, inactive)], 1000), now());
    assert_eq!((older.response.outcome, older.response.revision), (RequestOutcome::Refused, 1));
    assert!(older.kick.is_empty());
    let change = request(2, &[(&a, inactive), (&b, CaState::Active)], 1000);
    let controlled = apply(&mut engine, &change, now());
    assert_eq!(controlled.kick, [(KEY, "a".to_owned())]);
    assert!(controlled.with_will);
    assert_eq!(engine.still_open(&controlled.kick), 1);
    engine.disconnected(KEY);
    assert_eq!((engine.still_open(&controlled.kick), engine.open()), (0, 1));
}

#[test]
fn another_active_ca_may_take_over_a_session() {
    let a = Authority::new("A");
    let twin = a.renewed();
    let device = a.device("a");
    let superseded = CaState::Inactive(catrust_domain::InactivationScope::Certificate);
    let mut engine = Engine::default();
    apply(&mut engine, &request(1, &[(&a, CaState::Active)], 1000), now());
    engine.connect(KEY, client(&device, "a"), now());
    let change = request(2, &[(&a, superseded), (&twin, CaState::Active)], 1000);
    let controlled = engine.control(&change, now());
    assert!(controlled.kick.is_empty());
    let change = request(3, &[(&twin, superseded), (&a, CaState::Active)], 1000);
    assert!(apply(&mut engine, &change, now()).kick.is_empty());
    let change = request(4, &[(&twin, superseded), (&a, superseded)], 1000);
    assert_eq!(apply(&mut engine, &change, now()).kick, [(KEY, "a".to_owned())]);
}

#[test]
fn no_admission_is_too_long_to_be_counted() {
    let a = Authority::new("A");
    let mut engine = Engine::default();
    apply(&mut engine, &request(1, &[(&a, CaState::Active)], u64::MAX), now());
    assert!(engine.handshake(&[a.device("d").der], now()).is_ok());
}

#[test]
fn a_registered_certificate_of_an_odd_shape_keeps_no_other_from_being_inactivated() {
    let a = Authority::new("A");
    let odd = Authority::with("Odd", |params| {
        let extension = |n: u64| rcgen::CustomExtension::from_oid_content(&[1, 2, 3, n], vec![5, 0]);
        params.custom_extensions.extend((0..40).map(extension));
    });
    let device = a.device("d");
    let mut engine = Engine::default();
    apply(&mut engine, &request(1, &[(&a, CaState::Active), (&odd, CaState::Active)], 1000), now());
    assert_eq!(engine.handshake(std::slice::from_ref(&device.der), now()), Ok(()));
    engine.connect(KEY, client(&device, "d"), now());
    let inactive = CaState::Inactive(catrust_domain::InactivationScope::Key);
    let effect = apply(&mut engine, &request(2, &[(&a, inactive), (&odd, CaState::Active)], 1000), now());
    assert_eq!(effect.kick, [(KEY, "d".to_owned())]);
    assert_eq!(engine.handshake(&[device.der], now()), Err(Refusal::Inactive));
}

/// A stranger needs no key to show the certificates of a device.
#[test]
fn what_a_stranger_shows_for_a_device_takes_no_path_from_it() {
    let (a, b, inner) = (Authority::new("A"), Authority::new("B"), Authority::new("I"));
    let (over_a, over_b) = (inner.cross_signed_by(&a), inner.cross_signed_by(&b));
    let device = inner.device("d");
    let mut engine = Engine::default();
    apply(&mut engine, &request(1, &[(&a, CaState::Active), (&b, CaState::Active)], 1000), now());
    let shown = [device.der.clone(), over_a.der.clone(), over_b.der.clone()];
    assert_eq!(engine.handshake(&shown, now()), Ok(()));
    assert_eq!(engine.handshake(&[device.der.clone(), over_b.der.clone()], now()), Ok(()));
    engine.connect(KEY, client(&device, "d"), now());
    let inactive = CaState::Inactive(catrust_domain::InactivationScope::Key);
    let effect = apply(&mut engine, &request(2, &[(&a, CaState::Active), (&b, inactive)], 1000), now());
    assert_eq!(effect.kick, []);
}

/// Ground rule 16: over a change of the log epoch, the sessions of other CAs stay untouched. The count
/// may be lower than before; what is of the epoch before is older all the same.
#[test]
fn a_new_log_epoch_kicks_those_whose_trust_it_takes_and_nobody_else() {
    const EPOCH: u64 = 200_000_000 << 32;
    let (a, b) = (Authority::new("A"), Authority::new("B"));
    let inactive = CaState::Inactive(catrust_domain::InactivationScope::Key);
    let both = [(&a, CaState::Active), (&b, CaState::Active)];
    let mut engine = Engine::default();
    apply(&mut engine, &request(7, &both, 1000), now());
    engine.connect(KEY, client(&a.device("a"), "a"), now());
    engine.connect(OTHER, client(&b.device("b"), "b"), now());
    let effect = apply(&mut engine, &request(EPOCH | 3, &both, 1000), now());
    assert_eq!((effect.kick, effect.response.revision), (Vec::new(), EPOCH | 3));
    let late = engine.control(&request(8, &both, 1000), now());
    assert_eq!(late.response.outcome, RequestOutcome::Refused);
    let change = request(EPOCH | 4, &[(&a, inactive), (&b, CaState::Active)], 1000);
    assert_eq!(apply(&mut engine, &change, now()).kick, [(KEY, "a".to_owned())]);
}

/// Ground rule 16: the floor falls with a revoked key, at the plugin too: what a thief signed, under
/// whatever log epoch, is not to stay in force until somebody restarts the broker.
#[test]
fn a_bundle_that_takes_back_what_a_revoked_key_signed_counts_whatever_its_revision() {
    const EPOCH: u64 = 200_000_000 << 32;
    let (a, thief) = (Authority::new("A"), Authority::new("T"));
    let mut engine = Engine::default();
    apply(&mut engine, &request(EPOCH | 9, &[(&thief, CaState::Active)], 1000), now());
    engine.connect(KEY, client(&thief.device("t"), "t"), now());
    let good = request(3, &[(&a, CaState::Active)], 1000);
    assert_eq!(engine.control(&good, now()).response.outcome, RequestOutcome::Refused);
    let mut back: Request = serde_json::from_slice(&good).unwrap();
    let RequestBody::Bundle(bundle) = &mut back.body else { panic!("a bundle") };
    bundle.takes_back = true;
    let effect = apply(&mut engine, &serde_json::to_vec(&back).unwrap(), now());
    assert_eq!((effect.kick, effect.response.revision), (vec![(KEY, "t".to_owned())], 3));
    assert_eq!(engine.control(&request(2, &[(&a, CaState::Active)], 1000), now()).response.revision, 3);
}
