//! Plugin for Mosquitto 2.0: only devices of active CA certificates get in, and the
//! sessions of one that becomes inactive end.
//!
//! ```text
//! TLS handshake ──▶ tls_hook ──┐
//! CONNECT, SIGHUP ▶ callbacks ─┼─▶ engine ─▶ trust set, sessions, shown chains
//! $CONTROL ───────▶ callbacks ─┘      └────▶ who is to be kicked
//! ```
//! [`engine`] decides and knows no C; [`host`] knows C and decides nothing. `unsafe` is
//! permitted in this crate alone, and stands in `host`, `tls_hook`, `callbacks` and here.
//!
//! The plugin wants three events of the broker: CONNECT, `$CONTROL` and disconnect.
//! TICK is not among them: under load it comes once per packet, and with
//! `per_listener_settings` never. Neither is RELOAD, whose return code means
//! different things in 2.0 and 2.1.

use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

use catrust_mosquitto_control::REQUEST_TOPIC;

use crate::host::mosquitto::{ERR_UNKNOWN, Level, PLUGIN_VERSION, PluginId, RawOption, SUCCESS, log};

mod callbacks;
pub mod engine;
pub mod entries;
pub mod host;
pub mod options;
mod plugin;
pub mod sessions;
pub mod shown_chains;
mod tls_hook;

#[cfg(test)]
#[path = "../tests/broker/authority.rs"]
pub mod testing;

/// Picks the version of the plugin interface.
///
/// # Safety
/// For the broker alone, which gives `count` numbers at `versions`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mosquitto_plugin_version(count: c_int, versions: *const c_int) -> c_int {
    let Ok(count) = usize::try_from(count) else { return -1 };
    if versions.is_null() {
        return -1;
    }
    // SAFETY: the caller vouches for it.
    let versions = unsafe { std::slice::from_raw_parts(versions, count) };
    if versions.contains(&PLUGIN_VERSION) { PLUGIN_VERSION } else { -1 }
}

/// Starts the plugin. Anything but success stops the broker: one that runs without the
/// plugin accepts everybody that its `cafile` ever named.
///
/// # Safety
/// For the broker alone, which gives `count` options at `options`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mosquitto_plugin_init(
    identifier: *mut PluginId,
    _userdata: *mut *mut c_void,
    options: *mut RawOption,
    count: c_int,
) -> c_int {
    let started = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the caller vouches for both.
        unsafe { start(identifier, options, count) }
    }));
    match started {
        Ok(Ok(())) => SUCCESS,
        Ok(Err(problem)) => {
            log(Level::Error, &format!("the plugin does not start: {problem}"));
            ERR_UNKNOWN
        }
        Err(_) => ERR_UNKNOWN,
    }
}

/// Ends the plugin: its callbacks refuse from now on.
///
/// # Safety
/// For the broker alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mosquitto_plugin_cleanup(
    _userdata: *mut c_void,
    _options: *mut RawOption,
    _count: c_int,
) -> c_int {
    // A panic here would only be of the lock, which `stop` takes in any state.
    if catch_unwind(plugin::stop).is_ok() { SUCCESS } else { ERR_UNKNOWN }
}

/// # Safety
/// As for [`mosquitto_plugin_init`].
unsafe fn start(identifier: *mut PluginId, raw: *mut RawOption, count: c_int) -> Result<(), String> {
    let mut pairs = Vec::new();
    for index in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the caller vouches for `count` options, of two texts each.
        let (key, value) = unsafe {
            let option = &*raw.add(index);
            (host::mosquitto::text(option.key), host::mosquitto::text(option.value))
        };
        pairs.push((key.unwrap_or_default(), value.unwrap_or_default()));
    }
    let pairs = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let options = options::Options::parse(pairs).map_err(|error| error.to_string())?;
    if !plugin::check_configuration(&options) {
        return Err("the broker's configuration would defeat it; see above".to_owned());
    }
    if !plugin::start(options) {
        return Err("it is loaded already; name it once, outside of listeners".to_owned());
    }
    if !tls_hook::install() {
        return Err("OpenSSL does not let it into the handshake".to_owned());
    }
    // SAFETY: the caller vouches for the identifier.
    unsafe {
        host::mosquitto::register(
            identifier,
            callbacks::on_basic_auth,
            callbacks::on_control,
            callbacks::on_disconnect,
            REQUEST_TOPIC,
        )
    }
    .map_err(|code| format!("the broker does not take its callbacks (code {code})"))?;
    log(Level::Notice, "the plugin is loaded, and trusts nobody before the first bundle");
    Ok(())
}
