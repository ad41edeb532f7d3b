//! The server's settings: one TOML file, and the environment over it.
//!
//! A struct per section, each beside its defaults; unknown keys are refused. A variable
//! `CATRUST_SECTION__KEY` overrides `key` of `[section]`, `CATRUST_AUTH__JWT__ISSUER` one of
//! `[auth.jwt]`; lists have commas. An empty one counts as not set.
//! Paths are relative to the working directory. Secrets come from files (or the
//! environment) and are never printed: `Debug` and [`Config::to_toml`] hide them.
//!
//! [`Config::load`] only parses, [`Config::validate`] only compares values,
//! [`Config::check_files`] looks at the disk. Nothing here connects anywhere or reads
//! the process's environment, but for the `PG…` variables that complete a Postgres URL.

mod admin;
mod audit;
mod auth;
mod database;
mod database_url;
mod error;
mod files;
mod fleet;
mod grpc;
mod jwt;
mod lifecycle;
mod limits;
mod nats;
mod rate_limit;
mod secret;
mod signing;
mod source;
mod telemetry;
mod tls;

#[cfg(test)]
mod tests;

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use admin::AdminConfig;
pub use audit::AuditConfig;
pub use auth::AuthConfig;
pub use catrust_access::jwt::JwtAlgorithm;
pub use catrust_access::{Identities, PermissionSource};
pub use database::{CommitDurability, DatabaseConfig};
pub use database_url::{DatabaseUrl, InvalidDatabaseUrl, PostgresUrl};
pub use error::{ConfigError, SettingProblem};
pub use fleet::FleetConfig;
pub use grpc::GrpcConfig;
pub use jwt::JwtConfig;
pub(crate) use jwt::key_set_address;
pub use lifecycle::LifecycleConfig;
pub use limits::LimitsConfig;
pub use nats::{NatsConfig, NatsUrl};
pub use rate_limit::RateLimitConfig;
pub use secret::{REDACTED, Secret};
pub use signing::SigningConfig;
pub use telemetry::{LogFormat, TelemetryConfig};
pub use tls::TlsConfig;

use error::Problems;

/// Settings of `catrust-server`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The listener that callers and brokers use.
    pub grpc: GrpcConfig,
    /// The listener for probes and metrics.
    pub admin: AdminConfig,
    /// The event log's store.
    pub database: DatabaseConfig,
    /// The wire to the fleet.
    pub nats: NatsConfig,
    /// The key that brokers know the messages by.
    pub signing: SigningConfig,
    /// How often one user may call.
    pub rate_limit: RateLimitConfig,
    /// Bounds of the event log's content and of the appender.
    pub limits: LimitsConfig,
    /// When silent brokers are lost, and when forgotten.
    pub fleet: FleetConfig,
    /// Who may call.
    pub auth: AuthConfig,
    /// The server's certificate and the client certificates that it accepts.
    pub tls: TlsConfig,
    /// Logs, traces and metrics.
    pub telemetry: TelemetryConfig,
    /// The evidence that leaves the database.
    pub audit: AuditConfig,
    /// How the server leaves.
    pub lifecycle: LifecycleConfig,
}

impl Config {
    /// Reads the file, where one is given, and lays `env` over it. Reads nothing else.
    ///
    /// # Errors
    /// [`ConfigError`]: the file cannot be read or is not TOML; a setting is unknown or of the
    /// wrong type. Values are not compared yet: call [`Config::validate`].
    pub fn load(
        path: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let defaults = figment::value::Value::serialize(Self::default());
        let defaults = defaults.map_err(|error| source::explain(error, None))?;
        let figment = source::gather(path, env, &defaults)?;
        figment.extract().map_err(|error| source::explain(error, path))
    }

    /// Checks that the settings are complete and fit together, as `serve` needs them.
    /// `migrate`, `verify` and `rebuild` need only [`DatabaseConfig::required_url`].
    ///
    /// # Errors
    /// [`ConfigError::Settings`] with every problem that was found.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut problems = Problems::default();
        self.grpc.validate(&mut problems);
        let shared = self.grpc.listen == self.admin.listen && self.admin.listen.port() != 0;
        problems.require(!shared, "admin.listen", "is the same as grpc.listen; give it another port");
        self.database.validate(&mut problems);
        self.nats.validate(&mut problems);
        self.signing.validate(&mut problems);
        self.rate_limit.validate(&mut problems);
        self.limits.validate(&mut problems);
        self.fleet.validate(&mut problems);
        self.auth.validate(self.tls.client_ca_file.is_some(), &mut problems);
        self.tls.validate(self.grpc.listen, &mut problems);
        self.telemetry.validate(&mut problems);
        self.audit.validate(&mut problems);
        self.lifecycle.validate(&mut problems);
        problems.into_result()
    }

    /// Checks the settings that `dev` heeds; it brings its own store, key and identity.
    ///
    /// # Errors
    /// [`ConfigError::Settings`] with every problem that was found.
    pub fn validate_for_development(&self) -> Result<(), ConfigError> {
        let mut problems = Problems::default();
        self.grpc.validate(&mut problems);
        self.rate_limit.validate(&mut problems);
        self.limits.validate(&mut problems);
        self.fleet.validate(&mut problems);
        self.telemetry.validate(&mut problems);
        self.audit.validate(&mut problems);
        self.lifecycle.validate(&mut problems);
        problems.into_result()
    }

    /// The effective settings as TOML, secrets hidden: what `config check` prints.
    ///
    /// # Errors
    /// [`ConfigError::Settings`] where a value has no TOML spelling, such as a path that is
    /// not UTF-8.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string_pretty(self).map_err(|error| ConfigError::of("settings", error.to_string()))
    }

    /// The JSON Schema of the file, with the fields' documentation and defaults: what
    /// `config schema` prints.
    #[must_use]
    pub fn schema() -> schemars::Schema {
        schemars::schema_for!(Self)
    }
}
