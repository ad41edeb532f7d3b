//! Request ids: one effect each, and the same reply to every repeat.

use catrust_domain::InactivationScope::Key;
use catrust_domain::{CommandEnvelope, Edition, Rejection};
use uuid::Uuid;

use crate::fixtures::*;
use crate::given::{Given, given};

fn switched_on() -> Given {
    given([
        instance_registered(Edition::Platinum),
        code_issued("c1"),
        registered(&root(), "c1"),
        code_issued("c2"),
    ])
}

fn off(request_id: u128) -> CommandEnvelope {
    with_request_id(request_id, asked(inactivate(&root().sn, Key)))
}

fn on(request_id: u128) -> CommandEnvelope {
    with_request_id(request_id, asked(activate(&root().sn)))
}

#[test]
fn a_repeat_in_a_later_batch_gets_the_first_reply_whatever_happened_since() {
    let mut when = switched_on().when_batch([off(1), on(2)]);
    let first = when.results.swap_remove(0);
    let again = Given { store: when.store }.when_batch([off(1)]);
    assert_eq!(again.results, [first]);
    assert_eq!(again.events, []);
}

#[test]
fn a_repeat_within_a_batch_gets_the_first_reply_whatever_happened_since() {
    let when = switched_on().when_batch([off(1), on(2), off(1)]);
    assert_eq!(when.results[2], when.results[0]);
    assert_eq!(when.events, [inactivated(&root(), Key), activated(&root())]);
}

#[test]
fn a_repeat_gets_the_very_same_reply_for_every_kind_of_command() {
    let other = certificate("02", 2, 2);
    let commands = [
        register_instance(Edition::Platinum),
        issue_code("c3"),
        update_instance(None, Some(Edition::Platinum)),
        register(&other, "c2"),
        inactivate(&root().sn, Key),
        activate(&root().sn),
        delete(&root().sn),
        update_instance(None, Some(Edition::Standard)),
    ];
    let batch: Vec<_> =
        (1..).zip(commands).map(|(id, command)| with_request_id(id, asked(command))).collect();
    let twice = batch.iter().chain(&batch).cloned();
    let when = switched_on().when_batch(twice);
    assert_eq!(when.events.len(), 6);
    assert_eq!(when.results[..8], when.results[8..], "within the batch");
    let results = when.results.clone();
    let again = Given { store: when.store }.when_batch(batch);
    assert_eq!(again.results, results[..8], "from the store");
}

#[test]
fn a_reply_that_changed_nothing_is_kept_too() {
    let when = switched_on().when_batch([on(1), off(2)]);
    let first = when.results[0].clone();
    let again = Given { store: when.store }.when_batch([on(1)]);
    assert_eq!(again.results, [first]);
    assert_eq!(again.events, []);
}

#[test]
fn another_request_under_a_used_id_is_refused() {
    let when = switched_on().when_batch([off(1), on(1)]);
    assert_eq!(when.results[1], Err(Rejection::RequestIdReused));
    assert_eq!(when.events, [inactivated(&root(), Key)]);
    let later = Given { store: when.store }.when_batch([on(1), off(1)]);
    assert_eq!(later.results[0], Err(Rejection::RequestIdReused));
    assert!(later.results[1].is_ok(), "the first request keeps its id");
    assert_eq!(later.events, []);
}

#[test]
fn the_request_id_of_a_refused_command_stays_free() {
    let missing = with_request_id(1, asked(inactivate(&serial("99"), Key)));
    let when = switched_on().when_batch([missing.clone(), off(1)]);
    assert_eq!(when.results[0], Err(Rejection::CertificateNotFound));
    assert!(when.results[1].is_ok());
    let later = switched_on().when_batch([missing]);
    assert!(later.store.replies.is_empty());
    assert!(Given { store: later.store }.when_batch([off(1)]).results[0].is_ok());
}

#[test]
fn the_same_id_of_another_account_is_another_request() {
    let mut operators = with_request_id(1, asked_by("operators", update_instance(Some("buyer"), None)));
    operators.context.request_id = Uuid::from_u128(1);
    let when = switched_on().when_batch([off(1), operators]);
    assert!(when.results.iter().all(Result::is_ok), "{:?}", when.results);
    assert_eq!(when.store.replies.len(), 2);
}

#[test]
fn an_id_that_the_server_made_is_not_kept() {
    let when = switched_on().when_batch([asked(inactivate(&root().sn, Key))]);
    assert!(when.store.replies.is_empty());
    assert_eq!(when.events.len(), 1);
}

#[test]
fn the_request_id_is_recorded_with_the_event() {
    let when = switched_on().when_batch([off(77)]);
    assert_eq!(when.store.events.last().unwrap().request_id, Uuid::from_u128(77));
}
