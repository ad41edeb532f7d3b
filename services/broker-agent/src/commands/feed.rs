//! Where the trust comes from, as arguments.

use std::path::PathBuf;

use anyhow::Context as _;
use catrust_domain::{BrokerId, InstanceId};
use catrust_trust_feed::agent::{AgentSettings, GrpcSettings};
use catrust_trust_feed::{KeyRing, NatsSettings, TrustKeys};
use clap::Args;

/// Where the trust comes from.
#[derive(Debug, Args)]
#[command(next_help_heading = "Feed")]
pub struct FeedArguments {
    /// Servers, http://HOST:PORT or https://HOST:PORT, the preferred one first
    #[arg(
        long,
        env = "CATRUST_SERVER",
        value_name = "URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:50051"
    )]
    server: Vec<String>,

    /// Instance whose trust is enforced
    #[arg(long, value_name = "ID")]
    instance: InstanceId,

    /// Name of this broker in the fleet; another one for each agent
    #[arg(long, value_name = "ID")]
    broker_id: BrokerId,

    /// NATS, nats://HOST:PORT or tls://HOST:PORT; several with commas. Without it the
    /// trust comes from the server alone
    #[arg(long, env = "CATRUST_NATS_URL", value_name = "URL")]
    nats: Option<String>,

    /// Public keys that may sign the trust (PEM); several with commas, or by giving it
    /// again. Default without --root-key: .catrust/trust.pub.pem, where `catrust-server dev`
    /// lays its key
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    trust_key: Vec<PathBuf>,

    /// Public root keys (PEM) that vouch for the keys that may sign the trust, so that
    /// those can be changed; several as above. Give --state-dir as well: it keeps the
    /// newest key set, so that no older one is taken after a restart
    #[arg(long, value_name = "FILE", value_delimiter = ',')]
    root_key: Vec<PathBuf>,

    /// Directory for what is known, of this agent alone. Without it a restart trusts
    /// nobody until a server is reached, and cannot tell a rollback
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,

    /// File with the bearer token for the server
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// CAs to check the server's certificate against (PEM); required with https
    #[arg(long, env = "CATRUST_TLS_CA_FILE", value_name = "FILE")]
    tls_ca_file: Option<PathBuf>,

    /// The agent's certificate for the server (PEM), in place of a token
    #[arg(long, env = "CATRUST_TLS_CERT_FILE", value_name = "FILE", requires = "tls_key_file")]
    tls_cert_file: Option<PathBuf>,

    /// Key of that certificate (PEM)
    #[arg(long, env = "CATRUST_TLS_KEY_FILE", value_name = "FILE", requires = "tls_cert_file")]
    tls_key_file: Option<PathBuf>,

    /// Credentials file for NATS, as nsc writes it
    #[arg(
        long,
        alias = "nats-credentials-file",
        value_name = "FILE",
        requires = "nats",
        conflicts_with = "nats_nkey"
    )]
    nats_creds: Option<PathBuf>,

    /// File with the seed of an nkey for NATS, as nk prints it
    #[arg(long, value_name = "FILE", requires = "nats")]
    nats_nkey: Option<PathBuf>,

    /// CAs to check the NATS server's certificate against (PEM), in place of the system's;
    /// nothing but TLS is spoken then
    #[arg(long, alias = "nats-tls-ca-file", value_name = "FILE", requires = "nats")]
    nats_root_ca: Option<PathBuf>,

    /// The agent's certificate for NATS (PEM)
    #[arg(long, value_name = "FILE", requires = "nats", requires = "nats_key")]
    nats_cert: Option<PathBuf>,

    /// Key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "nats_cert")]
    nats_key: Option<PathBuf>,

    /// Seconds after the last sign of life in which the trust counts as fresh
    #[arg(long, value_name = "SECONDS", default_value = "6", value_parser = super::gate::seconds)]
    soft_budget: std::time::Duration,

    /// Seconds after the last sign of life in which new sessions are admitted
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = super::gate::seconds)]
    hard_budget: std::time::Duration,

    /// Seconds by which the clocks of server and agent may differ. Signs of life and keys
    /// count as expired only after so much more
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = super::gate::seconds)]
    clock_skew: std::time::Duration,
}

/// Where `catrust-server dev` lays its key.
const DEVELOPMENT_KEY: &str = ".catrust/trust.pub.pem";

impl FeedArguments {
    /// Reads the keys and makes the agent's settings.
    ///
    /// # Errors
    /// The public keys cannot be used.
    pub fn settings(self) -> anyhow::Result<AgentSettings> {
        let keys = keys(self.trust_key, &self.root_key)?;
        let grpc = GrpcSettings {
            servers: self.server,
            token_file: self.token_file,
            tls_ca_file: self.tls_ca_file,
            tls_certificate_file: self.tls_cert_file,
            tls_key_file: self.tls_key_file,
        };
        let nats = self.nats.map(|url| NatsSettings {
            credentials_file: self.nats_creds,
            nkey_file: self.nats_nkey,
            tls_ca_file: self.nats_root_ca,
            tls_certificate_file: self.nats_cert,
            tls_key_file: self.nats_key,
            ..NatsSettings::new(url)
        });
        let mut settings = AgentSettings::new(self.instance, self.broker_id, keys, grpc);
        settings.nats = nats;
        settings.state_directory = self.state_dir;
        settings.soft_budget = self.soft_budget;
        settings.hard_budget = self.hard_budget;
        settings.clock_skew = self.clock_skew;
        Ok(settings)
    }
}

fn keys(mut trust_keys: Vec<PathBuf>, root_keys: &[PathBuf]) -> anyhow::Result<KeyRing> {
    if trust_keys.is_empty() && root_keys.is_empty() {
        trust_keys.push(DEVELOPMENT_KEY.into());
    }
    let list = |files: &[PathBuf]| {
        files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    };
    let pinned = TrustKeys::load(&trust_keys)
        .with_context(|| format!("--trust-key: {} is not the server's public key", list(&trust_keys)))?;
    let roots = TrustKeys::load(root_keys)
        .with_context(|| format!("--root-key: {} is not a public root key", list(root_keys)))?;
    Ok(KeyRing::new(pinned, roots))
}

#[cfg(test)]
mod tests {
    use catrust_trust_feed::SigningKey;

    use super::*;

    fn public_key() -> String {
        SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap().public_key_pem()
    }

    #[test]
    fn several_pinned_keys_and_root_keys_are_taken_and_a_bad_one_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (one, two, root) = (
            write("one.pem", &public_key()),
            write("two.pem", &public_key()),
            write("root.pem", &(public_key() + &public_key())),
        );
        let ring = keys(vec![one.clone(), two.clone()], &[]).unwrap();
        assert_eq!(ring, KeyRing::from(TrustKeys::load([&one, &two]).unwrap()));
        let ring = keys(Vec::new(), std::slice::from_ref(&root)).unwrap();
        assert_eq!(ring, KeyRing::new(TrustKeys::default(), TrustKeys::load([&root]).unwrap()));
        assert!(keys(vec![one], &[root]).unwrap().takes_key_sets());
        let bad = write("bad.pem", "no key");
        let error = keys(vec![two.clone(), bad.clone()], &[]).unwrap_err();
        assert!(format!("{error:#}").contains("--trust-key"), "{error:#}");
        let error = keys(vec![two], &[bad]).unwrap_err();
        assert!(format!("{error:#}").contains("--root-key"), "{error:#}");
    }
}
