//! What an inactive CA's devices can still do: nothing. Real TLS, on loopback.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod broker;
mod closes;
mod decisions;
mod fixtures;
mod harness;
mod hostile;
mod last_will;
mod limits;
mod mosquitto;
mod openssl;
mod operation;
mod process;
#[path = "../../../control-plane/tests/fuzz/runner.rs"]
mod runner;
mod storm;
mod trust_set;
