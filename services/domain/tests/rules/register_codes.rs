//! Register codes: given out, kept up to a number, spent once.

use catrust_domain::Event;
use catrust_domain::instance::MAX_UNSPENT_REGISTER_CODES;
use catrust_domain::{Edition, Rejection, ReplyBody};

use crate::fixtures::*;
use crate::given::given;

fn instance_with_codes(codes: impl IntoIterator<Item = String>) -> Vec<Event> {
    let issued = codes.into_iter().map(|code| code_issued(&code));
    std::iter::once(instance_registered(Edition::Platinum)).chain(issued).collect()
}

fn numbered(count: usize) -> impl Iterator<Item = String> {
    (1..=count).map(|number| format!("c{number}"))
}

#[test]
fn a_code_is_given_out_and_told() {
    let reply = given(instance_with_codes([])).when(issue_code("c1")).then([code_issued("c1")]);
    assert_eq!(reply.body, ReplyBody::RegisterCode("c1".to_owned()));
    assert_eq!((reply.position, reply.revision), (2, 0));
}

#[test]
fn a_code_that_was_never_issued_is_unknown() {
    given(instance_with_codes(["c1".to_owned()]))
        .when(register(&root(), "c2"))
        .then_refused(Rejection::RegisterCodeUnknown);
}

#[test]
fn a_code_of_another_instance_is_unknown() {
    let mut two = given(instance_with_codes([]));
    let other = instance_id("fleet-2");
    two.store.remember(&other, &instance_registered(Edition::Platinum));
    two.store.remember(&other, &code_issued("c1"));
    two.when(register(&root(), "c1")).then_refused(Rejection::RegisterCodeUnknown);
}

#[test]
fn a_code_counts_with_its_case() {
    let issued = given(instance_with_codes(["Code".to_owned()]));
    for spelling in ["code", "CODE", "Code ", ""] {
        issued.clone().when(register(&root(), spelling)).then_refused(Rejection::RegisterCodeUnknown);
    }
    issued.when(register(&root(), "Code")).then([registered(&root(), "Code")]);
}

#[test]
fn a_code_is_spent_once_even_when_its_certificate_is_gone() {
    let mut history = instance_with_codes(numbered(2));
    history.push(registered(&root(), "c1"));
    let other = certificate("02", 2, 2);
    given(history.clone()).when(register(&other, "c1")).then_refused(Rejection::RegisterCodeSpent);
    history.push(deleted(&root()));
    given(history).when(register(&other, "c1")).then_refused(Rejection::RegisterCodeSpent);
}

#[test]
fn a_spent_code_is_told_before_a_taken_serial_number_and_an_unknown_one_too() {
    let mut history = instance_with_codes(numbered(1));
    history.push(registered(&root(), "c1"));
    given(history.clone()).when(register_within(&root(), "c1", 0)).then_refused(Rejection::RegisterCodeSpent);
    given(history).when(register_within(&root(), "c9", 0)).then_refused(Rejection::RegisterCodeUnknown);
}

#[test]
fn the_65th_code_drops_the_oldest() {
    assert_eq!(MAX_UNSPENT_REGISTER_CODES, 64);
    let full = given(instance_with_codes(numbered(64)));
    full.clone().when(register(&root(), "c1")).then([registered(&root(), "c1")]);
    let over = given(instance_with_codes(numbered(65)));
    over.clone().when(register(&root(), "c1")).then_refused(Rejection::RegisterCodeUnknown);
    for kept in ["c2", "c65"] {
        over.clone().when(register(&root(), kept)).then([registered(&root(), kept)]);
    }
}

#[test]
fn a_spent_code_makes_room_for_another() {
    let mut history = instance_with_codes(numbered(64));
    history.push(registered(&root(), "c30"));
    history.push(code_issued("c65"));
    let other = certificate("02", 2, 2);
    given(history).when(register(&other, "c1")).then([registered(&other, "c1")]);
}

#[test]
fn a_code_issued_twice_is_spent_once() {
    let history = instance_with_codes(["c1".to_owned(), "c1".to_owned()]);
    let spent = given(history.into_iter().chain([registered(&root(), "c1")]));
    assert_eq!(spent.store.instances[&fleet()].unspent_register_codes, Vec::<String>::new());
    let other = certificate("02", 2, 2);
    spent.when(register(&other, "c1")).then_refused(Rejection::RegisterCodeSpent);
}
