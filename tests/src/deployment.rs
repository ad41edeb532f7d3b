//! A production deployment in small: one Postgres, one NATS, any number of
//! replicas, identities in a file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;

use crate::certificates::unique;
use crate::client::Caller;
use crate::instance::TestInstance;
use crate::nats::{Nats, Role, Version};
use crate::policies::PolicyFolder;
use crate::postgres::{Durability, Postgres};
use crate::process::Launcher;
use crate::program::{Completion, free_port, repository, run};
use crate::server::{Server, launcher, run_server};

/// Account of the ordinary caller.
pub const ACCOUNT: &str = "account-a";
/// Role of the servers in the database: it may append to the log, not change it.
const ROLE: &str = "catrust_app";
/// Token of the operator of catrust.
pub const OPERATOR: &str = "operator-token";
/// Token of an owner of instances, account [`ACCOUNT`].
pub const OWNER: &str = "owner-token";

/// One entry of the identities file.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// Name of the principal.
    pub principal: String,
    /// Its account.
    pub account: String,
    /// Its bearer token; its hash goes into the file.
    pub token: Option<String>,
    /// Name in its client certificate.
    pub certificate: Option<String>,
    /// Actions.
    pub allow: Vec<String>,
    /// Resources.
    pub resources: Vec<String>,
    /// Whether it operates catrust itself.
    pub operator: bool,
    /// Instance and id of the broker that it is for, and for nothing else.
    pub broker: Option<(String, String)>,
}

impl Identity {
    /// Somebody with a token who may do `allow` everywhere.
    #[must_use]
    pub fn with_token(token: &str, account: &str, allow: &[&str]) -> Self {
        Self {
            principal: format!("principal-of-{token}"),
            account: account.to_owned(),
            token: Some(token.to_owned()),
            allow: allow.iter().map(|action| (*action).to_owned()).collect(),
            resources: vec!["acs:mq:*:*:*".to_owned()],
            ..Self::default()
        }
    }

    fn lose_grants(&mut self) {
        self.allow.clear();
        self.resources.clear();
    }

    fn toml(&self) -> String {
        let mut out =
            format!("[[identity]]\nprincipal = {:?}\naccount_id = {:?}\n", self.principal, self.account);
        if !self.allow.is_empty() {
            let _ = writeln!(out, "allow = {:?}\nresources = {:?}", self.allow, self.resources);
        }
        if self.operator {
            out.push_str("operator = true\n");
        }
        if let Some((instance, broker)) = &self.broker {
            let _ = writeln!(out, "mqtt_instance_id = {instance:?}\nbroker_id = {broker:?}");
        }
        if let Some(token) = &self.token {
            let hash = hex::encode(Sha256::digest(token.as_bytes()));
            let _ = writeln!(out, "token_sha256 = {hash:?}");
        }
        if let Some(name) = &self.certificate {
            let _ = writeln!(out, "certificate = {name:?}");
        }
        out
    }
}

/// What to deploy.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whether the database survives a crash.
    pub durability: Durability,
    /// Which NATS; `None` for the feed in process.
    pub nats: Option<Version>,
    /// Whether NATS runs the sample configuration, with a login for each role.
    pub guarded: bool,
    /// Who may call, besides [`OPERATOR`] and [`OWNER`].
    pub identities: Vec<Identity>,
    /// Settings, `section.key` to TOML value, over the harness's own.
    pub settings: BTreeMap<String, String>,
    /// Files of the policy folder and what is in them. With any, permission comes from them alone:
    /// [`OPERATOR`] and [`OWNER`] get policies of their own, other identities lose their grants.
    pub policies: Vec<(String, String)>,
    /// Whether the schema is made before the first replica.
    pub migrated: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            durability: Durability::Relaxed,
            nats: Some(Version::Installed),
            guarded: false,
            identities: Vec::new(),
            settings: BTreeMap::new(),
            policies: Vec::new(),
            migrated: true,
        }
    }
}

impl Plan {
    /// Sets `section.key` to a TOML value.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.settings.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds an identity.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identities.push(identity);
        self
    }

    /// Adds a file `ACCOUNT/NAME` to the policy folder.
    #[must_use]
    pub fn policy(mut self, path: &str, text: &str) -> Self {
        self.policies.push((path.to_owned(), text.to_owned()));
        self
    }

    /// Brings the database and NATS up and writes the files.
    ///
    /// # Errors
    /// When something does not come up.
    pub async fn deploy(self) -> anyhow::Result<Deployment> {
        Deployment::start(self).await
    }
}

