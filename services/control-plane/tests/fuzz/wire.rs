//! Messages as they come off the wire: whoever can write there must not be believed.

use catrust_control_plane::fleet::statement;
use catrust_domain::{InstanceId, Timestamp};
use catrust_proto::v1::{
    EventKey, Head, InactivateCaCertificateRequest, KeySet, RegisterCaCertificateRequest,
    ReportReceiptRequest, TrustBundle, TrustChange,
};
use catrust_signing::timestamp;
use catrust_trust_feed::contract::{SampleLog, key};
use catrust_trust_feed::message::{self, FeedBody};
use catrust_trust_feed::{Signed, SigningKey, TrustKeys, TrustPoint, TrustState, parse};
use prost::Message as _;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::runner::{Corpus, run};

const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
const WORDS: &[&str] = &[
    "null",
    "{}",
    "[]",
    "\"revision\":\"0\"",
    "\"revision\":1e3",
    "\"18446744073709551615\"",
    "\"CA_CERTIFICATE_STATE_ACTIVE\"",
    "\"signature\":null",
    "\"entries\":[]",
    "\"9999-12-31T23:59:59Z\"",
    "\"0001-01-01T00:00:00Z\"",
    "\\ud800",
    "\\u0000",
    ",",
    ":",
];

/// Signed messages of one log, as JSON, and what can be done with them.
struct Sample {
    key: SigningKey,
    keys: TrustKeys,
    instance: InstanceId,
    bundle: TrustBundle,
    changes: Vec<TrustChange>,
    head: Head,
}

fn sample() -> Sample {
    let key = key();
    let keys = TrustKeys::from_pem(&key.public_key_pem()).unwrap();
    let mut log = SampleLog::new();
    let instance = log.register_instance("fleet-a");
    let first = log.register_certificate(&instance);
    let before = log.bundle(&instance);
    let log_id = Uuid::from_u128(7);
    let mut bundle = message::trust_bundle(log_id, &before, NOW);
    bundle.sign(&key).unwrap();
    log.toggle(&instance, &first);
    log.register_certificate(&instance);
    log.toggle(&instance, &first);
    let changes = log
        .messages(&key)
        .into_iter()
        .filter_map(|message| match message.body {
            FeedBody::Change(change) => Some((*change).clone()),
            FeedBody::Log(_) => None,
        })
        .collect();
    let known = log.instances().find(|known| known.instance_id == instance).unwrap();
    let mut head = message::head(log_id, &TrustPoint::from(known), NOW);
    head.sign(&key).unwrap();
    Sample { key, keys, instance, bundle, changes, head }
}

/// JSON that nobody signed: what is believed says what was signed.
fn unsigned<M>(genuine: &[M], keys: &TrustKeys)
where
    M: Signed + DeserializeOwned + serde::Serialize + PartialEq + std::fmt::Debug + Clone,
{
    assert!(genuine.iter().all(|message| message.verify(keys).is_ok()));
    let inputs = genuine.iter().map(|message| serde_json::to_vec(message).unwrap());
    run(&Corpus::of(inputs, WORDS), |input| {
        let Ok(message) = serde_json::from_slice::<M>(input) else { return };
        if let Ok(verified) = message.verified(keys) {
            let verified = verified.into_inner();
            let input = || genuine.iter().map(|message| message.signing_input().unwrap());
            assert!(input().any(|genuine| genuine == verified.signing_input().unwrap()), "{verified:?}");
        }
    });
}

#[test]
fn trust_changes() {
    let sample = sample();
    unsigned(&sample.changes, &sample.keys);
}

#[test]
fn trust_bundles() {
    let sample = sample();
    unsigned(&[sample.bundle], &sample.keys);
}

#[test]
fn heads() {
    let sample = sample();
    unsigned(&[sample.head], &sample.keys);
}

