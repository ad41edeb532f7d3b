//! Serial numbers and names, and the stored events that hold them.

use catrust_domain::event::Event;
use catrust_domain::{AccountId, BrokerId, InstanceId, SerialNumber};
use catrust_trust_feed::contract::SampleLog;
use catrust_trust_feed::subject;

use crate::runner::{Corpus, run};

#[test]
fn serial_numbers() {
    let spellings = ["7A0F", "7a:0f", "0x7a0f", "00:ff", "serial=7A0F", "-1", "0"];
    run(&Corpus::of(spellings, &["0x", ":", "00", "FF", " ", "é"]), |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        if let Ok(serial) = text.parse::<SerialNumber>() {
            assert_eq!(serial.as_str().parse().as_ref(), Ok(&serial), "{text:?}");
        }
    });
}

#[test]
fn names_in_subjects() {
    let names = ["fleet-a", "mqtt-cn-123", "broker_1", "a.b", "a b", "*"];
    run(&Corpus::of(names, &[".", "*", ">", " ", "\t", "\u{202e}", "$JS"]), |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        if let Ok(account) = text.parse::<AccountId>() {
            assert_eq!(account.as_str(), text);
        }
        let (Ok(instance), Ok(broker)) = (text.parse::<InstanceId>(), text.parse::<BrokerId>()) else {
            return;
        };
        let subject = subject::receipt(&instance, &broker);
        assert_eq!(subject.split('.').collect::<Vec<_>>(), ["catrust", "v1", "receipt", text, text]);
        assert!(
            !subject.contains(['*', '>', ' ']) && subject.chars().all(|c| !c.is_control()),
            "{subject:?}"
        );
    });
}

#[test]
fn stored_events() {
    let mut log = SampleLog::new();
    log.grow(40);
    let payloads: Vec<String> = log.events().iter().map(|event| event.payload.clone()).collect();
    let types: Vec<String> = log.events().iter().map(|event| event.event_type.clone()).collect();
    let mut turn = 0;
    run(&Corpus::of(payloads, &["null", "{", "\"scope\":\"KEY\"", "\\u0000", "true"]), |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        turn += 1;
        for version in [1, 2] {
            if let Ok(event) = Event::decode(&types[turn % types.len()], version, text) {
                let again = Event::decode(event.event_type(), event.schema_version(), &event.encode());
                assert_eq!(again.expect("what is written can be read"), event);
            }
        }
    });
}
