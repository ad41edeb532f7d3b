//! The harness: real servers, real certificates and real clients for the tests
//! and benchmarks of catrust.
//!
//! Everything runs on free ports of 127.0.0.1 in directories of its own and ends
//! with the test, or with the test's process where that dies first. Nothing here
//! knows the inside of the server: it is used as a customer uses it, by its
//! commands, its settings and `proto/`.

pub mod broker;
pub mod certificates;
pub mod client;
pub mod deployment;
pub mod eventually;
pub mod foreign;
pub mod http;
pub mod instance;
pub mod issuer;
pub mod nats;
pub mod policies;
pub mod postgres;
pub mod process;
pub mod program;
pub mod server;
pub mod tls;
