//! `[auth]`: who may call.

use std::path::PathBuf;

use catrust_access::PermissionSource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Problems;
use super::jwt::JwtConfig;

/// How callers show who they are: a bearer token whose hash is in `token_file`, a client
/// certificate (`tls.client_ca_file`) whose name is in it, or a JWT (`[auth.jwt]`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// TOML file of the static identities; see `deploy/config/identities.example.toml`. It holds
    /// hashes, not tokens. It is read again every 2 seconds and on SIGHUP. No default: without it, and without `[auth.jwt]`, nobody may call and
    /// `serve` does not start.
    pub token_file: Option<PathBuf>,
    /// Folder of policies, `DIR/ACCOUNT/NAME.cedar` and `DIR/ACCOUNT/NAME.json` (RAM policy
    /// documents); see `deploy/policies`. Where it is set, policies alone say who may do what:
    /// the entries of `token_file` must not have `allow` and `resources`. It is read again
    /// every 2 seconds and on SIGHUP; a folder with a mistake in it changes nothing. No
    /// default: the entries of `token_file` say who may do what.
    pub policy_dir: Option<PathBuf>,
    /// Tokens of an issuer.
    pub jwt: JwtConfig,
}

impl AuthConfig {
    /// Where permission comes from.
    #[must_use]
    pub const fn permission_source(&self) -> PermissionSource {
        if self.policy_dir.is_some() { PermissionSource::Policies } else { PermissionSource::Identities }
    }

    pub(crate) fn validate(&self, has_client_ca: bool, problems: &mut Problems) {
        problems.require(
            self.token_file.is_some() || self.jwt.enabled(),
            "auth.token_file",
            "is required, or auth.jwt.issuer: nobody may call without an identity; \
             start from deploy/config/identities.example.toml",
        );
        self.jwt.validate(self.policy_dir.is_some(), has_client_ca, problems);
    }
}
