//! Batches: each command sees those before it, a refused one leaves nothing behind,
//! and the rows fit together.

use catrust_domain::InactivationScope::Key;
use catrust_domain::batch::{Needs, WorkingSet, Writes};
use catrust_domain::read_model::ReadModel;
use catrust_domain::{CaState, Edition, LogEntry, LogEpoch, LogHead, Rejection, Sha256, Timestamp};

use crate::fixtures::*;
use crate::given::given;
use crate::memory_store::MemoryStore;

#[test]
fn each_command_sees_the_effects_of_those_before_it() {
    let sn = root().sn.clone();
    let batch = [
        register_instance(Edition::Platinum),
        issue_code("c1"),
        register(&root(), "c1"),
        inactivate(&sn, Key),
        inactivate(&sn, Key),
        activate(&sn),
    ];
    let when = given([]).when_batch(batch.map(asked));
    let changed: Vec<_> = when.results.iter().map(|result| result.as_ref().unwrap().changed).collect();
    assert_eq!(changed, [true, true, true, true, false, true]);
    let positions: Vec<_> = when.results.iter().map(|result| result.as_ref().unwrap().position).collect();
    assert_eq!(positions, [1, 2, 3, 4, 4, 5]);
    let revisions: Vec<_> = when.store.events.iter().map(|event| event.revision).collect();
    assert_eq!(revisions, [None, None, Some(1), Some(2), Some(3)]);
    assert_eq!(when.store.certificates[&(fleet(), sn)].state, CaState::Active);
}

#[test]
fn a_refused_command_in_the_middle_leaves_no_trace() {
    let start = || given([instance_registered(Edition::Platinum), code_issued("c1")]);
    let first = asked(register(&root(), "c1"));
    let last = asked(inactivate(&root().sn, Key));
    let refused = [
        asked(register(&certificate("02", 2, 2), "c1")),
        asked(delete(&serial("99"))),
        asked_by("rival", delete(&root().sn)),
    ];
    let with = start().when_batch([vec![first.clone()], refused.to_vec(), vec![last.clone()]].concat());
    assert_eq!(with.results[1], Err(Rejection::RegisterCodeSpent));
    assert_eq!(with.results[2], Err(Rejection::CertificateNotFound));
    assert_eq!(with.results[3], Err(Rejection::NotOwner));
    let without = start().when_batch([first, last]);
    assert_eq!(with.store.events, without.store.events);
    assert_eq!(with.store.read_model(), without.store.read_model());
}

#[test]
fn a_batch_of_refusals_and_repeats_writes_nothing() {
    let store = given([instance_registered(Edition::Platinum)]).store;
    let commands = [asked(delete(&root().sn)), asked(register_instance(Edition::Platinum))];
    let mut working_set = store.load(Timestamp::from_micros(0), &Needs::of(&commands));
    for command in &commands {
        let _refused_or_unchanged = working_set.run(command).unwrap();
    }
    let (head, writes) = working_set.finish();
    assert_eq!(head, store.head);
    assert!(writes.is_empty());
    assert_eq!(writes, Writes::default());
}

#[test]
fn a_reply_that_must_be_kept_is_something_to_commit() {
    let store = given([instance_registered(Edition::Platinum)]).store;
    let command = with_request_id(1, asked(register_instance(Edition::Platinum)));
    let mut working_set = store.load(Timestamp::from_micros(0), &Needs::of([&command]));
    working_set.run(&command).unwrap().unwrap();
    let (_, writes) = working_set.finish();
    assert!(writes.events.is_empty());
    assert!(!writes.is_empty());
}

#[test]
fn a_certificate_that_comes_and_goes_within_a_batch_is_removed() {
    let store = given([instance_registered(Edition::Platinum), code_issued("c1")]).store;
    let commands = [asked(register(&root(), "c1")), asked(delete(&root().sn))];
    let mut working_set = store.load(Timestamp::from_micros(0), &Needs::of(&commands));
    for command in &commands {
        working_set.run(command).unwrap().unwrap();
    }
    let (_, writes) = working_set.finish();
    assert_eq!(writes.certificates, []);
    assert_eq!(writes.deleted_certificates, [(fleet(), root().sn.clone())]);
    assert_eq!(writes.spent_register_codes, [(fleet(), "c1".to_owned(), 3)]);
}

