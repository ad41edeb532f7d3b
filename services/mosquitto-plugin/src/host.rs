//! The process that the plugin is loaded into: the broker, and its OpenSSL.
//!
//! Declared by hand, from `mosquitto_plugin.h`, `mosquitto_broker.h` (2.0.11) and the
//! manual pages of OpenSSL 3.0: a few public functions, and nothing of the inside of
//! either. The addresses are resolved when the broker loads the plugin; a missing one
//! stops the broker with its name.

pub mod mosquitto;
pub mod openssl;
