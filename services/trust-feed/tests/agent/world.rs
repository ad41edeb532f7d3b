//! A log with its servers on gRPC and NATS, and an agent with a recording enforcer.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use catrust_domain::{InstanceId, SerialNumber, Timestamp};
use catrust_proto::v1 as proto;
use catrust_proto::v1::trust_message::Message as Body;
use catrust_proto::v1::trust_service_server::{TrustService, TrustServiceServer};
use catrust_test_harness::eventually::eventually;
use catrust_test_harness::nats::NatsServer;
use catrust_trust_feed::agent::{
    Agent, AgentHandle, AgentSettings, AgentStatus, AgentTrust, Applied, Enforcement, Enforcer, GrpcSettings,
    NotApplied,
};
use catrust_trust_feed::contract::{SampleLog, key};
use catrust_trust_feed::{
    NatsFeed, NatsSettings, Signed, SigningKey, TrustFeed, TrustKeys, TrustPoint, message,
};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

/// Time between two heads: shorter than in earnest, so that tests are.
pub const HEADS_EVERY: Duration = Duration::from_millis(500);
/// Three heads, as in earnest.
pub const SOFT: Duration = Duration::from_millis(1_500);
/// Longest that anything in these tests is waited for.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap())
}

/// The log and who signs it.
pub struct World {
    log: Mutex<SampleLog>,
    pub instance: InstanceId,
    certificate: SerialNumber,
    pub key: Arc<SigningKey>,
    /// Number of the log epoch.
    epoch: u64,
    /// Counts changes.
    changed: watch::Sender<u64>,
    /// Receipts that came by gRPC.
    receipts: Mutex<Vec<(proto::ReportReceiptRequest, String)>>,
    /// Token that calls must carry.
    pub token: Mutex<Option<String>>,
    /// Sent to every watcher, once.
    pub planted: Mutex<Option<proto::TrustMessage>>,
    pub watchers: AtomicU64,
    /// Whether receipts are answered with a question for the bundle.
    pub wants_bundle: AtomicBool,
}

impl World {
    pub fn new() -> Arc<Self> {
        let mut log = SampleLog::new();
        let instance = log.register_instance("fleet");
        let certificate = log.register_certificate(&instance);
        Arc::new(Self {
            log: Mutex::new(log),
            instance,
            certificate,
            key: Arc::new(key()),
            epoch: 0,
            changed: watch::channel(0).0,
            receipts: Mutex::default(),
            token: Mutex::default(),
            planted: Mutex::default(),
            watchers: AtomicU64::new(0),
            wants_bundle: AtomicBool::new(false),
        })
    }

    /// The same log, signed with the same key, after the log epoch `epoch` began. Both go on.
    pub fn in_epoch(&self, epoch: u64) -> Arc<Self> {
        Arc::new(Self {
            log: Mutex::new(self.log().copy()),
            instance: self.instance.clone(),
            certificate: self.certificate.clone(),
            key: Arc::clone(&self.key),
            epoch,
            changed: watch::channel(0).0,
            receipts: Mutex::default(),
            token: Mutex::default(),
            planted: Mutex::default(),
            watchers: AtomicU64::new(0),
            wants_bundle: AtomicBool::new(false),
        })
    }

    /// A revision as everybody but the log counts it.
    fn of_epoch(&self, revision: u64) -> u64 {
        (self.epoch << 32) | revision
    }

