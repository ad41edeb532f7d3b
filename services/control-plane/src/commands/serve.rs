//! `serve`: one replica of a production service.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use catrust_domain::Notary;
use catrust_event_store::{Clock, EventStore};
use catrust_trust_feed::{NatsFeed, NatsSettings, TrustFeed};
use opentelemetry::metrics::Meter;

use super::{ServeArguments, load};
use crate::assemble::{RunningServer, ServerParts, assemble, system_clock};
use crate::config::{AuthConfig, Config};
use crate::keys::ServerKeys;
use crate::lifecycle::{self, Stages};
use crate::reload::Reloader;
use crate::reload::identities::IdentitiesFile;
use crate::reload::issuer::IssuerKeys;
use crate::reload::policies::PolicyFiles;
use crate::telemetry::Telemetry;
use crate::tls::ServerTls;
use catrust_access::Authorizer;
use catrust_access::jwt::Tokens;
use catrust_access::known_callers::KnownCallers;
use catrust_access::policy_folder::PolicyFolder;
use catrust_access::static_identities::EntryGrants;

pub(super) async fn run(arguments: ServeArguments) -> anyhow::Result<ExitCode> {
    let config = load(arguments.config.as_deref())?;
    config.validate()?;
    config.check_files()?;
    let telemetry = Telemetry::init(&config.telemetry)?;
    let parts = parts(&config, &telemetry.meter).await?;
    let scheme = if config.tls.cert_file.is_some() { "https" } else { "http" };
    let outcome = run_server(&config, parts, &telemetry, async |assembled| {
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            grpc = %assembled.grpc_address,
            admin = %assembled.admin_address,
            nats = config.nats.url.is_some(),
            "serving"
        );
        println!("listening on {scheme}://{}", assembled.grpc_address);
        Ok(())
    })
    .await;
    telemetry.shutdown();
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Assembles the server, says that it is there, and runs it to its end.
pub(super) async fn run_server(
    config: &Config,
    parts: ServerParts,
    telemetry: &Telemetry,
    started: impl AsyncFnOnce(&RunningServer) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let stages = Stages::default();
    let assembled = assemble(config, parts, telemetry, &stages).await?;
    started(&assembled).await?;
    let drain_delay = Duration::from_secs(config.lifecycle.drain_delay_seconds);
    let grace = Duration::from_secs(config.lifecycle.shutdown_grace_seconds);
    let RunningServer { tasks, .. } = assembled;
    lifecycle::run(tasks, stages, drain_delay, grace).await?;
    tracing::info!("stopped");
    Ok(())
}

async fn parts(config: &Config, meter: &Meter) -> anyhow::Result<ServerParts> {
    let clock = system_clock();
    let keys = Arc::new(ServerKeys::load(&config.signing, clock())?);
    let notary = Arc::clone(&keys) as Arc<dyn Notary>;
    let store: Arc<dyn EventStore> =
        super::database::open_to_serve(&config.database, Arc::clone(&clock), notary).await?;
    let key_set_version = keys.key_set().map(|set| set.version);
    tracing::info!(key_id = keys.key_id(), key_set_version, log_id = %store.log_id(), "signing key loaded");
    let mut reloaders = Vec::new();
    if let Some(file) = keys.key_set_file(Arc::clone(&clock)) {
        reloaders.push(Reloader::start(file, meter).await?);
    }
    let authenticator = callers(&config.auth, Arc::clone(&clock), meter, &mut reloaders).await?;
    let authorizer = authorizer(&config.auth, meter, &mut reloaders).await?;
    let tls = config.tls.files().map(|files| Arc::new(ServerTls::new(files)));
    if let Some(tls) = tls.clone() {
        reloaders.push(Reloader::start(tls, meter).await?);
    }
    let feed = feed(config).await?;
    let (receipts, spending) = match &feed {
        Some(feed) => (Some(feed.receipts().await?), Some(feed.spending().await?)),
        None => (None, None),
    };
    Ok(ServerParts {
        store,
        keys,
        feed: feed.map(|feed| Arc::new(feed) as Arc<dyn TrustFeed>),
        take_over_stream: config.nats.take_over_stream,
        receipts,
        spending,
        authenticator,
        reloaders,
        tls,
        authorizer,
        clock,
    })
}

/// Whom the settings know. They MUST have been validated: without any identity nobody is.
async fn callers(
    config: &AuthConfig,
    clock: Clock,
    meter: &Meter,
    reloaders: &mut Vec<Reloader>,
) -> anyhow::Result<Arc<KnownCallers>> {
    let tokens = config.jwt.enabled().then(|| Arc::new(Tokens::new(config.jwt.rules())));
    if let Some(tokens) = tokens.clone() {
        let issuer = Arc::new(IssuerKeys::new(&config.jwt, tokens, clock)?);
        let started = Reloader::start(issuer, meter).await;
        reloaders.push(started.context("auth.jwt.key_set_file cannot be used")?);
    }
    let callers = Arc::new(KnownCallers::new(tokens));
    if let Some(path) = config.token_file.clone() {
        let (callers, permissions) = (Arc::clone(&callers), config.permission_source());
        let file = Arc::new(IdentitiesFile { callers, path, permissions });
        reloaders.push(Reloader::start(file, meter).await?);
    }
    Ok(callers)
}

/// What says who may do what: the policies, else the entries of the identities file.
async fn authorizer(
    config: &AuthConfig,
    meter: &Meter,
    reloaders: &mut Vec<Reloader>,
) -> anyhow::Result<Arc<dyn Authorizer>> {
    let Some(path) = &config.policy_dir else { return Ok(Arc::new(EntryGrants)) };
    let folder = Arc::new(PolicyFolder::new(path));
    let started = Reloader::start(Arc::new(PolicyFiles(Arc::clone(&folder))), meter).await;
    reloaders.push(started.context("the policies in auth.policy_dir cannot be used")?);
    Ok(folder)
}

/// Returns whether NATS is there or not: the publisher waits for it.
pub(super) async fn feed(config: &Config) -> anyhow::Result<Option<NatsFeed>> {
    let nats = &config.nats;
    let Some(url) = &nats.url else { return Ok(None) };
    let settings = NatsSettings {
        credentials_file: nats.credentials_file.clone(),
        nkey_file: nats.nkey_file.clone(),
        user: nats.user.clone(),
        password_file: nats.password_file.clone(),
        tls_ca_file: nats.root_ca_file.clone(),
        tls_certificate_file: nats.client_cert_file.clone(),
        tls_key_file: nats.client_key_file.clone(),
        replicas: nats.stream_replicas,
        max_streams: nats.max_kept_streams,
        ..NatsSettings::new(url.servers().collect::<Vec<_>>().join(","))
    };
    Ok(Some(NatsFeed::connect(&settings).await?))
}
