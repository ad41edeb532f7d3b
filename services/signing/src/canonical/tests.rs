use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::*;
use crate::signing::TrustKeys;

fn key() -> SigningKey {
    SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap()
}

fn time(micros: i64) -> Option<Timestamp> {
    Some(timestamp(catrust_domain::Timestamp::from_micros(micros)))
}

fn entry() -> TrustEntry {
    TrustEntry {
        sn: "7A".into(),
        sha256: "aa".into(),
        spki_sha256: "bb".into(),
        subject: "CN=é".into(),
        subject_key_id: "cc".into(),
        issuer: "CN=i".into(),
        not_before: time(-1),
        not_after: time(1_700_000_000_000_001),
        ca_content: "pem\n".into(),
        state: CaCertificateState::Inactive.into(),
        inactivation_scope: InactivationScope::Key.into(),
    }
}

const ENTRY: &str =
    "4:CN=i,2:-1,16:1700000000000001,4:pem\n,29:CA_CERTIFICATE_STATE_INACTIVE,22:INACTIVATION_SCOPE_KEY,";

fn change() -> TrustChange {
    TrustChange {
        log_id: "log".into(),
        position: 12,
        event_id: "event".into(),
        event_type: "CaCertificateInactivated".into(),
        mqtt_instance_id: "fleet".into(),
        revision: 3,
        previous_revision: 2,
        bundle_digest: "dd".into(),
        entry: Some(entry()),
        deleted: true,
        with_will: true,
        reason: "leaked".into(),
        occurred_at: time(5),
        event_hash: "ee".into(),
        traceparent: "tp".into(),
        signature: None,
    }
}

fn bundle() -> TrustBundle {
    TrustBundle {
        log_id: "log".into(),
        mqtt_instance_id: "fleet".into(),
        revision: 3,
        position: 12,
        bundle_digest: "dd".into(),
        entries: vec![entry(), entry()],
        issued_at: time(6),
        signature: None,
    }
}

fn head() -> Head {
    Head {
        log_id: "log".into(),
        mqtt_instance_id: "fleet".into(),
        revision: 3,
        position: 12,
        bundle_digest: "dd".into(),
        issued_at: time(6),
        valid_until: time(7),
        signature: None,
        nonce: Vec::new(),
    }
}

fn log_event() -> LogEvent {
    LogEvent {
        log_id: "log".into(),
        position: 12,
        event_id: "event".into(),
        event_type: "InstanceRegistered".into(),
        schema_version: 1,
        mqtt_instance_id: "fleet".into(),
        payload: "{}".into(),
        actor: "me".into(),
        request_id: "request".into(),
        occurred_at: time(5),
        event_hash: "ee".into(),
        traceparent: "tp".into(),
        signature: None,
        epoch: 0,
    }
}

fn event_key(revoked: bool) -> EventKey {
    EventKey {
        key_id: "ff".into(),
        public_key: "pem\n".into(),
        not_before: time(-1),
        not_after: time(1),
        revoked,
    }
}

fn key_set() -> KeySet {
    KeySet {
        version: 4,
        keys: vec![event_key(false), event_key(true)],
        issued_at: time(6),
        expires_at: time(7),
        signature: None,
    }
}

fn input(message: &impl Signed) -> String {
    String::from_utf8(message.signing_input().unwrap()).unwrap()
}

/// These bytes are signed: a change of them breaks every agent.
#[test]
fn signing_inputs_are_what_the_contract_says() {
    let nested = format!("2:7A,2:aa,2:bb,5:CN=é,2:cc,{ENTRY}");
    let nested = format!("{}:{nested},", nested.len());
    assert_eq!(
        input(&change()),
        format!(
            "23:catrust/trust-change/v1,3:log,2:12,5:event,24:CaCertificateInactivated,5:fleet,1:3,1:2,\
             2:dd,{nested}4:true,4:true,6:leaked,1:5,2:ee,2:tp,"
        )
    );
    assert_eq!(
        input(&bundle()),
        format!("23:catrust/trust-bundle/v1,3:log,5:fleet,1:3,2:12,2:dd,{nested}{nested}1:6,")
    );
    assert_eq!(input(&head()), "15:catrust/head/v1,3:log,5:fleet,1:3,2:12,2:dd,1:6,1:7,");
    let answer = Head { nonce: b"\0n".to_vec(), ..head() };
    assert_eq!(input(&answer), "15:catrust/head/v2,3:log,5:fleet,1:3,2:12,2:dd,1:6,1:7,2:\0n,");
    assert_eq!(
        input(&log_event()),
        "20:catrust/log-event/v1,3:log,2:12,5:event,18:InstanceRegistered,1:1,5:fleet,2:{},2:me,7:request,\
         1:5,2:ee,2:tp,"
    );
    // Left out in the first epoch: what was signed before there were epochs stays valid.
    assert_eq!(
        input(&LogEvent { epoch: 9, ..log_event() }),
        "20:catrust/log-event/v2,3:log,2:12,5:event,18:InstanceRegistered,1:1,5:fleet,2:{},2:me,7:request,\
         1:5,2:ee,2:tp,1:9,"
    );
    assert_eq!(
        input(&key_set()),
        "18:catrust/key-set/v1,1:4,29:2:ff,4:pem\n,2:-1,1:1,5:false,,28:2:ff,4:pem\n,2:-1,1:1,4:true,,1:6,1:7,"
    );
}

