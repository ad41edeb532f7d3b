//! The one state of the plugin in this process, and its start.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use catrust_mosquitto_control::configuration::Configuration;

use rustls_pki_types::UnixTime;

use crate::engine::{Engine, Moment};
use crate::host::mosquitto::{Level, log};
use crate::options::Options;

/// All callbacks come on the broker's only thread, so that the lock is never waited
/// for; it is there because a static needs one.
static ENGINE: Mutex<Option<Engine>> = Mutex::new(None);

/// Calls `ask` with the engine; `None` where there is none, or where a panic left it in
/// a state that nobody vouches for: whoever asks then refuses.
///
/// `ask` MUST NOT call the broker in a way that makes it call us.
pub fn with<T>(ask: impl FnOnce(&mut Engine) -> T) -> Option<T> {
    ENGINE.lock().ok()?.as_mut().map(ask)
}

/// Puts the engine in place; says no where there is one already.
#[must_use]
pub fn start(options: Options) -> bool {
    let mut engine = ENGINE.lock().unwrap_or_else(PoisonError::into_inner);
    if engine.is_some() {
        return false;
    }
    *engine = Some(Engine::new(options));
    true
}

/// Takes the engine away: whoever asks from now on refuses.
pub fn stop() {
    *ENGINE.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// The time.
#[must_use]
pub fn now() -> Moment {
    // A clock before 1970 makes every certificate "not yet valid", which is right.
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment { calendar: UnixTime::since_unix_epoch(since_epoch), instant: Instant::now() }
}

/// Looks through the broker's configuration for what would defeat the plugin, and says
/// whether it may start.
#[must_use]
pub fn check_configuration(options: &Options) -> bool {
    let named = options.configuration.as_ref().map(PathBuf::from);
    let Some(file) = named.or_else(|| configuration_file(&command_line())) else {
        log(Level::Warning, "the configuration cannot be checked: set plugin_opt_config to its file");
        return true;
    };
    let configuration = match Configuration::read(&file) {
        Ok(configuration) => configuration,
        Err(error) => {
            log(Level::Warning, &format!("the configuration cannot be checked: {error}"));
            return true;
        }
    };
    let findings = configuration.findings();
    for finding in &findings {
        log(Level::Error, &finding.to_string());
    }
    findings.is_empty()
}

fn command_line() -> Vec<OsString> {
    let bytes = std::fs::read("/proc/self/cmdline").unwrap_or_default();
    bytes.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect()
}

/// The file behind `-c` or `--config-file`; the last one, as the broker does.
fn configuration_file(words: &[OsString]) -> Option<PathBuf> {
    let is_flag = |word: &OsStr| word == "-c" || word == "--config-file";
    let flag = words.iter().rposition(|word| is_flag(word))?;
    words.get(flag + 1).map(|file| Path::new(file).to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn the_configuration_is_the_one_of_the_command_line() {
        let file = |line| configuration_file(&words(line));
        assert_eq!(file("mosquitto -v -c a.conf -d"), Some("a.conf".into()));
        assert_eq!(file("mosquitto --config-file b.conf"), Some("b.conf".into()));
        assert_eq!(file("mosquitto -c a -c b"), Some("b".into()));
        assert_eq!(file("mosquitto -p 1883"), None);
        assert_eq!(file("mosquitto -c"), None);
    }
}
