use catrust_domain::Timestamp;
use catrust_proto::v1::Head;

use super::*;
use crate::canonical::{Signed as _, timestamp};
use crate::signing::SigningKey;

fn key() -> SigningKey {
    SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(0).plus_seconds(seconds)
}

fn now(seconds: i64) -> Present {
    Present::exactly(at(seconds))
}

fn named(key: &SigningKey, from: i64, to: i64) -> proto::EventKey {
    proto::EventKey {
        key_id: key.key_id().to_owned(),
        public_key: key.public_key_pem(),
        not_before: Some(timestamp(at(from))),
        not_after: Some(timestamp(at(to))),
        revoked: false,
    }
}

fn revoked(key: proto::EventKey) -> proto::EventKey {
    proto::EventKey { revoked: true, ..key }
}

struct Rig {
    root: SigningKey,
    old: SigningKey,
    new: SigningKey,
    ring: KeyRing,
}

impl Rig {
    fn new() -> Self {
        let root = key();
        let ring = KeyRing::new(TrustKeys::default(), TrustKeys::from(&root));
        Self { root, old: key(), new: key(), ring }
    }

    /// A set that expires at 1,000.
    fn set(&self, version: u64, keys: Vec<proto::EventKey>) -> proto::KeySet {
        let mut set = proto::KeySet {
            version,
            keys,
            issued_at: Some(timestamp(at(0))),
            expires_at: Some(timestamp(at(1_000))),
            signature: None,
        };
        set.sign(&self.root).unwrap();
        set
    }

    fn head(&self, key: &SigningKey) -> Head {
        let mut head = Head {
            issued_at: Some(timestamp(at(0))),
            valid_until: Some(timestamp(at(1))),
            ..Head::default()
        };
        head.sign(key).unwrap();
        head
    }