/// Every way to change one value of a JSON document: each leaf altered, each field
/// and each element removed.
fn alterations(document: &Value) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    match document {
        Value::Object(fields) => {
            for (name, value) in fields {
                let mut without = fields.clone();
                without.remove(name);
                all.push((format!("-{name}"), Value::Object(without)));
                for (path, altered) in alterations(value) {
                    let mut with = fields.clone();
                    with.insert(name.clone(), altered);
                    all.push((format!("{name}.{path}"), Value::Object(with)));
                }
            }
        }
        Value::Array(elements) => {
            for (index, value) in elements.iter().enumerate() {
                let mut without = elements.clone();
                without.remove(index);
                all.push((format!("-{index}"), Value::Array(without)));
                for (path, altered) in alterations(value) {
                    let mut with = elements.clone();
                    with[index] = altered;
                    all.push((format!("{index}.{path}"), Value::Array(with)));
                }
            }
        }
        Value::Bool(flag) => all.push(("!".into(), Value::Bool(!flag))),
        Value::Number(number) => all.push(("+1".into(), (number.as_i64().unwrap_or(0) + 1).into())),
        Value::String(text) => {
            let mut candidates =
                vec![format!("{text}x"), text.replacen('1', "2", 1), text.replace("KEY", "CERTIFICATE")];
            candidates.push(text.replace("_INACTIVE", "_ACTIVE"));
            candidates.push(text.replace("Z", ".000000001Z"));
            candidates.push(text.chars().skip(1).collect());
            all.extend(candidates.into_iter().map(|altered| (altered.clone(), Value::String(altered))));
        }
        Value::Null => {}
    }
    all
}

/// Gives how many alterations were told from the original.
fn no_alteration_verifies<M>(mut message: M) -> usize
where
    M: Signed + Serialize + DeserializeOwned + PartialEq + Clone,
{
    let key = key();
    let keys = TrustKeys::from(&key);
    message.sign(&key).unwrap();
    assert_eq!(message.verify(&keys), Ok(()));
    let document = serde_json::to_value(&message).unwrap();
    let back: M = serde_json::from_value(document.clone()).unwrap();
    assert_eq!(back.verify(&keys), Ok(()), "what is read back verifies");
    let mut told = 0;
    for (path, altered) in alterations(&document) {
        let Ok(altered) = serde_json::from_value::<M>(altered) else { continue };
        if altered != message {
            assert!(altered.verify(&keys).is_err(), "altered at {path}");
            told += 1;
        }
    }
    told
}

#[test]
fn changing_any_field_breaks_the_signature() {
    // The counts prove that alterations reached the check: at least two for each field.
    assert!(no_alteration_verifies(change()) >= 2 * 26);
    assert!(no_alteration_verifies(bundle()) >= 2 * 29);
    assert!(no_alteration_verifies(head()) >= 2 * 8);
    assert!(no_alteration_verifies(Head { nonce: b"nonce".to_vec(), ..head() }) >= 2 * 9);
    assert!(no_alteration_verifies(log_event()) >= 2 * 13);
    assert!(no_alteration_verifies(LogEvent { epoch: 9, ..log_event() }) >= 2 * 14);
    assert!(no_alteration_verifies(key_set()) >= 2 * 12);
}

#[test]
fn a_message_of_one_kind_does_not_pass_for_another() {
    let key = key();
    let mut signed = head();
    signed.sign(&key).unwrap();
    let mut other = bundle();
    other.entries.clear();
    other.set_signature(signed.signature.clone().unwrap());
    assert_eq!(other.verify(&TrustKeys::from(&key)), Err(VerifyError::BadSignature));
}

#[test]
fn unsigned_messages_and_unknown_keys_are_told_apart() {
    let (ours, theirs) = (key(), key());
    let mut message = head();
    assert_eq!(message.verify(&TrustKeys::from(&ours)), Err(VerifyError::Unsigned));
    message.sign(&theirs).unwrap();
    let unknown = VerifyError::UnknownKey { key_id: theirs.key_id().to_owned() };
    assert_eq!(message.verify(&TrustKeys::from(&ours)), Err(unknown));
    // The other's signature under our name.
    let mut signature = message.signature.clone().unwrap();
    signature.key_id = ours.key_id().to_owned();
    message.set_signature(signature);
    assert_eq!(message.verify(&TrustKeys::from(&ours)), Err(VerifyError::BadSignature));
}

#[test]
fn what_has_no_canonical_form_is_neither_signed_nor_verified() {
    let key = key();
    let missing = TrustChange { occurred_at: None, ..change() };
    let finer = TrustChange { occurred_at: Some(Timestamp { seconds: 0, nanos: 1 }), ..change() };
    let negative = TrustChange { occurred_at: Some(Timestamp { seconds: 0, nanos: -1_000 }), ..change() };
    for mut message in [missing, finer, negative] {
        assert_eq!(message.sign(&key), Err(NotCanonical { field: "occurred_at" }));
    }
    assert_eq!(TrustChange { entry: None, ..change() }.signing_input(), Err(NotCanonical { field: "entry" }));
    let unknown = TrustEntry { state: 99, ..entry() };
    assert_eq!(
        TrustChange { entry: Some(unknown), ..change() }.signing_input(),
        Err(NotCanonical { field: "state" })
    );
}

proptest! {
    /// Moving text from one field to the next, the classic flaw of plain concatenation.
    #[test]
    fn different_texts_have_different_inputs(a in "[0-9:,a]{0,6}", b in "[0-9:,a]{0,6}", c in "[0-9:,a]{0,6}", d in "[0-9:,a]{0,6}") {
        let of = |one: &str, two: &str| input(&TrustChange { event_id: one.into(), event_type: two.into(), ..change() });
        prop_assert_eq!(of(&a, &b) == of(&c, &d), (a, b) == (c, d));
    }

    #[test]
    fn times_are_written_in_whole_microseconds(micros in -62_135_596_800_000_000_i64..253_402_300_799_999_999) {
        prop_assert_eq!(time(micros).as_ref().and_then(super::micros), Some(micros));
    }
}
