//! Puts the server together, bottom up: store, follower, appender, feed, layers,
//! services, listeners. Straight-line wiring; nothing is decided here.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use catrust_domain::{LogEvidence, LogMark, Timestamp};
use catrust_event_store::{Clock, EventStore, Ground};
use catrust_evidence::{Checkpoint, SignedCheckpoint};
use catrust_proto::FILE_DESCRIPTOR_SET;
use catrust_proto::v1::audit_service_server::AuditServiceServer;
use catrust_proto::v1::ca_certificate_service_server::CaCertificateServiceServer;
use catrust_proto::v1::fleet_service_server::FleetServiceServer;
use catrust_proto::v1::instance_service_server::InstanceServiceServer;
use catrust_proto::v1::trust_service_server::TrustServiceServer;
use catrust_publisher::{HeadSource, Publisher, PublisherParts};
use catrust_trust_feed::{
    MessageCache, ReceiptStream, SigningKey, SpendingSender, SpendingStream, TrustFeed,
};
use opentelemetry::metrics::Meter;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::LayerExt as _;
use tonic::transport::Server;
use tower::ServiceBuilder;
use uuid::Uuid;

use crate::api::audit::Audit;
use crate::api::ca_certificates::CaCertificates;
use crate::api::fleet::Fleet;
use crate::api::instances::Instances;
use crate::api::trust::Trust;
use crate::api::{Api, ServiceRules};
use crate::appender::Appender;
use crate::background;
use crate::config::Config;
use crate::directory::Directory;
use crate::evidence::Evidence;
use crate::evidence::checkpoint_file::CheckpointFile;
use crate::evidence::checkpointer::Checkpointer;
use crate::fleet::census::Census;
use crate::fleet::wire::ReceiptListener;
use crate::fleet::witness::StoreRows;
use crate::fleet::{FleetView, ReceiptIntake, Witness};
use crate::follower::Follower;
use crate::ground::{AttentiveLog, GroundJudge, GroundWatcher, LogGround};
use crate::keys::ServerKeys;
use crate::keys::expiry::KeyExpiry;
use crate::lifecycle::{Stages, Tasks};
use crate::listener::connections;
use crate::middleware::Around;
use crate::middleware::deadline::DeadlineLayer;
use crate::middleware::identity::IdentityLayer;
use crate::middleware::in_flight::InFlightLayer;
use crate::middleware::load_shed::LoadShedLayer;
use crate::middleware::log_state::LogStateLayer;
use crate::middleware::rate_limit::RateLimitLayer;
use crate::middleware::refusals::RefusalLayer;
use crate::middleware::request_body;
use crate::middleware::request_id::RequestIdLayer;
use crate::middleware::trace_context::TraceContextLayer;
use crate::per_user::PerUser;
use crate::publishing::{self, TracingHooks};
use crate::refusals::{RefusalLog, RefusalRetention};
use crate::reload::Reloader;
use crate::telemetry::Telemetry;
use crate::tls::ServerTls;
use catrust_access::{Authenticator, Authorizer};
use catrust_limiter::exchange::Exchange;
use catrust_limiter::gossip::Gossip;
use catrust_limiter::instruments::LimiterInstruments;
use catrust_limiter::{self as limiter, UserLimiter};

/// Time between two heads of an instance.
const HEAD_INTERVAL: Duration = Duration::from_secs(2);

/// Old bundles that are loaded at once.
const OLD_BUNDLES: usize = 2;

/// How long calls in progress may take to end when the server drains: longer than the
/// default deadline of a call.
const LAST_CALL: Duration = Duration::from_secs(12);

/// How long the last bytes of replies may take to reach the socket.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// Services that health knows by name.
const SERVICES: &[&str] = &[
    "catrust.v1.CaCertificateService",
    "catrust.v1.InstanceService",
    "catrust.v1.TrustService",
    "catrust.v1.FleetService",
    "catrust.v1.AuditService",
];

