//! A message on the wire: headers around the signed body.

use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_LAST_SEQUENCE, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_ID};
use async_nats::jetstream::message::StreamMessage;
use serde::Deserialize;

use crate::feed::TailMessage;
use crate::message::{FeedBody, FeedMessage};

/// CloudEvents 1.0 in the binary mode of its NATS binding, W3C trace context, and what
/// the server needs for order. For routers and people: readers trust the body alone.
pub fn headers(message: &FeedMessage) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(NATS_MESSAGE_ID, format!("{}:{}", message.log_id, message.position));
    headers.insert(NATS_EXPECTED_LAST_SEQUENCE, message.position.saturating_sub(1).to_string());
    if message.position == 1 {
        // NATS 2.9 takes an expected last sequence of 0 for none at all. The subject of
        // position 1 is that of a registration, which happens once and is never
        // replaced, so that "nothing yet on this subject" says the same.
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
    }
    headers.insert("ce-specversion", "1.0");
    headers.insert("ce-id", message.event_id.to_string());
    headers.insert("ce-source", format!("/catrust/logs/{}", message.log_id));
    if let Some(event_type) = token(&message.event_type) {
        headers.insert("ce-type", format!("catrust.v1.{event_type}"));
    }
    headers.insert("ce-time", message.occurred_at.to_string());
    headers.insert("ce-subject", cloud_event_subject(message));
    headers.insert("content-type", "application/json");
    if is_traceparent(&message.traceparent) {
        headers.insert("traceparent", message.traceparent.as_str());
    }
    headers.insert("Catrust-Log-Id", message.log_id.to_string());
    headers.insert("Catrust-Event-Hash", message.event_hash.to_string());
    headers
}

fn cloud_event_subject(message: &FeedMessage) -> String {
    let sha256 = match &message.body {
        FeedBody::Change(change) => change.entry.as_ref().map(|entry| entry.sha256.as_str()),
        FeedBody::Log(_) => None,
    };
    match sha256 {
        Some(sha256) => format!("{}/{sha256}", message.instance_id),
        None => message.instance_id.to_string(),
    }
}

/// The text, where it is safe in a header and in a subject.
fn token(text: &str) -> Option<&str> {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric()).then_some(text)
}

/// Whether a text has the form `00-<trace id>-<span id>-<flags>`. It came from a caller,
/// and a line break in a header would be another header.
pub fn is_traceparent(text: &str) -> bool {
    let hexadecimal = |part: &str, length| {
        part.len() == length
            && part.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let parts: Vec<&str> = text.split('-').collect();
    match parts.as_slice() {
        [version, trace, span, flags] => {
            hexadecimal(version, 2)
                && hexadecimal(trace, 32)
                && hexadecimal(span, 16)
                && hexadecimal(flags, 2)
        }
        _ => false,
    }
}

/// The fields of either body that name its row.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RowIdentity {
    log_id: String,
    position: String,
    event_hash: String,
}

/// What a stored message is; `None` where its body does not say that it belongs at
/// its sequence.
pub fn identify(stored: &StreamMessage) -> Option<TailMessage> {
    let identity: RowIdentity = serde_json::from_slice(&stored.payload).ok()?;
    if identity.position != stored.sequence.to_string() {
        return None;
    }
    Some(TailMessage { log_id: identity.log_id.parse().ok()?, event_hash: identity.event_hash.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{SampleLog, key};

    fn messages() -> Vec<FeedMessage> {
        let mut log = SampleLog::new();
        let instance = log.register_instance("wire");
        log.register_certificate(&instance);
        log.messages(&key())
    }

    #[test]
    fn headers_are_cloud_events_with_order_and_trace() {
        let message = &messages()[2];
        let headers = headers(message);
        let header = |name: &str| headers.get(name).map(async_nats::HeaderValue::as_str);
        let FeedBody::Change(change) = &message.body else { panic!("a change") };
        let entry = change.entry.as_ref().unwrap();
        assert_eq!(header("Nats-Msg-Id"), Some(&*format!("{}:3", message.log_id)));
        assert_eq!(header("Nats-Expected-Last-Sequence"), Some("2"));
        assert_eq!(header("ce-specversion"), Some("1.0"));
        assert_eq!(header("ce-id"), Some(&*change.event_id));
        assert_eq!(header("ce-source"), Some(&*format!("/catrust/logs/{}", change.log_id)));
        assert_eq!(header("ce-type"), Some("catrust.v1.CaCertificateRegistered"));
        assert_eq!(header("ce-time"), Some(&*message.occurred_at.to_string()));
        assert_eq!(header("ce-subject"), Some(&*format!("wire/{}", entry.sha256)));
        assert_eq!(header("content-type"), Some("application/json"));
        assert_eq!(header("traceparent"), Some(&*message.traceparent));
        assert_eq!(header("Catrust-Event-Hash"), Some(&*change.event_hash));
    }

    #[test]
    fn a_trace_context_that_is_none_stays_out_of_the_headers() {
        let mut message = messages().remove(0);
        for text in
            ["", "00-1-2-3", "x\r\nNats-Msg-Id: y", "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"]
        {
            message.traceparent = text.to_owned();
            assert!(headers(&message).get("traceparent").is_none(), "{text:?}");
        }
    }

    #[test]
    fn a_stored_message_is_known_by_its_body_at_its_sequence() {
        let message = &messages()[1];
        let stored = |sequence, payload: &[u8]| StreamMessage {
            subject: message.subject.as_str().into(),
            sequence,
            headers: HeaderMap::new(),
            payload: payload.to_vec().into(),
            time: async_nats::datetime::parse_rfc3339("2026-11-24T00:00:00Z").unwrap(),
        };
        let expected = TailMessage { log_id: message.log_id, event_hash: message.event_hash };
        assert_eq!(identify(&stored(2, &message.json)), Some(expected));
        assert_eq!(identify(&stored(3, &message.json)), None);
        assert_eq!(identify(&stored(2, b"{}")), None);
    }
}