/// The servers around the replicas, and their configuration.
#[derive(Debug)]
pub struct Deployment {
    /// The database.
    pub postgres: Postgres,
    /// The wire, where the plan has one.
    pub nats: Option<Nats>,
    /// Keys, identities and configuration.
    pub files: TempDir,
    /// The public root key that agents get in place of [`Deployment::trust_key`].
    pub root_key: Option<PathBuf>,
    /// More arguments for agents.
    pub agent_arguments: Vec<String>,
    settings: BTreeMap<String, String>,
}

impl Deployment {
    async fn start(plan: Plan) -> anyhow::Result<Self> {
        let files = tempfile::Builder::new().prefix("catrust-deployment-").tempdir()?;
        let postgres = Postgres::start(plan.durability).await?;
        let nats = match plan.nats {
            Some(version) if plan.guarded => Some(Nats::start_guarded(version).await?),
            Some(version) => Some(Nats::start(version).await?),
            None => None,
        };
        let at = |name: &str| files.path().join(name).to_string_lossy().into_owned();
        run("openssl", ["genpkey", "-algorithm", "ed25519", "-out", &at("signing.pem")]).await?.success()?;
        let public = ["pkey", "-in", &at("signing.pem"), "-pubout", "-out", &at("trust.pem")];
        run("openssl", public).await?.success()?;
        let mut operator = Identity::with_token(OPERATOR, "operators", &["mq:*"]);
        operator.operator = true;
        let owner = Identity::with_token(OWNER, ACCOUNT, &["mq:*"]);
        let mut identities: Vec<_> = [operator, owner].into_iter().chain(plan.identities).collect();
        if !plan.policies.is_empty() {
            PolicyFolder::new(files.path()).begin(&plan.policies)?;
            identities.iter_mut().for_each(Identity::lose_grants);
        }
        let identities: String = identities.iter().map(|identity| identity.toml() + "\n").collect();
        std::fs::write(at("identities.toml"), identities)?;

        let quoted = |text: &str| format!("{text:?}");
        let mut settings = BTreeMap::from([
            ("database.url".to_owned(), quoted(&postgres.url_of(ROLE))),
            ("signing.key_file".to_owned(), quoted(&at("signing.pem"))),
            ("auth.token_file".to_owned(), quoted(&at("identities.toml"))),
            ("rate_limit.per_user_per_second".to_owned(), "1000000".to_owned()),
            ("rate_limit.burst".to_owned(), "1000000".to_owned()),
            ("telemetry.log_format".to_owned(), quoted("text")),
        ]);
        if !plan.policies.is_empty() {
            let path = PolicyFolder::new(files.path()).path().to_string_lossy().into_owned();
            settings.insert("auth.policy_dir".to_owned(), quoted(&path));
        }
        if let Some(nats) = &nats {
            settings.insert("nats.url".to_owned(), quoted(&nats.url()));
            if let Some(seed) = nats.seed(Role::Server) {
                settings.insert("nats.nkey_file".to_owned(), quoted(&seed.to_string_lossy()));
            }
            if let Some(ca) = nats.root_ca() {
                settings.insert("nats.root_ca_file".to_owned(), quoted(&ca.to_string_lossy()));
            }
        }
        settings.extend(plan.settings);
        let (root_key, agent_arguments) = (None, Vec::new());
        let deployment = Self { postgres, nats, files, root_key, agent_arguments, settings };
        if plan.migrated {
            deployment.migrate().await?.success()?;
            deployment.grant().await?;
        }
        Ok(deployment)
    }

    /// Runs `catrust-server migrate` as the owner of the tables.
    ///
    /// # Errors
    /// When it cannot be run; a bad exit code is no error.
    pub async fn migrate(&self) -> anyhow::Result<Completion> {
        let (config, _) = self.configuration(&unique("migrate"))?;
        let owner = self.postgres.url();
        let arguments = ["migrate", "--config", &config.to_string_lossy()];
        run_server(&arguments, &[("CATRUST_DATABASE__URL", &owner)]).await
    }

    /// Gives the servers' role its rights, as an operator does after a migration.
    ///
    /// # Errors
    /// When a statement fails.
    pub async fn grant(&self) -> anyhow::Result<()> {
        self.postgres.psql(&repository().join("deploy/postgres/roles.sql")).await
    }

    /// The policy folder, where the plan has policies.
    #[must_use]
    pub fn policies(&self) -> PolicyFolder {
        PolicyFolder::new(self.files.path())
    }

    /// The public half of the signing key, PEM.
    #[must_use]
    pub fn trust_key(&self) -> PathBuf {
        self.files.path().join("trust.pem")
    }