    fn log(&self) -> MutexGuard<'_, SampleLog> {
        self.log.lock().unwrap()
    }

    /// Makes a change; gives its revision.
    pub fn toggle(&self) -> u64 {
        let revision = {
            let mut log = self.log();
            log.toggle(&self.instance, &self.certificate);
            self.of_epoch(log.bundle(&self.instance).revision)
        };
        self.changed.send_modify(|count| *count += 1);
        revision
    }

    pub fn signed<M: Signed>(&self, mut message: M) -> M {
        message.sign(&self.key).unwrap();
        message
    }

    pub fn bundle(&self) -> proto::TrustBundle {
        let log = self.log();
        let mut bundle = log.bundle(&self.instance);
        bundle.revision = self.of_epoch(bundle.revision);
        self.signed(message::trust_bundle(log.log_id(), &bundle, now()))
    }

    fn head(&self) -> proto::Head {
        let log = self.log();
        let bundle = log.bundle(&self.instance);
        let point = TrustPoint {
            instance_id: bundle.instance_id,
            revision: self.of_epoch(bundle.revision),
            position: bundle.position,
            digest: bundle.digest,
        };
        self.signed(message::head(log.log_id(), &point, now()))
    }

    fn changes_after(&self, revision: u64) -> Vec<proto::TrustChange> {
        let log = self.log();
        let changes = log.events().iter().filter_map(|event| {
            let (_, mut change) = message::trust_change(log.log_id(), event).unwrap()?;
            change.revision = self.of_epoch(change.revision);
            change.previous_revision = self.of_epoch(change.previous_revision);
            (change.revision > revision).then(|| self.signed(change))
        });
        changes.collect()
    }

    pub fn receipts(&self) -> Vec<(proto::ReportReceiptRequest, String)> {
        self.receipts.lock().unwrap().clone()
    }

    /// Receipts by gRPC about `revision`, with this outcome.
    pub async fn receipt(
        &self,
        revision: u64,
        outcome: proto::ReceiptOutcome,
    ) -> proto::ReportReceiptRequest {
        let wanted = |receipt: &proto::ReportReceiptRequest| {
            receipt.revision == revision && receipt.outcome() == outcome
        };
        eventually(PATIENCE, "a receipt", async || {
            let receipts = self.receipts();
            let receipt = receipts.iter().map(|(receipt, _)| receipt).find(|receipt| wanted(receipt));
            receipt.cloned().ok_or_else(|| format!("{receipts:?}"))
        })
        .await
        .unwrap()
    }

    pub fn settings(&self, server: &str) -> AgentSettings {
        let broker_id = "broker-1".parse().unwrap();
        let keys = TrustKeys::from(&*self.key);
        let grpc = GrpcSettings::new(server);
        AgentSettings {
            soft_budget: SOFT,
            receipt_interval: Duration::from_secs(1),
            ..AgentSettings::new(self.instance.clone(), broker_id, keys, grpc)
        }
    }
}

// The server.

/// Serves a world on gRPC, until it is dropped.
pub struct GrpcServer {
    pub url: String,
    _task: JoinSet<()>,
}

impl GrpcServer {
    pub async fn start(world: &Arc<World>) -> Self {
        Self::start_with(world, None).await
    }

    pub async fn start_with(world: &Arc<World>, tls: Option<ServerTlsConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let mut builder = Server::builder();
        if let Some(tls) = tls {
            builder = builder.tls_config(tls).unwrap();
        }
        let service = TrustServiceServer::new(Service(Arc::clone(world)));
        let serving = builder.add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
        let mut task = JoinSet::new();
        task.spawn(async move { serving.await.expect("the server serves") });
        Self { url: format!("{scheme}://127.0.0.1:{port}"), _task: task }
    }
}

struct Service(Arc<World>);

impl Service {
    fn admit<M>(&self, request: &Request<M>) -> Result<(), Status> {
        let Some(token) = self.0.token.lock().unwrap().clone() else { return Ok(()) };
        let given = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        if given == Some(&format!("Bearer {token}")) {
            Ok(())
        } else {
            Err(Status::unauthenticated("who are you?"))
        }
    }
}

type Watch = Pin<Box<dyn Stream<Item = Result<proto::TrustMessage, Status>> + Send>>;

#[async_trait]
impl TrustService for Service {
    type WatchTrustStream = Watch;

    async fn get_trust_bundle(
        &self,
        request: Request<proto::GetTrustBundleRequest>,
    ) -> Result<Response<proto::GetTrustBundleResponse>, Status> {
        self.admit(&request)?;
        let bundle = Some(self.0.bundle());
        Ok(Response::new(proto::GetTrustBundleResponse { request_id: String::new(), bundle, key_set: None }))
    }

