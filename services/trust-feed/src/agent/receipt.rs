//! Receipts: what the agent tells the control plane, by the source that it leans on, or
//! by the other one.

use std::sync::Arc;
use std::time::Duration;

use catrust_domain::{BrokerId, Enforcement, InstanceId, Sha256, Timestamp};
use catrust_proto::v1 as proto;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tonic::{Code, Request};

use super::core::{SourceKind, Statement};
use super::enforcer::Applied;
use super::source::{ServerError, Servers};
use crate::feed::BoxError;
use crate::message::timestamp;
use crate::nats::NatsFeed;

/// How long a server may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Who speaks.
#[derive(Clone, Debug)]
pub struct Speaker {
    /// The instance.
    pub instance_id: InstanceId,
    /// The broker.
    pub broker_id: BrokerId,
    /// Drawn when the process started.
    pub incarnation: Vec<u8>,
}

impl Speaker {
    /// The receipt of a statement made at `now`.
    pub fn receipt(
        &self,
        statement: &Statement,
        enforcement: Enforcement,
        sessions_open: u64,
        now: Timestamp,
    ) -> OutgoingReceipt {
        let Statement { revision, digest, outcome, traceparent } = statement;
        let (outcome, refusal, applied) = match outcome {
            Ok(applied) => (proto::ReceiptOutcome::Applied, String::new(), *applied),
            Err(reason) => {
                let applied = Applied { sessions_cut: 0, sessions_open };
                (proto::ReceiptOutcome::Refused, reason.clone(), applied)
            }
        };
        OutgoingReceipt {
            request: self.request(*revision, *digest, outcome, refusal, enforcement, applied, now),
            traceparent: traceparent.clone(),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of the message, each once")]
    fn request(
        &self,
        revision: u64,
        digest: Sha256,
        outcome: proto::ReceiptOutcome,
        refusal: String,
        enforcement: Enforcement,
        applied: Applied,
        now: Timestamp,
    ) -> proto::ReportReceiptRequest {
        let enforcement = match enforcement {
            Enforcement::Tls => proto::Enforcement::Tls,
            Enforcement::Connect => proto::Enforcement::Connect,
        };
        proto::ReportReceiptRequest {
            broker_id: self.broker_id.to_string(),
            mqtt_instance_id: self.instance_id.to_string(),
            revision,
            bundle_digest: digest.to_string(),
            outcome: outcome.into(),
            refusal,
            enforcement: enforcement.into(),
            sessions_cut: applied.sessions_cut,
            sessions_open: applied.sessions_open,
            applied_at: Some(timestamp(now)),
            incarnation: self.incarnation.clone(),
            ..Default::default()
        }
    }
}

/// A receipt on its way.
#[derive(Clone, Debug)]
pub struct OutgoingReceipt {
    /// The message.
    pub request: proto::ReportReceiptRequest,
    /// W3C trace context of the call behind it; empty where there is none.
    pub traceparent: String,
}

/// Sends receipts, one after another. What cannot be sent is dropped: the sign of life
/// says it again.
pub struct Reporter {
    /// The servers.
    pub servers: Arc<Servers>,
    /// NATS, where there is.
    pub nats: Option<NatsFeed>,
    /// Source that the agent leans on.
    pub active: watch::Receiver<SourceKind>,
    /// What to send.
    pub queue: mpsc::Receiver<OutgoingReceipt>,
    /// Counts how often a server asked for the bundle.
    pub bundle_asked: watch::Sender<u64>,
}

impl Reporter {
    /// Runs until the agent has gone.
    pub async fn run(mut self) {
        while let Some(receipt) = self.queue.recv().await {
            let first = *self.active.borrow();
            let second = match first {
                SourceKind::Nats => SourceKind::Grpc,
                SourceKind::Grpc => SourceKind::Nats,
            };
            if let Err(error) = self.send(first, &receipt).await
                && let Err(other) = self.send(second, &receipt).await
            {
                let revision = receipt.request.revision;
                tracing::debug!(revision, %error, %other, "a receipt cannot be sent now");
            }
        }
    }

    async fn send(&self, by: SourceKind, receipt: &OutgoingReceipt) -> Result<(), BoxError> {
        match (by, &self.nats) {
            (SourceKind::Nats, Some(_)) if receipt.request.newest_bundle.is_some() => {
                Err("a bundle goes over gRPC alone".into())
            }
            (SourceKind::Nats, Some(nats)) => {
                Ok(nats.publish_receipt(&receipt.request, &receipt.traceparent).await?)
            }
            (SourceKind::Nats, None) => Err("there is no NATS".into()),
            (SourceKind::Grpc, _) => Ok(self.call(receipt).await?),
        }
    }

    async fn call(&self, receipt: &OutgoingReceipt) -> Result<(), ServerError> {
        let (number, mut client) = self.servers.client().await?;
        let mut request = Request::new(receipt.request.clone());
        if let Ok(value) = receipt.traceparent.parse()
            && !receipt.traceparent.is_empty()
        {
            request.metadata_mut().insert("traceparent", value);
        }
        match timeout(ANSWER_TIMEOUT, client.report_receipt(request)).await {
            Ok(Ok(response)) => {
                if response.into_inner().send_bundle {
                    self.bundle_asked.send_modify(|count| *count += 1);
                }
                Ok(())
            }
            Ok(Err(status)) => {
                // Others mean that the server is there and does not want it. The token may have
                // expired: it is read anew for a new connection.
                if matches!(status.code(), Code::Unavailable | Code::Unauthenticated) {
                    self.servers.failed(number).await;
                }
                Err(status.into())
            }
            Err(_) => Err(ServerError::Silent(ANSWER_TIMEOUT)),
        }
    }
}
