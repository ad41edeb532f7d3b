//! A NATS server of one's own, with JetStream, on a free port.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::directory::temporary;
use crate::process::{Launcher, Process, Signal};
use crate::program::{free_port, from_environment, run};

/// How long a server may take to answer.
const READY: Duration = Duration::from_secs(30);

/// A private server.
#[derive(Debug)]
pub struct NatsServer {
    /// The program: what `NATS_SERVER_BIN` names, or the one on the path.
    pub program: PathBuf,
    /// What it is started with, besides its address: JetStream, in [`NatsServer::store`].
    pub arguments: Vec<OsString>,
    /// More variables of its environment.
    pub environment: Vec<(String, String)>,
    process: Option<Process>,
    directory: TempDir,
    port: u16,
}

impl NatsServer {
    /// Starts a server with an empty JetStream.
    ///
    /// # Errors
    /// When NATS is not installed or does not start.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(&[]).await
    }

    /// Starts a server with more arguments.
    ///
    /// # Errors
    /// When NATS is not installed or does not start.
    pub async fn start_with(arguments: &[&str]) -> anyhow::Result<Self> {
        let mut server = Self::prepare()?;
        server.arguments.extend(arguments.iter().map(OsString::from));
        server.restart().await?;
        Ok(server)
    }

    /// Takes a port and a directory, and starts nothing yet.
    ///
    /// # Errors
    /// When there is no free port or no temporary directory.
    pub fn prepare() -> anyhow::Result<Self> {
        let mut server = Self {
            program: from_environment("NATS_SERVER_BIN", "nats-server").into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            process: None,
            directory: temporary("catrust-nats-")?,
            port: free_port()?,
        };
        server.arguments = vec!["-js".into(), "-sd".into(), server.store().into()];
        Ok(server)
    }

    /// URL of the server.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where JetStream stores.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.directory().join("store")
    }

    /// What the server has written since it was started.
    #[must_use]
    pub fn said(&self) -> String {
        self.process.as_ref().map(|process| process.output().text()).unwrap_or_default()
    }

    /// Kills it with -9. Its port stays reserved for [`NatsServer::restart`].
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

    /// Starts it, killed before if it runs, on the same port, with what it had stored.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        let mut launcher = Launcher::new("nats-server", &self.program);
        launcher.command().args(["-a", "127.0.0.1", "-p", &self.port.to_string()]);
        launcher.command().args(&self.arguments).envs(self.environment.iter().cloned());
        let process = self.process.insert(launcher.start()?);
        let port = self.port;
        process.ready(READY, "NATS greets", async || greeted(port).await).await
    }

    /// Kills it, forgets what it had stored, and starts it again.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn wipe(&mut self) -> anyhow::Result<()> {
        self.kill();
        if self.store().exists() {
            std::fs::remove_dir_all(self.store())?;
        }
        self.restart().await
    }

    /// Copies what it has stored, from a moment when it is down.
    ///
    /// # Errors
    /// When it does not start again.
    pub async fn back_up(&mut self) -> anyhow::Result<TempDir> {
        self.kill();
        let backup = temporary("catrust-nats-backup-")?;
        copy(&self.store(), &backup.path().join("store")).await?;
        self.restart().await?;
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
        self.restart().await
    }
}

/// The server says INFO first, without TLS even where it demands TLS.
async fn greeted(port: u16) -> std::io::Result<()> {
    let mut greeting = [0; 4];
    TcpStream::connect(("127.0.0.1", port)).await?.read_exact(&mut greeting).await?;
    if &greeting == b"INFO" { Ok(()) } else { Err(std::io::Error::other("something else greets")) }
}

async fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    run("cp", [Path::new("-a"), from, to]).await?.success().map(drop)
}