    async fn watch_trust(
        &self,
        request: Request<proto::WatchTrustRequest>,
    ) -> Result<Response<Watch>, Status> {
        self.admit(&request)?;
        let (sender, receiver) = mpsc::channel(16);
        let world = Arc::clone(&self.0);
        world.watchers.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(async move {
            // Fails when the reader has gone.
            let _ = serve_watcher(&world, request.into_inner(), &sender).await;
            world.watchers.fetch_sub(1, Ordering::SeqCst);
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn report_receipt(
        &self,
        request: Request<proto::ReportReceiptRequest>,
    ) -> Result<Response<proto::ReportReceiptResponse>, Status> {
        self.admit(&request)?;
        let trace = request.metadata().get("traceparent").and_then(|value| value.to_str().ok());
        let trace = trace.unwrap_or_default().to_owned();
        self.0.receipts.lock().unwrap().push((request.into_inner(), trace));
        let send_bundle = self.0.wants_bundle.load(Ordering::SeqCst);
        Ok(Response::new(proto::ReportReceiptResponse { request_id: String::new(), send_bundle }))
    }
}

type Sent = Result<(), mpsc::error::SendError<Result<proto::TrustMessage, Status>>>;

async fn serve_watcher(
    world: &World,
    request: proto::WatchTrustRequest,
    sender: &mpsc::Sender<Result<proto::TrustMessage, Status>>,
) -> Sent {
    let message = |body| proto::TrustMessage { message: Some(body), request_id: String::new() };
    let mut changed = world.changed.subscribe();
    let mut heads = tokio::time::interval(HEADS_EVERY);
    let mut nonce = request.nonce;
    let mut applied = match request.after_revision {
        Some(revision) => revision,
        None => {
            let bundle = world.bundle();
            let revision = bundle.revision;
            sender.send(Ok(message(Body::Bundle(bundle)))).await?;
            revision
        }
    };
    loop {
        for change in world.changes_after(applied) {
            applied = change.revision;
            sender.send(Ok(message(Body::Change(change)))).await?;
        }
        let planted = world.planted.lock().unwrap().take();
        if let Some(planted) = planted {
            sender.send(Ok(planted)).await?;
        }
        tokio::select! {
            _ = changed.changed() => {}
            _ = heads.tick() => {
                let head = proto::Head { nonce: std::mem::take(&mut nonce), ..world.head() };
                sender.send(Ok(message(Body::Head(world.signed(head))))).await?;
            }
            () = sender.closed() => return Ok(()),
        }
    }
}

/// Publishes a world on NATS, until it is dropped: changes as they are made, and heads.
pub struct NatsPublisher {
    _task: JoinSet<()>,
}

impl NatsPublisher {
    pub async fn start(world: &Arc<World>, server: &NatsServer) -> Self {
        let feed = NatsFeed::connect(&NatsSettings::new(server.url())).await.unwrap();
        let world = Arc::clone(world);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut changed = world.changed.subscribe();
            let mut heads = tokio::time::interval(HEADS_EVERY);
            let mut waiting = Vec::new();
            loop {
                waiting.extend(world.log().messages(&world.key));
                if let Some(first) = waiting.first()
                    && let Ok(tail) = feed.tail().await
                {
                    let skip = tail.sequence + 1 - first.position;
                    if feed.publish(&waiting[usize::try_from(skip).unwrap()..]).await.is_ok() {
                        waiting.clear();
                    }
                }
                tokio::select! {
                    _ = changed.changed() => {}
                    // Fails while NATS is away.
                    _ = heads.tick() => drop(feed.publish_head(&world.head()).await),
                }
            }
        });
        Self { _task: task }
    }
}

// The broker.

/// Records what it is told.
#[derive(Default)]
pub struct Recorder {
    applied: Mutex<Vec<AgentTrust>>,
    pub fails: AtomicBool,
    pub open: AtomicU64,
}

impl Recorder {
    pub fn applied(&self) -> Vec<AgentTrust> {
        self.applied.lock().unwrap().clone()
    }

    fn last_revision(&self) -> Option<u64> {
        self.applied.lock().unwrap().last().map(|trust| trust.bundle.revision)
    }

    /// Waits until `revision`, or a later one, is enforced.
    pub async fn reached(&self, revision: u64) {
        eventually(PATIENCE, "the revision is enforced", async || match self.last_revision() {
            Some(last) if last >= revision => Ok(()),
            last => Err(format!("{last:?}")),
        })
        .await
        .unwrap();
    }
}

#[async_trait]
impl Enforcer for Recorder {
    async fn apply(&self, trust: &AgentTrust) -> Result<Applied, NotApplied> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(NotApplied { reason: "the broker is away".to_owned() });
        }
        self.applied.lock().unwrap().push(trust.clone());
        Ok(Applied { sessions_cut: 1, sessions_open: self.sessions_open() })
    }

    fn sessions_open(&self) -> u64 {
        self.open.load(Ordering::SeqCst)
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Tls
    }
}

/// A running agent and its broker.
pub struct Broker {
    pub recorder: Arc<Recorder>,
    pub agent: AgentHandle,
}

impl Broker {
    pub async fn start(settings: AgentSettings) -> Self {
        let recorder = Arc::new(Recorder::default());
        let enforcer = Arc::clone(&recorder) as Arc<dyn Enforcer>;
        let agent = Agent::start(settings, enforcer).await.expect("the agent starts");
        Self { recorder, agent }
    }

    pub async fn until(&self, what: &str, condition: impl Fn(&AgentStatus) -> bool) -> AgentStatus {
        eventually(PATIENCE, what, async || {
            let status = self.agent.status();
            if condition(&status) { Ok(status) } else { Err(format!("{status:?}")) }
        })
        .await
        .unwrap()
    }

    /// Waits until the agent has trust that it may rely on.
    pub async fn ready(&self) {
        let ready = tokio::time::timeout(PATIENCE, self.agent.ready()).await;
        assert_eq!(ready, Ok(Ok(())), "{:?}", self.agent.status());
    }
}
