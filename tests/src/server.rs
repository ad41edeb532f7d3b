//! A running `catrust-server`.

use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Context as _;

use crate::client::Caller;
use crate::process::{Launcher, Output, Process, Signal};
use crate::program::{Completion, built, finish};

/// How long a server may take to accept calls.
const READY: Duration = Duration::from_secs(60);

/// A server process that accepts calls.
#[derive(Debug)]
pub struct Server {
    process: Process,
    address: String,
}

impl Server {
    /// Starts `catrust-server dev` on a free port, its files in `data`.
    ///
    /// # Errors
    /// When it is not built or does not come up.
    pub async fn dev(data: &Path) -> anyhow::Result<Self> {
        Self::dev_with(data, &[]).await
    }

    /// As [`Server::dev`], with settings from the environment.
    ///
    /// # Errors
    /// When it is not built or does not come up.
    pub async fn dev_with(data: &Path, environment: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut launcher = launcher("catrust-server dev")?;
        let command = launcher.command();
        command.args(["dev", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data);
        // Tests share two cores and one identity: the limit has its own tests.
        command.env("CATRUST_RATE_LIMIT__PER_USER_PER_SECOND", "100000");
        command.env("CATRUST_RATE_LIMIT__BURST", "100000");
        command.env("CATRUST_ADMIN__LISTEN", "127.0.0.1:0");
        command.envs(environment.iter().copied());
        Self::start(launcher).await
    }

    /// Starts `catrust-server serve` with a configuration file.
    ///
    /// # Errors
    /// When it is not built or does not come up.
    pub async fn serve(name: &str, config: &Path) -> anyhow::Result<Self> {
        let mut launcher = launcher(&format!("catrust-server serve ({name})"))?;
        launcher.command().args(["serve", "--config"]).arg(config);
        Self::start(launcher).await
    }

    /// Starts a prepared command and waits for its `listening on` line.
    ///
    /// # Errors
    /// When it ends before, or says nothing in time; the error has its output.
    pub async fn start(launcher: Launcher) -> anyhow::Result<Self> {
        let process = launcher.start()?;
        let address = process
            .ready(READY, "the server accepts calls", async || {
                printed_address(process.output()).ok_or("no address yet")
            })
            .await
            .context("the server did not come up")?;
        Ok(Self { process, address })
    }

    /// Where it accepts calls: `http://HOST:PORT`, `https://` with TLS.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `HOST:PORT`.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.address.rsplit('/').next().unwrap_or_default()
    }

    /// What it has written so far.
    #[must_use]
    pub const fn output(&self) -> &Output {
        self.process.output()
    }

    /// A caller with a token, or none.
    ///
    /// # Errors
    /// When the token is malformed.
    pub fn caller(&self, token: Option<&str>) -> anyhow::Result<Caller> {
        Caller::new(&self.address, token)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Kills it with -9.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// How it ended; `None` while it runs.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        self.process.exit_status()
    }

    /// Waits for it to end.
    ///
    /// # Errors
    /// When it still runs after `within`.
    pub async fn ended(&self, within: Duration) -> anyhow::Result<ExitStatus> {
        self.process.ended(within).await
    }

    /// Resident memory, in bytes.
    ///
    /// # Errors
    /// When it does not run any more.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib * 1024)
    }
}

fn printed_address(output: &Output) -> Option<String> {
    output.lines().iter().find_map(|line| {
        let (_, rest) = line.split_once("listening on http")?;
        Some(format!("http{}", rest.split_whitespace().next()?))
    })
}

/// Prepares a run of `catrust-server` in the background.
///
/// # Errors
/// When it is not built.
pub fn launcher(name: &str) -> anyhow::Result<Launcher> {
    Ok(Launcher::new(name, built("catrust-server")?))
}

/// Runs a command of `catrust-server` that ends by itself.
///
/// # Errors
/// When it is not built or does not end.
pub async fn run_server(arguments: &[&str], environment: &[(&str, &str)]) -> anyhow::Result<Completion> {
    let mut command = tokio::process::Command::new(built("catrust-server")?);
    command.args(arguments).envs(environment.iter().copied());
    finish(command).await
}
