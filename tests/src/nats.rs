//! A NATS server of one's own, with the logins and the stream of catrust.

use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::{ConnectOptions, jetstream};
use catrust_test_harness::nats::NatsServer;

use crate::certificates::Ca;
use crate::eventually::eventually;
use crate::program::{free_port, repository};

/// How long the stream may take to be there.
const READY: Duration = Duration::from_secs(30);

/// The first JetStream stream of the contract; later ones have `_2` to `_9` behind it.
pub const STREAM: &str = "CATRUST";

/// Which server to run.
#[derive(Clone, Debug)]
pub enum Version {
    /// The one on the path: Debian's.
    Installed,
    /// Another one.
    At(PathBuf),
}

/// A login of `deploy/nats/catrust.conf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The servers of catrust.
    Server,
    /// Whoever looks and changes nothing.
    Auditor,
    /// Who makes room for another stream.
    Operator,
    /// The agent of the broker `gate-1` of the instance `factory`.
    Agent,
}

impl Role {
    const ALL: [Self; 4] = [Self::Server, Self::Auditor, Self::Operator, Self::Agent];

    const fn variable(self) -> &'static str {
        match self {
            Self::Server => "CATRUST_NATS_SERVER",
            Self::Auditor => "CATRUST_NATS_AUDITOR",
            Self::Operator => "CATRUST_NATS_OPERATOR",
            Self::Agent => "CATRUST_NATS_AGENT",
        }
    }
}

/// Prefix of the inboxes that the servers and auditors may hear.
const INBOX: &str = "_INBOX.catrust";

/// A private NATS server, and what catrust has there.
#[derive(Debug)]
pub struct Nats {
    server: NatsServer,
    /// Whether it runs `deploy/nats/catrust.conf`.
    guarded: bool,
}

impl Deref for Nats {
    type Target = NatsServer;

    fn deref(&self) -> &NatsServer {
        &self.server
    }
}

impl DerefMut for Nats {
    fn deref_mut(&mut self) -> &mut NatsServer {
        &mut self.server
    }
}

impl Nats {
    /// Starts a server with an empty JetStream.
    ///
    /// # Errors
    /// When NATS is not installed or does not start.
    pub async fn start(version: Version) -> anyhow::Result<Self> {
        let mut nats = Self { server: prepare(version)?, guarded: false };
        nats.restart().await?;
        Ok(nats)
    }

    /// Starts a server with `deploy/nats/catrust.conf` as it stands, but for its ports and its
    /// folder, and with TLS: nobody gets in without one of the logins.
    ///
    /// # Errors
    /// When NATS is not installed or does not start.
    pub async fn start_guarded(version: Version) -> anyhow::Result<Self> {
        let mut nats = Self { server: prepare(version)?, guarded: true };
        nats.guard()?;
        nats.restart().await?;
        Ok(nats)
    }

    /// The file with the seed of a login; `None` where everybody gets in.
    #[must_use]
    pub fn seed(&self, role: Role) -> Option<PathBuf> {
        self.guarded.then(|| seed_in(self.directory(), role))
    }

    /// The CA of its certificate; `None` where it speaks no TLS.
    #[must_use]
    pub fn root_ca(&self) -> Option<PathBuf> {
        self.guarded.then(|| self.directory().join("ca.pem"))
    }

    /// How to connect with a key of one's own; as anybody, where everybody gets in.
    #[must_use]
    pub fn options_with(&self, seed: Option<String>) -> ConnectOptions {
        let options = seed.map_or_else(ConnectOptions::new, ConnectOptions::with_nkey);
        match self.root_ca() {
            Some(ca) => options.add_root_certificates(ca).require_tls(true).custom_inbox_prefix(INBOX),
            None => options,
        }
    }

    /// How to connect as a login; as anybody, where everybody gets in.
    ///
    /// # Errors
    /// When the seed is gone.
    pub fn options(&self, role: Role) -> anyhow::Result<ConnectOptions> {
        Ok(self.options_with(self.seed(role).map(std::fs::read_to_string).transpose()?))
    }

