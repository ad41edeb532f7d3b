//! Accepts connections, as many as are permitted, and drops those that say nothing.
//!
//! Whoever opens connections costs descriptors, which the store needs as well. HTTP/2
//! keepalive begins after the preface only, so that a silent connection would stay
//! for ever. TLS handshakes are made aside: a slow one holds up nobody but itself.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::transport::server::Connected;

use crate::tls::{ConnectionPlace, Handshake, ServerTls};
use catrust_access::client_certificate::ClientCertificate;

/// How long a connection may be silent at its start.
const FIRST_BYTE: Duration = Duration::from_secs(10);
/// Pause after an accept that failed: out of descriptors, trying at once is a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections between their handshake and the server.
const READY: usize = 16;

/// The connections of `listener`, at most `most` at once; others wait to be accepted. With
/// `tls`, those whose handshake succeeded. They come as long as the future runs beside them,
/// which closes the listener and ends when the stream is dropped.
pub(crate) fn connections(
    listener: TcpListener,
    most: usize,
    tls: Option<Arc<ServerTls>>,
) -> (impl Stream<Item = io::Result<Connection>>, impl Future<Output = ()> + Send + use<>) {
    let places = Arc::new(Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS)));
    let (ready, connections) = mpsc::channel(READY);
    let accepting = async move {
        tokio::select! {
            () = ready.closed() => {}
            () = accept_all(&listener, &places, tls.as_ref(), &ready) => {}
        }
    };
    (ReceiverStream::new(connections), accepting)
}

type Ready = mpsc::Sender<io::Result<Connection>>;

async fn accept_all(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
    tls: Option<&Arc<ServerTls>>,
    ready: &Ready,
) {
    while let Some(socket) = accept(listener, places).await {
        let Some(tls) = tls.cloned() else {
            if ready.send(Ok(Connection::plain(socket))).await.is_err() {
                return;
            }
            continue;
        };
        let ready = ready.clone();
        tokio::spawn(async move {
            let peer = socket.peer;
            match tls.accept(socket).await {
                // Where the receiver is gone the connection is closed.
                Ok(secured) => drop(ready.send(Ok(Connection::secured(secured))).await),
                Err(error) => tracing::debug!(%error, %peer, "a TLS handshake failed"),
            }
        });
    }
}

/// `None` when the places are closed, which nobody does.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<Socket> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Without it a small reply may wait for the peer's delayed ACK.
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, %peer, "TCP_NODELAY could not be set");
                }
                return Some(Socket {
                    stream,
                    peer,
                    silence: Some(Box::pin(sleep(FIRST_BYTE))),
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
struct Socket {
    stream: TcpStream,
    peer: SocketAddr,
    /// Present until the first byte has come.
    silence: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

/// A connection that the server may use.
pub(crate) struct Connection {
    transport: Transport,
    peer: Peer,
    /// Ends when the client certificate is no longer accepted.
    withdrawn: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    _place: Option<ConnectionPlace>,
}

enum Transport {
    Plain(Socket),
    Tls(Box<TlsStream<Socket>>),
}

/// Who is at the other end, as far as the transport tells.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) client_certificate: Option<Arc<ClientCertificate>>,
}

impl Connection {
    fn plain(socket: Socket) -> Self {
        let peer = Peer { address: socket.peer, client_certificate: None };
        Self { transport: Transport::Plain(socket), peer, withdrawn: None, _place: None }
    }

    fn secured(secured: Handshake<Socket>) -> Self {
        let Handshake { stream, client_certificate, place } = secured;
        let withdrawn = place.as_ref().map(|place| Box::pin(place.withdrawn.clone().cancelled_owned()));
        let peer = Peer { address: stream.get_ref().0.peer, client_certificate };
        Self { transport: Transport::Tls(Box::new(stream)), peer, withdrawn, _place: place }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.withdrawn.as_mut().is_some_and(|withdrawn| withdrawn.as_mut().poll(context).is_ready()) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        match &mut self.transport {
            Transport::Plain(socket) => Pin::new(socket).poll_read(context, buffer),
            Transport::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(context, buffer) {
            self.silence = None;
            return Poll::Ready(read);
        }
        let Some(silence) = self.silence.as_mut() else { return Poll::Pending };
        ready!(silence.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Passes what is written on to the inner stream.
macro_rules! writes_through {
    ($outer:ty, $this:ident => $inner:expr) => {
        impl AsyncWrite for $outer {
            fn poll_write(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                let $this = &mut *self;
                $inner.poll_write(context, bytes)
            }

            fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                let $this = &mut *self;
                $inner.poll_flush(context)
            }

            fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                let $this = &mut *self;
                $inner.poll_shutdown(context)
            }

            fn poll_write_vectored(
                mut self: Pin<&mut Self>,
                context: &mut Context<'_>,
                parts: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                let $this = &mut *self;
                $inner.poll_write_vectored(context, parts)
            }

            // True of TCP and of TLS; the trait wants one answer for both.
            fn is_write_vectored(&self) -> bool {
                true
            }
        }
    };
}

writes_through!(Socket, socket => Pin::new(&mut socket.stream));
writes_through!(Connection, connection => connection.transport.writer());

impl Transport {
    fn writer(&mut self) -> Pin<&mut (dyn AsyncWrite + Send)> {
        match self {
            Self::Plain(socket) => {
                let socket: Pin<&mut Socket> = Pin::new(socket);
                socket
            }
            Self::Tls(stream) => {
                let stream: Pin<&mut TlsStream<Socket>> = Pin::new(stream);
                stream
            }
        }
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
        let (accepted, accepting) = connections(listener, 1, None);
        tokio::spawn(accepting);
        let mut accepted = Box::pin(accepted);
        let (_one, _two) =
            (TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap());
        let first = accepted.next().await.unwrap().unwrap();
        let second = tokio::time::timeout(Duration::from_millis(100), accepted.next()).await;
        assert!(second.is_err(), "there is one place");
        drop(first);
        accepted.next().await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_connection_that_spoke_may_be_silent_afterwards() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let places = Arc::new(Semaphore::new(2));
        let mut peer = TcpStream::connect(address).await.unwrap();
        let mut speaking = accept(&listener, &places).await.unwrap();
        peer.write_all(b"x").await.unwrap();
        speaking.read_u8().await.unwrap();
        assert!(speaking.silence.is_none());

        let _mute = TcpStream::connect(address).await.unwrap();
        let mut mute = accept(&listener, &places).await.unwrap();
        mute.silence = Some(Box::pin(sleep(Duration::ZERO)));
        assert_eq!(mute.read_u8().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
