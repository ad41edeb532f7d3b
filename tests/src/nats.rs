//! A NATS server of one's own, with JetStream, on a free port.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::{ConnectOptions, jetstream};
use tempfile::TempDir;

use crate::certificates::Ca;
use crate::eventually::eventually;
use crate::process::{Launcher, Process, Signal};
use crate::program::{free_port, repository, run};

/// How long a server may take to answer.
const READY: Duration = Duration::from_secs(30);

/// The JetStream stream of the contract.
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
    /// The agent of the broker `gate-1` of the instance `factory`.
    Agent,
}

impl Role {
    const ALL: [Self; 3] = [Self::Server, Self::Auditor, Self::Agent];

    const fn variable(self) -> &'static str {
        match self {
            Self::Server => "CATRUST_NATS_SERVER",
            Self::Auditor => "CATRUST_NATS_AUDITOR",
            Self::Agent => "CATRUST_NATS_AGENT",
        }
    }
}

/// Prefix of the inboxes that the servers and auditors may hear.
const INBOX: &str = "_INBOX.catrust";

/// A private NATS server.
#[derive(Debug)]
pub struct Nats {
    process: Option<Process>,
    directory: TempDir,
    port: u16,
    version: Version,
    /// Whether it runs `deploy/nats/catrust.conf`.
    guarded: bool,
}

impl Nats {
    /// Starts a server with an empty JetStream.
    ///
    /// # Errors
    /// When NATS is not installed or does not start.
    pub async fn start(version: Version) -> anyhow::Result<Self> {
        Self::start_as(version, false).await
    }

    /// Starts a server with `deploy/nats/catrust.conf` as it stands, but for its ports and its
    /// folder, and with TLS: nobody gets in without one of the logins.
    ///
    /// # Errors
    /// When NATS is not installed or does not start.
    pub async fn start_guarded(version: Version) -> anyhow::Result<Self> {
        Self::start_as(version, true).await
    }

