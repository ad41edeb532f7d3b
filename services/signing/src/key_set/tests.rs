use super::*;
use crate::canonical::timestamp;
use crate::signing::SigningKey;

fn key() -> SigningKey {
    SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(0).plus_seconds(seconds)
}

fn named(key: &SigningKey) -> proto::EventKey {
    proto::EventKey {
        key_id: key.key_id().to_owned(),
        public_key: key.public_key_pem(),
        not_before: Some(timestamp(at(10))),
        not_after: Some(timestamp(at(20))),
        revoked: false,
    }
}

fn set(keys: Vec<proto::EventKey>) -> proto::KeySet {
    proto::KeySet {
        version: 1,
        keys,
        issued_at: Some(timestamp(at(0))),
        expires_at: Some(timestamp(at(30))),
        signature: None,
    }
}

#[test]
fn only_a_root_key_vouches() {
    let (root, other, event) = (key(), key(), key());
    let mut message = set(vec![named(&event)]);
    let roots = TrustKeys::from(&root);
    assert_eq!(
        KeySet::verified(message.clone(), &roots),
        Err(KeySetError::NotVouchedFor(VerifyError::Unsigned))
    );
    // Not even the key that is in it.
    for stranger in [&other, &event] {
        message.sign(stranger).unwrap();
        let unknown = VerifyError::UnknownKey { key_id: stranger.key_id().to_owned() };
        let refused = KeySet::verified(message.clone(), &roots);
        assert_eq!(refused, Err(KeySetError::NotVouchedFor(unknown)));
    }
    message.sign(&root).unwrap();
    let taken = KeySet::verified(message.clone(), &roots).unwrap();
    assert_eq!((taken.version(), taken.issued_at(), taken.expires_at()), (1, at(0), at(30)));
    assert_eq!(taken.keys().map(|(key_id, _)| key_id).collect::<Vec<_>>(), [event.key_id()]);
    message.version = 2;
    assert_eq!(KeySet::verified(message, &roots), Err(KeySetError::NotVouchedFor(VerifyError::BadSignature)));
}

#[test]
fn a_set_that_contradicts_itself_is_refused_though_a_root_key_signed_it() {
    let (root, event, other) = (key(), key(), key());
    let good = named(&event);
    let of = |key: proto::EventKey| set(vec![key]);
    let cases = [
        ("counted from 1", proto::KeySet { version: 0, ..of(good.clone()) }),
        (
            "expires before it is issued",
            proto::KeySet { expires_at: Some(timestamp(at(0))), ..of(good.clone()) },
        ),
        ("more than 64 keys", set(vec![good.clone(); MAX_KEYS + 1])),
        ("in it twice", set(vec![good.clone(), good.clone()])),
        ("not an Ed25519 key", of(proto::EventKey { public_key: String::new(), ..good.clone() })),
        (
            "not named after its public key",
            of(proto::EventKey { public_key: other.public_key_pem(), ..good.clone() }),
        ),
        (
            "not named after its public key",
            of(proto::EventKey {
                public_key: event.public_key_pem() + &other.public_key_pem(),
                ..good.clone()
            }),
        ),
        ("expires before it is valid", of(proto::EventKey { not_after: good.not_before, ..good.clone() })),
    ];
    for (expected, mut message) in cases {
        message.sign(&root).unwrap();
        let error = KeySet::verified(message, &TrustKeys::from(&root)).unwrap_err();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
    for missing in [
        proto::KeySet { issued_at: None, ..of(good.clone()) },
        proto::KeySet { expires_at: None, ..of(good.clone()) },
        of(proto::EventKey { not_before: None, ..good.clone() }),
        of(proto::EventKey { not_after: None, ..good }),
    ] {
        let error = KeySet::checked(missing).unwrap_err();
        assert!(error.to_string().contains("missing"), "{error}");
    }
    assert!(KeySet::checked(set(Vec::new())).is_ok(), "a set that names nobody believes nobody");
}
