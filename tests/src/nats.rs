//! A NATS server of one's own, with JetStream, on a free port.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_nats::jetstream;
use tempfile::TempDir;

use crate::eventually::eventually;
use crate::process::{Launcher, Process, Signal};
use crate::program::{free_port, run};

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

/// A private NATS server.
#[derive(Debug)]
pub struct Nats {
    process: Option<Process>,
    directory: TempDir,
    port: u16,
    version: Version,
}

impl Nats {
    /// Starts a server with an empty JetStream.
    ///
    /// # Errors
    /// When NATS is not installed or does not start.
    pub async fn start(version: Version) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("catrust-nats-").tempdir()?;
        let mut nats = Self { process: None, directory, port: free_port()?, version };
        nats.launch().await?;
        Ok(nats)
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

    /// A client.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn client(&self) -> anyhow::Result<async_nats::Client> {
        Ok(async_nats::connect(self.url()).await?)
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

    async fn launch(&mut self) -> anyhow::Result<()> {
        let program = match &self.version {
            Version::Installed => "nats-server".to_owned(),
            Version::At(path) => path.to_string_lossy().into_owned(),
        };
        let mut launcher = Launcher::new("nats-server", &program, "KILL");
        launcher
            .command()
            .args(["-a", "127.0.0.1", "-p", &self.port.to_string(), "-js", "-sd"])
            .arg(self.store());
        let process = self.process.insert(launcher.start()?);
        let url = format!("nats://127.0.0.1:{}", self.port);
        eventually(READY, "NATS accepts connections", async || {
            if let Some(status) = process.exit_status() {
                return Err(format!("it ended with {status}: {}", process.output().text()));
            }
            async_nats::connect(&url).await.map(drop).map_err(|error| error.to_string())
        })
        .await
    }
}

async fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    run("cp", [Path::new("-a"), from, to]).await?.success().map(drop)
}
