//! The switch: every command in every state of a CA certificate.

use catrust_domain::InactivationScope::{Certificate, Key};
use catrust_domain::log_epoch::MADE_AGAIN_BY;
use catrust_domain::{CaState, Edition, Event, LogEpoch, Rejection, ReplyBody};

use crate::fixtures::*;
use crate::given::{Given, NOW, given};

fn registered_then(events: impl IntoIterator<Item = Event>) -> Given {
    let start = [instance_registered(Edition::Platinum), code_issued("c1"), registered(&root(), "c1")];
    given(start.into_iter().chain(events))
}

#[test]
fn a_certificate_that_is_not_there_cannot_be_switched_or_deleted() {
    let sn = root().sn.clone();
    let never = given([instance_registered(Edition::Platinum)]);
    let gone = registered_then([deleted(&root())]);
    for missing in [never, gone] {
        for command in [inactivate(&sn, Certificate), inactivate(&sn, Key), activate(&sn), delete(&sn)] {
            missing.clone().when(command).then_refused(Rejection::CertificateNotFound);
        }
    }
}

#[test]
fn a_certificate_of_another_instance_is_not_there() {
    let mut two = given([instance_registered(Edition::Platinum)]);
    two.store.remember(&instance_id("fleet-2"), &instance_registered(Edition::Platinum));
    two.store.remember(&instance_id("fleet-2"), &registered(&root(), "x"));
    two.when(inactivate(&root().sn, Key)).then_refused(Rejection::CertificateNotFound);
}

#[test]
fn an_active_certificate_is_turned_off_with_either_scope() {
    for scope in [Certificate, Key] {
        let reply =
            registered_then([]).when(inactivate(&root().sn, scope)).then([inactivated(&root(), scope)]);
        assert_eq!((reply.position, reply.revision), (4, 2));
        let ReplyBody::CaCertificate { certificate, .. } = reply.body else { panic!("{reply:?}") };
        assert_eq!(certificate.state, CaState::Inactive(scope));
        assert_eq!(
            (certificate.state_changed_by.as_str(), certificate.state_reason.as_str()),
            ("user-of-acme", REASON)
        );
        assert_eq!((certificate.position, certificate.revision, certificate.stream_version), (4, 2, 2));
        assert_eq!(certificate.registered_position, 3);
        assert_eq!(certificate.state_changed_at, NOW);
        assert!(certificate.registered_at < NOW);
    }
}

#[test]
fn an_active_certificate_stays_active() {
    let reply = registered_then([]).when(activate(&root().sn)).then_nothing();
    assert_eq!((reply.position, reply.revision), (3, 1), "the registration made the state");
}

#[test]
fn turning_off_again_with_the_same_scope_records_nothing() {
    for scope in [Certificate, Key] {
        let off = registered_then([inactivated(&root(), scope), code_issued("later")]);
        let reply = off.when(inactivate(&root().sn, scope)).then_nothing();
        assert_eq!((reply.position, reply.revision), (4, 2), "the change that made the state");
    }
}

#[test]
fn an_unchanged_state_is_told_with_the_revision_that_made_it_not_the_latest() {
    let other = certificate("02", 2, 2);
    let off = registered_then([inactivated(&root(), Key), registered(&other, "x")]);
    assert_eq!(off.store.instances[&fleet()].revision, 3);
    let reply = off.when(inactivate(&root().sn, Key)).then_nothing();
    assert_eq!((reply.position, reply.revision), (4, 2));
}

#[test]
fn an_event_tells_what_it_does_to_trust() {
    let effects = [
        (registered(&root(), "c1"), Some(CaState::Active), false, ""),
        (inactivated(&root(), Certificate), Some(CaState::Inactive(Certificate)), true, REASON),
        (inactivated(&root(), Key), Some(CaState::Inactive(Key)), true, REASON),
        (activated(&root()), Some(CaState::Active), false, REASON),
        (deleted(&root()), None, true, REASON),
    ];
    for (event, state, with_will, reason) in effects {
        let effect = event.trust_effect().expect("a trust change");
        assert_eq!((effect.certificate, effect.state), (&root(), state));
        assert_eq!((effect.with_will, effect.reason), (with_will, reason));
    }
    for event in [
        instance_registered(Edition::Platinum),
        instance_updated(OWNER, Edition::Standard),
        code_issued("c1"),
    ] {
        assert!(event.trust_effect().is_none(), "{event:?}");
    }
}

#[test]
fn a_repeat_with_another_reason_keeps_the_first() {
    let off = registered_then([inactivated(&root(), Key)]);
    let mut command = inactivate(&root().sn, Key);
    let catrust_domain::Command::InactivateCaCertificate { reason, .. } = &mut command else { panic!() };
    *reason = "another reason".to_owned();
    let reply = off.when(command).then_nothing();
    let ReplyBody::CaCertificate { certificate, .. } = reply.body else { panic!("{reply:?}") };
    assert_eq!(certificate.state_reason, REASON);
}

#[test]
fn the_scope_is_widened_from_certificate_to_key() {
    let off = registered_then([inactivated(&root(), Certificate)]);
    let reply = off.when(inactivate(&root().sn, Key)).then([inactivated(&root(), Key)]);
    assert_eq!(reply.revision, 3);
}

