//! The subcommands of `catrust-server`, a file each.

mod database;
mod dev;
mod epoch;
mod evidence;
mod serve;
mod settings;
mod stream;
mod verify;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::Config;

/// Turns trust in a CA certificate off and on across a fleet of MQTT brokers.
#[derive(Debug, Parser)]
#[command(name = "catrust-server", version)]
pub struct ServerArguments {
    #[command(subcommand)]
    command: ServerCommand,
}

#[derive(Debug, Subcommand)]
enum ServerCommand {
    /// Run on this machine alone, nothing installed: SQLite, loopback, one fixed identity.
    Dev(DevArguments),
    /// Run as one replica of a production service.
    Serve(ServeArguments),
    /// Bring the database to the schema of this version. Safe to repeat, and at once from several machines.
    Migrate(DatabaseArguments),
    /// Check the whole log, compare its fold with the read model, and the log with what left the database.
    /// Names the place where something is wrong, and exits with 1 then.
    Verify(verify::VerifyArguments),
    /// Where the log ends, whether it was set back, and the way out of that.
    #[command(subcommand)]
    Epoch(epoch::EpochCommand),
    /// Sign a checkpoint of the log now, print it, and append it to the checkpoint file.
    Checkpoint(evidence::CheckpointArguments),
    /// Write the whole log with a signed checkpoint, to be checked by `catrust audit verify-export`.
    Export(evidence::ExportArguments),
    /// Build the read model anew from the log, beside the old one, and swap it in.
    Rebuild(DatabaseArguments),
    /// Look at the NATS streams, and remove one that was set aside.
    #[command(subcommand)]
    Stream(stream::StreamCommand),
    /// Check or describe the settings.
    #[command(subcommand)]
    Config(SettingsCommand),
}

/// Arguments of `dev`.
#[derive(Debug, Args)]
struct DevArguments {
    /// Where to accept calls; loopback only. Port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:50051")]
    listen: SocketAddr,
    /// Where probes and metrics are; loopback only. Port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    admin_listen: SocketAddr,
    /// Where the log and the signing key are kept; made where it does not exist.
    #[arg(long, default_value = ".catrust")]
    data_dir: PathBuf,
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
struct ServeArguments {
    /// Settings file (TOML). Environment variables CATRUST_SECTION__KEY go over it.
    #[arg(long)]
    config: Option<PathBuf>,
}

/// Arguments of the commands that work on the database.
#[derive(Debug, Args)]
struct DatabaseArguments {
    /// Settings file (TOML). Environment variables CATRUST_SECTION__KEY go over it.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Data directory of `catrust-server dev`, instead of database.url.
    #[arg(long, conflicts_with = "config")]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum SettingsCommand {
    /// Check settings and the files that they name, and print what is in force, secrets hidden.
    Check(ServeArguments),
    /// Print the JSON Schema of the settings file.
    Schema,
}

/// Runs a command.
///
/// # Errors
/// What stopped it, for the person who started it.
pub async fn run(arguments: ServerArguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        ServerCommand::Dev(arguments) => dev::run(arguments).await,
        ServerCommand::Serve(arguments) => serve::run(arguments).await,
        ServerCommand::Migrate(arguments) => database::migrate(arguments).await,
        ServerCommand::Verify(arguments) => verify::run(arguments).await,
        ServerCommand::Epoch(epoch::EpochCommand::Status(arguments)) => epoch::status(arguments).await,
        ServerCommand::Epoch(epoch::EpochCommand::Begin(arguments)) => epoch::begin(arguments).await,
        ServerCommand::Checkpoint(arguments) => evidence::checkpoint(arguments).await,
        ServerCommand::Export(arguments) => evidence::export(arguments).await,
        ServerCommand::Rebuild(arguments) => database::rebuild(arguments).await,
        ServerCommand::Stream(command) => stream::run(command).await,
        ServerCommand::Config(SettingsCommand::Check(arguments)) => settings::check(arguments),
        ServerCommand::Config(SettingsCommand::Schema) => settings::schema(),
    }
}

fn load(path: Option<&std::path::Path>) -> anyhow::Result<Config> {
    Ok(Config::load(path, std::env::vars())?)
}
