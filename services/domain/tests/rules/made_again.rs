//! What a new log epoch makes again: per certificate and key the stricter of what the
//! restored log has and what was lost.

use std::collections::BTreeSet;
use std::sync::Arc;

use catrust_domain::InactivationScope::{Certificate, Key};
use catrust_domain::log_epoch::{LostEvent, LostFate, LostTrustChange, made_again};
use catrust_domain::{CaState, CertificateFacts, Edition, Event, LogEpoch, RecordedEvent, Sha256};
use proptest::prelude::*;

use crate::fixtures::*;
use crate::given::{NOW, given};
use crate::memory_store::MemoryStore;
use crate::random;

/// What the rows from number `kept` on say, as messages would.
fn lost(rows: &[RecordedEvent], kept: usize) -> Vec<LostEvent> {
    let lost = |row: &RecordedEvent| {
        let event = row.decode().expect("readable");
        let trust = event.trust_effect().map(|effect| LostTrustChange {
            certificate: Arc::clone(effect.certificate),
            revision: row.revision.expect("a trust change"),
            state: effect.state,
        });
        let (epoch, event_type) = (LogEpoch::FIRST, row.event_type.clone());
        LostEvent { position: row.position, epoch, instance_id: row.instance_id.clone(), event_type, trust }
    };
    rows[kept..].iter().map(lost).collect()
}

/// The restored log, and what is appended to it when `tail` was lost behind it.
fn planned(kept: &[Event], tail: &[Event]) -> (Vec<Event>, Vec<(LostFate, String)>) {
    let whole = given(kept.iter().chain(tail).cloned()).store;
    let restored = given(kept.iter().cloned()).store;
    let (events, told) = made_again(&lost(&whole.events, kept.len()), &restored.fold());
    let events = events.into_iter().map(|(id, event)| {
        assert_eq!(id, fleet());
        event
    });
    (events.collect(), told.into_iter().map(|change| (change.fate, change.text)).collect())
}

fn again(facts: &Arc<CertificateFacts>, scope: catrust_domain::InactivationScope, position: u64) -> Event {
    match inactivated(facts, scope) {
        Event::CaCertificateInactivated(mut payload) => {
            payload.with_will = false;
            payload.reason = format!("made again; was position {position} of epoch 0");
            Event::CaCertificateInactivated(payload)
        }
        other => other,
    }
}

fn active() -> Vec<Event> {
    vec![instance_registered(Edition::Platinum), code_issued("c1"), registered(&root(), "c1")]
}

#[test]
fn a_lost_inactivation_is_in_force_again_in_its_scope() {
    for scope in [Certificate, Key] {
        let (events, told) = planned(&active(), &[inactivated(&root(), scope)]);
        assert_eq!(events, [again(&root(), scope, 4)]);
        assert_eq!(told[0].0, LostFate::MadeAgain);
    }
    let narrow = [active(), vec![inactivated(&root(), Certificate)]].concat();
    let (events, _) = planned(&narrow, &[inactivated(&root(), Key)]);
    assert_eq!(events, [again(&root(), Key, 5)], "a widening too");
}

#[test]
fn a_lost_activation_is_told_and_not_done() {
    let off = [active(), vec![inactivated(&root(), Key)]].concat();
    let (events, told) = planned(&off, &[activated(&root())]);
    assert_eq!((events, told[0].0), (vec![], LostFate::Looser));
    // Turned off and on again: nothing is missing.
    let (events, told) = planned(&active(), &[inactivated(&root(), Key), activated(&root())]);
    assert_eq!((events, told[1].0), (vec![], LostFate::MadeAgain));
    assert!(told[0].1.contains("overtaken by position 5"), "{told:?}");
}

#[test]
fn what_was_lost_as_deleted_becomes_inactive() {
    let (events, _) = planned(&active(), &[inactivated(&root(), Key), deleted(&root())]);
    assert_eq!(events, [again(&root(), Key, 5)]);
    let (events, _) = planned(&active(), &[deleted(&root())]);
    assert_eq!(events, [again(&root(), Certificate, 4)], "its twins kept their devices there");
}

