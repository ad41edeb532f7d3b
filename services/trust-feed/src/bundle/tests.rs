use catrust_domain::Timestamp;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::canonical::Signed as _;
use crate::contract::{SampleLog, key};
use crate::message;
use crate::signing::{SigningKey, TrustKeys};

struct Fleet {
    log: SampleLog,
    instance: InstanceId,
    key: SigningKey,
    keys: TrustKeys,
}

impl Fleet {
    fn new() -> Self {
        let mut log = SampleLog::new();
        let instance = log.register_instance("fleet");
        let key = key();
        Self { log, instance, keys: TrustKeys::from(&key), key }
    }

    /// A fleet with `length` trust changes; and its bundle at each revision.
    fn with_history(choices: &[u8]) -> (Self, Vec<TrustBundle>) {
        let mut fleet = Self::new();
        let mut history = vec![fleet.log.bundle(&fleet.instance)];
        let mut serials = Vec::new();
        for &choice in choices {
            let turn = usize::from(choice / 4);
            match choice % 4 {
                0 if serials.len() > 1 => {
                    fleet.log.delete(&fleet.instance, &serials.swap_remove(turn % serials.len()));
                }
                1 | 2 if !serials.is_empty() => {
                    fleet.log.toggle(&fleet.instance, &serials[turn % serials.len()]);
                }
                _ => serials.push(fleet.log.register_certificate(&fleet.instance)),
            }
            history.push(fleet.log.bundle(&fleet.instance));
        }
        (fleet, history)
    }

    fn changes(&self) -> Vec<Verified<proto::TrustChange>> {
        let mut changes = Vec::new();
        for event in self.log.events() {
            if let Some((_, change)) = message::trust_change(self.log.log_id(), event).unwrap() {
                changes.push(self.signed(change));
            }
        }
        changes
    }

    fn bundle(&self, bundle: &TrustBundle) -> Verified<proto::TrustBundle> {
        self.signed(message::trust_bundle(self.log.log_id(), bundle, Timestamp::from_micros(1)))
    }

    fn signed<M: crate::canonical::Signed>(&self, mut message: M) -> Verified<M> {
        message.sign(&self.key).unwrap();
        message.verified(&self.keys).unwrap()
    }

    fn state_at(&self, bundle: &TrustBundle) -> TrustState {
        TrustState::new(&self.instance, &self.bundle(bundle)).unwrap()
    }
}

#[test]
fn changes_in_order_lead_through_every_bundle_of_the_log() {
    let (fleet, history) = Fleet::with_history(&[3, 3, 1, 5, 2, 3, 0, 9, 4, 7, 1, 1]);
    let mut state = fleet.state_at(&history[0]);
    for (change, bundle) in fleet.changes().iter().zip(&history[1..]) {
        let applied = state.apply(change).unwrap();
        assert!(matches!(applied, ChangeOutcome::Changed(change) if change.revision == bundle.revision));
        assert_eq!(&state.bundle(), bundle);
        assert_eq!(state, fleet.state_at(bundle));
    }
}

#[test]
fn a_gap_is_told_and_a_bundle_closes_it() {
    let (fleet, history) = Fleet::with_history(&[3, 1, 1, 1]);
    let changes = fleet.changes();
    let mut state = fleet.state_at(&history[1]);
    assert_eq!(state.apply(&changes[2]), Err(TrustError::Gap { revision: 1, previous: 2 }));
    assert_eq!(state.bundle(), history[1]);
    assert_eq!(state.replace(&fleet.bundle(&history[3])), Ok(true));
    assert!(matches!(state.apply(&changes[3]), Ok(ChangeOutcome::Changed(_))));
    assert_eq!(state.bundle(), history[4]);
}

#[test]
fn nothing_leads_back() {
    let (fleet, history) = Fleet::with_history(&[3, 1, 1]);
    let mut state = fleet.state_at(&history[3]);
    for change in fleet.changes() {
        assert_eq!(state.apply(&change), Ok(ChangeOutcome::Known));
    }
    let rollback = TrustError::Rollback { revision: 3, offered: 2 };
    assert_eq!(state.replace(&fleet.bundle(&history[2])), Err(rollback));
    assert_eq!(state.replace(&fleet.bundle(&history[3])), Ok(false));
    assert_eq!(state.bundle(), history[3]);
}