#[test]
fn key_sets() {
    let key = key();
    let public = EventKey {
        key_id: key.key_id().to_owned(),
        public_key: key.public_key_pem(),
        not_before: Some(timestamp(NOW)),
        not_after: Some(timestamp(Timestamp::from_micros(NOW.micros() + 2 * 86_400_000_000))),
        ..EventKey::default()
    };
    let mut set = KeySet {
        version: 3,
        keys: vec![public],
        issued_at: Some(timestamp(NOW)),
        expires_at: Some(timestamp(Timestamp::from_micros(NOW.micros() + 86_400_000_000))),
        signature: None,
    };
    set.sign(&key).unwrap();
    catrust_signing::KeySet::checked(set.clone()).expect("the set is good");
    unsigned(std::slice::from_ref(&set), &TrustKeys::from_pem(&key.public_key_pem()).unwrap());
    // What a root key may be made to sign.
    run(&Corpus::of([serde_json::to_vec(&set).unwrap()], WORDS), |input| {
        let Ok(set) = serde_json::from_slice::<KeySet>(input) else { return };
        if let Ok(checked) = catrust_signing::KeySet::checked(set) {
            assert!(checked.version() > 0 && checked.keys().count() <= 64);
        }
    });
}

/// What a server says that went mad: signed, and nonsense.
#[test]
fn nonsense_that_is_signed() {
    let sample = sample();
    let start = sample.bundle.clone().verified(&sample.keys).unwrap();
    let mut inputs =
        vec![serde_json::to_vec(&sample.bundle).unwrap(), serde_json::to_vec(&sample.head).unwrap()];
    inputs.extend(sample.changes.iter().map(|change| serde_json::to_vec(change).unwrap()));
    run(&Corpus::of(inputs, WORDS), |input| {
        let mut state = TrustState::new(&sample.instance, &start).expect("the bundle is good");
        let digest = |state: &TrustState| state.bundle().digest;
        if let Ok(mut change) = serde_json::from_slice::<TrustChange>(input)
            && change.sign(&sample.key).is_ok()
        {
            let before = digest(&state);
            if state.apply(&change.verified(&sample.keys).unwrap()).is_err() {
                assert_eq!(digest(&state), before, "a refused change changes nothing");
            }
        }
        if let Ok(mut bundle) = serde_json::from_slice::<TrustBundle>(input)
            && bundle.sign(&sample.key).is_ok()
        {
            let _ = parse::trust_bundle(&bundle);
            let _ = state.replace(&bundle.verified(&sample.keys).unwrap());
        }
        if let Ok(mut head) = serde_json::from_slice::<Head>(input)
            && head.sign(&sample.key).is_ok()
        {
            let _ = state.compare(&head.verified(&sample.keys).unwrap());
        }
    });
}

#[test]
fn receipts() {
    let receipt = ReportReceiptRequest {
        broker_id: "broker-1".into(),
        mqtt_instance_id: "fleet-a".into(),
        revision: 7,
        bundle_digest: "ab".repeat(32),
        ..ReportReceiptRequest::default()
    };
    run(&Corpus::of([serde_json::to_vec(&receipt).unwrap()], WORDS), |input| {
        let Ok(message) = serde_json::from_slice::<ReportReceiptRequest>(input) else { return };
        if let Err(violations) = statement::receipt(message, NOW) {
            assert!(!violations.is_empty());
        }
    });
}

/// Protobuf, before any field is looked at.
#[test]
fn requests() {
    let register = RegisterCaCertificateRequest {
        mqtt_instance_id: "fleet-a".into(),
        ca_name: "factory".into(),
        ca_content: "-----BEGIN CERTIFICATE-----".into(),
        ..RegisterCaCertificateRequest::default()
    };
    let inactivate =
        InactivateCaCertificateRequest { sn: "7A0F".into(), ..InactivateCaCertificateRequest::default() };
    run(
        &Corpus::of([register.encode_to_vec(), inactivate.encode_to_vec()], &["\u{8}\u{1}", "\u{a}\u{7f}"]),
        |input| {
            if let Ok(message) = RegisterCaCertificateRequest::decode(input) {
                assert_eq!(RegisterCaCertificateRequest::decode(&*message.encode_to_vec()), Ok(message));
            }
            if let Ok(message) = InactivateCaCertificateRequest::decode(input) {
                assert_eq!(InactivateCaCertificateRequest::decode(&*message.encode_to_vec()), Ok(message));
            }
        },
    );
}
