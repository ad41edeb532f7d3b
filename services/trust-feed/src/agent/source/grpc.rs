//! `WatchTrust`, while it is wanted; and `GetTrustBundle`.

use std::sync::Arc;
use std::time::Duration;

use catrust_domain::{BrokerId, InstanceId};
use catrust_proto::v1 as proto;
use catrust_proto::v1::trust_message::Message as Body;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::servers::{Client, ServerError, Servers};
use super::{AgentGone, OutageLog, pause, send};
use crate::agent::chance;
use crate::agent::core::{Input, Message, SourceKind};

/// Random bytes in the question for a head.
const NONCE_LENGTH: usize = 16;
/// How long the first byte of an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a whole bundle may take.
const BUNDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the slowest of all servers may take with the first bundle.
const EVERY_SERVER_TIMEOUT: Duration = Duration::from_secs(2);

/// Follows `WatchTrust` and connects again for ever, while it is wanted.
pub struct GrpcSource {
    /// The servers.
    pub servers: Arc<Servers>,
    /// Instance to follow.
    pub instance_id: InstanceId,
    /// Name to give.
    pub broker_id: BrokerId,
    /// How long a server may say nothing: heads come more often.
    pub silence: Duration,
    /// Whether to follow now.
    pub wanted: watch::Receiver<bool>,
    /// Moves when another stream is wanted.
    pub reopen: watch::Receiver<u64>,
    /// Zero of the monotonic clock.
    pub started: Instant,
    /// Revision of the state, to go on from.
    pub revision: watch::Receiver<Option<u64>>,
    /// The newest head, to be told.
    pub newest_head: watch::Receiver<Option<proto::Head>>,
    /// Where messages go.
    pub inputs: mpsc::Sender<Input>,
}

impl GrpcSource {
    /// Runs until the agent has gone.
    pub async fn run(mut self) {
        let mut failures = 0;
        let mut outage_log = OutageLog::default();
        while self.wanted.wait_for(|wanted| *wanted).await.is_ok() {
            let mut wanted = self.wanted.clone();
            let mut reopen = self.reopen.clone();
            reopen.mark_unchanged();
            let outcome = tokio::select! {
                outcome = self.watch(&mut failures, &mut outage_log) => Some(outcome),
                _ = wanted.wait_for(|wanted| !*wanted) => {
                    failures = 0;
                    continue;
                }
                Ok(()) = reopen.changed() => None,
            };
            let Some(outcome) = outcome else {
                tracing::warn!("the heads of this server prove nothing here: asking another one");
                self.servers.leave().await;
                continue;
            };
            let Ok(error) = outcome else { return };
            outage_log.tell("grpc", error.text());
            if send(&self.inputs, Input::SourceLost(SourceKind::Grpc)).await.is_err() {
                return;
            }
            tokio::time::sleep(pause(failures)).await;
            failures += 1;
        }
    }

    /// One stream, until it fails; tells why it did.
    async fn watch(&self, failures: &mut u32, outage_log: &mut OutageLog) -> Result<ServerError, AgentGone> {
        let (number, mut client) = match self.servers.client().await {
            Ok(connection) => connection,
            Err(error) => return Ok(error),
        };
        let (nonce, asked_at) = (chance::bytes::<NONCE_LENGTH>(), self.started.elapsed());
        let request = proto::WatchTrustRequest {
            mqtt_instance_id: self.instance_id.to_string(),
            broker_id: self.broker_id.to_string(),
            after_revision: *self.revision.borrow(),
            nonce: nonce.clone(),
            newest_head: self.newest_head.borrow().clone(),
        };
        let error = match timeout(ANSWER_TIMEOUT, client.watch_trust(request)).await {
            Ok(Ok(response)) => {
                send(&self.inputs, Input::SourceUp(SourceKind::Grpc)).await?;
                outage_log.forget();
                self.follow(response.into_inner(), &nonce, asked_at, failures).await?
            }
            Ok(Err(status)) => status.into(),
            Err(_) => ServerError::Silent(ANSWER_TIMEOUT),
        };
        self.servers.failed(number).await;
        Ok(error)
    }

