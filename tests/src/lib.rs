//! The harness: real servers, real certificates and real clients for the tests
//! and benchmarks of catrust.
//!
//! `catrust-test-harness` runs the servers. Nothing here knows the inside of the server
//! of catrust: it is used as a customer uses it, by its commands, its settings and
//! `proto/`.

pub mod broker;
pub mod certificates;
pub mod client;
pub mod deployment;
pub mod faults;
pub mod foreign;
pub mod http;
pub mod instance;
pub mod issuer;
pub mod nats;
pub mod policies;
pub mod server;
pub mod tls;

pub use catrust_test_harness::{eventually, mosquitto, postgres, process, program, proxy, set_back};
