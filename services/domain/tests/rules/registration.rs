//! Registration and deletion: serial numbers, limits, twins, and streams that go on.

use catrust_domain::InactivationScope::{Certificate, Key};
use catrust_domain::{CaState, Edition, Event, Rejection, Reply, ReplyBody, SerialNumber};

use crate::fixtures::*;
use crate::given::{NOW, given};

fn with_root_and_codes() -> Vec<Event> {
    vec![
        instance_registered(Edition::Platinum),
        code_issued("c1"),
        code_issued("c2"),
        code_issued("c3"),
        registered(&root(), "c1"),
    ]
}

fn same_key_sns(reply: Reply) -> Vec<SerialNumber> {
    let ReplyBody::CaCertificate { same_key_sns, .. } = reply.body else { panic!("{reply:?}") };
    same_key_sns
}

#[test]
fn a_new_certificate_is_active() {
    let history = [instance_registered(Edition::Standard), code_issued("c1")];
    let reply = given(history).when(register(&root(), "c1")).then([registered(&root(), "c1")]);
    assert_eq!((reply.position, reply.revision), (3, 1));
    let ReplyBody::CaCertificate { certificate, .. } = reply.body else { panic!("{reply:?}") };
    assert_eq!((certificate.state, &certificate.facts), (CaState::Active, &root()));
    assert_eq!((certificate.position, certificate.revision, certificate.stream_version), (3, 1, 1));
    assert_eq!(
        (certificate.state_changed_by.as_str(), certificate.state_reason.as_str()),
        ("user-of-acme", "")
    );
    assert_eq!((certificate.registered_position, certificate.register_code.as_str()), (3, "c1"));
    assert_eq!((certificate.registered_at, certificate.state_changed_at), (NOW, NOW));
}

#[test]
fn a_serial_number_is_taken_by_the_same_and_by_another_certificate_in_any_state() {
    let taken = || Rejection::SerialNumberTaken(root().sn.clone());
    let namesake = certificate("7A0F", 9, 9);
    let mut history = with_root_and_codes();
    for state in [None, Some(inactivated(&root(), Certificate)), Some(inactivated(&root(), Key))] {
        history.extend(state);
        given(history.clone()).when(register(&root(), "c2")).then_refused(taken());
        given(history.clone()).when(register(&namesake, "c2")).then_refused(taken());
    }
}

#[test]
fn a_serial_number_of_another_instance_is_free() {
    let mut two = given([instance_registered(Edition::Platinum), code_issued("c1")]);
    let other = instance_id("fleet-2");
    two.store.remember(&other, &instance_registered(Edition::Platinum));
    two.store.remember(&other, &registered(&root(), "x"));
    let reply = two.when(register(&root(), "c1")).then([registered(&root(), "c1")]);
    assert_eq!(same_key_sns(reply), [], "twins of other instances are nobody's business");
}

#[test]
fn the_limit_counts_every_registered_certificate_and_no_other() {
    let other = certificate("02", 2, 2);
    let mut history = with_root_and_codes();
    history.push(inactivated(&root(), Key));
    let one = given(history.clone());
    for limit in [0, 1] {
        let refused = one.clone().when(register_within(&other, "c2", limit));
        refused.then_refused(Rejection::TooManyCertificates(limit));
    }
    one.when(register_within(&other, "c2", 2)).then([registered(&other, "c2")]);
    history.push(deleted(&root()));
    given(history).when(register_within(&other, "c2", 1)).then([registered(&other, "c2")]);
}

#[test]
fn a_taken_serial_number_is_told_before_the_limit() {
    given(with_root_and_codes())
        .when(register_within(&root(), "c2", 1))
        .then_refused(Rejection::SerialNumberTaken(root().sn.clone()));
}

#[test]
fn twins_name_each_other_in_ascending_order() {
    let (low, high) = (certificate("02", 2, 1), certificate("FF", 3, 1));
    let stranger = certificate("03", 4, 4);
    let mut history = with_root_and_codes();
    history.extend([registered(&high, "x"), registered(&stranger, "y")]);
    let reply = given(history.clone()).when(register(&low, "c2")).then([registered(&low, "c2")]);
    assert_eq!(same_key_sns(reply), [serial("7A0F"), serial("FF")]);

    history.push(registered(&low, "c2"));
    let all = given(history.clone());
    let reply = all.clone().when(inactivate(&root().sn, Key)).then([inactivated(&root(), Key)]);
    assert_eq!(same_key_sns(reply), [serial("02"), serial("FF")]);
    let reply = all.clone().when(activate(&high.sn)).then_nothing();
    assert_eq!(same_key_sns(reply), [serial("02"), serial("7A0F")]);
    let reply = all.when(activate(&stranger.sn)).then_nothing();
    assert_eq!(same_key_sns(reply), []);

    history.push(deleted(&high));
    let reply = given(history).when(activate(&root().sn)).then_nothing();
    assert_eq!(same_key_sns(reply), [serial("02")]);
}

#[test]
fn a_deleted_certificate_may_come_back_and_its_stream_goes_on() {
    let history = with_root_and_codes().into_iter().chain([deleted(&root())]);
    let again = given(history).when(register(&root(), "c2"));
    let last = again.store.events.last().unwrap();
    assert_eq!((last.stream_version, last.revision), (3, Some(3)));
    assert_eq!(again.store.certificates[&(fleet(), root().sn.clone())].stream_version, 3);
    again.then([registered(&root(), "c2")]);
}

#[test]
fn the_stream_goes_on_within_one_batch_too() {
    let sn = root().sn.clone();
    let batch =
        [delete(&sn), register(&root(), "c2"), inactivate(&sn, Key), delete(&sn), register(&root(), "c3")];
    let when = given(with_root_and_codes()).when_batch(batch.map(asked));
    assert!(when.results.iter().all(Result::is_ok), "{:?}", when.results);
    let versions: Vec<_> = when.store.events[5..].iter().map(|event| event.stream_version).collect();
    assert_eq!(versions, [2, 3, 4, 5, 6]);
    assert_eq!(when.store.certificates[&(fleet(), sn)].state, CaState::Active);
}

#[test]
fn another_certificate_may_take_a_freed_serial_number_with_a_stream_of_its_own() {
    let namesake = certificate("7A0F", 9, 9);
    let batch = [delete(&root().sn), register(&namesake, "c2")];
    let when = given(with_root_and_codes()).when_batch(batch.map(asked));
    assert_eq!(when.events, [deleted(&root()), registered(&namesake, "c2")]);
    assert_eq!(when.store.events.last().unwrap().stream_version, 1);
    assert_eq!(when.store.certificates[&(fleet(), root().sn.clone())].facts, namesake);
}
