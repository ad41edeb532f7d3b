//! A receipt's message into the domain's words; one reading for gRPC and NATS.

use catrust_domain::{BrokerId, Enforcement, InstanceId, Outcome, Receipt, ReceiptOrigin, Sha256, Timestamp};
use catrust_proto::v1;

/// Longest refusal, in characters.
const MAX_REFUSAL_LENGTH: usize = 512;

/// What is wrong with a message: `(field, what is wrong)`, each field once.
pub type Violations = Vec<(&'static str, String)>;

/// Reads a message that was heard at `received_at`.
///
/// # Errors
/// Every field that is missing, malformed or does not fit the others.
pub fn receipt(message: v1::ReportReceiptRequest, received_at: Timestamp) -> Result<Receipt, Violations> {
    let mut wrong = Violations::new();
    let instance_id = parsed(&mut wrong, "mqtt_instance_id", message.mqtt_instance_id.parse::<InstanceId>());
    let broker_id = parsed(&mut wrong, "broker_id", message.broker_id.parse::<BrokerId>());
    let outcome = outcome(&mut wrong, &message);
    let enforcement = match message.enforcement() {
        v1::Enforcement::Tls => Some(Enforcement::Tls),
        v1::Enforcement::Connect => Some(Enforcement::Connect),
        v1::Enforcement::Unspecified => {
            wrong.push(("enforcement", "is required: TLS or CONNECT".to_owned()));
            None
        }
    };
    let origin = origin(&mut wrong, &message);
    match (instance_id, broker_id, outcome, enforcement) {
        (Some(instance_id), Some(broker_id), Some(outcome), Some(enforcement)) if wrong.is_empty() => {
            Ok(Receipt {
                instance_id,
                broker_id,
                revision: message.revision,
                outcome,
                enforcement,
                sessions_open: message.sessions_open,
                received_at,
                origin,
            })
        }
        _ => Err(wrong),
    }
}

/// Who made the receipt; an older agent does not say.
fn origin(wrong: &mut Violations, message: &v1::ReportReceiptRequest) -> Option<ReceiptOrigin> {
    if message.incarnation.is_empty() {
        return None;
    }
    let incarnation = message.incarnation.as_slice().try_into();
    let incarnation = parsed(wrong, "incarnation", incarnation.map_err(|_| "is not 16 bytes long"))?;
    Some(ReceiptOrigin { incarnation, sequence: message.sequence })
}

fn parsed<T>(wrong: &mut Violations, field: &'static str, value: Result<T, impl ToString>) -> Option<T> {
    value.map_err(|problem| wrong.push((field, problem.to_string()))).ok()
}

fn outcome(wrong: &mut Violations, message: &v1::ReportReceiptRequest) -> Option<Outcome> {
    let digest = match message.bundle_digest.as_str() {
        "" => None,
        text => parsed(wrong, "bundle_digest", text.parse::<Sha256>()),
    };
    let applied_at = message.applied_at.as_ref().and_then(|time| {
        let micros = catrust_trust_feed::canonical::micros(time).ok_or("is out of range");
        parsed(wrong, "applied_at", micros).map(Timestamp::from_micros)
    });
    match message.outcome() {
        v1::ReceiptOutcome::Applied => {
            if message.bundle_digest.is_empty() {
                wrong.push(("bundle_digest", "is required where the outcome is APPLIED".to_owned()));
            }
            if !message.refusal.is_empty() {
                wrong.push(("refusal", "must be empty where the outcome is APPLIED".to_owned()));
            }
            Some(Outcome::Applied { digest: digest?, sessions_cut: message.sessions_cut, applied_at })
        }
        v1::ReceiptOutcome::Refused => {
            let reason = match message.refusal.chars().count() {
                0 => Err("is required where the outcome is REFUSED"),
                length if length > MAX_REFUSAL_LENGTH => Err("is longer than 512 characters"),
                _ => Ok(printable(&message.refusal)),
            };
            Some(Outcome::Refused { reason: parsed(wrong, "refusal", reason)? })
        }
        v1::ReceiptOutcome::Unspecified => {
            wrong.push(("outcome", "is required: APPLIED or REFUSED".to_owned()));
            None
        }
    }
}

/// The reason without what would forge lines in logs and on terminals. Not refused: the
/// text of an error may hold anything, and a broker that cannot apply must be heard.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(7);

    fn applied() -> v1::ReportReceiptRequest {
        v1::ReportReceiptRequest {
            broker_id: "b".to_owned(),
            mqtt_instance_id: "i".to_owned(),
            revision: 3,
            bundle_digest: "0".repeat(64),
            outcome: v1::ReceiptOutcome::Applied.into(),
            enforcement: v1::Enforcement::Tls.into(),
            sessions_cut: 4,
            sessions_open: 5,
            ..Default::default()
        }
    }

    fn refused(reason: &str) -> v1::ReportReceiptRequest {
        let outcome = v1::ReceiptOutcome::Refused.into();
        v1::ReportReceiptRequest {
            outcome,
            refusal: reason.to_owned(),
            bundle_digest: String::new(),
            ..applied()
        }
    }

    #[test]
    fn both_outcomes_are_read() {
        let read = receipt(applied(), NOW).unwrap();
        let outcome = Outcome::Applied { digest: Sha256::ZERO, sessions_cut: 4, applied_at: None };
        assert_eq!((read.revision, &read.outcome, read.sessions_open), (3, &outcome, 5));
        let reason = "no\0\nroom\u{1b}[2J".to_owned();
        let read = receipt(refused(&reason), NOW).unwrap();
        assert_eq!(read.outcome, Outcome::Refused { reason: "no  room [2J".to_owned() });
        assert!(receipt(refused(&"é".repeat(512)), NOW).is_ok());
        assert_eq!(read.origin, None, "an older agent does not say");
        let from = v1::ReportReceiptRequest { incarnation: vec![7; 16], sequence: 8, ..applied() };
        let origin = receipt(from, NOW).unwrap().origin;
        assert_eq!(origin, Some(ReceiptOrigin { incarnation: [7; 16], sequence: 8 }));
    }

    #[test]
    fn each_wrong_field_is_named() {
        type Edit = fn(&mut v1::ReportReceiptRequest);
        let cases: [(&str, Edit); 12] = [
            ("broker_id", |m| m.broker_id = "a.b".to_owned()),
            ("mqtt_instance_id", |m| m.mqtt_instance_id.clear()),
            ("bundle_digest", |m| m.bundle_digest = "xyz".to_owned()),
            ("bundle_digest", |m| m.bundle_digest.clear()),
            ("incarnation", |m| m.incarnation = vec![1; 15]),
            ("outcome", |m| m.outcome = 0),
            ("outcome", |m| m.outcome = 77),
            ("enforcement", |m| m.enforcement = 0),
            ("enforcement", |m| m.enforcement = -1),
            ("refusal", |m| m.refusal = "why".to_owned()),
            ("refusal", |m| *m = refused("")),
            ("refusal", |m| *m = refused(&"x".repeat(513))),
        ];
        for (field, edit) in cases {
            let mut message = applied();
            edit(&mut message);
            let fields: Vec<_> = receipt(message, NOW).unwrap_err().into_iter().map(|(f, _)| f).collect();
            assert_eq!(fields, [field]);
        }
        let mut late = applied();
        late.applied_at = Some(catrust_proto::Timestamp { seconds: i64::MAX, nanos: 0 });
        assert_eq!(receipt(late, NOW).unwrap_err()[0].0, "applied_at");
    }

    #[test]
    fn all_wrong_fields_are_named_at_once() {
        let wrong = receipt(v1::ReportReceiptRequest::default(), NOW).unwrap_err();
        let fields: Vec<_> = wrong.into_iter().map(|(field, _)| field).collect();
        assert_eq!(fields, ["mqtt_instance_id", "broker_id", "outcome", "enforcement"]);
    }
}