#[test]
fn time_never_runs_backwards_along_the_log() {
    let mut store = MemoryStore::new();
    let at = Timestamp::from_micros;
    store.append(at(1_000), &[asked(register_instance(Edition::Platinum))]);
    store.append(at(400), &[asked(issue_code("c1")), asked(issue_code("c2"))]);
    store.append(at(1_001), &[asked(issue_code("c3"))]);
    let times: Vec<_> = store.events.iter().map(|event| event.occurred_at.micros()).collect();
    assert_eq!(times, [1_000, 1_000, 1_000, 1_001]);
    assert_eq!(store.head.occurred_at, at(1_001));
}

#[test]
fn a_batch_goes_on_from_the_head_that_it_was_given() {
    let head = LogHead { position: 41, hash: Sha256([7; 32]), occurred_at: Timestamp::from_micros(5) };
    let mut working_set = WorkingSet::new(head, LogEpoch::FIRST, Timestamp::from_micros(9), ReadModel::new());
    working_set.run(&asked(register_instance(Edition::Platinum))).unwrap().unwrap();
    let (after, writes) = working_set.finish();
    let [LogEntry { row: event, .. }] = &writes.events[..] else { panic!("{writes:?}") };
    assert_eq!(event.position, 42);
    assert_eq!(event.hash, event.compute_hash(&head.hash));
    assert_eq!(after, event.head());
}

/// Ground rule 1: every revision is E·2³² + n, where n is today's dense count.
#[test]
fn revisions_carry_the_epoch_and_count_on() {
    let mut when = given([instance_registered(Edition::Platinum), registered(&root(), "c1")]);
    when.store.epoch = LogEpoch(3);
    let when = when.when_batch([asked(inactivate(&root().sn, Key)), asked(activate(&root().sn))]);
    let revisions: Vec<_> = when.store.events.iter().filter_map(|event| event.revision).collect();
    assert_eq!(revisions, [1, LogEpoch(3).revision(2), LogEpoch(3).revision(3)]);
    let epochs: Vec<_> = when.store.events.iter().map(|event| event.epoch).collect();
    assert_eq!(epochs, [LogEpoch(0), LogEpoch(0), LogEpoch(3), LogEpoch(3)]);
    assert_eq!(when.store.fold(), when.store.read_model());
}

#[test]
fn who_asked_and_from_where_is_recorded() {
    let mut envelope = asked(issue_code("c1"));
    envelope.context.traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned();
    let context = envelope.context.clone();
    let when = given([instance_registered(Edition::Platinum)]).when_batch([envelope]);
    let event = when.store.events.last().unwrap();
    assert_eq!(event.event_id, context.event_id);
    assert_eq!(event.request_id, context.request_id);
    assert_eq!(event.actor, context.actor);
    assert_eq!(event.account_id, context.account_id);
    assert_eq!(event.policy_version, context.policy_version);
    assert_eq!(event.source_address, context.source_address);
    assert_eq!(event.traceparent, context.traceparent);
    assert_eq!(event.stream_id, "instance/fleet-1");
}

/// A read model that lost a row is noticed, not repaired by guess.
#[test]
fn a_version_that_does_not_follow_stops_the_batch() {
    let mut store =
        given([instance_registered(Edition::Platinum), code_issued("c1"), registered(&root(), "c1")]).store;
    store.instances.get_mut(&fleet()).unwrap().certificate_count = 0;
    let command = asked(delete(&root().sn));
    let mut working_set = store.load(Timestamp::from_micros(0), &Needs::of([&command]));
    assert_eq!(working_set.run(&command).unwrap_err().position, 4);
}
