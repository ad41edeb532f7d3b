//! The agent against a small server of its own kind and a real `nats-server`, with a
//! recording enforcer in place of a broker.

#![expect(clippy::unwrap_used, reason = "in what all tests share, a panic is how a test fails")]

mod contact;
mod proxy;
mod refusals;
mod takeover;
mod tls;
mod world;
