//! The audit trail: who did what, and how one finds out that it was not tampered with.

mod evidence;
mod ledger;
mod listing;
mod refusals;
mod tampering;

use std::process::Stdio;

use catrust_tests::program::{Completion, built, finish};

/// Runs `catrust` against a server, with a token where there is one.
async fn catrust(server: &str, token: Option<&str>, arguments: &[&str]) -> anyhow::Result<Completion> {
    let mut command = tokio::process::Command::new(built("catrust")?);
    command.args(["--server", server]).args(arguments).stdin(Stdio::null());
    if let Some(token) = token {
        command.env("CATRUST_TOKEN", token);
    }
    finish(command).await
}
