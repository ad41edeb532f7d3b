use serde_json::Value;

use super::*;
use crate::contract::{SampleLog, key};
use crate::parse::{self, Change, InvalidMessage};
use crate::signing::TrustKeys;

/// A log with each kind of trust change, and others.
fn log() -> SampleLog {
    let mut log = SampleLog::new();
    let instance = log.register_instance("fleet");
    let sn = log.register_certificate(&instance);
    log.toggle(&instance, &sn);
    log.toggle(&instance, &sn);
    log.delete(&instance, &sn);
    log
}

#[test]
fn bytes_are_a_function_of_log_row_and_key_alone() {
    let log = log();
    let key = key();
    for event in log.events() {
        let one = FeedMessage::new(log.log_id(), event, &key).unwrap();
        let two = FeedMessage::new(log.log_id(), &event.clone(), &key).unwrap();
        assert_eq!(one, two);
        let back: Value = serde_json::from_slice(&one.json).unwrap();
        assert_eq!(back["position"], Value::String(event.position.to_string()));
        assert_eq!(back["eventHash"], Value::String(event.hash.to_string()));
    }
}

#[test]
fn each_body_verifies_after_its_way_through_json() {
    let log = log();
    let key = key();
    let keys = TrustKeys::from(&key);
    for event in log.events() {
        let message = FeedMessage::new(log.log_id(), event, &key).unwrap();
        match &message.body {
            FeedBody::Change(change) => {
                let back: proto::TrustChange = serde_json::from_slice(&message.json).unwrap();
                assert_eq!(back.verify(&keys), Ok(()));
                assert_eq!(&back, &**change);
            }
            FeedBody::Log(other) => {
                let back: proto::LogEvent = serde_json::from_slice(&message.json).unwrap();
                assert_eq!(back.verify(&keys), Ok(()));
                assert_eq!(&back, &**other);
            }
        }
    }
}

/// A pair of eyes reads these; scripts do too.
#[test]
fn json_has_the_fields_in_the_order_of_the_contract() {
    let log = log();
    let json = FeedMessage::new(log.log_id(), &log.events()[3], &key()).unwrap().json;
    let text = String::from_utf8(json.to_vec()).unwrap();
    let order = [
        "\"logId\":",
        "\"position\":\"4\"",
        "\"eventId\":",
        "\"eventType\":\"CaCertificateInactivated\"",
        "\"mqttInstanceId\":\"fleet\"",
        "\"revision\":\"2\"",
        "\"previousRevision\":\"1\"",
        "\"bundleDigest\":",
        "\"entry\":{\"sn\":",
        "\"state\":\"CA_CERTIFICATE_STATE_INACTIVE\"",
        "\"inactivationScope\":\"INACTIVATION_SCOPE_KEY\"",
        "\"reason\":\"a test\"",
        "\"occurredAt\":\"2027-01-15T08:00:00.000005Z\"",
        "\"eventHash\":",
        "\"traceparent\":",
        "\"signature\":{\"keyId\":",
    ];
    let mut after = 0;
    for part in order {
        let at = text[after..].find(part).unwrap_or_else(|| panic!("{part} is not after {after} in {text}"));
        after += at + part.len();
    }
}

#[test]
fn subjects_name_instance_and_certificate_or_event_type() {
    let log = log();
    let key = key();
    let subjects: Vec<String> =
        log.events().iter().map(|e| FeedMessage::new(log.log_id(), e, &key).unwrap().subject).collect();
    let event = log.events()[2].decode().unwrap();
    let sha256 = event.trust_effect().unwrap().certificate.sha256;
    let trust = format!("catrust.v1.trust.fleet.{sha256}");
    assert_eq!(
        subjects,
        [
            "catrust.v1.log.fleet.InstanceRegistered",
            "catrust.v1.log.fleet.RegisterCodeIssued",
            &trust,
            &trust,
            &trust,
            &trust,
        ]
    );
}

#[test]
fn changes_say_what_the_events_say() {
    let log = log();
    let parsed = |index: usize| {
        let (_, change) = trust_change(log.log_id(), &log.events()[index]).unwrap().unwrap();
        Change::try_from(&change).unwrap()
    };
    assert_eq!(parsed(2).state, Some(CaState::Active));
    assert_eq!(parsed(3).state, Some(CaState::Inactive(InactivationScope::Key)));
    assert_eq!(parsed(4).state, Some(CaState::Active));
    let deleted = parsed(5);
    assert_eq!((deleted.state, deleted.with_will, deleted.reason.as_str()), (None, true, "gone"));
    assert_eq!((deleted.position, deleted.revision), (6, 4));
    assert_eq!(Some(deleted.digest), log.events()[5].bundle_digest);
}