#[test]
fn what_is_unknown_here_and_inactive_there_becomes_a_denied_key() {
    let new = certificate("02", 2, 2);
    let lost = [code_issued("c2"), registered(&new, "c2"), inactivated(&new, Key)];
    for (tail, fate) in
        [(lost.to_vec(), LostFate::MadeAgain), ([&lost[..], &[deleted(&new)]].concat(), LostFate::MadeAgain)]
    {
        let (events, told) = planned(&active(), &tail);
        assert_eq!(events.len(), 2, "{events:?}");
        assert!(matches!(&events[0], Event::CaCertificateRegistered(payload)
            if payload.certificate == new && payload.register_code.starts_with("made-again-")));
        assert!(matches!(&events[1], Event::CaCertificateInactivated(payload) if payload.scope == Key));
        assert_eq!(told.last().unwrap().0, fate);
    }
    let (events, told) = planned(&active(), &lost[..2]);
    assert_eq!(
        (events, told[1].0),
        (vec![], LostFate::Looser),
        "active there: not trusted without being asked"
    );
    let (events, _) = planned(&active(), &[&lost[..2], &[deleted(&new)]].concat());
    assert_eq!(events, [], "deleted while active there, and unknown here");
}

#[test]
fn a_serial_number_that_another_certificate_has_here_is_told_loudly() {
    let namesake = certificate(root().sn.as_str(), 9, 9);
    let tail =
        [deleted(&root()), code_issued("c2"), registered(&namesake, "c2"), inactivated(&namesake, Key)];
    let (events, told) = planned(&active(), &tail);
    assert_eq!(events, [again(&root(), Certificate, 4)]);
    assert!(told[3].0 == LostFate::Unknown && told[3].1.contains("NOT MADE AGAIN"), "{told:?}");
}

#[test]
fn an_unknown_instance_and_what_changed_no_trust_are_told() {
    let (events, told) = planned(&[], &active());
    assert_eq!(events, []);
    assert!(told.iter().all(|(fate, _)| *fate == LostFate::Unknown));
    assert!(told[2].1.contains("instance is not known"), "{told:?}");
}

/// Certificates by strictness, and the keys that are denied.
fn trust(store: &MemoryStore) -> (Vec<(Sha256, CaState)>, BTreeSet<Sha256>) {
    let model = store.fold();
    let states: Vec<_> = model.certificates().map(|ca| (ca.facts.sha256, ca.state)).collect();
    let denied = model.certificates().filter(|ca| ca.state == CaState::Inactive(Key));
    let denied = denied.map(|ca| ca.facts.spki_sha256).collect();
    (states, denied)
}

proptest! {
    #[test]
    fn nothing_is_looser_than_what_was_restored_or_lost(
        commands in random::commands(24), kept in 0_usize..24,
    ) {
        let mut whole = given([]).store;
        let mut restored = given([]).store;
        for (number, command) in commands.iter().enumerate() {
            let _ = whole.append(NOW, std::slice::from_ref(command));
            if number < kept {
                restored = whole.clone();
            }
        }
        let lost = lost(&whole.events, restored.events.len());
        let (events, told) = made_again(&lost, &restored.fold());
        prop_assert_eq!(told.len(), lost.len());
        let mut after = restored.clone();
        for (id, event) in &events {
            after.remember(id, event);
        }
        let state = |store: &MemoryStore, sha256| trust(store).0.into_iter().find(|(known, _)| *known == sha256).map(|(_, state)| state);
        let is_active = |state: Option<CaState>| state == Some(CaState::Active);
        for (sha256, now) in trust(&after).0 {
            if now == CaState::Active {
                prop_assert!(is_active(state(&restored, sha256)), "trusted, and not in the restored log");
                let there = state(&whole, sha256);
                prop_assert!(is_active(there), "trusted, and {there:?} in what was lost");
            }
        }
        prop_assert!(trust(&restored).1.is_subset(&trust(&after).1), "a key is denied no longer");
        let untold: BTreeSet<_> = lost
            .iter()
            .zip(&told)
            .filter(|(_, told)| told.fate == LostFate::Unknown)
            .filter_map(|(event, _)| event.trust.as_ref().map(|change| change.certificate.spki_sha256))
            .collect();
        for key in trust(&whole).1 {
            prop_assert!(trust(&after).1.contains(&key) || untold.contains(&key), "a lost denial is not in force");
        }
        let (more, _) = made_again(&lost, &after.fold());
        prop_assert_eq!(more, vec![]);
    }
}
