//! Instances: registration, owner, edition, and whom they let change anything.

use catrust_domain::InactivationScope::Key;
use catrust_domain::{Command, Edition, Rejection, ReplyBody};

use crate::fixtures::*;
use crate::given::{NOW, given};

/// Every command about the CA certificates of an instance.
fn certificate_commands() -> [Command; 5] {
    let sn = root().sn.clone();
    [issue_code("c1"), register(&root(), "c1"), inactivate(&sn, Key), activate(&sn), delete(&sn)]
}

#[test]
fn an_unknown_instance_is_registered() {
    let reply =
        given([]).when(register_instance(Edition::Standard)).then([instance_registered(Edition::Standard)]);
    let ReplyBody::Instance(instance) = reply.body else { panic!("{reply:?}") };
    assert_eq!((reply.position, reply.revision), (1, 0));
    assert_eq!((instance.instance_id, instance.edition), (fleet(), Edition::Standard));
    assert_eq!((instance.registered_position, instance.stream_version), (1, 1));
}

#[test]
fn registering_an_instance_again_with_the_same_values_records_nothing() {
    let reply = given([instance_registered(Edition::Platinum)])
        .when(register_instance(Edition::Platinum))
        .then_nothing();
    assert_eq!(reply.position, 1);
}

#[test]
fn registering_an_instance_again_with_another_value_is_refused() {
    let same = wanted_instance(Edition::Platinum);
    let others = [
        catrust_domain::event::InstanceRegistered { edition: Edition::Standard, ..same.clone() },
        catrust_domain::event::InstanceRegistered { owner_account_id: account("rival"), ..same.clone() },
        catrust_domain::event::InstanceRegistered { region_id: "eu-1".parse().unwrap(), ..same },
    ];
    for other in others {
        given([instance_registered(Edition::Platinum)])
            .when(Command::RegisterInstance(other))
            .then_refused(Rejection::InstanceExists);
    }
}

#[test]
fn a_registration_is_compared_with_the_values_of_now() {
    let updated = given([instance_registered(Edition::Platinum), instance_updated(OWNER, Edition::Standard)]);
    updated.clone().when(register_instance(Edition::Standard)).then_nothing();
    updated.when(register_instance(Edition::Platinum)).then_refused(Rejection::InstanceExists);
}

#[test]
fn owner_and_edition_change_alone_and_together() {
    let registered = given([instance_registered(Edition::Platinum)]);
    for (owner, edition, expected) in [
        (Some("rival"), None, instance_updated("rival", Edition::Platinum)),
        (None, Some(Edition::Standard), instance_updated(OWNER, Edition::Standard)),
        (Some("rival"), Some(Edition::Professional), instance_updated("rival", Edition::Professional)),
    ] {
        let reply = registered.clone().when(update_instance(owner, edition)).then([expected]);
        assert_eq!((reply.position, reply.revision), (2, 0));
        let ReplyBody::Instance(instance) = reply.body else { panic!("{:?}", reply.body) };
        assert_eq!((instance.updated_position, instance.updated_at), (2, NOW));
        assert_eq!(instance.registered_position, 1);
        assert!(instance.registered_at < NOW);
    }
}

#[test]
fn an_update_to_the_values_of_now_records_nothing() {
    let updated = given([
        instance_registered(Edition::Platinum),
        instance_updated(OWNER, Edition::Standard),
        code_issued("c1"),
    ]);
    for (owner, edition) in [
        (None, None),
        (Some(OWNER), None),
        (None, Some(Edition::Standard)),
        (Some(OWNER), Some(Edition::Standard)),
    ] {
        let reply = updated.clone().when(update_instance(owner, edition)).then_nothing();
        assert_eq!(reply.position, 2, "the change that made the values");
    }
}

#[test]
fn an_operator_of_another_account_may_update_an_instance() {
    given([instance_registered(Edition::Standard)])
        .when_by("operators", update_instance(None, Some(Edition::Platinum)))
        .then([instance_updated(OWNER, Edition::Platinum)]);
}

#[test]
fn an_unknown_instance_is_told_to_every_command() {
    let update = update_instance(Some("rival"), None);
    for command in certificate_commands().into_iter().chain([update]) {
        given([]).when(command).then_refused(Rejection::InstanceNotFound);
    }
}

#[test]
fn another_account_learns_nothing_but_that_it_is_not_the_owner() {
    let empty = given([instance_registered(Edition::Standard)]);
    let full = given([
        instance_registered(Edition::Platinum),
        code_issued("c0"),
        registered(&root(), "c0"),
        code_issued("c1"),
    ]);
    for command in certificate_commands() {
        empty.clone().when_by("rival", command.clone()).then_refused(Rejection::NotOwner);
        full.clone().when_by("rival", command).then_refused(Rejection::NotOwner);
    }
}

#[test]
fn a_new_owner_takes_over_at_once() {
    let sold = given([
        instance_registered(Edition::Platinum),
        code_issued("c1"),
        registered(&root(), "c1"),
        instance_updated("buyer", Edition::Platinum),
    ]);
    sold.clone().when_by(OWNER, inactivate(&root().sn, Key)).then_refused(Rejection::NotOwner);
    sold.when_by("buyer", inactivate(&root().sn, Key)).then([inactivated(&root(), Key)]);
}

#[test]
fn only_platinum_may_change_states() {
    for edition in [Edition::Professional, Edition::Standard] {
        let small = given([
            instance_registered(edition),
            code_issued("c0"),
            registered(&root(), "c0"),
            code_issued("c1"),
        ]);
        let sn = root().sn.clone();
        small.clone().when(inactivate(&sn, Key)).then_refused(Rejection::EditionNotSupported);
        small.clone().when(activate(&sn)).then_refused(Rejection::EditionNotSupported);

        let other = certificate("02", 2, 2);
        small.clone().when(issue_code("c2")).then([code_issued("c2")]);
        small.clone().when(register(&other, "c1")).then([registered(&other, "c1")]);
        small.when(delete(&sn)).then([deleted(&root())]);
    }
}

#[test]
fn the_edition_is_told_before_a_missing_certificate() {
    let small = given([instance_registered(Edition::Standard)]);
    small.clone().when(inactivate(&serial("99"), Key)).then_refused(Rejection::EditionNotSupported);
    small.when(activate(&serial("99"))).then_refused(Rejection::EditionNotSupported);
}

#[test]
fn a_downgrade_leaves_states_as_they_are_and_locks_them() {
    let downgraded = given([
        instance_registered(Edition::Platinum),
        code_issued("c1"),
        registered(&root(), "c1"),
        inactivated(&root(), Key),
        instance_updated(OWNER, Edition::Standard),
    ]);
    downgraded.clone().when(activate(&root().sn)).then_refused(Rejection::EditionNotSupported);
    let kept = &downgraded.store.certificates[&(fleet(), root().sn.clone())];
    assert!(!kept.state.is_active());
}
