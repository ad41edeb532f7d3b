//! `verify`: the log against itself, against the read model, and against what left the
//! database and can no longer be changed there.
//!
//! A hash chain does not notice that its end was cut off, nor that somebody computed it
//! anew from some row on. What was published does ([`stream`]), and what was signed
//! ([`checkpoints`]).

mod checkpoints;
mod report;
mod stream;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use catrust_evidence::{SignedCheckpoint, TrustKeys};
use catrust_publisher::KnownKeys;
use clap::{Args, ValueEnum};

use self::report::Findings;
use super::{DatabaseArguments, database, evidence, serve};
use crate::assemble::system_clock;
use crate::config::Config;
use crate::keys::ServerKeys;

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    #[command(flatten)]
    database: DatabaseArguments,
    /// Compare the log with the messages of the NATS streams, too (nats.url): the one in use, and
    /// those that were set aside.
    #[arg(long)]
    stream: bool,
    /// Compare the log with the signed checkpoints in this file, too.
    #[arg(long, value_name = "FILE")]
    checkpoints: Option<PathBuf>,
    /// Public key (PEM) that may have signed them, instead of that of the server; several by giving it
    /// again.
    #[arg(long, value_name = "FILE", requires = "checkpoints")]
    trust_key: Vec<PathBuf>,
    /// How to tell what was found.
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// How the findings are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Lines for people.
    Text,
    /// One JSON object.
    Json,
}

/// Exits with 0 where nothing is wrong, with 1 where something is.
pub(super) async fn run(arguments: VerifyArguments) -> anyhow::Result<ExitCode> {
    let config = database::settings(&arguments.database)?;
    // Before the log: what was published by then has to be in it.
    let stream = match arguments.stream {
        true => {
            let keys = known_keys(&arguments, &config);
            Some(stream::StreamsToCompare::open(serve::feed(&config).await?, keys).await?)
        }
        false => None,
    };
    let signed = signed_before(&arguments, &config)?;
    let store = database::open_existing(&config, evidence::notary(&config, &arguments.database)).await?;
    let started = Instant::now();
    let log = store.verify().await?;
    let stream = match stream {
        Some(stream) => Some(stream.compare(&*store, log.head_position).await?),
        None => None,
    };
    let checkpoints = match signed {
        Some(signed) => Some(checkpoints::compare(&*store, log.head_position, &signed).await?),
        None => None,
    };
    let findings = Findings { log, stream, checkpoints, elapsed: started.elapsed() };
    match arguments.output {
        Format::Text => print!("{}", findings.text()),
        Format::Json => println!("{}", serde_json::to_string_pretty(&findings.json())?),
    }
    Ok(if findings.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The keys that the streams may be signed with; `None` where this machine has none of them.
fn known_keys(arguments: &VerifyArguments, config: &Config) -> Option<KnownKeys> {
    if let Ok(keys) = ServerKeys::load(&config.signing, system_clock()()) {
        return Some(KnownKeys::new(keys.active(), keys.follow().borrow().clone()));
    }
    let key = evidence::signing_key(config, &arguments.database).ok()?;
    Some(KnownKeys::new(&key, None))
}

/// The checkpoints to compare with, where the arguments name some.
fn signed_before(
    arguments: &VerifyArguments,
    config: &Config,
) -> anyhow::Result<Option<Vec<SignedCheckpoint>>> {
    let Some(path) = &arguments.checkpoints else { return Ok(None) };
    let keys = match arguments.trust_key.as_slice() {
        [] => TrustKeys::from(&evidence::signing_key(config, &arguments.database)?),
        files => TrustKeys::load(files)?,
    };
    checkpoints::read(path, &keys).map(Some)
}
