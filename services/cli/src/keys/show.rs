//! `catrust keys show` and `catrust keys verify`.

use std::error::Error;
use std::path::{Path, PathBuf};

use catrust_proto::Timestamp as Time;
use catrust_signing::canonical::micros;
use catrust_signing::{KeyRefusal, KeySet, Present, Timestamp, error_chain};
use clap::Args;
use serde::Serialize;

use super::files::{self, now};
use crate::failure::Failure;
use crate::output::{Printer, fields, table};
use crate::spelling;

#[derive(Debug, Args)]
pub(crate) struct ShowKeysArguments {
    /// Key set (JSON), or a private or public key (PEM).
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyKeysArguments {
    /// Key set (JSON).
    #[arg(value_name = "FILE")]
    set: PathBuf,
    /// Public root key (PEM), as agents have it; several by giving it again.
    #[arg(long, value_name = "FILE", required = true)]
    root_key: Vec<PathBuf>,
    /// Key (PEM, private or public) that a server is to sign with.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// At this time (RFC 3339); now by default.
    #[arg(long, value_name = "TIME", value_parser = spelling::parse_time)]
    at: Option<Time>,
}

#[derive(Serialize)]
struct KeyNames {
    key_ids: Vec<String>,
    kind: &'static str,
}

pub(crate) fn run(command: &ShowKeysArguments, output: &Printer) -> Result<(), Failure> {
    if !files::read(&command.file)?.trim_start().starts_with('{') {
        let (kind, key_ids) = named(&command.file)?;
        return output.reply(&KeyNames { key_ids, kind }, |shown| {
            shown
                .key_ids
                .iter()
                .map(|key_id| fields(&[("key id", key_id.clone()), ("kind", kind.to_owned())]))
                .collect()
        });
    }
    let message = files::read_set(&command.file)?.unwrap_or_default();
    let set = KeySet::checked(message).map_err(|error| refused(&command.file, &error))?;
    output.reply(set.message(), |_| {
        format!("{}\nThe signature was not checked: `catrust keys verify` does.\n", text(&set, now()))
    })
}

/// Whose keys a PEM file holds.
fn named(path: &Path) -> Result<(&'static str, Vec<String>), Failure> {
    if files::read(path)?.contains("PRIVATE KEY") {
        return Ok(("private", vec![files::private_key(path)?.key_id().to_owned()]));
    }
    let public = files::public_keys(&[path.to_owned()])?;
    Ok(("public", public.key_ids().map(str::to_owned).collect()))
}

#[derive(Serialize)]
struct KeySetReport {
    version: u64,
    /// The key that was asked about, where one was.
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<String>,
    expires_at: String,
}

pub(crate) fn verify(command: &VerifyKeysArguments, output: &Printer) -> Result<(), Failure> {
    let roots = files::public_keys(&command.root_key)?;
    let message = files::read_set(&command.set)?;
    let message =
        message.ok_or_else(|| Failure::unreadable(&command.set, &std::io::ErrorKind::NotFound.into()))?;
    let set = KeySet::verified(message, &roots).map_err(|error| refused(&command.set, &error))?;
    let at = command.at.as_ref().and_then(micros).map_or_else(now, Timestamp::from_micros);
    let present = Present::exactly(at);
    set.check(present).map_err(|error| refused(&command.set, &error))?;
    let key_id = match &command.key {
        Some(path) => {
            let (_, key_ids) = named(path)?;
            let [key_id] = key_ids.as_slice() else {
                return Err(Failure::Usage(format!("{} holds more than one key", path.display())));
            };
            set.check_key(key_id, present).map_err(|error| refused(path, &error))?;
            Some(key_id.clone())
        }
        None => None,
    };
    let report = KeySetReport { version: set.version(), key_id, expires_at: set.expires_at().to_string() };
    output.reply(&report, |_| text(&set, at))
}

fn refused(path: &Path, error: &dyn Error) -> Failure {
    Failure::Keys(format!("{}: {}", path.display(), chain(error)))
}

/// The error with its causes.
pub(crate) fn chain(error: &dyn Error) -> String {
    spelling::printable(&error_chain(error), false)
}

/// A key set for people.
pub(crate) fn text(set: &KeySet, at: Timestamp) -> String {
    let present = Present::exactly(at);
    let expired = if set.check(present).is_err() { "  (expired)" } else { "" };
    let root = set.message().signature.as_ref().map_or("-", |signature| &*signature.key_id);
    let head = fields(&[
        ("version", set.version().to_string()),
        ("issued at", set.issued_at().to_string()),
        ("expires at", format!("{}{expired}", set.expires_at())),
        ("root key", spelling::printable(root, false)),
    ]);
    let rows: Vec<_> = set
        .keys()
        .map(|(key_id, key)| {
            let state = match key.check(present) {
                Ok(()) => "VALID",
                Err(KeyRefusal::Revoked) => "REVOKED",
                Err(KeyRefusal::NotYetValid { .. }) => "NOT YET",
                Err(_) => "EXPIRED",
            };
            vec![key_id.to_owned(), state.to_owned(), key.not_before.to_string(), key.not_after.to_string()]
        })
        .collect();
    format!("{head}\n{}", table(&["KEY ID", "STATE", "NOT BEFORE", "NOT AFTER"], &rows))
}
