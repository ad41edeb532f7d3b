//! What the servers tell each other about the calls of their users: core NATS, to every
//! server, the sender among them. What is in it is the servers' business.

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;

use super::NatsFeed;
use crate::feed::FeedError;
use crate::subject;

/// Messages as they come, one's own among them; ends only when the feed is dropped.
pub type SpendingStream = BoxStream<'static, Bytes>;

/// Sends to every server.
#[derive(Clone)]
pub struct SpendingSender(NatsFeed);

impl NatsFeed {
    /// Joins the servers' gossip. Works while NATS is away, and goes on when it is back:
    /// what is sent in between is lost.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`] when the connection has been closed for good.
    pub async fn spending(&self) -> Result<(SpendingSender, SpendingStream), FeedError> {
        let subscriber = self.client.subscribe(subject::SPENDING).await.map_err(FeedError::unavailable)?;
        Ok((SpendingSender(self.clone()), subscriber.map(|message| message.payload).boxed()))
    }
}

impl SpendingSender {
    /// Whether there is a connection. A server that hangs shows after two pings.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.is_connected()
    }

    /// Hands a message over to the connection. Waits while too much is on its way.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`] while there is no connection: nothing is kept for later.
    pub async fn send(&self, message: Vec<u8>) -> Result<(), FeedError> {
        self.0.check_connected()?;
        self.0.client.publish(subject::SPENDING, message.into()).await.map_err(FeedError::unavailable)
    }

    /// Waits until NATS has what was handed over.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`].
    pub async fn flush(&self) -> Result<(), FeedError> {
        self.0.client.flush().await.map_err(FeedError::unavailable)
    }
}
