//! `stream`: what there is on NATS, and room for more.
//!
//! Servers set streams aside and delete none, and their login to NATS has no right to. So
//! `remove` needs settings with a login of an operator's (`nats.nkey_file`), and takes
//! nothing but a stream that was set aside.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use catrust_trust_feed::nats::stream_name;
use catrust_trust_feed::{NatsFeed, StreamOutline, StreamUse};
use clap::{Args, Subcommand};

use super::{load, serve};
use crate::recovery::answer;

#[derive(Debug, Subcommand)]
pub(super) enum StreamCommand {
    /// List the streams: the one in use, and those that were set aside.
    List(NatsArguments),
    /// Remove a stream that was set aside, with everything in it. Needs the login of an operator, who has
    /// looked at it with `verify --stream` before: it may hold the last copy of what a database lost.
    Remove(RemoveArguments),
}

#[derive(Debug, Args)]
pub(super) struct NatsArguments {
    /// Settings file (TOML). Environment variables CATRUST_SECTION__KEY go over it.
    #[arg(long)]
    config: Option<PathBuf>,
    /// File with the seed of an nkey, instead of the login of the settings.
    #[arg(long, value_name = "FILE")]
    nats_nkey: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct RemoveArguments {
    /// Number of the stream, as `list` shows it.
    #[arg(value_parser = clap::value_parser!(u32).range(1..=9))]
    number: u32,
    #[command(flatten)]
    nats: NatsArguments,
}

pub(super) async fn run(command: StreamCommand) -> anyhow::Result<ExitCode> {
    match command {
        StreamCommand::List(arguments) => {
            let (_, streams) = connect(&arguments).await?;
            if streams.is_empty() {
                println!("there is no stream");
            }
            for stream in streams {
                println!("{}", line(&stream));
            }
        }
        StreamCommand::Remove(arguments) => {
            let (feed, _) = connect(&arguments.nats).await?;
            let removed = feed.remove_stream(arguments.number).await.with_context(|| {
                format!("{} is not removed; has this login the right to?", stream_name(arguments.number))
            })?;
            println!("removed: {}", line(&removed));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The feed, once it answers, and the streams that there are.
async fn connect(arguments: &NatsArguments) -> anyhow::Result<(NatsFeed, Vec<StreamOutline>)> {
    let mut config = load(arguments.config.as_deref())?;
    if let Some(file) = &arguments.nats_nkey {
        let nats = &mut config.nats;
        (nats.user, nats.password_file, nats.credentials_file) = (None, None, None);
        nats.nkey_file = Some(file.clone());
    }
    let feed = serve::feed(&config).await?.context("nats.url is not set")?;
    let streams = answer(&feed).await.context("the streams cannot be listed")?;
    Ok((feed, streams))
}

fn line(stream: &StreamOutline) -> String {
    let role = match &stream.role {
        StreamUse::InUse => "in use".to_owned(),
        StreamUse::SetAside => "set aside".to_owned(),
        StreamUse::Foreign(subjects) => format!("not catrust's: {}", subjects.join(", ")),
    };
    format!(
        "{:<10} {role}, made {}, {} messages up to sequence {}",
        stream_name(stream.number),
        stream.created_at,
        stream.messages,
        stream.last_sequence
    )
}