    async fn start_as(version: Version, guarded: bool) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("catrust-nats-").tempdir()?;
        for role in Role::ALL {
            std::fs::write(seed_in(&directory, role), nkeys::KeyPair::new_user().seed()?)?;
        }
        let ca = Ca::root("the CA of NATS")?;
        let leaf = ca.server()?;
        for (name, text) in [("ca.pem", &ca.pem), ("server.pem", &leaf.pem), ("server.key", &leaf.key_pem)] {
            std::fs::write(directory.path().join(name), text)?;
        }
        let mut nats = Self { process: None, directory, port: free_port()?, version, guarded };
        nats.launch().await?;
        Ok(nats)
    }

    /// The file with the seed of a login; `None` where everybody gets in.
    #[must_use]
    pub fn seed(&self, role: Role) -> Option<PathBuf> {
        self.guarded.then(|| seed_in(&self.directory, role))
    }

    /// The CA of its certificate; `None` where it speaks no TLS.
    #[must_use]
    pub fn root_ca(&self) -> Option<PathBuf> {
        self.guarded.then(|| self.directory.path().join("ca.pem"))
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

    /// What the server has written.
    #[must_use]
    pub fn said(&self) -> String {
        self.process.as_ref().map(|process| process.output().text()).unwrap_or_default()
    }

    /// URL of the server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Kills it with -9. Its port stays reserved for [`Nats::restart`].
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            process.kill();
        }
    }

    /// Stops it where it is.
    pub fn pause(&self) {
        if let Some(process) = &self.process {
            process.signal(Signal::STOP);
        }
    }

    /// Lets a paused server go on.
    pub fn resume(&self) {
        if let Some(process) = &self.process {
            process.signal(Signal::CONT);
        }
    }

    /// Starts it again, on the same port, with what it had stored.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        self.launch().await
    }

    /// Kills it, forgets what it had stored, and starts it again.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn wipe(&mut self) -> anyhow::Result<()> {
        self.kill();
        let store = self.store();
        if store.exists() {
            std::fs::remove_dir_all(store)?;
        }
        self.launch().await
    }

    /// Copies what it has stored, from a moment when it is down.
    ///
    /// # Errors
    /// When it does not start again.
    pub async fn back_up(&mut self) -> anyhow::Result<TempDir> {
        self.kill();
        let backup = tempfile::tempdir()?;
        copy(&self.store(), &backup.path().join("store")).await?;
        self.launch().await?;
        Ok(backup)
    }

    /// Puts an older store in place of the present one: what was acknowledged since
    /// is lost.
    ///
    /// # Errors
    /// When it does not start again.
    pub async fn roll_back(&mut self, backup: &TempDir) -> anyhow::Result<()> {
        self.kill();
        std::fs::remove_dir_all(self.store())?;
        copy(&backup.path().join("store"), &self.store()).await?;
        self.launch().await
    }

    /// A client with the rights of the servers.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn client(&self) -> anyhow::Result<async_nats::Client> {
        self.client_as(Role::Server).await
    }

    /// The stream of the contract, once it is there.
    ///
    /// # Errors
    /// When no server of catrust has made it within the bound.
    pub async fn stream(&self) -> anyhow::Result<jetstream::stream::Stream> {
        let context = jetstream::new(self.client().await?);
        eventually(READY, "the stream CATRUST exists", async || context.get_stream(STREAM).await).await
    }

    /// Last sequence of the stream; an error where there is no stream.
    ///
    /// # Errors
    /// When the server or the stream is not there.
    pub async fn last_sequence(&self) -> anyhow::Result<u64> {
        let context = jetstream::new(self.client().await?);
        Ok(context.get_stream(STREAM).await?.get_info().await?.state.last_sequence)
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

    fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    /// Makes it run the sample configuration, of which the folder alone is another one.
    fn guard(&self, command: &mut std::process::Command) -> anyhow::Result<()> {
        let sample = std::fs::read_to_string(repository().join("deploy/nats/catrust.conf"))?;
        let folder = self.store().to_string_lossy().into_owned();
        anyhow::ensure!(sample.contains("store_dir: /data\n"), "the sample names another folder");
        let file = self.directory.path().join("catrust.conf");
        std::fs::write(&file, sample.replace("store_dir: /data\n", &format!("store_dir: {folder:?}\n")))?;
        command.arg("-c").arg(file);
        let at = |name: &str| self.directory.path().join(name);
        command.arg("--tls").arg("--tlscert").arg(at("server.pem")).arg("--tlskey").arg(at("server.key"));
        command.args(["-m", &free_port()?.to_string()]).env("CATRUST_NATS_NAME", "guarded");
        for role in Role::ALL {
            let key = nkeys::KeyPair::from_seed(&std::fs::read_to_string(seed_in(&self.directory, role))?)?;
            command.env(role.variable(), key.public_key());
        }
        Ok(())
    }

    async fn launch(&mut self) -> anyhow::Result<()> {
        let program = match &self.version {
            Version::Installed => "nats-server".to_owned(),
            Version::At(path) => path.to_string_lossy().into_owned(),
        };
        let mut launcher = Launcher::new("nats-server", &program, "KILL");
        launcher.command().args(["-a", "127.0.0.1", "-p", &self.port.to_string()]);
        if self.guarded {
            self.guard(launcher.command())?;
        } else {
            launcher.command().args(["-js", "-sd"]).arg(self.store());
        }
        let options = self.options(Role::Server)?;
        let process = self.process.insert(launcher.start()?);
        let url = format!("nats://127.0.0.1:{}", self.port);
        eventually(READY, "NATS accepts connections", async || {
            if let Some(status) = process.exit_status() {
                return Err(format!("it ended with {status}: {}", process.output().text()));
            }
            options.clone().connect(&url).await.map(drop).map_err(|error| error.to_string())
        })
        .await
    }
}

fn seed_in(directory: &TempDir, role: Role) -> PathBuf {
    directory.path().join(format!("{role:?}.nk"))
}

async fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    run("cp", [Path::new("-a"), from, to]).await?.success().map(drop)
}
