//! The control plane: `catrust-server`.
//!
//! A call meets the layers of [`middleware`], then its handler in [`api`]; changes
//! go through the [`appender`] into the event store, and come back out of the log
//! by the [`follower`] (to this replica's watchers) and the room `publisher` (to
//! NATS; [`publishing`] wires it). What brokers say that they did comes in by [`fleet`]. [`assemble`] wires it all, [`lifecycle`] runs it, [`commands`] are the
//! subcommands.

#![warn(unreachable_pub)]

mod admin;
mod api;
mod appender;
mod assemble;
mod background;
pub mod certificate;
pub mod commands;
pub mod config;
mod directory;
pub mod error;
mod evidence;
pub mod fleet;
mod follower;
mod ground;
mod keys;
mod lifecycle;
mod listener;
mod middleware;
mod per_user;
mod publishing;
mod recovery;
mod refusals;
mod reload;
mod telemetry;
mod tls;
