//! Debian's Mosquitto.

use std::path::Path;

use crate::process::Launcher;
use crate::program::from_environment;

/// Prepares a Mosquitto with a configuration file; `MOSQUITTO_BIN` names another program.
#[must_use]
pub fn launcher(configuration: &Path) -> Launcher {
    let mut launcher = Launcher::new("mosquitto", from_environment("MOSQUITTO_BIN", "/usr/sbin/mosquitto"));
    launcher.command().arg("-c").arg(configuration);
    launcher
}
