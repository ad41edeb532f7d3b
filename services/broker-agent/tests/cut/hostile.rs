//! Hostile chains and files: nothing panics, and nobody gets in who has no key for it.
//! The runner is that of the control plane; `make fuzz` gives each target a million inputs.

use catrust_broker_agent::RevisionTrust;
use catrust_mosquitto_control::{
    Bundle, Entry, Renewal, Request, RequestBody, RequestOutcome, Response, configuration::Configuration,
};
use rustls::pki_types::{CertificateDer, UnixTime};

use crate::fixtures::{ACTIVE, Ca, INACTIVE, trust};
use crate::runner::{Corpus, run};

const DER: &[&str] = &["\u{30}", "\u{6}\u{3}\u{55}\u{1d}\u{13}", "\u{1}\u{1}", "\u{2}\u{1}\u{0}", "\u{0}"];

/// One of the chain's certificates at a time is not what a CA made.
#[test]
fn chains_of_devices() {
    let root = Ca::new("root");
    let (inner, leaked) = (root.intermediate("inner"), root.intermediate("leaked"));
    let (good, bad) = (inner.device("d1").chain, leaked.device("d2").chain);
    let set = RevisionTrust::new(
        &trust(1, &[(&root, ACTIVE), (&leaked, INACTIVE)]).bundle,
        true,
        &RevisionTrust::nothing(),
    );
    let now = UnixTime::now();
    assert!(set.admit(&good, now).is_ok() && set.admit(&bad, now).is_err());
    let inputs = good.iter().chain(&bad).map(|certificate| certificate.to_vec());
    let mut turn = 0;
    run(&Corpus::of(inputs, DER), |input| {
        turn += 1;
        let mut chain = if turn % 2 == 0 { good.clone() } else { bad.clone() };
        let place = turn / 2 % chain.len();
        chain[place] = CertificateDer::from(input.to_vec());
        if let Ok(path) = set.admit(&chain, now) {
            assert_eq!(path.anchor(), root.sha256());
            assert_ne!(&chain[0], &bad[0], "the leaked intermediate's device got in");
        }
    });
}

/// What the agent asks of the plugin, and what it answers.
#[test]
fn control_messages() {
    let ca = Ca::new("A");
    let bundle = Bundle {
        instance_id: "fleet-a".parse().unwrap(),
        revision: 3,
        digest: ca.sha256(),
        entries: vec![Entry::new(&ca.der, INACTIVE)],
        explicit_empty: false,
        admit_for_ms: 10_000,
        with_will: false,
        takes_back: false,
    };
    let renewal = Renewal { revision: 3, digest: ca.sha256(), admit_for_ms: 10_000 };
    let bodies = [RequestBody::Bundle(bundle), RequestBody::Renewal(renewal)];
    let requests = bodies.map(|body| serde_json::to_vec(&Request { id: 1, body }).unwrap());
    let answer = Response {
        id: 1,
        outcome: RequestOutcome::Applied,
        reason: String::new(),
        revision: 3,
        digest: Some(ca.sha256()),
        kicked: 2,
        open: 5,
        ms: 0.25,
    };
    let inputs = requests.into_iter().chain([serde_json::to_vec(&answer).unwrap()]);
    run(
        &Corpus::of(inputs, &["null", "\"APPLIED\"", "\"INACTIVE_KEY\"", "{", "[", "-1", "\\ud800"]),
        |input| {
            if let Ok(request) = serde_json::from_slice::<Request>(input) {
                let text = serde_json::to_vec(&request).expect("what was read can be written");
                assert_eq!(serde_json::from_slice::<Request>(&text).ok(), Some(request));
            }
            if let Ok(answer) = serde_json::from_slice::<Response>(input) {
                let text = serde_json::to_vec(&answer).expect("what was read can be written");
                assert_eq!(serde_json::from_slice::<Response>(&text).ok(), Some(answer));
            }
        },
    );
}

/// The broker's own settings, which an operator writes.
#[test]
fn mosquitto_configuration() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let sample = include_bytes!("../../../../deploy/mosquitto/mosquitto.conf");
    let words = &[
        "listener ",
        "require_certificate true",
        "plugin ",
        "plugin_opt_",
        "per_listener_settings",
        "#",
        "\r\n",
    ];
    run(&Corpus::of([sample.to_vec()], words), |input| {
        // Another folder may not be there, or be anything.
        if input.windows(11).any(|word| word == b"include_dir") {
            return;
        }
        std::fs::write(file.path(), input).expect("the disk takes it");
        let configuration = Configuration::read(file.path()).expect("the file is there");
        let _ = (configuration.findings(), configuration.loads_the_plugin(), configuration.unix_listeners());
    });
}