/// What the wiring needs besides the settings.
pub(crate) struct ServerParts {
    pub(crate) store: Arc<dyn EventStore>,
    /// Signs the messages, and says who vouches for that.
    pub(crate) keys: Arc<ServerKeys>,
    /// The feed to publish to, where there is one besides the in-process one.
    pub(crate) feed: Option<Arc<dyn TrustFeed>>,
    /// Whether that feed may be set aside although it holds another log.
    pub(crate) take_over_stream: bool,
    pub(crate) receipts: Option<ReceiptStream>,
    /// The way to the other replicas, to tell them what users spend.
    pub(crate) spending: Option<(SpendingSender, SpendingStream)>,
    pub(crate) authenticator: Arc<dyn Authenticator>,
    /// Makes TLS handshakes; `None` for a listener without TLS. Its files MUST have been read.
    pub(crate) tls: Option<Arc<ServerTls>>,
    /// Keep what is made of files true to them: identities, policies, TLS certificates, key sets.
    pub(crate) reloaders: Vec<Reloader>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) clock: Clock,
}

/// A server whose listeners are bound and whose tasks run.
pub(crate) struct RunningServer {
    pub(crate) tasks: Tasks,
    pub(crate) api: Arc<Api>,
    pub(crate) grpc_address: SocketAddr,
    /// Where probes and metrics are.
    pub(crate) admin_address: SocketAddr,
}

#[must_use]
pub(crate) fn system_clock() -> Clock {
    Arc::new(|| {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Timestamp::from_micros(since_epoch.map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX)))
    })
}

