//! The control plane: `catrust-server`.
//!
//! A call meets the layers of [`middleware`], then its handler in [`api`]; changes
//! go through the [`appender`] into the event store, and come back out of the log
//! by the [`follower`] (to this replica's watchers) and the [`publisher`] (to
//! NATS). What brokers say that they did comes in by [`fleet`]. [`assemble`] wires it all, [`lifecycle`] runs it, [`commands`] are the
//! subcommands.

pub mod admin;
pub mod api;
pub mod appender;
pub mod assemble;
pub mod background;
pub mod certificate;
pub mod commands;
pub mod config;
pub mod directory;
pub mod error;
pub mod evidence;
pub mod fleet;
pub mod follower;
pub mod keys;
pub mod lifecycle;
pub mod listener;
pub mod middleware;
pub mod per_user;
pub mod publisher;
pub mod refusals;
pub mod reload;
pub mod telemetry;
pub mod tls;
