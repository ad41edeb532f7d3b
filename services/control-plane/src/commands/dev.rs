//! `dev`: everything in one process and one directory, for this machine alone.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use catrust_domain::event::InstanceRegistered;
use catrust_domain::{AccountId, Command, CommandContext, CommandEnvelope, Edition, InstanceId};
use catrust_event_store::sqlite::{self, SqliteEventStore};
use catrust_trust_feed::SigningKey;
use uuid::Uuid;

use super::database::DEV_DATABASE;
use super::serve::run_server;
use super::{DevArguments, load};
use crate::api::Api;
use crate::assemble::{RunningServer, ServerParts, system_clock};
use crate::config::{Config, LogFormat};
use crate::keys::ServerKeys;
use crate::telemetry::Telemetry;
use catrust_access::development::{DEVELOPMENT_ACCOUNT, Development};

/// The instance that is there from the start.
const DEMO_INSTANCE: &str = "demo";
/// File of the signing key inside the data directory.
pub(super) const SIGNING_KEY: &str = "signing.pem";
const TRUST_KEY: &str = "trust.pub.pem";

pub(super) async fn run(arguments: DevArguments) -> anyhow::Result<ExitCode> {
    for address in [arguments.listen, arguments.admin_listen] {
        anyhow::ensure!(
            address.ip().is_loopback(),
            "{address} is not a loopback address: `dev` knows no identities and serves this machine only; use \
             `serve` for others"
        );
    }
    let config = settings(&arguments)?;
    let telemetry = Telemetry::init(&config.telemetry)?;
    let data_dir = &arguments.data_dir;
    make_private_directory(data_dir)?;
    let keys = Arc::new(ServerKeys::from(Arc::new(signing_key(data_dir)?)));
    let database = data_dir.join(DEV_DATABASE);
    sqlite::migrate(&database).await?;
    let clock = system_clock();
    let account: AccountId = DEVELOPMENT_ACCOUNT.parse()?;
    let access = Arc::new(Development::new(account));
    let parts = ServerParts {
        store: Arc::new(
            SqliteEventStore::open(&database, Arc::clone(&clock)).await?.with_notary(Arc::clone(&keys) as _),
        ),
        keys,
        feed: None,
        take_over_stream: false,
        receipts: None,
        spending: None,
        authenticator: access.clone(),
        tls: None,
        reloaders: Vec::new(),
        authorizer: access,
        clock,
    };
    let outcome = run_server(&config, parts, &telemetry, async |assembled| {
        register_demo_instance(&assembled.api).await?;
        println!("listening on http://{}", assembled.grpc_address);
        print!("{}", welcome(assembled, data_dir));
        Ok(())
    })
    .await;
    telemetry.shutdown();
    outcome.map(|()| ExitCode::SUCCESS)
}

/// The environment's settings, with log lines for people unless it says otherwise.
fn settings(arguments: &DevArguments) -> anyhow::Result<Config> {
    let mut config = load(None)?;
    config.grpc.listen = arguments.listen;
    config.admin.listen = arguments.admin_listen;
    if std::env::var_os("CATRUST_TELEMETRY__LOG_FORMAT").is_none() {
        config.telemetry.log_format = LogFormat::Text;
    }
    config.validate_for_development()?;
    Ok(config)
}

fn make_private_directory(path: &Path) -> anyhow::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("cannot make the data directory {}", path.display()))
}

/// The signing key of the directory, made on the first start. The public key is
/// laid beside it, for agents to pin.
fn signing_key(data_dir: &Path) -> anyhow::Result<SigningKey> {
    let path = data_dir.join(SIGNING_KEY);
    if !path.exists() {
        write_new(&path, &SigningKey::generate_pem()?)?;
    }
    let key = SigningKey::load(&path)?;
    let public = data_dir.join(TRUST_KEY);
    fs::write(&public, key.public_key_pem()).with_context(|| format!("cannot write {}", public.display()))?;
    Ok(key)
}

/// Writes a secret so that it is whole or not there: a crash in the middle must not
/// leave half a key that the next start trips over.
fn write_new(path: &Path, secret: &str) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(secret.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

async fn register_demo_instance(api: &Api) -> anyhow::Result<()> {
    let instance_id: InstanceId = DEMO_INSTANCE.parse()?;
    if api.store.find_instance(&instance_id).await?.is_some() {
        return Ok(());
    }
    let command = Command::RegisterInstance(InstanceRegistered {
        region_id: "local".parse()?,
        owner_account_id: DEVELOPMENT_ACCOUNT.parse()?,
        edition: Edition::Platinum,
    });
    let context = CommandContext {
        event_id: Uuid::new_v4(),
        request_id: Uuid::new_v4(),
        fingerprint: None,
        actor: DEVELOPMENT_ACCOUNT.to_owned(),
        account_id: DEVELOPMENT_ACCOUNT.parse()?,
        policy_version: "development".to_owned(),
        source_address: String::new(),
        traceparent: String::new(),
    };
    let submitted = api.appender.submit(CommandEnvelope { instance_id, command, context }).await;
    submitted.map(drop).map_err(|error| anyhow::anyhow!("the demo instance cannot be registered: {error:?}"))
}

fn welcome(assembled: &RunningServer, data_dir: &Path) -> String {
    let address = assembled.grpc_address;
    let key = data_dir.join(TRUST_KEY);
    format!(
        r#"
development mode: loopback only, everybody is the fixed identity "{DEVELOPMENT_ACCOUNT}" of account "{DEVELOPMENT_ACCOUNT}"
  data      {data}   (log: {DEV_DATABASE}, signing key: {SIGNING_KEY}, public key for agents: {key})
  metrics   http://{admin}/metrics
  instance  {DEMO_INSTANCE} (Platinum, region local)

try:
  grpcurl -plaintext {address} list
  grpcurl -plaintext -d '{{"mqtt_instance_id":"{DEMO_INSTANCE}"}}' {address} catrust.v1.CaCertificateService/GetRegisterCode
  grpcurl -plaintext -d '{{"mqtt_instance_id":"{DEMO_INSTANCE}"}}' {address} catrust.v1.TrustService/WatchTrust
  catrust --server http://{address} ca code --instance {DEMO_INSTANCE}
  catrust --server http://{address} ca list --instance {DEMO_INSTANCE}
"#,
        data = data_dir.display(),
        key = key.display(),
        admin = assembled.admin_address,
    )
}
