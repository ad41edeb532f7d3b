//! `[nats]`: the wire to the fleet. Without a URL the feed stays in process and brokers
//! use `WatchTrust`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Problems;
use super::secret::hidden_text;

/// The NATS servers and how to log in there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NatsConfig {
    /// One or more `nats://HOST:PORT` or `tls://HOST:PORT`, parted by commas. No default:
    /// without it nothing is published, and `WatchTrust` alone carries the feed. JetStream
    /// must be on; 2.10 or later is recommended, 2.9 works.
    pub url: Option<NatsUrl>,
    /// File of NATS credentials (JWT and key, as `nsc` writes it). Excludes `user`.
    pub credentials_file: Option<PathBuf>,
    /// User name; needs `password_file`.
    pub user: Option<String>,
    /// File that holds the password of `user` and nothing else. Read at start.
    pub password_file: Option<PathBuf>,
    /// PEM file of the CAs that the servers' certificates are checked against. Needed with
    /// `tls://`, where the public ones do not apply.
    pub root_ca_file: Option<PathBuf>,
    /// Copies of the stream in a NATS cluster: 1, 3 or 5. Default 1. One copy is lost with
    /// its server, and made anew from the log.
    pub stream_replicas: usize,
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            url: None,
            credentials_file: None,
            user: None,
            password_file: None,
            root_ca_file: None,
            stream_replicas: 1,
        }
    }
}

impl NatsConfig {
    pub(crate) fn validate(&self, problems: &mut Problems) {
        problems.require(
            self.user.is_some() == self.password_file.is_some(),
            "nats.user",
            "user and password go together: set both nats.user and nats.password_file, or neither",
        );
        problems.require(
            matches!(self.stream_replicas, 1 | 3 | 5),
            "nats.stream_replicas",
            "must be 1, 3 or 5",
        );
        problems.require(
            self.user.is_none() || self.credentials_file.is_none(),
            "nats.credentials_file",
            "is set beside nats.user; remove one",
        );
        let login = self.user.is_some() || self.credentials_file.is_some();
        problems.require(
            self.url.is_some() || !(login || self.root_ca_file.is_some()),
            "nats.url",
            "is not set although other nats settings are: set it, or remove them",
        );
    }
}

/// Addresses of NATS servers, without credentials: those belong in settings of their
/// own, so that the address may be printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct NatsUrl(String);

impl NatsUrl {
    /// Each server's address, in the order given.
    pub fn servers(&self) -> impl Iterator<Item = &str> {
        self.0.split(',').map(str::trim)
    }
}

impl std::str::FromStr for NatsUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains('@') {
            return Err("must not hold credentials: use nats.user and nats.password_file, \
                        or nats.credentials_file");
        }
        let known = |server: &str| {
            let host = server.strip_prefix("nats://").or_else(|| server.strip_prefix("tls://"));
            host.is_some_and(|host| !host.is_empty())
        };
        if text.split(',').map(str::trim).all(known) {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be nats://HOST:PORT or tls://HOST:PORT, several parted by commas")
        }
    }
}

impl<'de> Deserialize<'de> for NatsUrl {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        hidden_text(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_servers_are_parted_by_commas() {
        let url: NatsUrl = "nats://a:4222, tls://b:4222".parse().unwrap();
        assert_eq!(url.servers().collect::<Vec<_>>(), ["nats://a:4222", "tls://b:4222"]);
    }

    #[test]
    fn credentials_in_the_address_are_refused_without_quoting_them() {
        let error = serde_json::from_str::<NatsUrl>("\"nats://u:hunter2@a:4222\"").unwrap_err().to_string();
        assert!(error.contains("nats.password_file") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn an_address_needs_a_scheme_and_a_host() {
        for text in ["a:4222", "http://a:4222", "nats://", "nats://a,", ""] {
            assert!(text.parse::<NatsUrl>().is_err(), "{text}");
        }
    }
}
