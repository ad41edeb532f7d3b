//! What can be set about the driver, with the defaults.

use std::path::PathBuf;
use std::time::Duration;

use catrust_mosquitto_control::DEFAULT_AGENT_USER;
use clap::Args;

/// Settings of the driver. Times are in seconds and may have a fraction.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct MosquittoSettings {
    /// The broker's listener for the agent: the unix socket of its `listener 0 PATH`
    #[arg(long, value_name = "PATH")]
    pub control_socket: PathBuf,

    /// The broker's configuration: refuse to start where it would defeat the plugin
    #[arg(long, value_name = "FILE")]
    pub mosquitto_config: Option<PathBuf>,

    /// Look at the broker's configuration, say what has to be changed, and end
    #[arg(long)]
    pub check: bool,

    /// The agent's user name: the plugin's option `agent_user`
    #[arg(long, value_name = "NAME", default_value = DEFAULT_AGENT_USER)]
    pub agent_user: String,

    /// How long the broker goes on admitting devices after it last heard from the agent.
    /// Shorter: an agent that is away for a while keeps devices out. Longer: whoever can
    /// stop the agent keeps an inactivated CA's devices in for so long
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = seconds)]
    pub lease: Duration,

    /// Longest wait for the broker's answer
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub answer_timeout: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "is not a number of seconds".to_owned())?;
    let duration = Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?;
    let limits = Duration::from_millis(100)..=Duration::from_secs(86_400);
    if limits.contains(&duration) { Ok(duration) } else { Err("is not between 0.1 s and a day".to_owned()) }
}
