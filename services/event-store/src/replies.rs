//! Replies as they are stored: without what a CA certificate says about itself.
//!
//! The event that made the certificate's state holds those facts for ever, and they are
//! two thirds of a reply. A reply that is given again takes them from there; one that
//! was stored with its facts, by an earlier version, is read as it is.

use std::sync::Arc;

use catrust_domain::command::StoredReply;
use catrust_domain::event::Event;
use catrust_domain::{
    CaCertificate, CaState, CertificateFacts, InstanceId, Reply, ReplyBody, RequestKey, SerialNumber,
    Timestamp,
};
use serde::Serialize;
use serde_json::Value;

use crate::StoreError;
use crate::error::BoxError;
use crate::row::{Row, StoredRow as _, corrupt};
use crate::tables::ReplyRow;

/// The JSON of [`Reply`], as far as it is stored.
#[derive(Serialize)]
struct ReplyJson<'a> {
    changed: bool,
    position: u64,
    revision: u64,
    body: BodyJson<'a>,
}

#[derive(Serialize)]
enum BodyJson<'a> {
    CaCertificate { certificate: CertificateJson<'a>, same_key_sns: &'a [SerialNumber] },
}

/// [`CaCertificate`] without its facts.
#[derive(Serialize)]
struct CertificateJson<'a> {
    instance_id: &'a InstanceId,
    ca_name: &'a str,
    register_code: &'a str,
    state: CaState,
    registered_at: Timestamp,
    registered_position: u64,
    state_changed_at: Timestamp,
    state_changed_by: &'a str,
    state_reason: &'a str,
    revision: u64,
    position: u64,
    stream_version: u64,
}

impl<'a> CertificateJson<'a> {
    fn of(certificate: &'a CaCertificate) -> Self {
        let CaCertificate {
            instance_id,
            facts: _,
            ca_name,
            register_code,
            state,
            registered_at,
            registered_position,
            state_changed_at,
            state_changed_by,
            state_reason,
            revision,
            position,
            stream_version,
        } = certificate;
        Self {
            instance_id,
            ca_name,
            register_code,
            state: *state,
            registered_at: *registered_at,
            registered_position: *registered_position,
            state_changed_at: *state_changed_at,
            state_changed_by,
            state_reason,
            revision: *revision,
            position: *position,
            stream_version: *stream_version,
        }
    }
}

impl ReplyRow {
    /// What is stored of replies that are given at `now`.
    pub(crate) fn of_all(replies: &[StoredReply], now: Timestamp) -> Result<Vec<Self>, StoreError> {
        replies.iter().map(|reply| Self::of(reply, now).map_err(StoreError::Internal)).collect()
    }

    fn of(stored: &StoredReply, now: Timestamp) -> Result<Self, BoxError> {
        Ok(Self {
            account_id: stored.key.account_id.clone(),
            request_id: stored.key.request_id,
            fingerprint: stored.fingerprint,
            reply: encode(&stored.reply)?,
            created_at: now,
        })
    }
}

/// Reads a [`ReplyRow`] from `at` on, and the event that it tells of as [`decode`] does.
pub(crate) fn read(row: &impl Row, at: usize, at_event: usize) -> Result<StoredReply, StoreError> {
    let stored = ReplyRow::read(row, at)?;
    let reply = decode(&stored.reply, row, at_event).map_err(|reason| {
        let key = [Ok(stored.account_id.to_string()), Ok(stored.request_id.to_string())];
        corrupt(ReplyRow::TABLE, &key, reason)
    })?;
    let key = RequestKey { account_id: stored.account_id, request_id: stored.request_id };
    Ok(StoredReply { key, fingerprint: stored.fingerprint, reply })
}

/// The reply to store, as JSON.
fn encode(reply: &Reply) -> Result<String, BoxError> {
    let Reply { changed, position, revision, body } = reply;
    let ReplyBody::CaCertificate { certificate, same_key_sns } = body else {
        return Ok(serde_json::to_string(reply)?);
    };
    let body = BodyJson::CaCertificate { certificate: CertificateJson::of(certificate), same_key_sns };
    let stored = ReplyJson { changed: *changed, position: *position, revision: *revision, body };
    Ok(serde_json::to_string(&stored)?)
}

