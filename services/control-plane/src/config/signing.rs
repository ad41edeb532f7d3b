//! `[signing]`: the key that brokers know the messages by.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Problems;

/// The key that signs trust bundles, trust changes and heads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SigningConfig {
    /// PEM file of an Ed25519 private key in PKCS#8, as `openssl genpkey -algorithm ed25519`
    /// or `catrust keys generate` writes it. No default. Read at start. Every replica needs
    /// the same one, unless there is a key set: brokers refuse messages by any key that they
    /// were not given and that no key set names.
    pub key_file: Option<PathBuf>,
    /// JSON file of the key set that names `key_file`'s key, as `catrust keys vouch` writes it;
    /// handed out to agents that have the root key. Read again every 2 seconds and on SIGHUP;
    /// one that cannot be used, or that does not vouch for `key_file`'s key, changes nothing.
    /// Needs `root_key_file`. No default: agents have the public half of `key_file` pinned.
    pub key_set_file: Option<PathBuf>,
    /// PEM file of the public root key, or several, that agents check key sets with: so that
    /// the server refuses what they would refuse. No default.
    pub root_key_file: Option<PathBuf>,
    /// Days before the key set or the key expires from which on the log warns of it, every
    /// hour. Default 14.
    pub expiry_warning_days: u32,
}

impl Default for SigningConfig {
    fn default() -> Self {
        Self { key_file: None, key_set_file: None, root_key_file: None, expiry_warning_days: 14 }
    }
}

impl SigningConfig {
    pub(crate) fn validate(&self, problems: &mut Problems) {
        problems.require(
            self.key_file.is_some(),
            "signing.key_file",
            "is required: make one with `openssl genpkey -algorithm ed25519 -out signing.pem`",
        );
        let both = self.key_set_file.is_some() == self.root_key_file.is_some();
        problems.require(
            both,
            "signing.root_key_file",
            "goes with signing.key_set_file: set both, or neither; a key set is believed by its root key alone",
        );
        problems.within(
            "signing.expiry_warning_days",
            self.expiry_warning_days.into(),
            1..=365,
            "a warning must come in time, and not always",
        );
    }
}