    /// What a head by `key` is worth. That the key is judged as its message is proved on
    /// the way.
    fn judge(&self, key: &SigningKey, present: Present) -> Result<(), KeyRefusal> {
        let verified = self.head(key).verify(&self.ring.at(present));
        assert_eq!(verified, self.ring.check_key(key.key_id(), present));
        match verified {
            Ok(()) => Ok(()),
            Err(VerifyError::UnusableKey { key_id, reason }) => {
                assert_eq!(key_id, key.key_id());
                Err(reason)
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn unknown(&self, key: &SigningKey) -> bool {
        let unknown = Err(VerifyError::UnknownKey { key_id: key.key_id().to_owned() });
        self.head(key).verify(&self.ring.at(now(50))) == unknown
            && self.ring.check_key(key.key_id(), now(50)) == unknown
    }
}

#[test]
fn a_key_is_believed_from_the_first_to_the_last_microsecond_of_its_validity() {
    let mut rig = Rig::new();
    rig.ring.adopt(rig.set(1, vec![named(&rig.old, 10, 20)]), now(15)).unwrap();
    let (not_before, not_after) = (at(10), at(20));
    let beside = |time: Timestamp, micros: i64| Timestamp::from_micros(time.micros() + micros);
    for (time, expected) in [
        (beside(not_before, -1), Err(KeyRefusal::NotYetValid { not_before })),
        (not_before, Ok(())),
        (beside(not_before, 1), Ok(())),
        (beside(not_after, -1), Ok(())),
        (not_after, Ok(())),
        (beside(not_after, 1), Err(KeyRefusal::Expired { not_after })),
    ] {
        assert_eq!(rig.judge(&rig.old, Present::exactly(time)), expected, "{time}");
    }
}

/// Every order of the bounds of the present and of a validity.
#[test]
fn doubt_about_the_time_is_in_favour_of_the_key() {
    let mut rig = Rig::new();
    rig.ring.adopt(rig.set(1, vec![named(&rig.old, 10, 20)]), now(15)).unwrap();
    for earliest in 5..25 {
        for latest in earliest..25 {
            let judged = rig.judge(&rig.old, Present { earliest: at(earliest), latest: at(latest) });
            let overlaps = latest >= 10 && earliest <= 20;
            assert_eq!(judged.is_ok(), overlaps, "{earliest} to {latest}: {judged:?}");
        }
    }
}

#[test]
fn an_expired_set_vouches_for_nothing_and_a_key_is_judged_for_itself_first() {
    let mut rig = Rig::new();
    let expired_key = named(&key(), 10, 20);
    let set = rig.set(1, vec![named(&rig.old, 0, 5_000), revoked(named(&rig.new, 0, 5_000)), expired_key]);
    rig.ring.adopt(set, now(15)).unwrap();
    assert_eq!(rig.judge(&rig.old, now(1_000)), Ok(()));
    let just_after = Present::exactly(Timestamp::from_micros(at(1_000).micros() + 1));
    let expires_at = at(1_000);
    assert_eq!(rig.judge(&rig.old, just_after), Err(KeyRefusal::SetExpired { expires_at }));
    assert_eq!(rig.judge(&rig.new, just_after), Err(KeyRefusal::Revoked));
    // What was on record stays so, and what is revoked does not.
    let on_record = |key: &SigningKey| rig.head(key).verify(&rig.ring.on_record());
    assert_eq!(on_record(&rig.old), Ok(()));
    let reason = KeyRefusal::Revoked;
    let refused = VerifyError::UnusableKey { key_id: rig.new.key_id().to_owned(), reason };
    assert_eq!(on_record(&rig.new), Err(refused));
    let stranger = key();
    assert!(matches!(on_record(&stranger), Err(VerifyError::UnknownKey { .. })));
}

#[test]
fn without_a_set_nobody_is_believed_but_the_pinned() {
    let rig = Rig::new();
    assert!(rig.unknown(&rig.old));
    assert!(rig.unknown(&rig.root), "a root key signs nothing but key sets");
    let pinned = KeyRing::new(TrustKeys::from(&rig.old), TrustKeys::from(&rig.root));
    assert_eq!(rig.head(&rig.old).verify(&pinned.at(now(50))), Ok(()));
    assert!(KeyRing::default().is_empty() && !pinned.is_empty() && !rig.ring.is_empty());
    assert!(rig.ring.takes_key_sets() && !KeyRing::from(TrustKeys::from(&rig.old)).takes_key_sets());
}

#[test]
fn a_rotation_believes_both_keys_while_they_overlap_and_then_the_new_one() {
    let mut rig = Rig::new();
    rig.ring.adopt(rig.set(1, vec![named(&rig.old, 0, 100)]), now(50)).unwrap();
    assert_eq!(rig.judge(&rig.old, now(50)), Ok(()));
    assert!(rig.unknown(&rig.new));
    let both = vec![named(&rig.old, 0, 100), named(&rig.new, 40, 500)];
    assert_eq!(rig.ring.adopt(rig.set(2, both), now(50)), Ok(Adoption::New));
    assert_eq!((rig.judge(&rig.old, now(50)), rig.judge(&rig.new, now(50))), (Ok(()), Ok(())));
    let not_after = at(100);
    assert_eq!(rig.judge(&rig.old, now(101)), Err(KeyRefusal::Expired { not_after }));
    assert!(!rig.ring.disowns(rig.old.key_id()), "what an expired key signed in its time was true");
    rig.ring.adopt(rig.set(3, vec![named(&rig.new, 40, 500)]), now(50)).unwrap();
    assert!(rig.unknown(&rig.old) && rig.ring.disowns(rig.old.key_id()));
    assert_eq!(rig.judge(&rig.new, now(50)), Ok(()));
}

#[test]
fn versions_never_fall_and_one_version_has_one_content() {
    let mut rig = Rig::new();
    let keys = || vec![named(&rig.old, 0, 100)];
    let (second, third) = (rig.set(2, keys()), rig.set(3, keys()));
    assert_eq!(rig.ring.adopt(second.clone(), now(1)), Ok(Adoption::New));
    assert_eq!(rig.ring.adopt(second.clone(), now(1)), Ok(Adoption::Known));
    // Known it stays, however late it comes again.
    assert_eq!(rig.ring.adopt(second.clone(), now(5_000)), Ok(Adoption::Known));
    let forked = rig.set(2, vec![named(&rig.new, 0, 100)]);
    assert_eq!(rig.ring.adopt(forked, now(1)), Err(KeySetError::Forked { version: 2 }));
    assert_eq!(rig.ring.adopt(third.clone(), now(1)), Ok(Adoption::New));
    let rollback = KeySetError::Rollback { version: 3, offered: 2 };
    assert_eq!(rig.ring.adopt(second, now(1)), Err(rollback));
    assert_eq!(rig.ring.set().map(|set| set.message().clone()), Some(third));
}

#[test]
fn a_revoked_key_does_not_come_back_with_an_older_set() {
    let mut rig = Rig::new();
    let before = rig.set(1, vec![named(&rig.old, 0, 100)]);
    rig.ring.adopt(before.clone(), now(1)).unwrap();
    rig.ring.adopt(rig.set(2, vec![revoked(named(&rig.old, 0, 100))]), now(1)).unwrap();
    assert!(rig.ring.adopt(before, now(1)).is_err());
    assert_eq!(rig.judge(&rig.old, now(1)), Err(KeyRefusal::Revoked));
    assert!(rig.ring.disowns(rig.old.key_id()));
}

#[test]
fn a_revocation_reaches_pinned_keys_and_nothing_else_of_a_set_does() {
    let mut rig = Rig::new();
    rig.ring = KeyRing::new(TrustKeys::from(&rig.old), TrustKeys::from(&rig.root));
    // Pinned by hand: not bound by the validity of the set, nor by the key's in it.
    rig.ring.adopt(rig.set(1, vec![named(&rig.old, 0, 10)]), now(1)).unwrap();
    assert_eq!(rig.judge(&rig.old, now(5_000)), Ok(()));
    assert!(!rig.ring.disowns(rig.old.key_id()));
    rig.ring.adopt(rig.set(2, vec![revoked(named(&rig.old, 0, 10))]), now(1)).unwrap();
    assert_eq!(rig.judge(&rig.old, now(5)), Err(KeyRefusal::Revoked));
    assert!(rig.ring.disowns(rig.old.key_id()));
}

#[test]
fn an_expired_set_is_not_adopted_and_stays_the_floor_where_it_was_kept() {
    let mut rig = Rig::new();
    let second = rig.set(2, vec![named(&rig.old, 0, 5_000)]);
    let expires_at = at(1_000);
    assert_eq!(rig.ring.adopt(second.clone(), now(1_001)), Err(KeySetError::Expired { expires_at }));
    assert!(rig.unknown(&rig.old));
    rig.ring.restore(second).unwrap();
    assert_eq!(rig.judge(&rig.old, now(1_001)), Err(KeyRefusal::SetExpired { expires_at }));
    let rollback = KeySetError::Rollback { version: 2, offered: 1 };
    assert_eq!(rig.ring.adopt(rig.set(1, Vec::new()), now(1)), Err(rollback));
    let stranger = key();
    let mut forged = rig.set(3, Vec::new());
    forged.sign(&stranger).unwrap();
    assert!(matches!(rig.ring.restore(forged), Err(KeySetError::NotVouchedFor(_))));
    assert_eq!(rig.ring.set().map(|set| set.version()), Some(2));
}

#[test]
fn who_has_really_signed_is_found_out_before_the_key_is_judged() {
    let mut rig = Rig::new();
    rig.ring.adopt(rig.set(1, vec![revoked(named(&rig.old, 0, 100))]), now(1)).unwrap();
    let mut forged = rig.head(&rig.new);
    if let Some(signature) = &mut forged.signature {
        signature.key_id = rig.old.key_id().to_owned();
    }
    assert_eq!(forged.verify(&rig.ring.at(now(1))), Err(VerifyError::BadSignature));
}
