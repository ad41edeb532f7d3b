//! `[auth]`: who may call.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Problems;

/// How callers show who they are: a bearer token whose hash is in `token_file`, or a client
/// certificate (`tls.client_ca_file`) whose name is in it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// TOML file of the static identities; see `deploy/config/identities.example.toml`. No
    /// default: without identities nobody may call. It holds hashes, not tokens.
    pub token_file: Option<PathBuf>,
}

impl AuthConfig {
    pub(crate) fn validate(&self, problems: &mut Problems) {
        problems.require(
            self.token_file.is_some(),
            "auth.token_file",
            "is required: nobody may call without an identity; \
             start from deploy/config/identities.example.toml",
        );
    }
}
