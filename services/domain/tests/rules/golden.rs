//! Golden files: the bytes of every event type and version ever written.
//!
//! A file is never changed or removed. Whoever changes a shape adds a file and a
//! line of [`ever_written`], and says there what the older files read as from now on.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use catrust_domain::event::{
    CaCertificateActivated, CaCertificateDeleted, CaCertificateInactivated, CaCertificateRegistered,
    InstanceRegistered, InstanceUpdated, LogEpochBegan, RegisterCodeIssued, UndecodableEvent,
};
use catrust_domain::log_epoch::{EndBefore, LostChange, LostFate};
use catrust_domain::{CertificateFacts, Edition, Event, InactivationScope, LogEpoch, Sha256, Timestamp};

use crate::fixtures::{account, serial};

fn facts() -> Arc<CertificateFacts> {
    Arc::new(CertificateFacts {
        sn: serial("7A0F11"),
        sha256: Sha256([0xa1; 32]),
        spki_sha256: Sha256([0xb2; 32]),
        subject: "CN=Zażółć \"Root\",O=Ex\\,ample".to_owned(),
        subject_key_id: "c3c4".to_owned(),
        issuer: "CN=Issuer".to_owned(),
        not_before: Timestamp::from_micros(1_735_689_600_000_000),
        not_after: Timestamp::from_micros(253_402_300_799_000_000),
        ca_content: "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".to_owned(),
    })
}

fn epoch_began() -> LogEpochBegan {
    let lost = |position, sn: Option<&str>, event_type: &str, fate, text: &str| LostChange {
        position,
        instance_id: "fleet-1".parse().expect("an instance id"),
        sn: sn.map(serial),
        event_type: event_type.to_owned(),
        fate,
        text: text.to_owned(),
    };
    LogEpochBegan {
        epoch: LogEpoch(189_388_800),
        fork_position: 40,
        fork_hash: Sha256([0xd4; 32]),
        end_before: EndBefore { epoch: LogEpoch(0), position: 46, hash: Some(Sha256([0xe5; 32])) },
        checkpoints: vec!["example/log\n46\n4eQ=\n\n\u{2014} example/log c2ln\n".to_owned()],
        lost: vec![
            lost(41, Some("7A0F11"), "CaCertificateInactivated", LostFate::MadeAgain, "inactive again"),
            lost(43, Some("7A0F12"), "CaCertificateActivated", LostFate::Looser, "stays inactive"),
            lost(46, None, "", LostFate::Unknown, "no message of it is left"),
        ],
        lost_untold: 3,
        made_again: 5,
        reason: "failover without the last second".to_owned(),
        key_id: "f6f7".to_owned(),
        signature: "a8a9".to_owned(),
    }
}

/// What the golden files read as now: schema version of the file, and the event.
fn ever_written() -> Vec<(u16, Event)> {
    vec![
        (
            1,
            Event::InstanceRegistered(InstanceRegistered {
                region_id: "cn-hangzhou".parse().expect("a region id"),
                owner_account_id: account("1234567890"),
                edition: Edition::Platinum,
            }),
        ),
        (
            1,
            Event::InstanceUpdated(InstanceUpdated {
                owner_account_id: account("1234567890"),
                edition: Edition::Professional,
            }),
        ),
        (1, Event::RegisterCodeIssued(RegisterCodeIssued { register_code: "aB3-xyz".to_owned() })),
        (
            1,
            Event::CaCertificateRegistered(CaCertificateRegistered {
                certificate: facts(),
                ca_name: "customer / plant 4".to_owned(),
                register_code: "aB3-xyz".to_owned(),
            }),
        ),
        (
            1,
            Event::CaCertificateInactivated(CaCertificateInactivated {
                certificate: facts(),
                scope: InactivationScope::Key,
                with_will: true,
                reason: "line one\nline \"two\"\tand \u{1f511}".to_owned(),
            }),
        ),
        (
            1,
            Event::CaCertificateActivated(CaCertificateActivated {
                certificate: facts(),
                reason: String::new(),
            }),
        ),
        (
            1,
            Event::CaCertificateDeleted(CaCertificateDeleted {
                certificate: facts(),
                with_will: false,
                reason: "gone".to_owned(),
            }),
        ),
        (1, Event::LogEpochBegan(epoch_began())),
    ]
}

/// One of each event type, as this version writes it.
fn written_now() -> Vec<Event> {
    let ever = ever_written().into_iter();
    ever.filter(|(version, event)| *version == event.schema_version()).map(|(_, event)| event).collect()
}

/// Place of a type in [`written_now`]. A new type fails to compile here first.
fn place(event: &Event) -> usize {
    match event {
        Event::InstanceRegistered(_) => 0,
        Event::InstanceUpdated(_) => 1,
        Event::RegisterCodeIssued(_) => 2,
        Event::CaCertificateRegistered(_) => 3,
        Event::CaCertificateInactivated(_) => 4,
        Event::CaCertificateActivated(_) => 5,
        Event::CaCertificateDeleted(_) => 6,
        Event::LogEpochBegan(_) => 7,
    }
}

