//! Which messages of the past are by a server of this installation.

use std::sync::Arc;

use catrust_domain::Sha256;
use catrust_proto::v1::{LogEvent, TrustChange};
use catrust_signing::{KeySet, Signed, SigningKey, TrustKeys};
use uuid::Uuid;

/// The keys that a server believes messages by, whenever they were signed: its own, and those of
/// the key set. An expired key counts, since what it signed in its time stays true; a revoked one
/// does not.
#[derive(Clone, Debug)]
pub struct KnownKeys {
    own: TrustKeys,
    set: Option<Arc<KeySet>>,
}

/// A row of a log, as a signed message says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRow {
    /// Identity of the log.
    pub log_id: Uuid,
    /// Position of the row.
    pub position: u64,
    /// Its hash, which covers every row before it.
    pub event_hash: Sha256,
    /// Log epoch of the row.
    pub epoch: u32,
}

/// A message that a server signed.
#[derive(Clone, Debug, PartialEq)]
pub enum SignedMessage {
    /// A trust change.
    Change(Box<TrustChange>),
    /// Any other event.
    Event(Box<LogEvent>),
}

impl SignedMessage {
    /// The row that it was made of; `None` where it names none.
    #[must_use]
    pub fn row(&self) -> Option<SignedRow> {
        match self {
            Self::Change(change) => {
                let epoch = u32::try_from(change.revision >> 32).ok()?;
                row(&change.log_id, change.position, &change.event_hash, epoch)
            }
            Self::Event(event) => row(&event.log_id, event.position, &event.event_hash, event.epoch),
        }
    }
}

impl SignedRow {
    /// Whether `other` is further: of a later epoch, or of the same at a higher position.
    pub(crate) fn is_before(&self, other: &Self) -> bool {
        (self.epoch, self.position) < (other.epoch, other.position)
    }
}

impl KnownKeys {
    /// The key that this server signs with, and the key set in force, where there is one.
    #[must_use]
    pub fn new(own: &SigningKey, set: Option<Arc<KeySet>>) -> Self {
        Self { own: TrustKeys::from(own), set }
    }

    /// What a message says of its row, where one of the keys signed it; `None` for anything else.
    #[must_use]
    pub fn signed_row(&self, json: &[u8]) -> Option<SignedRow> {
        self.signed_message(json)?.row()
    }

    /// A message, where one of the keys signed it; `None` for anything else. Of what it says
    /// nothing else counts: a message may have been given fields that its kind does not have.
    #[must_use]
    pub fn signed_message(&self, json: &[u8]) -> Option<SignedMessage> {
        // Fields of a newer version are passed over, so that either kind can be read as the other: the
        // signature tells which it is.
        if let Ok(change) = serde_json::from_slice::<TrustChange>(json)
            && self.believed(&change, change.signature.as_ref().map(|signature| &*signature.key_id)).is_some()
        {
            return Some(SignedMessage::Change(Box::new(change)));
        }
        let event: LogEvent = serde_json::from_slice(json).ok()?;
        self.believed(&event, event.signature.as_ref().map(|signature| &*signature.key_id))?;
        Some(SignedMessage::Event(Box::new(event)))
    }

    /// The set is asked first: it may revoke this server's own key.
    fn believed(&self, message: &impl Signed, key_id: Option<&str>) -> Option<()> {
        match self.set.as_ref().and_then(|set| set.key(key_id?)) {
            Some(key) if key.revoked => None,
            Some(key) => message.verify(&key.public_key).ok(),
            None => message.verify(&self.own).ok(),
        }
    }
}

fn row(log_id: &str, position: u64, event_hash: &str, epoch: u32) -> Option<SignedRow> {
    Some(SignedRow { log_id: log_id.parse().ok()?, position, event_hash: event_hash.parse().ok()?, epoch })
}

#[cfg(test)]
mod tests {
    use catrust_domain::Timestamp;
    use catrust_proto::v1 as proto;
    use catrust_trust_feed::contract::{SampleLog, key};

