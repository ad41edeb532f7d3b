//! Events that cannot follow the state before them stop the reader.

use catrust_domain::InactivationScope::Key;
use catrust_domain::read_model::{EventMeta, InconsistentEvent};
use catrust_domain::{Edition, Event, LogEpoch, Timestamp};

use crate::fixtures::*;
use crate::given::given;

#[track_caller]
fn assert_refused(
    history: impl IntoIterator<Item = Event>,
    stream_version: u64,
    event: &Event,
    reason: &str,
) {
    let mut model = given(history).store.read_model();
    let meta = EventMeta {
        position: 99,
        stream_version,
        instance_id: &fleet(),
        actor: "user",
        occurred_at: Timestamp::from_micros(0),
        epoch: LogEpoch::FIRST,
    };
    let error = model.evolve(&meta, event).expect_err("refused");
    assert_eq!(error.position, 99);
    assert!(error.reason.contains(reason), "{error}");
}

fn instance_only() -> [Event; 1] {
    [instance_registered(Edition::Platinum)]
}

fn with_root() -> [Event; 2] {
    [instance_registered(Edition::Platinum), registered(&root(), "c1")]
}

/// What was written in a later epoch than the one in force: a begin that is not believed any
/// more must not lead back to revisions that brokers take for old.
#[test]
fn a_revision_never_falls_back_to_an_epoch_before() {
    let mut history = given([instance_registered(Edition::Platinum)]);
    history.store.epoch = LogEpoch(2);
    history.store.remember(&fleet(), &registered(&root(), "c1"));
    let mut model = history.store.read_model();
    let meta = EventMeta {
        position: 99,
        stream_version: 2,
        instance_id: &fleet(),
        actor: "user",
        occurred_at: Timestamp::from_micros(0),
        epoch: LogEpoch(1),
    };
    let error = model.evolve(&meta, &inactivated(&root(), Key)).expect_err("refused");
    assert!(error.reason.contains("a later epoch"), "{error}");
}

#[test]
fn an_instance_is_registered_once_and_first() {
    let event = instance_registered(Edition::Platinum);
    assert_refused(instance_only(), 1, &event, "registered already");
    assert_refused(instance_only(), 2, &event, "registered already");
    assert_refused([], 2, &event, "does not begin");
}

#[test]
fn nothing_happens_to_an_instance_that_is_not_registered() {
    let events = [instance_updated(OWNER, Edition::Platinum), code_issued("c1"), registered(&root(), "c1")];
    for event in &events {
        assert_refused([], 1, event, "the instance is not registered");
    }
}

#[test]
fn nothing_happens_to_a_certificate_that_is_not_registered() {
    for event in [&inactivated(&root(), Key), &activated(&root()), &deleted(&root())] {
        assert_refused(instance_only(), 1, event, "the CA certificate is not registered");
    }
}

#[test]
fn a_serial_number_is_registered_once() {
    assert_refused(with_root(), 2, &registered(&root(), "c2"), "registered already");
    assert_refused(with_root(), 1, &registered(&certificate("7A0F", 9, 9), "c2"), "registered already");
}

#[test]
fn a_serial_number_does_not_make_a_certificate() {
    let namesake = certificate("7A0F", 9, 9);
    for event in [&inactivated(&namesake, Key), &activated(&namesake), &deleted(&namesake)] {
        assert_refused(with_root(), 2, event, "belongs to another");
    }
}

#[test]
fn a_gap_or_a_repeat_in_a_stream_is_noticed() {
    for version in [0, 1, 3] {
        assert_refused(instance_only(), version, &code_issued("c1"), "version of the instance has a gap");
        let updated = instance_updated(OWNER, Edition::Standard);
        assert_refused(instance_only(), version, &updated, "version of the instance has a gap");
        for event in [&inactivated(&root(), Key), &activated(&root()), &deleted(&root())] {
            assert_refused(with_root(), version, event, "version of the CA certificate has a gap");
        }
    }
}

#[test]
fn the_message_names_the_position() {
    let error = InconsistentEvent { position: 7, reason: "of a reason" };
    assert_eq!(error.to_string(), "event at position 7 does not follow: of a reason");
}