    /// Writes the configuration of one replica; gives its path and the address of
    /// its admin listener.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn configuration(&self, name: &str) -> anyhow::Result<(PathBuf, String)> {
        let admin = format!("127.0.0.1:{}", free_port()?);
        let mut settings = self.settings.clone();
        settings.entry("grpc.listen".to_owned()).or_insert_with(|| "\"127.0.0.1:0\"".to_owned());
        settings.insert("admin.listen".to_owned(), format!("{admin:?}"));
        let mut sections = BTreeMap::<&str, String>::new();
        for (key, value) in &settings {
            let (section, key) = key.split_once('.').unwrap_or(("", key));
            let _ = writeln!(sections.entry(section).or_default(), "{key} = {value}");
        }
        let text: String = sections.iter().map(|(name, body)| format!("[{name}]\n{body}\n")).collect();
        let path = self.files.path().join(format!("{name}.toml"));
        std::fs::write(&path, text)?;
        Ok((path, admin))
    }

    /// Sets `section.key` to a TOML value, for replicas and commands to come.
    pub fn set(&mut self, key: &str, value: &str) {
        self.settings.insert(key.to_owned(), value.to_owned());
    }

    /// Starts a replica.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn replica(&self, name: &str) -> anyhow::Result<Replica> {
        let (config, admin) = self.configuration(name)?;
        let server = Server::serve(name, &config).await?;
        Ok(Replica { server, admin })
    }

    /// Starts a replica with settings of its own, `section.key` to TOML value.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn replica_with(&self, name: &str, settings: &[(&str, &str)]) -> anyhow::Result<Replica> {
        let (config, admin) = self.configuration(name)?;
        let mut text = std::fs::read_to_string(&config)?;
        for (key, value) in settings {
            let (section, key) = key.split_once('.').unwrap_or(("", key));
            let header = format!("[{section}]\n");
            if !text.contains(&header) {
                text.push_str(&header);
            }
            text = text.replacen(&header, &format!("{header}{key} = {value}\n"), 1);
        }
        std::fs::write(&config, text)?;
        let server = Server::serve(name, &config).await?;
        Ok(Replica { server, admin })
    }

    /// Prepares a replica that is expected not to come up.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn unstarted(&self, name: &str) -> anyhow::Result<Launcher> {
        let (config, _) = self.configuration(name)?;
        let mut launcher = launcher(&format!("catrust-server serve ({name})"))?;
        launcher.command().args(["serve", "--config"]).arg(config);
        Ok(launcher)
    }

    /// Runs a command of `catrust-server` on the deployment's configuration, with the role
    /// that `deploy/postgres/roles.sql` has for it.
    ///
    /// # Errors
    /// When it cannot be run; a bad exit code is no error.
    pub async fn command(&self, arguments: &[&str]) -> anyhow::Result<Completion> {
        let role = match arguments.first() {
            Some(&"rebuild") => "catrust_rebuild",
            Some(&("verify" | "export")) => "catrust_audit",
            _ => ROLE,
        };
        let (config, _) = self.configuration("command")?;
        let config = config.to_string_lossy().into_owned();
        let url = self.postgres.url_of(role);
        run_server(&[arguments, &["--config", &config]].concat(), &[("CATRUST_DATABASE__URL", &url)]).await
    }

    /// A connection for looking at the database, as its owner.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn database(&self) -> anyhow::Result<PgConnection> {
        Ok(PgConnection::connect(&self.postgres.url()).await?)
    }

    /// The wire.
    ///
    /// # Panics
    /// When the plan had none.
    #[must_use]
    pub fn nats(&self) -> &Nats {
        self.nats.as_ref().expect("this deployment has NATS")
    }

    /// The wire, to be harmed.
    ///
    /// # Panics
    /// When the plan had none.
    pub fn nats_mut(&mut self) -> &mut Nats {
        self.nats.as_mut().expect("this deployment has NATS")
    }
}

/// One replica.
#[derive(Debug)]
pub struct Replica {
    /// The process.
    pub server: Server,
    /// `HOST:PORT` of its admin listener.
    pub admin: String,
}

impl Replica {
    /// The operator.
    ///
    /// # Errors
    /// Never in practice: the token is well formed.
    pub fn operator(&self) -> anyhow::Result<Caller> {
        self.server.caller(Some(OPERATOR))
    }

    /// The owner of instances of [`ACCOUNT`].
    ///
    /// # Errors
    /// Never in practice: the token is well formed.
    pub fn owner(&self) -> anyhow::Result<Caller> {
        self.server.caller(Some(OWNER))
    }

    /// A new Platinum instance of [`ACCOUNT`].
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn instance(&self) -> anyhow::Result<TestInstance> {
        Ok(TestInstance::register(&self.operator()?, &self.owner()?, ACCOUNT).await?)
    }
}
