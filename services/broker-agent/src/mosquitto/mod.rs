//! `catrust-agent mosquitto`: drives the catrust plugin of a Mosquitto on this machine.
//!
//! ```text
//! agent ─ AgentTrust ─▶ MosquittoEnforcer ─▶ upkeep ─ control socket ─▶ plugin in the broker
//!                                              └ every 5 s, and when the broker is back
//! ```
//! The plugin does the enforcing: refusals in the TLS handshake, the veto at CONNECT, the
//! kicks. It is told whole bundles, each good for a limited time only, so that a broker
//! whose agent has gone does not go on admitting for ever.

mod bundle;
mod connection;
mod enforcer;
mod packet;
mod settings;
mod upkeep;

use anyhow::Context as _;
use catrust_mosquitto_control::configuration::Configuration;

pub use connection::ControlError;
pub use enforcer::MosquittoEnforcer;
pub use settings::MosquittoSettings;

/// Looks for what would defeat the plugin in the broker's configuration, where it is
/// given.
///
/// # Errors
/// The file cannot be read, or something has to be changed.
pub fn check_configuration(settings: &MosquittoSettings) -> anyhow::Result<()> {
    let Some(file) = &settings.mosquitto_config else {
        anyhow::ensure!(!settings.check, "--check wants --mosquitto-config");
        return Ok(());
    };
    let configuration = Configuration::read(file).context("the broker's configuration cannot be checked")?;
    let mut texts: Vec<_> = configuration.findings().iter().map(ToString::to_string).collect();
    if !configuration.loads_the_plugin() {
        texts.push(format!(
            "no line loads the plugin; write `plugin /path/to/{}` before the first listener",
            catrust_mosquitto_control::PLUGIN_FILE_NAME
        ));
    }
    let listeners = configuration.unix_listeners();
    if !listeners.contains(&settings.control_socket) {
        let socket = settings.control_socket.display();
        texts.push(format!(
            "no listener is on the control socket; write `listener 0 {socket}`, or give --control-socket as \
             the configuration spells it"
        ));
    }
    if let Some(user) = configuration.option("agent_user")
        && user != settings.agent_user
    {
        texts.push(format!("the plugin knows the agent as {user}; give --agent-user {user}"));
    }
    anyhow::ensure!(texts.is_empty(), "{} has to be changed:\n  {}", file.display(), texts.join("\n  "));
    Ok(())
}

#[cfg(test)]
mod tests;