/// Reads a stored reply. From `at_event` on, `row` has `event_type, schema_version,
/// payload` of the event at the reply's position.
pub(crate) fn decode(json: &str, row: &impl Row, at_event: usize) -> Result<Reply, String> {
    let mut reply: Value = serde_json::from_str(json).map_err(|error| error.to_string())?;
    if let Some(Value::Object(certificate)) = reply.pointer_mut("/body/CaCertificate/certificate")
        && !certificate.contains_key("facts")
    {
        let facts = serde_json::to_value(facts_of_event(row, at_event)?);
        certificate.insert("facts".to_owned(), facts.map_err(|error| error.to_string())?);
    }
    serde_json::from_value(reply).map_err(|error| error.to_string())
}

fn facts_of_event(row: &impl Row, at: usize) -> Result<Arc<CertificateFacts>, String> {
    let event_type: Option<String> = row.get(at)?;
    let event_type = event_type.ok_or("the event that it tells of is not there")?;
    let event =
        Event::decode(&event_type, row.get(at + 1)?, row.text(at + 2)?).map_err(|error| error.to_string())?;
    let effect =
        event.trust_effect().ok_or_else(|| format!("it tells of a certificate, and a {event_type}"))?;
    Ok(Arc::clone(effect.certificate))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    /// The columns of an event, type and payload; or NULL.
    struct EventRow(Option<[String; 2]>);

    impl EventRow {
        fn of(event: &Event) -> Self {
            Self(Some([event.event_type().to_owned(), event.encode()]))
        }
    }

    impl Row for EventRow {
        fn text(&self, index: usize) -> Result<&str, String> {
            let [event_type, payload] = self.0.as_ref().ok_or("null")?;
            Ok(if index == 0 { event_type } else { payload })
        }
        fn number(&self, _: usize) -> Result<i64, String> {
            Ok(1)
        }
        fn is_null(&self, _: usize) -> Result<bool, String> {
            Ok(self.0.is_none())
        }
        fn bytes(&self, _: usize) -> Result<&[u8], String> {
            unreachable!("no such column")
        }
        fn uuid(&self, _: usize) -> Result<Uuid, String> {
            unreachable!("no such column")
        }
        fn time(&self, _: usize) -> Result<Timestamp, String> {
            unreachable!("no such column")
        }
    }

    fn reply() -> (Reply, Event) {
        let at = Timestamp::from_micros(1_700_000_000_000_000);
        let digest = catrust_domain::Sha256::ZERO;
        let facts = Arc::new(CertificateFacts {
            sn: "7A0F".parse().unwrap(),
            sha256: digest,
            spki_sha256: digest,
            subject: "CN=a".into(),
            subject_key_id: "01".into(),
            issuer: "CN=a".into(),
            not_before: at,
            not_after: at,
            ca_content: "-----BEGIN CERTIFICATE-----\n".into(),
        });
        let event =
            catrust_domain::ca_certificate::decide_register(Arc::clone(&facts), "a".into(), "c".into());
        let certificate = CaCertificate {
            instance_id: "i".parse().unwrap(),
            facts,
            ca_name: "a".into(),
            register_code: "c".into(),
            state: CaState::Active,
            registered_at: at,
            registered_position: 3,
            state_changed_at: at,
            state_changed_by: "somebody".into(),
            state_reason: String::new(),
            revision: 2,
            position: 3,
            stream_version: 1,
        };
        let body = ReplyBody::CaCertificate {
            certificate: Box::new(certificate),
            same_key_sns: vec!["7A10".parse().unwrap()],
        };
        (Reply { changed: true, position: 3, revision: 2, body }, event)
    }

    #[test]
    fn what_a_certificate_says_is_taken_from_the_event() {
        let (reply, event) = reply();
        let stored = encode(&reply).unwrap();
        assert!(!stored.contains("BEGIN CERTIFICATE"), "{stored}");
        assert_eq!(decode(&stored, &EventRow::of(&event), 0).unwrap(), reply);
    }

    #[test]
    fn a_reply_of_an_earlier_version_is_read_as_it_is() {
        let (reply, _) = reply();
        let stored = serde_json::to_string(&reply).unwrap();
        assert_eq!(decode(&stored, &EventRow(None), 0).unwrap(), reply);
    }

    #[test]
    fn a_reply_without_its_event_is_corrupt() {
        let (reply, _) = reply();
        let error = decode(&encode(&reply).unwrap(), &EventRow(None), 0).unwrap_err();
        assert!(error.contains("is not there"), "{error}");
    }
}
