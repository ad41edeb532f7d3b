//! Where the programs are, and running one to its end.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::Context as _;

/// Longest run of a program that is meant to end by itself.
const LIMIT: Duration = Duration::from_secs(120);

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map(Path::to_path_buf).unwrap_or_default()
}

/// Where cargo puts what it builds, and the tools that `make tools` installs.
///
/// # Errors
/// When this process was not built by cargo.
pub fn target_directory() -> anyhow::Result<PathBuf> {
    let profile = profile_directory()?;
    Ok(profile.parent().context("no directory above the build profile's")?.to_path_buf())
}

fn profile_directory() -> anyhow::Result<PathBuf> {
    let me = std::env::current_exe()?;
    let directory = me.parent().context("this program has no directory")?;
    // Tests are in `deps/`, programs beside it.
    let profile = if directory.ends_with("deps") { directory.parent() } else { Some(directory) };
    Ok(profile.context("no build directory")?.to_path_buf())
}

/// A program of this workspace, of the same build profile as the caller.
///
/// # Errors
/// When it was not built; the error names the command that builds it.
pub fn built(name: &str) -> anyhow::Result<PathBuf> {
    existing(profile_directory()?.join(name))
}

/// A library of this workspace that other programs load. Where it was built for a test,
/// Cargo leaves it here and nowhere else.
///
/// # Errors
/// When it was not built; the error names the command that builds it.
pub fn built_library(name: &str) -> anyhow::Result<PathBuf> {
    existing(profile_directory()?.join("deps").join(name))
}

fn existing(path: PathBuf) -> anyhow::Result<PathBuf> {
    let missing = || format!("{} is missing; run `cargo test --workspace --no-run` first", path.display());
    anyhow::ensure!(path.exists(), missing());
    Ok(path)
}

/// The program that a variable of the environment names, or else `installed`.
pub(crate) fn from_environment(variable: &str, installed: &str) -> OsString {
    std::env::var_os(variable).unwrap_or_else(|| installed.into())
}

/// What a finished program said.
#[derive(Debug, Clone)]
pub struct Completion {
    /// Its exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Completion {
    /// The output of a program that ended well.
    ///
    /// # Errors
    /// When the exit code is not 0; the error has both streams.
    pub fn success(self) -> anyhow::Result<Self> {
        anyhow::ensure!(self.code == Some(0), "exit code {:?}\n{}\n{}", self.code, self.stdout, self.stderr);
        Ok(self)
    }
}

impl From<Output> for Completion {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs a program to its end, for two minutes at most.
///
/// # Errors
/// When it cannot be started or does not end; a bad exit code is no error.
pub async fn run<S: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: impl IntoIterator<Item = S>,
) -> anyhow::Result<Completion> {
    let mut command = tokio::process::Command::new(program);
    command.args(arguments);
    finish(command).await
}

/// Runs a prepared command to its end, for two minutes at most.
///
/// # Errors
/// When it cannot be started or does not end; a bad exit code is no error.
pub async fn finish(mut command: tokio::process::Command) -> anyhow::Result<Completion> {
    let what = format!("{:?}", command.as_std());
    let child = command.stdin(std::process::Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(LIMIT, child)
        .await
        .with_context(|| format!("{what} does not end"))?
        .with_context(|| format!("cannot run {what}"))?;
    Ok(output.into())
}

/// A port of 127.0.0.1 that was free a moment ago.
///
/// Below the range that the kernel hands out by itself: a port from there could be
/// somebody's by the time a server listens on it.
///
/// # Errors
/// When the machine has none left.
pub fn free_port() -> anyhow::Result<u16> {
    const RANGE: std::ops::Range<u16> = 12_000..32_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Other test processes begin elsewhere.
    let start = u16::try_from(std::process::id() % 1_000)? * 20;
    for _ in 0..RANGE.len() {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % (RANGE.end - RANGE.start);
        let port = RANGE.start + offset;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("no port of 127.0.0.1 is free in {RANGE:?}")
}