/// Assembles the server and starts its tasks.
///
/// # Errors
/// A listener cannot be bound, a file cannot be read, or the store does not answer.
pub(crate) async fn assemble(
    config: &Config,
    mut parts: ServerParts,
    telemetry: &Telemetry,
    stages: &Stages,
) -> anyhow::Result<RunningServer> {
    let meter = &telemetry.meter;
    let mut tasks = Tasks::default();

    let grpc = TcpListener::bind(config.grpc.listen)
        .await
        .with_context(|| format!("cannot listen on grpc.listen = {}", config.grpc.listen))?;
    let admin = TcpListener::bind(config.admin.listen)
        .await
        .with_context(|| format!("cannot listen on admin.listen = {}", config.admin.listen))?;
    let (grpc_address, admin_address) = (grpc.local_addr()?, admin.local_addr()?);

    let receipts = parts.receipts.take();
    let ground = LogGround::default();
    let (evidence, witnesses) = assemble_evidence(config, &parts, &ground, meter, stages, &mut tasks)?;
    let judge = Arc::new(GroundJudge::new(parts.store.clone(), ground.clone()));
    let standing = GroundStanding { judge: Arc::clone(&judge), ground: ground.clone() };
    let api = assemble_api(config, &parts, standing, evidence, meter, stages, &mut tasks).await?;
    let watcher = GroundWatcher::new(parts.store.clone(), judge, ground.clone(), meter);
    watcher.start(&witnesses).await.context("what was signed before cannot be held against the log")?;
    if witnesses.is_empty() && parts.feed.is_none() {
        tracing::warn!(
            "no witness says how far the log went before this start: one that was set back meanwhile cannot be \
             told from this one; set audit.checkpoint_file"
        );
    }
    tasks.spawn("watcher of the ground", ok(watcher.run(stages.stopping.clone())));
    assemble_fleet(config, &api, receipts, meter, stages, &mut tasks);
    let expiry = KeyExpiry::new(
        Arc::clone(&parts.keys),
        Arc::clone(&parts.clock),
        meter,
        config.signing.expiry_warning_days,
    );
    tasks.spawn("watcher of expiry", ok(expiry.run(stages.stopping.clone())));
    for reloader in std::mem::take(&mut parts.reloaders) {
        tasks.spawn("watcher of files", reloader.run(stages.stopping.clone()));
    }
    let spending = parts.spending.take();
    let limiter = assemble_limiter(config, parts.keys.active(), spending, meter, stages, &mut tasks);
    let store = parts.store.clone();
    tasks.spawn("store", {
        let stopping = stages.stopping.clone();
        async move {
            // Its end, or the wish that it end.
            let _ = stopping.run_until_cancelled(store.tasks_ended()).await;
            Ok(())
        }
    });
    let days = config.limits.reply_retention_days;
    let pruner = background::prune_replies(
        parts.store.clone(),
        background::PruningClocks { database: Arc::clone(&api.fleet_clock), own: Arc::clone(&parts.clock) },
        days,
        stages.stopping.clone(),
    );
    tasks.spawn("pruner of replies", ok(pruner));

    let (readiness, ready) = watch::channel(Some("starting".into()));
    let (health_reporter, health) = tonic_health::server::health_reporter();
    let readiness_task = background::watch_readiness(
        parts.store.clone(),
        health_reporter,
        SERVICES,
        ground.clone(),
        readiness,
        stages.clone(),
    );
    tasks.spawn("readiness", ok(readiness_task));

    let routes = crate::admin::routes(telemetry.registry.clone(), ready);
    let stopping = stages.stopping.clone();
    tasks.spawn("admin listener", async move {
        tokio::select! {
            served = axum::serve(admin, routes).into_future() => Ok(served?),
            // A probe that is cut off finds another replica.
            () = stopping.cancelled() => Ok(()),
        }
    });

    let kept = RefusalRetention {
        all: config.audit.refusals_kept,
        per_caller: config.audit.refusals_kept_per_caller,
    };
    let (refusals, recording) = RefusalLog::new(parts.store.clone(), kept, meter, stages.stopping.clone());
    tasks.spawn("recorder of refusals", ok(recording));
    let per_service = ServiceBuilder::new()
        .layer(Around(LogStateLayer(ground)))
        .layer(Around(RefusalLayer { log: refusals, clock: Arc::clone(&parts.clock) }))
        .layer(Around(IdentityLayer::new(Arc::clone(&parts.authenticator), Arc::clone(&parts.clock), meter)))
        .layer(Around(LoadShedLayer::new(config.grpc.max_concurrent_requests)))
        .layer(Around(RateLimitLayer::new(limiter, meter)))
        .map_request(request_body::bounded);
    let limit = config.grpc.max_message_bytes;
    let calls = TaskTracker::new();
    let router =
        server_builder(config)
            .layer(Around(InFlightLayer(calls.clone())))
            .layer(Around(RequestIdLayer))
            .layer(Around(TraceContextLayer::new(meter, &DESCRIPTORS)?))
            .layer(Around(DeadlineLayer { default: Duration::from_millis(config.grpc.default_deadline_ms) }))
            .add_service(health)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?)
            .add_service(
                per_service.clone().named_layer(
                    CaCertificateServiceServer::new(CaCertificates(Arc::clone(&api)))
                        .max_decoding_message_size(limit),
                ),
            )
            .add_service(per_service.clone().named_layer(
                InstanceServiceServer::new(Instances(Arc::clone(&api))).max_decoding_message_size(limit),
            ))
            .add_service(per_service.clone().named_layer(
                TrustServiceServer::new(Trust(Arc::clone(&api))).max_decoding_message_size(limit),
            ))
            .add_service(per_service.clone().named_layer(
                AuditServiceServer::new(Audit(Arc::clone(&api))).max_decoding_message_size(limit),
            ))
            .add_service(per_service.named_layer(
                FleetServiceServer::new(Fleet(Arc::clone(&api))).max_decoding_message_size(limit),
            ));
    let (incoming, accepting) = connections(grpc, config.grpc.max_connections, parts.tls.take());
    let stopping = stages.stopping.clone();
    tasks.spawn("acceptor of connections", async move {
        accepting.await;
        // It ends with the listener, whose end is the one to be told.
        stopping.cancelled().await;
        Ok(())
    });
    let stages = stages.clone();
    tasks.spawn("gRPC listener", async move {
        let serving =
            router.serve_with_incoming_shutdown(incoming, stages.draining.clone().cancelled_owned());
        let served = tokio::select! {
            served = serving => served,
            // A connection on which nothing goes on is no reason to stay.
            () = last_call(&calls, &stages.draining) => Ok(()),
        };
        // Where it ends unasked, the end of the others follows from it, and is not its cause.
        if stages.draining.is_cancelled() {
            stages.stopping.cancel();
        }
        served.context("connections are no longer served")
    });
    Ok(RunningServer { tasks, api, grpc_address, admin_address })
}

/// Makes what signs checkpoints, and starts to do so; gives what was signed before, too.
fn assemble_evidence(
    config: &Config,
    parts: &ServerParts,
    ground: &LogGround,
    meter: &Meter,
    stages: &Stages,
    tasks: &mut Tasks,
) -> anyhow::Result<(Arc<Evidence>, Vec<LogEvidence>)> {
    let (store, key) = (parts.store.clone(), Arc::clone(parts.keys.active()));
    let evidence = Arc::new(Evidence::new(store, key, config.audit.origin.as_deref()));
    let path = config.audit.checkpoint_file.as_deref();
    let file = path.map(|path| CheckpointFile::open(path, &parts.keys.on_record())).transpose()?;
    let mut witnesses = Vec::new();
    let file = file.map(|(file, last)| {
        if let Some(last) = last {
            witnesses.extend(as_witness(&evidence, &last, (parts.clock)()));
            evidence.remember(last);
        }
        file
    });
    let (feed, interval) = (parts.feed.clone(), config.audit.interval());
    let checkpointer = Checkpointer::new(Arc::clone(&evidence), ground.clone(), file, feed, interval, meter);
    tasks.spawn("signer of checkpoints", ok(checkpointer.run(stages.stopping.clone())));
    Ok((evidence, witnesses))
}

