//! `verify`: the log against itself, against the read model, and against what left the
//! database and can no longer be changed there.
//!
//! A hash chain does not notice that its end was cut off, nor that somebody computed it
//! anew from some row on. What was published does ([`stream`]).

mod report;
mod stream;

use std::process::ExitCode;
use std::time::Instant;

use clap::{Args, ValueEnum};

use self::report::Findings;
use super::{DatabaseArguments, database, serve};

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    #[command(flatten)]
    database: DatabaseArguments,
    /// Compare the log with the messages of the NATS stream, too (nats.url).
    #[arg(long)]
    stream: bool,
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
        true => Some(stream::StreamToCompare::open(serve::feed(&config).await?).await?),
        false => None,
    };
    let store = database::open_existing(&config).await?;
    let started = Instant::now();
    let log = store.verify().await?;
    let stream = match stream {
        Some(stream) => Some(stream.compare(&*store, log.head_position).await?),
        None => None,
    };
    let findings = Findings { log, stream, elapsed: started.elapsed() };
    match arguments.output {
        Format::Text => print!("{}", findings.text()),
        Format::Json => println!("{}", serde_json::to_string_pretty(&findings.json())?),
    }
    Ok(if findings.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
