//! The feed: bundles, changes and heads on gRPC, and the same on NATS.

pub mod nats;
mod outages;
mod reader;
pub mod watch;
mod witness;
