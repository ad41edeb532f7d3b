//! One admitted connection of a device, as the broker holds it.

use std::sync::Arc;
use std::task::{Context, Poll};

use catrust_device_trust::TrustPath;
use catrust_domain::Sha256;
use tokio::sync::oneshot;

use crate::registry::{SessionId, SessionRegistry};

/// Why a session shall end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// Its device is not trusted any more.
    Distrusted {
        /// Whether the last will shall be published.
        with_will: bool,
    },
    /// A certificate on its path has expired: the device's own, or one above it.
    Expired,
    /// The broker itself is leaving; the device may come back, elsewhere or later.
    Draining,
}

/// The order to end a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    /// Why.
    pub cause: Cause,
    /// Reason given by the caller of the change; may be empty. For logs.
    pub reason: Arc<str>,
}

/// A registered session. The broker holds it as long as it serves the connection,
/// and drops it when the connection is closed.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    path: Arc<TrustPath>,
    registry: Arc<SessionRegistry>,
    told: oneshot::Receiver<Cut>,
}

impl Session {
    pub(crate) fn register(registry: &Arc<SessionRegistry>, path: Arc<TrustPath>) -> Self {
        let (id, told) = registry.register(&path);
        Self { id, path, registry: Arc::clone(registry), told }
    }

    /// The session's name in this process.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// SHA-256 of the CA certificate that vouched at the handshake. A later change may
    /// have moved the session to a twin.
    #[must_use]
    pub fn anchor(&self) -> Sha256 {
        self.path.anchor()
    }

    /// The path and chain that were admitted, and the device's user name.
    #[must_use]
    pub fn path(&self) -> &TrustPath {
        &self.path
    }

    /// Waits for the order to end. The broker MUST watch it whenever it waits for
    /// anything else on behalf of the session, and MUST then stop forwarding in both
    /// directions, close, and drop the session: receipts wait for that. Safe to
    /// cancel and to call again until it has returned.
    pub async fn cut(&mut self) -> Cut {
        std::future::poll_fn(|cx| self.poll_cut(cx)).await
    }

    /// As [`Session::cut`], for brokers that poll. MUST NOT be polled again after it
    /// was ready.
    pub fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<Cut> {
        // The sender goes only with its order; were it lost, the session must end too.
        let fallback = || Cut { cause: Cause::Distrusted { with_will: false }, reason: Arc::from("") };
        std::pin::Pin::new(&mut self.told).poll(cx).map(|told| told.unwrap_or_else(|_| fallback()))
    }

    /// Says that nothing is forwarded any more, before the connection is closed: for
    /// brokers that pace their closing. Receipts do not wait for this session then.
    pub fn fence(&self) {
        self.registry.remove(self.id);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.registry.remove(self.id);
    }
}