    async fn follow(
        &self,
        mut stream: tonic::Streaming<proto::TrustMessage>,
        nonce: &[u8],
        asked_at: Duration,
        failures: &mut u32,
    ) -> Result<ServerError, AgentGone> {
        loop {
            let message = match timeout(self.silence, stream.message()).await {
                Ok(Ok(Some(message))) => message,
                Ok(Ok(None)) => return Ok(ServerError::Ended),
                Ok(Err(status)) => return Ok(status.into()),
                Err(_) => return Ok(ServerError::Silent(self.silence)),
            };
            *failures = 0;
            let input = match message.message {
                Some(Body::Bundle(bundle)) => Input::Message(SourceKind::Grpc, Message::Bundle(bundle)),
                Some(Body::Change(change)) => {
                    Input::Message(SourceKind::Grpc, Message::Change(Box::new(change)))
                }
                Some(Body::Head(head)) if !nonce.is_empty() && head.nonce == nonce => {
                    Input::Message(SourceKind::Grpc, Message::Answer { head, asked_at })
                }
                Some(Body::Head(head)) => Input::Message(SourceKind::Grpc, Message::Head(head)),
                Some(Body::KeySet(set)) => Input::Message(SourceKind::Grpc, Message::KeySet(Box::new(set))),
                None => Input::Unreadable(SourceKind::Grpc),
            };
            send(&self.inputs, input).await?;
        }
    }
}

/// Reads the bundle of now, after the keys that may have signed it.
///
/// # Errors
/// [`ServerError`]; the next attempt goes to the next server.
pub async fn snapshot(servers: &Servers, instance_id: &InstanceId) -> Result<Vec<Message>, ServerError> {
    let (number, client) = servers.client().await?;
    let answer = timeout(BUNDLE_TIMEOUT, bundle_of_now(client, instance_id)).await;
    let answer = answer.unwrap_or(Err(ServerError::Silent(BUNDLE_TIMEOUT)));
    if answer.is_err() {
        servers.failed(number).await;
    }
    answer
}

/// Reads the bundle of now from every server, over a connection of its own to each, and
/// hands in what comes in time.
pub async fn snapshots(servers: &Arc<Servers>, instance_id: &InstanceId, inputs: &mpsc::Sender<Input>) {
    let mut questions = JoinSet::new();
    for number in 0..servers.count() {
        let (servers, instance_id) = (Arc::clone(servers), instance_id.clone());
        questions.spawn(async move {
            let answer = async { bundle_of_now(servers.client_of(number).await?, &instance_id).await };
            timeout(EVERY_SERVER_TIMEOUT, answer)
                .await
                .unwrap_or(Err(ServerError::Silent(EVERY_SERVER_TIMEOUT)))
        });
    }
    while let Some(answer) = questions.join_next().await {
        match answer {
            Ok(Ok(messages)) => {
                for message in messages {
                    // Fails when the agent has gone.
                    let _ = inputs.send(Input::Message(SourceKind::Grpc, message)).await;
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(error = error.text(), "a server is not heard about the first bundle");
            }
            Err(error) => tracing::error!(%error, "a question for the first bundle has failed"),
        }
    }
}

async fn bundle_of_now(mut client: Client, instance_id: &InstanceId) -> Result<Vec<Message>, ServerError> {
    let request = proto::GetTrustBundleRequest { mqtt_instance_id: instance_id.to_string(), at: None };
    let response = client.get_trust_bundle(request).await?.into_inner();
    let proto::GetTrustBundleResponse { bundle, key_set, .. } = response;
    let bundle = bundle.ok_or(ServerError::Empty)?;
    let keys = key_set.map(|set| Message::KeySet(Box::new(set)));
    Ok(keys.into_iter().chain([Message::Bundle(bundle)]).collect())
}
