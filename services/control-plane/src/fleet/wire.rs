//! Hears receipts on NATS. Nobody waits for an answer, so that what is wrong with one is counted,
//! and logged once for each sender.

use std::collections::HashSet;
use std::sync::Arc;

use catrust_domain::{InstanceId, Receipt};
use catrust_event_store::Clock;
use catrust_proto::v1::Head;
use catrust_trust_feed::{IncomingReceipt, ReceiptStream};
use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::{ReceiptIntake, ReceiptVia, Shown, Witness, statement};
use crate::directory::Directory;

/// Senders of what is no receipt that are logged; more are only counted.
const MOST_REPORTED: usize = 1_000;

pub(crate) struct ReceiptListener {
    pub(crate) intake: ReceiptIntake,
    /// Knows the instances. Those that it does not know yet are not looked up: the
    /// name comes from outside, and the broker says it again.
    pub(crate) directory: Arc<Directory>,
    pub(crate) clock: Clock,
    pub(crate) witness: Arc<Witness>,
}

impl ReceiptListener {
    pub(crate) async fn run(self, mut receipts: ReceiptStream, stop: CancellationToken) {
        let mut reported = ReportedSenders::default();
        // The stream ends with its feed, which lives as long as the server: where it ends before,
        // so does this, and the server with it.
        while let Some(Some(incoming)) = stop.run_until_cancelled(receipts.next()).await {
            let sender = (incoming.instance.clone(), incoming.broker.clone());
            match self.read(incoming) {
                Ok((receipt, head)) => {
                    if let Some(head) = &head {
                        let (id, broker) = (&receipt.instance_id, receipt.broker_id.as_str());
                        self.witness.hear(id, broker, Shown::Head(head)).await;
                    }
                    self.intake.offer(receipt);
                }
                Err(problem) => {
                    self.intake.refuse(ReceiptVia::Nats);
                    reported.tell(sender, &problem);
                }
            }
        }
    }

    fn read(&self, incoming: IncomingReceipt) -> Result<(Receipt, Option<Head>), String> {
        let mut message = incoming.receipt.map_err(|error| error.to_string())?;
        let head = message.newest_head.take();
        let receipt = statement::receipt(message, (self.clock)()).map_err(|violations| {
            let texts: Vec<_> = violations.iter().map(|(field, text)| format!("{field} {text}")).collect();
            texts.join("; ")
        })?;
        self.check_instance(&receipt.instance_id)?;
        Ok((receipt, head))
    }

    fn check_instance(&self, id: &InstanceId) -> Result<(), String> {
        self.directory.find(id).map(drop).ok_or_else(|| "no such MQTT instance".to_owned())
    }
}

/// Senders that were logged.
#[derive(Default)]
struct ReportedSenders(HashSet<(String, String)>);

impl ReportedSenders {
    fn tell(&mut self, sender: (String, String), problem: &str) -> bool {
        if self.0.len() >= MOST_REPORTED || self.0.contains(&sender) {
            return false;
        }
        // Names from outside: as Debug, which escapes what would forge lines.
        let (instance, broker) = &sender;
        tracing::warn!(?instance, ?broker, ?problem, "not a receipt; told once for each broker");
        self.0.insert(sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sender_is_told_of_once_and_only_so_many() {
        let mut reported = ReportedSenders::default();
        let sender = |number: usize| ("i".to_owned(), number.to_string());
        assert!(reported.tell(sender(0), "garbage"));
        assert!(!reported.tell(sender(0), "garbage again"));
        let more = (1..2 * MOST_REPORTED).filter(|number| reported.tell(sender(*number), "garbage")).count();
        assert_eq!(more, MOST_REPORTED - 1);
    }
}