    use super::*;

    /// A set of two keys, one of them revoked or not.
    fn set(keys: [(&SigningKey, bool); 2]) -> Arc<KeySet> {
        let time = |seconds| Some(catrust_trust_feed::message::timestamp(Timestamp::from_micros(seconds)));
        let event_key = |(key, revoked): (&SigningKey, bool)| proto::EventKey {
            key_id: key.key_id().to_owned(),
            public_key: key.public_key_pem(),
            not_before: time(1),
            // Long expired.
            not_after: time(2),
            revoked,
        };
        let set = proto::KeySet {
            version: 1,
            issued_at: time(1),
            expires_at: time(2),
            keys: keys.map(event_key).to_vec(),
            ..proto::KeySet::default()
        };
        Arc::new(KeySet::checked(set).unwrap())
    }

    #[test]
    fn a_message_counts_by_a_key_that_is_believed_and_by_no_other() {
        let (own, other, stranger) = (key(), key(), key());
        let mut log = SampleLog::new();
        log.grow(30);
        let row = log.events().last().unwrap().clone();
        let by =
            |key: &SigningKey| catrust_trust_feed::FeedMessage::new(log.log_id(), &row, key).unwrap().json;
        let wanted = Some(SignedRow { log_id: log.log_id(), position: 30, event_hash: row.hash, epoch: 0 });
        let alone = KnownKeys::new(&own, None);
        assert_eq!(alone.signed_row(&by(&own)), wanted);
        assert_eq!(alone.signed_row(&by(&other)), None);
        let vouched = KnownKeys::new(&own, Some(set([(&own, false), (&other, false)])));
        assert_eq!(vouched.signed_row(&by(&other)), wanted, "expired, and true all the same");
        assert_eq!(vouched.signed_row(&by(&stranger)), None);
        let revoked = KnownKeys::new(&own, Some(set([(&own, true), (&other, true)])));
        assert_eq!(revoked.signed_row(&by(&own)), None, "its own key, too");
        assert_eq!(revoked.signed_row(&by(&other)), None);
    }

    // Whoever can write into a stream must not be able to make an inactivation, or a deletion, of
    // what a server signed about something else.
    #[test]
    fn a_message_is_of_the_kind_that_was_signed() {
        let own = key();
        let mut log = SampleLog::new();
        log.grow(30);
        let keys = KnownKeys::new(&own, None);
        let (mut changes, mut events) = (0, 0);
        for message in log.messages(&own) {
            let mut fields: serde_json::Value = serde_json::from_slice(&message.json).unwrap();
            let is_event = fields.get("entry").is_none();
            if is_event {
                // What a deletion has, and an event has not.
                fields["deleted"] = true.into();
                fields["entry"] = serde_json::json!({ "sn": "7A" });
            }
            match keys.signed_message(fields.to_string().as_bytes()).unwrap() {
                SignedMessage::Change(_) if !is_event => changes += 1,
                SignedMessage::Event(_) if is_event => events += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(changes > 0 && events > 0, "{changes} {events}");
    }

    #[test]
    fn what_is_changed_or_unsigned_does_not_count() {
        let own = key();
        let mut log = SampleLog::new();
        log.grow(30);
        let keys = KnownKeys::new(&own, None);
        for message in log.messages(&own) {
            let text = String::from_utf8(message.json.to_vec()).unwrap();
            assert!(keys.signed_row(text.as_bytes()).is_some());
            let position = format!("\"position\":\"{}\"", message.position);
            assert!(text.contains(&position), "{text}");
            assert_eq!(keys.signed_row(text.replace(&position, "\"position\":\"99\"").as_bytes()), None);
        }
        for text in ["{}", "", "null", "{\"position\":\"7\"}"] {
            assert_eq!(keys.signed_row(text.as_bytes()), None, "{text}");
        }
    }
}
