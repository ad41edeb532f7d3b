//! `[grpc]`: the listener that callers and brokers use.

use std::net::{Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::error::Problems;

/// The gRPC listener and its bounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GrpcConfig {
    /// `ADDRESS:PORT` to accept calls on. Default `127.0.0.1:50051`. Port 0 takes a free
    /// one, printed at start. An address other than loopback needs `[tls]` or
    /// `tls.allow_plaintext`.
    #[serde(deserialize_with = "listen_address")]
    pub listen: SocketAddr,
    /// Largest request message in bytes, 1,024 to 16,777,216. Default 262,144. A
    /// registration holds two PEM certificates of up to 65,536 bytes each: below
    /// 140,000 the largest ones are refused. Each open call may hold this much memory.
    pub max_message_bytes: usize,
    /// Calls open at once on one connection, 1 to 100,000. Default 1,024. Every
    /// `WatchTrust` holds one for as long as it runs: a proxy that carries many
    /// brokers over one connection needs more.
    pub max_concurrent_streams: u32,
    /// Connections open at once, 1 to 1,000,000; more wait to be accepted. Default 10,000.
    /// Each needs a file descriptor: `ulimit -n` must be well above.
    pub max_connections: usize,
    /// Seconds without traffic before the server asks a connection whether it is alive,
    /// 1 to 7,200. Default 30. Longer than the idle limit of a load balancer in between, and
    /// watches are cut off in quiet times.
    pub keepalive_interval_seconds: u64,
    /// Seconds to wait for the answer before the connection is closed, 1 to 600.
    /// Default 10.
    pub keepalive_timeout_seconds: u64,
    /// Deadline in milliseconds of a call that brings none, 100 to 600,000. Default
    /// 10,000. Streams have no deadline.
    pub default_deadline_ms: u64,
    /// Calls in work at once, over all connections, 1 to 1,000,000; above, calls
    /// answer `UNAVAILABLE` / `SystemOverFlow`, inactivations last. Default 4,096.
    /// Streams do not count.
    pub max_concurrent_requests: usize,
    /// `WatchTrust` and `WatchPropagation` streams that one user may have open at this
    /// replica, 1 to 1,000,000; above, opening one answers `RESOURCE_EXHAUSTED` /
    /// `StreamNumExceed`. Default 4,096. Brokers that share an identity share it: more than
    /// the brokers of one identity, or some of them fall back to NATS alone.
    pub max_streams_per_user: usize,
}

impl Default for GrpcConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 50_051)),
            max_message_bytes: 256 * 1_024,
            max_concurrent_streams: 1_024,
            max_connections: 10_000,
            keepalive_interval_seconds: 30,
            keepalive_timeout_seconds: 10,
            default_deadline_ms: 10_000,
            max_concurrent_requests: 4_096,
            max_streams_per_user: 4_096,
        }
    }
}

impl GrpcConfig {
    pub(crate) fn validate(&self, problems: &mut Problems) {
        problems.within(
            "grpc.max_message_bytes",
            self.max_message_bytes as u64,
            1_024..=16 * 1_024 * 1_024,
            "less carries no certificate, more lets one caller hold too much memory",
        );
        problems.within(
            "grpc.max_concurrent_streams",
            self.max_concurrent_streams.into(),
            1..=100_000,
            "calls open at once on one connection",
        );
        problems.within(
            "grpc.max_connections",
            self.max_connections as u64,
            1..=1_000_000,
            "connections open at once",
        );
        problems.within(
            "grpc.keepalive_interval_seconds",
            self.keepalive_interval_seconds,
            1..=7_200,
            "dead connections are found by it",
        );
        problems.within(
            "grpc.keepalive_timeout_seconds",
            self.keepalive_timeout_seconds,
            1..=600,
            "dead connections are closed by it",
        );
        problems.within(
            "grpc.default_deadline_ms",
            self.default_deadline_ms,
            100..=600_000,
            "a call must end, and a durable write takes its time",
        );
        problems.within(
            "grpc.max_concurrent_requests",
            self.max_concurrent_requests as u64,
            1..=1_000_000,
            "above it calls are shed",
        );
        problems.within(
            "grpc.max_streams_per_user",
            self.max_streams_per_user as u64,
            1..=1_000_000,
            "0 would let no broker watch",
        );
    }
}

/// Reads `ADDRESS:PORT`; std's own message does not say what is expected.
pub(crate) fn listen_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        let wanted = "must be an IP address and a port, for example 127.0.0.1:50051 or [::]:50051";
        D::Error::custom(format!("{wanted}; is {text:?}"))
    })
}
