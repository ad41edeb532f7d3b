//! `[nats]`: the wire to the fleet. Without a URL the feed stays in process and brokers
//! use `WatchTrust`.

use std::net::IpAddr;
use std::path::PathBuf;

use catrust_access::secret_toml::hidden_text;
use catrust_trust_feed::nats::MAX_STREAMS;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Problems;

/// The NATS servers and how to log in there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NatsConfig {
    /// One or more `nats://HOST:PORT` or `tls://HOST:PORT`, parted by commas. No default:
    /// without it nothing is published, and `WatchTrust` alone carries the feed. JetStream
    /// must be on; 2.10 or later is recommended, 2.9 works.
    pub url: Option<NatsUrl>,
    /// File of NATS credentials (JWT and key, as `nsc` writes it). Excludes `nkey_file` and
    /// `user`.
    pub credentials_file: Option<PathBuf>,
    /// File of the seed of an nkey (`SU…`, as `nk -gen user` prints it): the server signs with
    /// it and never sends it. Excludes `credentials_file` and `user`.
    pub nkey_file: Option<PathBuf>,
    /// User name; needs `password_file`.
    pub user: Option<String>,
    /// File that holds the password of `user` and nothing else. Read at start.
    pub password_file: Option<PathBuf>,
    /// PEM file of the CAs that may sign the servers' certificates, in place of the
    /// system's. With it nothing but TLS is spoken, and the host name is checked.
    pub root_ca_file: Option<PathBuf>,
    /// PEM file of the certificate to show to NATS, followed by its intermediates. Needs
    /// `client_key_file`, and TLS.
    pub client_cert_file: Option<PathBuf>,
    /// PEM file of that certificate's key. Needs `client_cert_file`.
    pub client_key_file: Option<PathBuf>,
    /// Connect to another machine without TLS. Default false. Only where something else
    /// encrypts: a password crosses that network readable, and who sits in between can hold
    /// back messages, though never forge one.
    pub allow_plaintext: bool,
    /// Copies of the stream in a NATS cluster: 1, 3 or 5. Default 1. One copy is lost with
    /// its server, and made anew from the log.
    pub stream_replicas: usize,
    /// Take the place of a stream that holds the log of another installation: it is set aside
    /// and kept, and the next one is filled with this log. Default false: nothing is published
    /// then, and the log says so. For once, after the database was replaced; two installations
    /// never share a NATS account.
    pub take_over_stream: bool,
    /// Most streams that there may be (`CATRUST`, `CATRUST_2`, …), the one in use among them: 1
    /// to 9. Default 9. One that does not hold this log is set aside and kept. Where there are as
    /// many, or three were made within a day, the server fills none and says so, and sends new
    /// changes past the stream; `catrust-server stream remove` makes room.
    pub max_kept_streams: u32,
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            url: None,
            credentials_file: None,
            nkey_file: None,
            user: None,
            password_file: None,
            root_ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            allow_plaintext: false,
            stream_replicas: 1,
            take_over_stream: false,
            max_kept_streams: MAX_STREAMS,
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
            (1..=MAX_STREAMS).contains(&self.max_kept_streams),
            "nats.max_kept_streams",
            "must be 1 to 9",
        );
        let logins = [self.user.is_some(), self.credentials_file.is_some(), self.nkey_file.is_some()];
        let logins = logins.into_iter().filter(|given| *given).count();
        problems.require(
            logins <= 1,
            "nats.credentials_file",
            "there is more than one login: keep one of nats.credentials_file, nats.nkey_file, nats.user",
        );
        problems.require(
            self.client_cert_file.is_some() == self.client_key_file.is_some(),
            "nats.client_cert_file",
            "certificate and key go together: set both nats.client_cert_file and nats.client_key_file, \
             or neither",
        );
        problems.require(
            self.url.is_some() || !(logins > 0 || self.wants_tls()),
            "nats.url",
            "is not set although other nats settings are: set it, or remove them",
        );
        let far = self.url.as_ref().and_then(NatsUrl::beyond_this_machine_without_tls);
        if let Some(server) = far
            && !self.wants_tls()
            && !self.allow_plaintext
        {
            problems.add(
                "nats.url",
                format!(
                    "{server} is on another machine and without TLS: write tls://, or set \
                     nats.root_ca_file; where something else encrypts, set nats.allow_plaintext = true"
                ),
            );
        }
    }

    /// Whether the files say that nothing but TLS is spoken, whatever the URL says.
    fn wants_tls(&self) -> bool {
        self.root_ca_file.is_some() || self.client_cert_file.is_some()
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

    /// The first server that is neither `tls://` nor loopback.
    fn beyond_this_machine_without_tls(&self) -> Option<&str> {
        self.servers().find(|server| server.strip_prefix("nats://").is_some_and(|host| !is_loopback(host)))
    }
}

/// Whether `HOST` or `HOST:PORT` is this machine.
fn is_loopback(host: &str) -> bool {
    let host = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
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
    fn what_is_not_this_machine_needs_tls() {
        let far = |text: &str| {
            let url: NatsUrl = text.parse().unwrap();
            url.beyond_this_machine_without_tls().map(str::to_owned)
        };
        for near in ["nats://127.0.0.1:4222", "nats://localhost", "nats://[::1]:4222", "tls://a:4222,tls://b"]
        {
            assert_eq!(far(near), None, "{near}");
        }
        for text in ["nats://a:4222", "nats://127.0.0.1.example.org", "nats://[::2]:4222", "nats://10.0.0.1"]
        {
            assert_eq!(far(&format!("tls://b:4222, {text}")).as_deref(), Some(text));
        }
    }

    #[test]
    fn an_address_needs_a_scheme_and_a_host() {
        for text in ["a:4222", "http://a:4222", "nats://", "nats://a,", ""] {
            assert!(text.parse::<NatsUrl>().is_err(), "{text}");
        }
    }
}