#[test]
fn messages_of_other_instances_and_logs_are_refused() {
    let (fleet, history) = Fleet::with_history(&[3, 1]);
    let mut state = fleet.state_at(&history[1]);
    let change = fleet.changes()[1].clone().into_inner();
    let other = proto::TrustChange { mqtt_instance_id: "other".into(), ..change.clone() };
    let wrong = TrustError::WrongInstance { found: "other".parse().unwrap() };
    assert_eq!(state.apply(&fleet.signed(other)), Err(wrong.clone()));
    let log_id = Uuid::from_u128(1);
    let other = proto::TrustChange { log_id: log_id.to_string(), ..change };
    assert_eq!(state.apply(&fleet.signed(other)), Err(TrustError::WrongLog { found: log_id }));
    let other = TrustBundle { instance_id: "other".parse().unwrap(), ..history[2].clone() };
    assert_eq!(state.replace(&fleet.bundle(&other)), Err(wrong.clone()));
    assert_eq!(TrustState::new(&fleet.instance, &fleet.bundle(&other)), Err(wrong));
    assert_eq!(state.bundle(), history[1]);
}

#[test]
fn a_forked_log_is_told_by_the_digest() {
    let (fleet, history) = Fleet::with_history(&[3, 1]);
    let mut state = fleet.state_at(&history[1]);
    // Signed with the right key, but not what follows from this state.
    let mut change = fleet.changes()[1].clone().into_inner();
    change.bundle_digest = Sha256::of(b"fork").to_string();
    let forked = fleet.signed(change);
    assert!(matches!(state.apply(&forked), Err(TrustError::DigestMismatch { revision: 2, .. })));
    assert_eq!(state.bundle(), history[1]);
    state.apply(&fleet.changes()[1]).unwrap();
    assert!(matches!(state.apply(&forked), Err(TrustError::DigestMismatch { revision: 2, .. })));
    assert_eq!(state.bundle(), history[2]);
}

#[test]
fn heads_tell_current_from_behind() {
    let (fleet, history) = Fleet::with_history(&[3, 1, 1]);
    let state = fleet.state_at(&history[2]);
    let head = |bundle: &TrustBundle| {
        let point = message::TrustPoint {
            instance_id: bundle.instance_id.clone(),
            revision: bundle.revision,
            position: bundle.position,
            digest: bundle.digest,
        };
        fleet.signed(message::head(fleet.log.log_id(), &point, Timestamp::from_micros(1)))
    };
    assert_eq!(state.compare(&head(&history[1])), Ok(HeadVerdict::Older));
    assert_eq!(state.compare(&head(&history[2])), Ok(HeadVerdict::Current));
    assert_eq!(state.compare(&head(&history[3])), Ok(HeadVerdict::Behind { revision: 3 }));
    let forked = TrustBundle { digest: Sha256::of(b"fork"), ..history[2].clone() };
    assert!(matches!(state.compare(&head(&forked)), Err(TrustError::DigestMismatch { .. })));
}

proptest! {
    /// The feed as an adversary: whatever it does to signed messages, and whatever it
    /// makes up without the key, the state is always one that the log had.
    #[test]
    fn no_delivery_leads_to_a_state_that_the_log_never_had(
        choices in proptest::collection::vec(any::<u8>(), 1..25),
        start in any::<Index>(),
        deliveries in proptest::collection::vec((any::<Index>(), 0_u8..8, any::<Index>()), 0..60),
    ) {
        let (fleet, history) = Fleet::with_history(&choices);
        let changes = fleet.changes();
        let mut state = fleet.state_at(&history[start.index(history.len())]);
        for (which, how, other) in deliveries {
            let change = &changes[which.index(changes.len())];
            let before = state.revision();
            match how {
                // A forged change: another's entry, digest or revision under this signature.
                0 => {
                    let from = &changes[other.index(changes.len())];
                    let mut forged = (**change).clone();
                    forged.entry.clone_from(&from.entry);
                    forged.bundle_digest.clone_from(&from.bundle_digest);
                    forged.revision = state.revision() + 1;
                    forged.previous_revision = state.revision();
                    prop_assert!(forged == **change || forged.verify(&fleet.keys).is_err());
                }
                // An old or new bundle.
                1 => {
                    let _ = state.replace(&fleet.bundle(&history[other.index(history.len())]));
                }
                // The next one in order, or any one: lost, doubled, reordered, replayed.
                2..=4 => {
                    if let Some(next) = changes.get(usize::try_from(state.revision()).unwrap()) {
                        let _ = state.apply(next);
                        prop_assert_eq!(state.revision(), before + 1, "the next change applies");
                    }
                }
                _ => {
                    let _ = state.apply(change);
                }
            }
            prop_assert!(state.revision() >= before, "never back");
            let revision = usize::try_from(state.revision()).unwrap();
            prop_assert_eq!(&state.bundle(), &history[revision]);
        }
    }
}
