//! The command line of `catrust-agent`.

mod feed;
mod gate;
mod lifecycle;
mod mosquitto;

use std::io::{self, IsTerminal as _};

use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

/// Enforces the trust of an instance, beside a broker or in front of it.
#[derive(Debug, Parser)]
#[command(name = "catrust-agent", version, max_term_width = 100)]
pub struct Arguments {
    #[command(flatten)]
    log: LogArguments,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Terminate mutual TLS in front of any MQTT broker
    Gate(Box<gate::GateArguments>),
    /// Drive the catrust plugin of a Mosquitto on this machine
    Mosquitto(Box<mosquitto::MosquittoArguments>),
}

#[derive(Debug, Args)]
struct LogArguments {
    /// Which lines are logged, on standard error
    #[arg(long, global = true, env = "CATRUST_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
    /// How they are written
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Text, value_name = "FORMAT")]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

/// Runs a command to its end.
///
/// # Errors
/// For people, with its causes.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    init_log(&arguments.log)?;
    match arguments.command {
        Command::Gate(arguments) => gate::run(*arguments).await,
        Command::Mosquitto(arguments) => mosquitto::run(*arguments).await,
    }
}

fn init_log(arguments: &LogArguments) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&arguments.log)?;
    let lines = match arguments.log_format {
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(io::stderr).boxed(),
        LogFormat::Text => fmt::layer()
            .with_target(false)
            // Colours would be bytes in the way of whoever searches a file.
            .with_ansi(io::stderr().is_terminal())
            .with_writer(io::stderr)
            .boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).try_init()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_commands_of_the_contract_are_understood() {
        let line = "catrust-agent gate --server http://127.0.0.1:1 --instance fleet --broker-id gate-1 \
                    --listen 127.0.0.1:0 --cert c.pem --key k.pem --upstream unix:broker.sock \
                    --nats nats://127.0.0.1:2 --trust-key t.pem --state-dir state";
        let command = Arguments::try_parse_from(line.split_whitespace()).unwrap().command;
        assert!(matches!(command, Command::Gate(_)));
        let line = "catrust-agent mosquitto --server http://127.0.0.1:1 --instance fleet --broker-id m-1 \
                    --control-socket broker.sock --mosquitto-config m.conf --trust-key t.pem";
        let command = Arguments::try_parse_from(line.split_whitespace()).unwrap().command;
        assert!(matches!(command, Command::Mosquitto(_)));
    }

    #[test]
    fn what_is_not_understood_is_a_usage_error() {
        let line = "catrust-agent gate --server http://127.0.0.1:1 --broker-id gate-1 \
                    --listen 127.0.0.1:0 --cert c.pem --key k.pem --upstream 127.0.0.1:1883";
        for wrong in ["--instance a.b", "--instance a --cut-rate 0", "--instance a --drain forever"] {
            let line = format!("{line} {wrong}");
            let error = Arguments::try_parse_from(line.split_whitespace()).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{wrong}");
        }
    }
}