    /// A client with a login.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn client_as(&self, role: Role) -> anyhow::Result<async_nats::Client> {
        Ok(self.options(role)?.connect(self.url()).await?)
    }

    /// A client with the rights of the servers.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn client(&self) -> anyhow::Result<async_nats::Client> {
        self.client_as(Role::Server).await
    }

    /// The stream of the contract that is in use, once it is there.
    ///
    /// # Errors
    /// When no server of catrust has made it within the bound.
    pub async fn stream(&self) -> anyhow::Result<jetstream::stream::Stream> {
        let context = jetstream::new(self.client().await?);
        eventually(READY, "a stream is in use", async || in_use(&context).await).await
    }

    /// Last sequence of the stream in use; an error where there is none.
    ///
    /// # Errors
    /// When the server or the stream is not there.
    pub async fn last_sequence(&self) -> anyhow::Result<u64> {
        let context = jetstream::new(self.client().await?);
        Ok(in_use(&context).await?.get_info().await?.state.last_sequence)
    }

    /// Waits until the stream has come to `position`.
    ///
    /// # Errors
    /// When it has not within `within`, or has gone beyond.
    pub async fn reaches(&self, position: u64, within: Duration) -> anyhow::Result<()> {
        eventually(within, &format!("stream sequence {position}"), async || {
            match self.last_sequence().await {
                Ok(last) if last == position => Ok(()),
                Ok(last) => Err(format!("last sequence {last}")),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await
    }

    /// Makes it run the sample configuration with another folder, and nothing else changed.
    fn guard(&mut self) -> anyhow::Result<()> {
        let sample = std::fs::read_to_string(repository().join("deploy/nats/catrust.conf"))?;
        anyhow::ensure!(sample.contains("store_dir: /data\n"), "the sample names another folder");
        let at = |name: &str| self.server.directory().join(name);
        let store = self.store().to_string_lossy().into_owned();
        std::fs::write(
            at("catrust.conf"),
            sample.replace("store_dir: /data\n", &format!("store_dir: {store:?}\n")),
        )?;
        let ca = Ca::root("the CA of NATS")?;
        let leaf = ca.server()?;
        for (name, text) in [("ca.pem", &ca.pem), ("server.pem", &leaf.pem), ("server.key", &leaf.key_pem)] {
            std::fs::write(at(name), text)?;
        }
        let mut environment = vec![("CATRUST_NATS_NAME".to_owned(), "guarded".to_owned())];
        for role in Role::ALL {
            let key = nkeys::KeyPair::new_user();
            std::fs::write(seed_in(self.directory(), role), key.seed()?)?;
            environment.push((role.variable().to_owned(), key.public_key()));
        }
        let arguments = vec![
            "-c".into(),
            at("catrust.conf").into(),
            "--tls".into(),
            "--tlscert".into(),
            at("server.pem").into(),
            "--tlskey".into(),
            at("server.key").into(),
            "-m".into(),
            free_port()?.to_string().into(),
        ];
        (self.arguments, self.environment) = (arguments, environment);
        Ok(())
    }
}

/// The stream that has the live subjects.
async fn in_use(context: &jetstream::Context) -> anyhow::Result<jetstream::stream::Stream> {
    let names = (2..=9).map(|number| format!("{STREAM}_{number}"));
    for name in std::iter::once(STREAM.to_owned()).chain(names) {
        if let Ok(stream) = context.get_stream(name).await
            && stream.cached_info().config.subjects.iter().any(|subject| subject == "catrust.v1.trust.>")
        {
            return Ok(stream);
        }
    }
    anyhow::bail!("no stream is in use")
}

fn prepare(version: Version) -> anyhow::Result<NatsServer> {
    let mut server = NatsServer::prepare()?;
    if let Version::At(program) = version {
        server.program = program;
    }
    Ok(server)
}

fn seed_in(directory: &Path, role: Role) -> PathBuf {
    directory.join(format!("{role:?}.nk"))
}
