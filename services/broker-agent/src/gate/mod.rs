//! `catrust-agent gate`: mutual TLS in front of any MQTT broker, over the live trust.
//!
//! ```text
//! device ══TLS══▶ listener ─▶ connection ─▶ pump ──TCP, unix socket──▶ broker
//!                    │            └ cut ◀─ BrokerTrust ◀─ agent
//!                    └ limits
//! ```
//!
//! The broker's own listener MUST be reachable through the gate only: loopback, a unix
//! socket, or a network of its own.

pub mod admin;
mod connection;
pub mod framing;
pub mod identity;
mod listener;
pub mod metrics;
pub mod pace;
pub mod proxy_header;
pub mod pump;
pub mod settings;
pub mod upstream;

use std::sync::Arc;
use std::time::Duration;

use identity::{FileIdentity, IdentityError};
use metrics::Metrics;
use pace::Pace;
use settings::{GateSettings, LastWill};
use tokio_util::sync::CancellationToken;

use crate::broker_trust::BrokerTrust;
use crate::tls_front::TlsFront;

pub use listener::Listener;

/// How long a side that is being closed is waited for.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// Why a gate cannot be made. Nothing is listening then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GateError {
    /// Certificate and key cannot be used.
    #[error("the certificate and key cannot be used")]
    Identity(#[source] IdentityError),
    /// The TLS settings do not work, or the system has no random numbers.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// The address cannot be listened on.
    #[error("{address} cannot be listened on")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What all connections of a gate share.
#[derive(Debug)]
pub struct GateParts {
    /// The settings.
    pub settings: GateSettings,
    /// The live trust.
    pub trust: Arc<BrokerTrust>,
    /// The TLS side.
    pub front: TlsFront,
    /// The gate's own certificate.
    pub identity: Arc<FileIdentity>,
    /// Pace of closing after a change.
    pub pace: Pace,
    /// The counts.
    pub metrics: Metrics,
}

impl GateParts {
    /// Reads certificate and key and puts the parts together.
    ///
    /// # Errors
    /// [`GateError::Identity`], [`GateError::Tls`].
    pub fn new(settings: GateSettings, trust: Arc<BrokerTrust>) -> Result<Self, GateError> {
        let identity =
            Arc::new(FileIdentity::load(&settings.cert, &settings.key).map_err(GateError::Identity)?);
        let front = TlsFront::new(Arc::clone(&trust), Arc::clone(&identity) as _, settings.resumption.into())
            .map_err(GateError::Tls)?;
        let pace = Pace::new(settings.cut_rate);
        Ok(Self { settings, trust, front, identity, pace, metrics: Metrics::default() })
    }

    /// Whether devices must speak MQTT: the last will can be suppressed then.
    fn framed(&self) -> bool {
        self.settings.last_will != LastWill::Send
    }

    /// Reads certificate and key again, and tells how it went. Connections that are
    /// open keep theirs.
    pub fn reload_identity(&self) {
        match self.identity.reload() {
            Ok(()) => {
                self.metrics.identity_reloads.one();
                tracing::info!("certificate and key are read again");
            }
            Err(error) => {
                self.metrics.identity_reload_failures.one();
                let error = anyhow::Error::from(error);
                tracing::error!(error = format!("{error:#}"), "the certificate stays as it was");
            }
        }
    }

    /// Reads certificate and key again whenever a file has changed, until `stop`.
    pub async fn watch_identity(&self, stop: CancellationToken) {
        let mut seen = self.identity.stamp();
        let mut tick = tokio::time::interval(identity::WATCH_INTERVAL);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let stamp = self.identity.stamp();
            if stamp.is_some() && stamp != seen {
                self.reload_identity();
                seen = stamp;
            }
        }
    }
}