/// What a checkpoint shows that was signed before this start.
fn as_witness(evidence: &Evidence, signed: &SignedCheckpoint, seen_at: Timestamp) -> Option<LogEvidence> {
    let Checkpoint { size, root, .. } = signed.checkpoint;
    Some(LogEvidence {
        epoch: evidence.epoch_of(&signed.checkpoint)?,
        mark: LogMark::Checkpoint { size, root },
        witness: "the checkpoint file".to_owned(),
        seen_at,
    })
}

/// What the log stands on, and who says so.
struct GroundStanding {
    judge: Arc<GroundJudge>,
    ground: LogGround,
}

async fn assemble_api(
    config: &Config,
    parts: &ServerParts,
    GroundStanding { judge, ground }: GroundStanding,
    evidence: Arc<Evidence>,
    meter: &Meter,
    stages: &Stages,
    tasks: &mut Tasks,
) -> anyhow::Result<Arc<Api>> {
    let directory = Arc::new(Directory::new(parts.store.freshness(), ground.clone()));
    let messages = Arc::new(MessageCache::new(parts.store.log_id(), Arc::clone(parts.keys.active())));
    let follower = Follower::start(
        parts.store.clone(),
        Arc::clone(&directory),
        Arc::clone(&messages),
        (Arc::clone(&judge), ground.clone()),
        Arc::clone(&parts.clock),
        meter,
    )
    .await?;
    let feed = follower.feed();
    let stopping = stages.stopping.clone();
    tasks.spawn("log follower", async move { Ok(follower.run(stopping).await?) });

    let capacity = config.limits.appender_queue;
    let (appender, appending) =
        Appender::new(parts.store.clone(), capacity, ground.clone(), meter, stages.stopping.clone());
    tasks.spawn("appender", appending);

    let (receipts, recording) = ReceiptIntake::new(
        parts.store.clone(),
        parts.store.clone(),
        Arc::clone(&directory),
        meter,
        stages.stopping.clone(),
    );
    tasks.spawn("recorder of receipts", ok(recording));
    let witness = Arc::new(Witness::new(
        Arc::new(StoreRows(parts.store.clone())),
        Arc::clone(&parts.keys),
        Arc::clone(&judge) as Arc<dyn Ground>,
        Arc::clone(&parts.clock),
    ));
    let most_waiting = config.grpc.max_concurrent_requests / 4;
    let fleet_clock = directory.database_clock(Arc::clone(&parts.clock));
    let fleet =
        FleetView::new(parts.store.clone(), Arc::clone(&fleet_clock), config.fleet.budget(), most_waiting);

    if let Some(feed) = &parts.feed {
        let (publisher, status) = Publisher::new(PublisherParts {
            log: Arc::new(AttentiveLog { log: parts.store.clone(), ground: ground.clone() }),
            feed: Arc::clone(feed),
            messages,
            key: Arc::clone(parts.keys.active()),
            key_set: parts.keys.follow(),
            heads: Arc::clone(&directory) as Arc<dyn HeadSource>,
            hooks: Arc::new(TracingHooks),
            take_over: parts.take_over_stream,
            ground: Arc::clone(&judge) as Arc<dyn Ground>,
            clock: Arc::clone(&parts.clock),
        });
        publishing::spawn(publisher, status, meter, stages, tasks);
    }
    Ok(Arc::new(Api {
        store: Arc::clone(&parts.store),
        appender,
        ground,
        directory,
        authorizer: Arc::clone(&parts.authorizer),
        feed,
        receipts,
        fleet,
        fleet_clock,
        witness,
        keys: Arc::clone(&parts.keys),
        evidence,
        watchers: meter
            .i64_up_down_counter("catrust.watchers")
            .with_description("Open WatchTrust streams")
            .build(),
        rules: ServiceRules {
            certificates_per_instance: config.limits.certificates_per_instance,
            cut_with_will: config.limits.cut_with_will,
            head_interval: HEAD_INTERVAL,
        },
        clock: Arc::clone(&parts.clock),
        old_bundles: Semaphore::new(OLD_BUNDLES),
        streams: PerUser::new(config.grpc.max_streams_per_user),
        draining: stages.draining.clone(),
    }))
}

