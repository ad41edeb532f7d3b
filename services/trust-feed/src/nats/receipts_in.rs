//! Hearing receipts: core NATS, one replica for each of them. One may be lost; its
//! broker repeats it.

use async_nats::Message;
use catrust_proto::v1::ReportReceiptRequest;
use futures::StreamExt as _;
use futures::stream::BoxStream;

use super::NatsFeed;
use crate::feed::FeedError;

/// Every receipt of every broker.
const SUBJECTS: &str = "catrust.v1.receipt.*.*";
/// The replicas share the receipts out among themselves.
const QUEUE_GROUP: &str = "catrust";
/// Largest body that is looked at, in bytes. A receipt with the longest refusal, every
/// character of it escaped, has some 7 KiB.
const MAX_BODY: usize = 16 * 1024;
/// Characters of what is wrong with a body.
const MAX_QUOTE: usize = 200;

/// A message on the subject of a broker's receipts.
#[derive(Clone, Debug, PartialEq)]
pub struct IncomingReceipt {
    /// Instance in the subject. Not checked.
    pub instance: String,
    /// Broker in the subject. Not checked.
    pub broker: String,
    /// The receipt, which names the instance and the broker of the subject; its other
    /// fields are not checked.
    pub receipt: Result<ReportReceiptRequest, NoReceipt>,
}

/// Why a message is no receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoReceipt {
    /// More than any receipt needs.
    #[error("a body of {0} bytes, at most {MAX_BODY} are read")]
    TooLarge(usize),
    /// Not the ProtoJSON of a receipt; the text says where, and may quote what came.
    #[error("not the ProtoJSON of a ReportReceiptRequest: {0}")]
    Unreadable(String),
    /// NATS lets a broker publish on certain subjects, so that the subject says who
    /// speaks, and the body must not say otherwise.
    #[error("the body names another instance or broker than the subject")]
    OtherSubject,
}

/// Receipts as they come; ends only when the feed is dropped.
pub type ReceiptStream = BoxStream<'static, IncomingReceipt>;

impl NatsFeed {
    /// Hears the receipts that fall to this process among all that call this on the
    /// same NATS. Works while NATS is away, and goes on when it is back: what is sent
    /// in between is lost.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`] when the connection has been closed for good.
    pub async fn receipts(&self) -> Result<ReceiptStream, FeedError> {
        let subscriber = self.client.queue_subscribe(SUBJECTS, QUEUE_GROUP.to_owned()).await;
        Ok(subscriber.map_err(FeedError::unavailable)?.map(|message| incoming(&message)).boxed())
    }
}

fn incoming(message: &Message) -> IncomingReceipt {
    let mut tokens = message.subject.split('.').skip(3).map(str::to_owned);
    let (instance, broker) = (tokens.next().unwrap_or_default(), tokens.next().unwrap_or_default());
    let receipt = parse(&message.payload, &instance, &broker);
    IncomingReceipt { instance, broker, receipt }
}

fn parse(body: &[u8], instance: &str, broker: &str) -> Result<ReportReceiptRequest, NoReceipt> {
    if body.len() > MAX_BODY {
        return Err(NoReceipt::TooLarge(body.len()));
    }
    // The error may quote the body, which is not for the log as a whole.
    let unreadable = |error: serde_json::Error| error.to_string().chars().take(MAX_QUOTE).collect();
    let receipt: ReportReceiptRequest =
        serde_json::from_slice(body).map_err(|error| NoReceipt::Unreadable(unreadable(error)))?;
    if receipt.mqtt_instance_id != instance || receipt.broker_id != broker {
        return Err(NoReceipt::OtherSubject);
    }
    Ok(receipt)
}

#[cfg(test)]
mod tests {
    use catrust_proto::v1::{Enforcement, ReceiptOutcome};

    use super::*;

    fn receipt() -> ReportReceiptRequest {
        ReportReceiptRequest {
            broker_id: "b".to_owned(),
            mqtt_instance_id: "i".to_owned(),
            revision: 7,
            outcome: ReceiptOutcome::Refused.into(),
            // The longest that the contract takes, each character two escapes long.
            refusal: "\u{1F600}".repeat(512),
            enforcement: Enforcement::Connect.into(),
            sessions_open: u64::MAX,
            ..Default::default()
        }
    }

    #[test]
    fn the_largest_receipt_is_read_and_a_larger_body_is_not() {
        let escaped = serde_json::to_string(&receipt()).unwrap().replace('\u{1F600}', "\\ud83d\\ude00");
        assert_eq!(parse(escaped.as_bytes(), "i", "b"), Ok(receipt()));
        let huge = vec![b' '; MAX_BODY + 1];
        assert_eq!(parse(&huge, "i", "b"), Err(NoReceipt::TooLarge(MAX_BODY + 1)));
    }

    #[test]
    fn the_subject_says_who_speaks() {
        let body = serde_json::to_vec(&receipt()).unwrap();
        for (instance, broker) in [("i", "c"), ("j", "b"), ("", "")] {
            assert_eq!(parse(&body, instance, broker), Err(NoReceipt::OtherSubject));
        }
    }

    #[test]
    fn garbage_is_no_receipt() {
        let nested = "[".repeat(MAX_BODY);
        for garbage in ["", "\0", "null", "7", "{\"brokerId\": 7}", "{\"revision\": -1}", nested.as_str()] {
            let parsed = parse(garbage.as_bytes(), "i", "b");
            assert!(matches!(parsed, Err(NoReceipt::Unreadable(_))), "{garbage:.20}: {parsed:?}");
        }
    }
}