#[test]
fn the_scope_is_never_narrowed_from_key_to_certificate() {
    let off = registered_then([inactivated(&root(), Key)]);
    let reply = off.when(inactivate(&root().sn, Certificate)).then_nothing();
    let ReplyBody::CaCertificate { certificate, .. } = reply.body else { panic!("{reply:?}") };
    assert_eq!(certificate.state, CaState::Inactive(Key));
}

#[test]
fn an_inactive_certificate_is_turned_on_again_from_either_scope() {
    for scope in [Certificate, Key] {
        let off = registered_then([inactivated(&root(), scope)]);
        let reply = off.when(activate(&root().sn)).then([activated(&root())]);
        assert_eq!((reply.position, reply.revision), (5, 3));
        let ReplyBody::CaCertificate { certificate, .. } = reply.body else { panic!("{reply:?}") };
        assert_eq!(certificate.state, CaState::Active);
    }
}

// Ground rule 21: activating a CA that was made inactive again needs `expected_revision` at or
// above that change: a late retry of a lost activation must not let it in.
#[test]
fn what_a_new_epoch_made_inactive_is_activated_by_those_who_have_seen_that() {
    let revision = LogEpoch(1).revision(2);
    let mut again = registered_then([]);
    again.store.epoch = LogEpoch(1);
    again.store.remember_of(MADE_AGAIN_BY, &fleet(), &inactivated(&root(), Key));
    let refused = Rejection::MadeInactiveAgain { revision };
    let sn = &root().sn;
    again.clone().when(activate(sn)).then_refused(refused.clone());
    for seen in [0, 2, revision - 1] {
        again.clone().when(activate_seen_at(sn, seen)).then_refused(refused.clone());
    }
    for seen in [revision, revision + 1, u64::MAX] {
        again.clone().when(activate_seen_at(sn, seen)).then([activated(&root())]);
    }
    // Once somebody turned it off or on, it is like any other.
    again.store.remember(&fleet(), &activated(&root()));
    again.store.remember(&fleet(), &inactivated(&root(), Key));
    again.when(activate(sn)).then([activated(&root())]);
}

#[test]
fn an_expected_revision_holds_of_every_inactive_certificate() {
    let off = registered_then([inactivated(&root(), Certificate)]);
    let sn = &root().sn;
    off.clone().when(activate_seen_at(sn, 1)).then_refused(Rejection::MadeInactiveAgain { revision: 2 });
    off.clone().when(activate_seen_at(sn, 2)).then([activated(&root())]);
    off.when(activate(sn)).then([activated(&root())]);
    // A repeat finds its own change, which it has not seen.
    registered_then([]).when(activate_seen_at(sn, 0)).then_nothing();
}

#[test]
fn a_certificate_is_deleted_from_every_state() {
    let states = [vec![], vec![inactivated(&root(), Certificate)], vec![inactivated(&root(), Key)]];
    for state in states {
        let position = 4 + u64::try_from(state.len()).unwrap();
        let when = registered_then(state).when(delete(&root().sn));
        assert!(when.store.certificates.is_empty());
        assert_eq!(when.store.instances[&fleet()].certificate_count, 0);
        let reply = when.then([deleted(&root())]);
        assert_eq!((reply.position, reply.revision), (position, position - 2));
        assert_eq!(reply.body, ReplyBody::Deleted { sn: root().sn.clone() });
    }
}

#[test]
fn only_the_named_certificate_changes() {
    let twin = certificate("02", 2, 1);
    let both = registered_then([registered(&twin, "x")]);
    let when = both.when(inactivate(&root().sn, Key));
    let kept = &when.store.certificates[&(fleet(), twin.sn.clone())];
    assert_eq!((kept.state, kept.position), (CaState::Active, 4));
    assert_eq!(when.store.instances[&fleet()].revision, 3);
}

#[test]
fn on_and_off_again_gives_the_digest_from_before() {
    let digest = |given: Given| given.store.instances[&fleet()].bundle_digest;
    let on = digest(registered_then([]));
    let off = digest(registered_then([inactivated(&root(), Key)]));
    assert_ne!(on, off);
    assert_ne!(digest(registered_then([inactivated(&root(), Certificate)])), off);
    assert_eq!(digest(registered_then([inactivated(&root(), Key), activated(&root())])), on);
    let widened = [inactivated(&root(), Certificate), inactivated(&root(), Key)];
    assert_eq!(digest(registered_then(widened)), off);
    let empty = digest(given([instance_registered(Edition::Platinum)]));
    assert_eq!(digest(registered_then([inactivated(&root(), Key), deleted(&root())])), empty);
}

#[test]
fn a_deletion_never_lifts_the_distrust_of_a_key_that_an_active_twin_holds() {
    let twin = certificate("02", 2, 1);
    let off = |scope| registered_then([registered(&twin, "x"), inactivated(&root(), scope)]);
    let held = Rejection::KeyHeldByActive(vec![twin.sn.clone()]);
    off(Key).when(delete(&root().sn)).then_refused(held);
    off(Certificate).when(delete(&root().sn)).then([deleted(&root())]);
    off(Key).when(delete(&twin.sn)).then([deleted(&twin)]);
    let both_off =
        registered_then([registered(&twin, "x"), inactivated(&root(), Key), inactivated(&twin, Key)]);
    both_off.when(delete(&root().sn)).then([deleted(&root())]);
}
