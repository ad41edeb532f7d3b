//! `[database]`: the event log's store.

use std::path::PathBuf;

use catrust_event_store::postgres::PgAddress;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::database_url::{DatabaseUrl, PostgresUrl};
use super::error::{ConfigError, Problems};
use super::secret::Secret;

/// Where the event log and the read model are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseConfig {
    /// `postgres://USER@HOST:PORT/DATABASE` (Postgres 15 or later) or `sqlite:PATH` (one
    /// server process only). No default. With standbys write all hosts, separated by commas
    /// (`postgres://USER@HOST:PORT,HOST:PORT/DATABASE`): the one that takes writes is used, also
    /// after a failover. A password in it is never printed, but stays in
    /// the file: prefer `password_file`.
    pub url: Option<DatabaseUrl>,
    /// Password for Postgres, over one in `url`. Meant for the environment
    /// (`CATRUST_DATABASE__PASSWORD`); never printed.
    pub password: Option<Secret>,
    /// File that holds the password and nothing else. Read at start; a rotated password
    /// needs a restart.
    pub password_file: Option<PathBuf>,
    /// PEM file of the CAs that may sign the certificate of Postgres, beside the public ones
    /// of the web. With it `sslmode` is `verify-full` where the URL says nothing, and may not be
    /// less than `verify-ca`.
    pub root_ca_file: Option<PathBuf>,
    /// PEM file of the certificate to show to Postgres, followed by its intermediates (`cert`
    /// in its `pg_hba.conf`). Needs `client_key_file`.
    pub client_cert_file: Option<PathBuf>,
    /// PEM file of that certificate's key. Needs `client_cert_file`.
    pub client_key_file: Option<PathBuf>,
    /// Connect to another machine although nothing proves that its Postgres is the right one:
    /// with an `sslmode` other than `verify-full`. Default false. Only where something else
    /// encrypts and proves it (a tunnel, a sidecar, a private container network): who sits in
    /// between reads and changes the log.
    pub allow_plaintext: bool,
    /// What an acknowledged change survives. `local` (the default): the loss of nothing but the
    /// server process; it is on one server's disk, and a failover to a standby may lose it.
    /// `synchronous`: the loss of the primary; the server refuses to start unless every standby
    /// named in Postgres' `synchronous_standby_names` follows and has to acknowledge every commit
    /// (`ANY 2 (one, other)`), or `failover_fences` is true.
    pub durability: CommitDurability,
    /// Whatever promotes a standby takes none that lacks an acknowledged commit, and keeps the old
    /// primary from taking writes. Default false. With it `durability = "synchronous"` is content
    /// with some of the named standbys.
    pub failover_fences: bool,
    /// Connections for what users ask, 1 to 1,000, beside nine of the server's own. Default 8.
    /// The sum over all replicas must stay below Postgres' `max_connections`.
    pub read_connections: u32,
}

/// What an acknowledged change survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CommitDurability {
    /// The end of the server process.
    Local,
    /// The loss of the primary as well.
    Synchronous,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            url: None,
            password: None,
            password_file: None,
            root_ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            allow_plaintext: false,
            durability: CommitDurability::Local,
            failover_fences: false,
            read_connections: 8,
        }
    }
}

impl DatabaseConfig {
    /// The URL, which every command but `dev` needs.
    ///
    /// # Errors
    /// [`ConfigError::Settings`] where none is set.
    pub fn required_url(&self) -> Result<&DatabaseUrl, ConfigError> {
        self.url.as_ref().ok_or_else(|| ConfigError::of("database.url", MISSING))
    }

    /// The password to use in place of the one in `url`, if there is one. Reads
    /// `password_file`.
    ///
    /// # Errors
    /// Those of [`Secret::read`].
    pub fn read_password(&self) -> Result<Option<Secret>, ConfigError> {
        let file = self.password_file.as_deref();
        Secret::from_either(self.password.as_ref(), "database.password_file", file)
    }

    /// The address of Postgres, with `password` over the one in `url`.
    #[must_use]
    pub fn address(&self, url: &PostgresUrl, password: Option<&Secret>) -> PgAddress {
        let mut address = PgAddress::new(url.with_password(password));
        address.root_ca_file.clone_from(&self.root_ca_file);
        address.client_cert_file.clone_from(&self.client_cert_file);
        address.client_key_file.clone_from(&self.client_key_file);
        address.allow_plaintext = self.allow_plaintext;
        address
    }

    /// What an operator should know of a database that keeps acknowledged changes on one server;
    /// `None` where there is nothing to say.
    #[must_use]
    pub fn durability_notice(&self) -> Option<&'static str> {
        let is_postgres = matches!(self.url, Some(DatabaseUrl::Postgres(_)));
        (is_postgres && self.durability == CommitDurability::Local).then_some(
            "database.durability is \"local\": an acknowledged inactivation is on one server, and a failover \
             to a standby may lose it. Set \"synchronous\" where standbys acknowledge every commit",
        )
    }

    pub(crate) fn validate(&self, problems: &mut Problems) {
        problems.require(self.url.is_some(), "database.url", MISSING);
        problems.require(
            self.password.is_none() || self.password_file.is_none(),
            "database.password_file",
            "is set beside database.password; remove one",
        );
        let has_password = self.password.is_some() || self.password_file.is_some();
        let sqlite = matches!(self.url, Some(DatabaseUrl::Sqlite(_)));
        problems.require(
            !(sqlite && has_password),
            "database.password_file",
            "SQLite takes no password; remove it, or set a postgres:// url",
        );
        problems.require(
            !(sqlite && self.durability == CommitDurability::Synchronous),
            "database.durability",
            "SQLite has no standby; remove it, or set a postgres:// url",
        );
        let nobody = matches!(&self.url, Some(DatabaseUrl::Postgres(url)) if !url.names_user());
        problems.require(
            !(nobody && has_password),
            "database.url",
            "names no user for the password: write postgres://USER@HOST/DATABASE",
        );
        let tls = [&self.root_ca_file, &self.client_cert_file, &self.client_key_file];
        problems.require(
            !(sqlite && tls.iter().any(|file| file.is_some())),
            "database.root_ca_file",
            "SQLite is reached by no network; remove the files of TLS, or set a postgres:// url",
        );
        if let Some(DatabaseUrl::Postgres(url)) = &self.url
            && let Err(error) = self.address(url, None).check()
        {
            problems.add("database.url", error.to_string());
        }
        let why = "queries need at least one, and Postgres has few";
        problems.within("database.read_connections", self.read_connections.into(), 1..=1_000, why);
    }
}

const MISSING: &str = "is required: set postgres://USER@HOST/DATABASE or sqlite:PATH, \
                       in the file or as CATRUST_DATABASE__URL";
