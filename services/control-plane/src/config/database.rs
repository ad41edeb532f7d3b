//! `[database]`: the event log's store.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::database_url::DatabaseUrl;
use super::error::{ConfigError, Problems};
use super::secret::Secret;

/// Where the event log and the read model are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DatabaseConfig {
    /// `postgres://USER@HOST:PORT/DATABASE` (Postgres 15 or later) or `sqlite:PATH` (one
    /// server process only). No default. A password in it is never printed, but stays in
    /// the file: prefer `password_file`.
    pub url: Option<DatabaseUrl>,
    /// Password for Postgres, over one in `url`. Meant for the environment
    /// (`CATRUST_DATABASE__PASSWORD`); never printed.
    pub password: Option<Secret>,
    /// File that holds the password and nothing else. Read at start; a rotated password
    /// needs a restart.
    pub password_file: Option<PathBuf>,
    /// Connections for queries, beside the appender's and the publisher's own, 1 to 1,000.
    /// Default 8. The sum over all replicas must stay below Postgres' `max_connections`.
    pub read_connections: u32,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self { url: None, password: None, password_file: None, read_connections: 8 }
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
        let nobody = matches!(&self.url, Some(DatabaseUrl::Postgres(url)) if !url.names_user());
        problems.require(
            !(nobody && has_password),
            "database.url",
            "names no user for the password: write postgres://USER@HOST/DATABASE",
        );
        let why = "queries need at least one, and Postgres has few";
        problems.within("database.read_connections", self.read_connections.into(), 1..=1_000, why);
    }
}

const MISSING: &str = "is required: set postgres://USER@HOST/DATABASE or sqlite:PATH, \
                       in the file or as CATRUST_DATABASE__URL";
