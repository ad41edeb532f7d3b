//! `[signing]`: the key that brokers know the messages by.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Problems;

/// The key that signs trust bundles, trust changes and heads.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SigningConfig {
    /// PEM file of an Ed25519 private key in PKCS#8, as `openssl genpkey -algorithm ed25519`
    /// writes it. No default. Every replica needs the same one: brokers refuse messages by
    /// any key that they were not given.
    pub key_file: Option<PathBuf>,
}

impl SigningConfig {
    pub(crate) fn validate(&self, problems: &mut Problems) {
        problems.require(
            self.key_file.is_some(),
            "signing.key_file",
            "is required: make one with `openssl genpkey -algorithm ed25519 -out signing.pem`",
        );
    }
}
