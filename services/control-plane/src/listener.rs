//! Accepts connections, as many as are permitted, and drops those that say nothing.
//!
//! Whoever opens connections costs descriptors, which the store needs as well. HTTP/2
//! keepalive begins after the preface only, so that a silent connection would stay
//! for ever.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// How long a connection may be silent at its start.
const FIRST_OCTET: Duration = Duration::from_secs(10);
/// Pause after an accept that failed: out of descriptors, trying at once is a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The connections of `listener`, at most `most` at once; others wait to be accepted.
pub fn connections(listener: TcpListener, most: usize) -> impl Stream<Item = io::Result<Connection>> {
    let places = Arc::new(Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS)));
    futures::stream::unfold((listener, places), |(listener, places)| async move {
        let connection = accept(&listener, &places).await?;
        Some((Ok(connection), (listener, places)))
    })
}

/// `None` when the places are closed, which nobody does.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<Connection> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Without it a small reply may wait for the peer's delayed ACK.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, %peer, "TCP_NODELAY could not be set");
                }
                return Some(Connection {
                    stream,
                    peer,
                    silence: Some(Box::pin(sleep(FIRST_OCTET))),
                    _place: place,
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection, and its place among those permitted.
pub struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    /// Present until the first octet has come.
    silence: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo { local_addr: self.stream.local_addr().ok(), remote_addr: Some(self.peer) }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(context, buffer) {
            self.silence = None;
            return Poll::Ready(read);
        }
        let silence = self.silence.as_mut().map(|silence| silence.as_mut().poll(context));
        match silence {
            Some(Poll::Ready(())) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Some(Poll::Pending) | None => Poll::Pending,
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn connections_beyond_the_limit_wait_for_one_to_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut accepted = Box::pin(connections(listener, 1));
        let (_one, _two) =
            (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        let first = accepted.next().await.unwrap().unwrap();
        assert!(futures::poll!(accepted.next()).is_pending());
        drop(first);
        accepted.next().await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_connection_that_spoke_may_be_silent_afterwards() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut accepted = Box::pin(connections(listener, 2));
        let mut peer = TcpStream::connect(address).await.unwrap();
        let mut speaking = accepted.next().await.unwrap().unwrap();
        peer.write_all(b"x").await.unwrap();
        speaking.read_u8().await.unwrap();
        assert!(speaking.silence.is_none());

        let _mute = TcpStream::connect(address).await.unwrap();
        let mut mute = accepted.next().await.unwrap().unwrap();
        mute.silence = Some(Box::pin(sleep(Duration::ZERO)));
        assert_eq!(mute.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
