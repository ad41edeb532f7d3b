//! Takes connections in, within the limits, and sees them off.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::serve;
use super::{CLOSE_LIMIT, GateError, GateParts};
use crate::session::{Cause, Cut};

/// After a failed accept (no file descriptors, usually): trying on at once would only
/// burn what is left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The devices' side of a gate.
#[derive(Debug)]
pub struct Listener {
    parts: Arc<GateParts>,
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds the address of the settings.
    ///
    /// # Errors
    /// [`GateError::Listen`].
    pub async fn bind(parts: Arc<GateParts>) -> Result<Self, GateError> {
        let listen = |source| GateError::Listen { address: parts.settings.listen.clone(), source };
        let socket = TcpListener::bind(&parts.settings.listen).await.map_err(listen)?;
        let address = socket.local_addr().map_err(listen)?;
        Ok(Self { parts, socket, address })
    }

    /// The address, with the real port where 0 was asked for.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, then drains: no new connections; the sessions are closed
    /// one by one, evenly over the drain time of the settings, so that the devices
    /// do not come back all at once. Returns when the last one is gone.
    pub async fn run(self, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        let parts = self.parts;
        let handshakes = Arc::new(Semaphore::new(parts.settings.max_handshakes as usize));
        let connections = Arc::new(Semaphore::new(parts.settings.max_connections as usize));
        loop {
            let Ok(handshaking) = Arc::clone(&handshakes).acquire_owned().await else { break };
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.socket.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            parts.metrics.connections.one();
            let Ok(counted) = Arc::clone(&connections).try_acquire_owned() else {
                parts.metrics.connections_over_limit.one();
                continue;
            };
            // Small packets both ways: Nagle's algorithm would hold them back.
            let _ = stream.set_nodelay(true);
            let parts = Arc::clone(&parts);
            tasks.spawn(async move {
                serve(parts, stream, peer, handshaking).await;
                drop(counted);
            });
        }
        drop(self.socket);
        tasks.close();
        drain(&parts).await;
        // What is left is in a handshake, or being closed: each has its own limit.
        let left = parts.settings.handshake_timeout.min(CLOSE_LIMIT * 3);
        if tokio::time::timeout(left, tasks.wait()).await.is_err() {}
    }
}

async fn drain(parts: &GateParts) {
    let registry = parts.trust.registry();
    let ids = registry.ids();
    let Ok(count) = u32::try_from(ids.len()) else { return };
    tracing::info!(sessions = count, "draining");
    let start = tokio::time::Instant::now();
    let interval = parts.settings.drain / count.max(1);
    let cut = Cut { cause: Cause::Draining, reason: Arc::from("the gate is leaving") };
    for (index, id) in (0_u32..).zip(ids) {
        tokio::time::sleep_until(start + interval * index).await;
        registry.end(id, cut.clone());
    }
    // Sessions that were admitted meanwhile.
    for id in registry.ids() {
        registry.end(id, cut.clone());
    }
}
