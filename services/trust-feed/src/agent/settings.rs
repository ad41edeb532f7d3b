//! What an agent has to be told.

use std::path::PathBuf;
use std::time::Duration;

use catrust_domain::{BrokerId, InstanceId};
use catrust_signing::KeyRing;

use crate::nats::NatsSettings;

/// How to reach the servers. `Debug` shows no secret: there is none in here, only the files
/// that hold them. Files are read again for each connection, so that what is renewed on
/// disk is used without a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcSettings {
    /// `http://host:port` or `https://host:port`, in the order of preference; at least one.
    pub servers: Vec<String>,
    /// File that holds a bearer token. White space around it is dropped.
    pub token_file: Option<PathBuf>,
    /// PEM file of the CA certificates that may sign a server's certificate; needed for
    /// `https`.
    pub tls_ca_file: Option<PathBuf>,
    /// PEM file of the client certificate, for mutual TLS; needs `tls_key_file`.
    pub tls_certificate_file: Option<PathBuf>,
    /// PEM file of the client certificate's key.
    pub tls_key_file: Option<PathBuf>,
}

impl GrpcSettings {
    /// Settings for one server, without TLS files and token.
    #[must_use]
    pub fn new(server: impl Into<String>) -> Self {
        Self {
            servers: vec![server.into()],
            token_file: None,
            tls_ca_file: None,
            tls_certificate_file: None,
            tls_key_file: None,
        }
    }
}

/// Settings of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentSettings {
    /// Instance whose trust is enforced.
    pub instance_id: InstanceId,
    /// Name of this broker in receipts; another one in each broker of the instance.
    pub broker_id: BrokerId,
    /// Public keys that may sign the feed, and root keys that may name others.
    pub keys: KeyRing,
    /// The servers: for bundles, for receipts, and in place of NATS.
    pub grpc: GrpcSettings,
    /// NATS, preferred while heads come there. `None`: gRPC alone.
    pub nats: Option<NatsSettings>,
    /// Directory of the state, of this agent alone. `None`: a restart knows nothing until
    /// it has reached a server, and cannot tell a rollback.
    pub state_directory: Option<PathBuf>,
    /// How long after the last head the bundle counts as fresh; default 6 s, three heads.
    /// After two thirds of it without a head on NATS, gRPC takes over.
    pub soft_budget: Duration,
    /// How long after the last head the bundle is relied on; default 10 min. Shorter: a long
    /// outage of everything keeps devices out. Longer: who can cut an agent off keeps an
    /// inactivated CA's devices in for so long.
    pub hard_budget: Duration,
    /// How far the clocks of server and agent may differ; default 30 s. Beyond it, heads
    /// prove nothing, and keys and key sets are not valid yet or no more.
    pub clock_skew: Duration,
    /// Time between two signs of life; default 5 s.
    pub receipt_interval: Duration,
}

impl AgentSettings {
    /// Settings with the defaults: no NATS, no state directory.
    #[must_use]
    pub fn new(
        instance_id: InstanceId,
        broker_id: BrokerId,
        keys: impl Into<KeyRing>,
        grpc: GrpcSettings,
    ) -> Self {
        Self {
            instance_id,
            broker_id,
            keys: keys.into(),
            grpc,
            nats: None,
            state_directory: None,
            soft_budget: Duration::from_secs(6),
            hard_budget: Duration::from_secs(600),
            clock_skew: Duration::from_secs(30),
            receipt_interval: Duration::from_secs(5),
        }
    }

    /// Checks what can be checked without I/O.
    ///
    /// # Errors
    /// [`UnusableSettings`] says what to change.
    pub(super) fn check(&self) -> Result<(), UnusableSettings> {
        let unusable = |text: &str| Err(UnusableSettings(text.to_owned()));
        if self.keys.is_empty() {
            return unusable("no public key is pinned and no root key, so that no message could be believed");
        }
        if self.soft_budget < Duration::from_millis(100) || self.hard_budget < self.soft_budget {
            return unusable("the soft budget must be 100 ms or more, and the hard budget not below it");
        }
        if self.receipt_interval.is_zero() {
            return unusable("the receipt interval must be more than zero");
        }
        self.grpc.check()
    }
}

impl GrpcSettings {
    fn check(&self) -> Result<(), UnusableSettings> {
        let unusable = |text: String| Err(UnusableSettings(text));
        if self.servers.is_empty() {
            return unusable("give at least one server".to_owned());
        }
        if self.tls_certificate_file.is_some() != self.tls_key_file.is_some() {
            return unusable("a client certificate needs both its file and its key file".to_owned());
        }
        for server in &self.servers {
            match server.split_once("://") {
                Some(("https", host)) if !host.is_empty() => {
                    if self.tls_ca_file.is_none() {
                        return unusable(format!(
                            "{server}: https needs the CA file that the server's certificate is checked with"
                        ));
                    }
                }
                Some(("http", host)) if !host.is_empty() => {
                    if self.tls_ca_file.is_some() || self.tls_certificate_file.is_some() {
                        return unusable(format!("{server}: TLS files are given, so write https://"));
                    }
                }
                _ => return unusable(format!("{server}: write http://HOST:PORT or https://HOST:PORT")),
            }
        }
        Ok(())
    }
}

/// Settings that cannot work; the text says what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnusableSettings(pub(super) String);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::key;

    fn settings(grpc: GrpcSettings) -> AgentSettings {
        let keys = crate::signing::TrustKeys::from(&key());
        AgentSettings::new("fleet".parse().unwrap(), "broker".parse().unwrap(), keys, grpc)
    }

    fn refusal(settings: &AgentSettings) -> String {
        settings.check().expect_err("unusable settings").to_string()
    }

    #[test]
    fn defaults_for_a_plain_server_are_usable() {
        assert_eq!(settings(GrpcSettings::new("http://127.0.0.1:1")).check(), Ok(()));
    }

    #[test]
    fn servers_and_tls_files_have_to_fit() {
        let plain = GrpcSettings::new("http://a:1");
        let file = Some(PathBuf::from("file.pem"));
        let cases = [
            (GrpcSettings { servers: Vec::new(), ..plain.clone() }, "at least one"),
            (GrpcSettings::new("a:1"), "write http://"),
            (GrpcSettings::new("https://"), "write http://"),
            (GrpcSettings::new("https://a:1"), "CA file"),
            (GrpcSettings { tls_ca_file: file.clone(), ..plain.clone() }, "so write https://"),
            (GrpcSettings { tls_key_file: file, ..plain }, "both"),
        ];
        for (grpc, expected) in cases {
            let refusal = refusal(&settings(grpc));
            assert!(refusal.contains(expected), "{refusal}");
        }
    }

    #[test]
    fn budgets_and_keys_have_to_make_sense() {
        let good = settings(GrpcSettings::new("http://a:1"));
        let unpinned = AgentSettings { keys: KeyRing::default(), ..good.clone() };
        assert!(refusal(&unpinned).contains("pinned"));
        let upside_down = AgentSettings { hard_budget: Duration::from_secs(1), ..good.clone() };
        assert!(refusal(&upside_down).contains("budget"));
        let hasty = AgentSettings { receipt_interval: Duration::ZERO, ..good };
        assert!(refusal(&hasty).contains("interval"));
    }
}
