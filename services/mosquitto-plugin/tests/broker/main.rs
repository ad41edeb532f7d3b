//! The plugin in a real Mosquitto, with real TLS devices.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test, and the backtrace says where")]

mod agent;
mod authority;
mod device;
mod eventually;
mod mosquitto;
mod mqtt;
mod openssl;
mod stage;
mod trust;

mod bridge;
mod control;
mod decisions;
mod driver;
mod figures;
mod handshake;
mod paths;
mod resumption;
mod sample;
mod sessions;
mod storm;
mod traps;
