//! `[admin]`: the listener for probes and metrics.

use std::net::{Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::grpc::listen_address;

/// The HTTP listener for `/healthz`, `/readyz` and `/metrics`. It has no identity check and
/// gives no CA certificate away; keep it off public networks all the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// `ADDRESS:PORT`. Default `127.0.0.1:50052`. Port 0 takes a free one. Probes from
    /// outside of the host or pod need an address that they can reach.
    #[serde(deserialize_with = "listen_address")]
    pub listen: SocketAddr,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 50_052)) }
    }
}