#[test]
fn rows_that_cannot_be_told_stop_the_publisher() {
    let log = log();
    let key = key();
    let newer = RecordedEvent { schema_version: 2, ..log.events()[0].clone() };
    assert!(matches!(
        FeedMessage::new(log.log_id(), &newer, &key),
        Err(MessageError::Undecodable { position: 1, .. })
    ));
    for broken in [
        RecordedEvent { revision: None, ..log.events()[3].clone() },
        RecordedEvent { revision: Some(0), ..log.events()[3].clone() },
        RecordedEvent { bundle_digest: None, ..log.events()[3].clone() },
    ] {
        assert!(matches!(
            FeedMessage::new(log.log_id(), &broken, &key),
            Err(MessageError::Incomplete { position: 4 })
        ));
    }
    let timeless = RecordedEvent { occurred_at: Timestamp::from_micros(i64::MAX), ..log.events()[0].clone() };
    assert!(matches!(
        FeedMessage::new(log.log_id(), &timeless, &key),
        Err(MessageError::NoJson { position: 1, .. })
    ));
}

#[test]
fn a_bundle_message_is_read_back_as_the_bundle() {
    let mut log = log();
    let instance = "fleet".parse().unwrap();
    let sn = log.register_certificate(&instance);
    log.register_certificate(&instance);
    log.toggle(&instance, &sn);
    let bundle = log.bundle(&instance);
    let message = trust_bundle(log.log_id(), &bundle, Timestamp::from_micros(1));
    assert_eq!(parse::trust_bundle(&message), Ok((log.log_id(), bundle)));
}

#[test]
fn a_bundle_that_contradicts_itself_is_refused() {
    let mut log = log();
    let instance = "fleet".parse().unwrap();
    log.register_certificate(&instance);
    log.register_certificate(&instance);
    let good = trust_bundle(log.log_id(), &log.bundle(&instance), Timestamp::from_micros(1));
    let refused = |alter: fn(&mut proto::TrustBundle)| {
        let mut message = good.clone();
        alter(&mut message);
        parse::trust_bundle(&message).unwrap_err().field
    };
    assert_eq!(refused(|bundle| bundle.entries.reverse()), "entries");
    assert_eq!(refused(|bundle| bundle.entries[1] = bundle.entries[0].clone()), "entries");
    assert_eq!(refused(|bundle| bundle.entries.truncate(1)), "bundle_digest");
    assert_eq!(refused(|bundle| bundle.bundle_digest.make_ascii_uppercase()), "bundle_digest");
    assert_eq!(refused(|bundle| bundle.entries[0].state = 0), "state");
    assert_eq!(refused(|bundle| bundle.entries[0].state = 7), "state");
    assert_eq!(refused(|bundle| bundle.entries[0].inactivation_scope = 1), "inactivation_scope");
    assert_eq!(refused(|bundle| bundle.entries[0].sn = "x".into()), "sn");
    assert_eq!(refused(|bundle| bundle.entries[0].spki_sha256.push('0')), "spki_sha256");
    assert_eq!(refused(|bundle| bundle.entries[0].not_after = None), "not_after");
    assert_eq!(refused(|bundle| bundle.entries[0].ca_content.clear()), "ca_content");
    assert_eq!(refused(|bundle| bundle.mqtt_instance_id = "a.b".into()), "mqtt_instance_id");
    assert_eq!(refused(|bundle| bundle.log_id.clear()), "log_id");
}

#[test]
fn an_entry_whose_certificate_is_another_is_refused() {
    let log = log();
    let (_, good) = trust_change(log.log_id(), &log.events()[3]).unwrap().unwrap();
    let mut other = good.clone();
    other.entry.as_mut().unwrap().ca_content = crate::pem::encode("CERTIFICATE", b"another");
    assert_eq!(
        Change::try_from(&other),
        Err(InvalidMessage { field: "sha256", reason: "is not that of ca_content" })
    );
    for (alter, field) in [
        ((|change| change.previous_revision = 5) as fn(&mut proto::TrustChange), "previous_revision"),
        (|change| change.revision = 0, "previous_revision"),
        (|change| change.position = 1, "position"),
        (|change| change.entry = None, "entry"),
        (|change| change.deleted = true, "deleted"),
        (|change| change.occurred_at = None, "occurred_at"),
    ] {
        let mut altered = good.clone();
        alter(&mut altered);
        assert_eq!(Change::try_from(&altered).unwrap_err().field, field);
    }
}

#[test]
fn a_head_is_valid_for_ten_seconds() {
    let log = log();
    let point = TrustPoint::from(log.instances().next().unwrap());
    let head = head(log.log_id(), &point, Timestamp::from_micros(1_500_000));
    assert_eq!((head.revision, head.position), (4, 6));
    assert_eq!(head.valid_until, Some(catrust_proto::Timestamp { seconds: 11, nanos: 500_000_000 }));
}