fn golden_directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn file_name(event_type: &str, schema_version: u16) -> String {
    format!("{event_type}.v{schema_version}.json")
}

/// The stored payload: the file without the newline that ends a text file.
fn golden(event_type: &str, schema_version: u16) -> String {
    let path = golden_directory().join(file_name(event_type, schema_version));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.strip_suffix('\n').expect("a newline at the end").to_owned()
}

#[test]
fn every_type_is_in_the_list_of_this_test() {
    let places: Vec<_> = written_now().iter().map(place).collect();
    assert_eq!(places, [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn every_type_and_version_ever_written_has_a_golden_file_and_there_is_no_other() {
    let expected: BTreeSet<_> =
        ever_written().iter().map(|(version, event)| file_name(event.event_type(), *version)).collect();
    for event in written_now() {
        for version in 1..=event.schema_version() {
            let name = file_name(event.event_type(), version);
            assert!(expected.contains(&name), "{name} is missing from the list of this test");
        }
    }
    let found: BTreeSet<_> = std::fs::read_dir(golden_directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn a_golden_file_reads_as_its_event() {
    for (version, event) in ever_written() {
        let stored = golden(event.event_type(), version);
        assert_eq!(Event::decode(event.event_type(), version, &stored).unwrap(), event);
    }
}

#[test]
fn an_event_is_written_as_its_golden_file_has_it() {
    for event in written_now() {
        assert_eq!(event.encode(), golden(event.event_type(), event.schema_version()));
    }
}

#[test]
fn an_unknown_type_or_version_is_an_error() {
    for event in written_now() {
        let payload = event.encode();
        let upper = event.event_type().to_uppercase();
        let unknown = [
            (event.event_type(), 0),
            (event.event_type(), event.schema_version() + 1),
            (event.event_type(), u16::MAX),
            (upper.as_str(), 1),
            ("", 1),
            ("SomethingElse", 1),
        ];
        for (event_type, version) in unknown {
            let error = Event::decode(event_type, version, &payload).unwrap_err();
            assert!(matches!(error, UndecodableEvent::Unknown { .. }), "{error:?}");
            assert_eq!(error.to_string(), format!("unknown event {event_type} version {version}"));
        }
    }
}

#[test]
fn a_malformed_payload_is_an_error() {
    for event in written_now() {
        let (event_type, version, payload) = (event.event_type(), event.schema_version(), event.encode());
        let malformed = [
            String::new(),
            "null".to_owned(),
            "{}".to_owned(),
            payload[..payload.len() - 1].to_owned(),
            format!("{payload} {{}}"),
            payload.replacen('{', "{\"unknown\":1,", 1),
        ];
        for text in malformed {
            let error = Event::decode(event_type, version, &text).unwrap_err();
            assert!(matches!(error, UndecodableEvent::Malformed { .. }), "{text}: {error:?}");
        }
    }
}

/// A field dropped in silence would be a part of a fact lost.
#[test]
fn an_unknown_or_missing_field_of_the_certificate_is_an_error() {
    for event in written_now().iter().filter(|event| event.trust_effect().is_some()) {
        let (event_type, version, payload) = (event.event_type(), event.schema_version(), event.encode());
        let unknown = payload.replacen("\"sn\":", "\"unknown\":1,\"sn\":", 1);
        assert_ne!(unknown, payload);
        Event::decode(event_type, version, &unknown).unwrap_err();
        let missing = payload.replacen("\"sn\":\"7A0F11\",", "", 1);
        assert_ne!(missing, payload);
        Event::decode(event_type, version, &missing).unwrap_err();
    }
}

#[test]
fn a_value_outside_its_range_is_an_error() {
    let inactivated = golden("CaCertificateInactivated", 1);
    let registered = golden("InstanceRegistered", 1);
    for (event_type, payload) in [
        ("CaCertificateInactivated", inactivated.replace("\"KEY\"", "\"ALL\"")),
        ("CaCertificateInactivated", inactivated.replace("7A0F11", "-1")),
        ("CaCertificateInactivated", inactivated.replace("a1a1", "a1")),
        ("CaCertificateInactivated", inactivated.replace("2025-01-01T", "2025-13-01T")),
        ("CaCertificateInactivated", inactivated.replace("true", "1")),
        ("InstanceRegistered", registered.replace("PLATINUM", "platinum")),
        ("InstanceRegistered", registered.replace("cn-hangzhou", "cn.hangzhou")),
    ] {
        assert_ne!(payload, golden(event_type, 1), "the case changes nothing");
        let error = Event::decode(event_type, 1, &payload).unwrap_err();
        assert!(matches!(error, UndecodableEvent::Malformed { .. }), "{payload}");
    }
}
