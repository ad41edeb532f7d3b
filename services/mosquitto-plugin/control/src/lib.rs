//! What the agent and the Mosquitto plugin say to each other, and what both ask of
//! the broker's configuration.
//!
//! ```text
//! agent ── Request, JSON, QoS 1 ──▶ $CONTROL/ca-trust/v1          ──▶ plugin
//! agent ◀───────────────────────── $CONTROL/ca-trust/v1/response ◀── Response
//! ```
//!
//! A crate of its own, because the plugin is loaded into the broker: what it shares
//! with the agent must not bring the agent's dependencies along.

pub mod configuration;
mod message;

pub use message::{
    Bundle, Entry, EntryState, InvalidEntry, Renewal, Request, RequestBody, RequestOutcome, Response,
};

/// Topic that requests are published to. Never a topic that subscribers see: brokers
/// hand `$CONTROL` messages to the plugin that registered for them, and to nobody else.
pub const REQUEST_TOPIC: &str = "$CONTROL/ca-trust/v1";
/// Topic that responses come on, to the agent's connection alone.
pub const RESPONSE_TOPIC: &str = "$CONTROL/ca-trust/v1/response";
/// User name of the agent, unless the plugin's option `agent_user` says otherwise.
pub const DEFAULT_AGENT_USER: &str = "catrust-agent";
/// File name of the plugin, as Cargo builds it.
pub const PLUGIN_FILE_NAME: &str = "libcatrust_mosquitto.so";
