//! What can be set about a gate, with the defaults.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::upstream::UpstreamAddress;
use crate::tls_front::Resumption;

/// What becomes of the last wills of devices that are cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LastWill {
    /// As the change says (`with_will`), which is to suppress them unless it was asked
    /// otherwise.
    #[default]
    Follow,
    /// Never published.
    Suppress,
    /// Published. The gate then does not look into MQTT at all, and carries any
    /// protocol.
    Send,
}

/// Versions of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProxyProtocol {
    /// Version 2, with the TLS facts and the device's user name.
    V2,
}

/// How devices may resume TLS sessions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ResumptionChoice {
    /// By encrypted tickets; their keys end with each change that takes trust away.
    #[default]
    Tickets,
    /// From a store in memory of at most 10,000 sessions.
    Stored,
    /// Not at all.
    Off,
}

impl From<ResumptionChoice> for Resumption {
    fn from(choice: ResumptionChoice) -> Self {
        match choice {
            ResumptionChoice::Tickets => Self::Tickets,
            ResumptionChoice::Stored => Self::Stored(10_000),
            ResumptionChoice::Off => Self::Off,
        }
    }
}

/// Settings of a gate. Times are in seconds and may have a fraction.
#[derive(Clone, Debug, Args)]
pub struct GateSettings {
    /// Address to listen on for devices; port 0 takes a free one
    #[arg(long, value_name = "ADDR")]
    pub listen: String,

    /// The gate's certificate chain, PEM, its own certificate first
    #[arg(long, value_name = "FILE")]
    pub cert: PathBuf,

    /// The certificate's key, PEM
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,

    /// The broker: HOST:PORT, or unix:PATH
    #[arg(long, value_name = "ADDR")]
    pub upstream: UpstreamAddress,

    /// Address for /metrics, /healthz and /readyz; none without it
    #[arg(long, value_name = "ADDR")]
    pub admin_listen: Option<String>,

    /// Send the broker a PROXY header with the device's user name: its certificate's common
    /// name, or sha256- and its digest where that is missing or ambiguous
    #[arg(long, value_name = "VERSION")]
    pub proxy_protocol: Option<ProxyProtocol>,

    /// What becomes of the last wills of devices that are cut
    #[arg(long, value_name = "CHOICE", default_value = "follow")]
    pub last_will: LastWill,

    /// How devices may resume TLS sessions
    #[arg(long, value_name = "CHOICE", default_value = "tickets")]
    pub resumption: ResumptionChoice,

    /// Connections closed per second after a change; no limit without it. All of them
    /// are cut off from the broker at once: only the closing, and so the devices'
    /// coming back, is spread
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub cut_rate: Option<u32>,

    /// Connections at a time; further ones are closed at once
    #[arg(long, value_name = "N", default_value = "100000", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,

    /// TLS handshakes at a time; further connections wait unaccepted
    #[arg(long, value_name = "N", default_value = "4096", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_handshakes: u32,

    /// Longest TLS handshake
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub handshake_timeout: Duration,

    /// Longest wait for CONNECT after the handshake
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub connect_timeout: Duration,

    /// Longest connect to the broker
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub upstream_timeout: Duration,

    /// How long a side may take nothing while there is something for it
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    pub stall_timeout: Duration,

    /// How long the broker may send on after the device has left
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub linger_timeout: Duration,

    /// Time over which the sessions are closed after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub drain: Duration,
}

/// Reads a number of seconds, with or without a fraction; at most a day.
///
/// # Errors
/// For people.
pub fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "is not a number of seconds".to_owned())?;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    if duration > Duration::from_secs(86_400) { Err("is longer than a day".to_owned()) } else { Ok(duration) }
}