/// Starts what hears and counts brokers.
fn assemble_fleet(
    config: &Config,
    api: &Api,
    receipts: Option<ReceiptStream>,
    meter: &Meter,
    stages: &Stages,
    tasks: &mut Tasks,
) {
    if let Some(receipts) = receipts {
        let listener = ReceiptListener {
            intake: api.receipts.clone(),
            directory: Arc::clone(&api.directory),
            clock: api.directory.database_clock(Arc::clone(&api.clock)),
            witness: Arc::clone(&api.witness),
        };
        tasks.spawn("listener for receipts", ok(listener.run(receipts, stages.draining.clone())));
    }
    let census = Census::new(
        api.store.clone(),
        Arc::clone(&api.directory),
        Arc::clone(&api.clock),
        config.fleet.budget(),
        meter,
    );
    tasks.spawn("census of brokers", ok(census.run(stages.stopping.clone())));
}

/// Makes the limiter, and starts its gossip where there is a way to the other replicas.
fn assemble_limiter(
    config: &Config,
    key: &SigningKey,
    spending: Option<(SpendingSender, SpendingStream)>,
    meter: &Meter,
    stages: &Stages,
    tasks: &mut Tasks,
) -> Arc<UserLimiter> {
    let settings = &config.rate_limit;
    // Validation refuses 0 for both.
    let at_least_one = |value| NonZeroU32::new(value).unwrap_or(NonZeroU32::MIN);
    let (rate, burst) = (at_least_one(settings.per_user_per_second), at_least_one(settings.burst));
    let naming_key = key.secret_for("numbers of users of the rate limit");
    let limiter = Arc::new(UserLimiter::new(rate, burst, settings.max_users, naming_key, Instant::now()));
    let alone = limiter::ReplicaFleet::alone(settings.replicas);
    limiter.set_fleet(alone, limiter.now());
    let instruments = LimiterInstruments::new(meter);
    instruments.fleet(alone, None);
    let sweeper = limiter::sweep::sweep(Arc::clone(&limiter), instruments.clone(), stages.stopping.clone());
    tasks.spawn("limiter's sweeper", ok(sweeper));
    if let Some((sender, stream)) = spending {
        let me = Uuid::new_v4().as_u64_pair().0;
        let sealing_key = key.secret_for("gossip of the rate limit");
        let gossip = Gossip {
            exchange: Exchange::new(Arc::clone(&limiter), me, sealing_key, settings.replicas),
            share: alone.share,
            limiter: Arc::clone(&limiter),
            sender,
            stream,
            instruments,
        };
        tasks.spawn("gossip of the rate limit", ok(gossip.run(stages.stopping.clone())));
    }
    limiter
}

fn server_builder(config: &Config) -> Server {
    let grpc = &config.grpc;
    Server::builder()
        .max_concurrent_streams(grpc.max_concurrent_streams)
        .http2_keepalive_interval(Some(Duration::from_secs(grpc.keepalive_interval_seconds)))
        .http2_keepalive_timeout(Some(Duration::from_secs(grpc.keepalive_timeout_seconds)))
}

/// The services offered, besides reflection.
const DESCRIPTORS: [&[u8]; 2] = [FILE_DESCRIPTOR_SET, tonic_health::pb::FILE_DESCRIPTOR_SET];

/// The services, and the messages of error details, so that tools can print those too.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}

/// Waits until the server drains and its calls have ended. Those that only hang on
/// (a reflection stream of a terminal left open) have a few seconds.
async fn last_call(calls: &TaskTracker, draining: &CancellationToken) {
    draining.cancelled().await;
    calls.close();
    if tokio::time::timeout(LAST_CALL, calls.wait()).await.is_err() {
        tracing::warn!(calls = calls.len(), "leaving although calls are still in progress");
    }
    // What the last replies said may still be on its way to the socket.
    tokio::time::sleep(LAST_WORDS).await;
}

async fn ok(task: impl Future<Output = ()>) -> anyhow::Result<()> {
    task.await;
    Ok(())
}
