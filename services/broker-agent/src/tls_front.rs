//! The TLS side of a broker: handshakes that end in an admitted session or not at
//! all.
//!
//! A ticket is a bearer credential: rustls restores the device's certificate from it
//! and asks no verifier. Two things close that, and each is there for what the other
//! lacks:
//!
//! - each epoch of the trust has its own ticket key and session store, so that a
//!   ticket from before a change leads to a full handshake, whose refusal is a TLS
//!   alert: after a receipt no handshake of an inactive CA succeeds;
//! - each session, resumed or not, is admitted by its certificate after the
//!   handshake: one that was resumed while the epoch changed is closed before it has
//!   sent a byte.
//!
//! Retiring alone would leave the race; admission alone would let the handshake
//! succeed first. The price of retiring is a full handshake for each device of the
//! other CAs at its next connect, no more than once per change that takes trust
//! away. The configuration is chosen after the ClientHello is read: a connection
//! that was opened before a change cannot carry the old key over.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use catrust_device_trust::Refusal;
use rustls::crypto::ring::Ticketer;
use rustls::server::{Acceptor, NoServerSessionStorage, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::{Error as TlsError, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use crate::broker_trust::BrokerTrust;
use crate::session::Session;
use crate::verifier::DeviceVerifier;

/// How devices may resume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resumption {
    /// Encrypted tickets, nothing kept by the broker.
    #[default]
    Tickets,
    /// Sessions stored by the broker, at most so many.
    Stored(usize),
    /// Each handshake is a full one.
    Off,
}

/// Why a connection did not become a session. Close it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The handshake failed; the peer was sent an alert where there was a reason to.
    #[error("the TLS handshake failed")]
    Handshake(#[source] io::Error),
    /// The handshake succeeded, by resumption or beside a change, and the device is
    /// not trusted now.
    #[error("the device is not trusted")]
    Refused(#[source] Refusal),
}

/// Makes sessions out of connections.
#[derive(Debug)]
pub struct TlsFront {
    trust: Arc<BrokerTrust>,
    resumption: Resumption,
    current: ArcSwap<Epoch>,
    renewing: Mutex<()>,
}

#[derive(Debug)]
struct Epoch {
    number: u64,
    config: Arc<ServerConfig>,
}

impl TlsFront {
    /// Makes a front over `trust`, with TLS 1.2 and 1.3.
    ///
    /// # Errors
    /// The system gives no random numbers for ticket keys.
    pub fn new(
        trust: Arc<BrokerTrust>,
        identity: Arc<dyn ResolvesServerCert>,
        resumption: Resumption,
    ) -> Result<Self, TlsError> {
        let verifier = Arc::new(DeviceVerifier::new(Arc::clone(&trust)));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(rustls::ALL_VERSIONS)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(identity);
        // A device keeps one connection: a second ticket per handshake is a seal and
        // a kilobyte for nothing.
        config.send_tls13_tickets = 1;
        let number = trust.epoch();
        let config = Arc::new(resumption.begin(&config)?);
        Ok(Self {
            trust,
            resumption,
            current: ArcSwap::from_pointee(Epoch { number, config }),
            renewing: Mutex::default(),
        })
    }

    /// The configuration of the current epoch, for handshakes of one's own. Take it
    /// anew for each connection, once its ClientHello has been read.
    ///
    /// # Errors
    /// The system gives no random numbers for ticket keys: serve nobody.
    pub fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let current = self.current.load();
        if current.number == self.trust.epoch() {
            return Ok(Arc::clone(&current.config));
        }
        let _one_at_a_time = self.renewing.lock().unwrap_or_else(PoisonError::into_inner);
        let (current, number) = (self.current.load(), self.trust.epoch());
        if current.number == number {
            return Ok(Arc::clone(&current.config));
        }
        let config = Arc::new(self.resumption.begin(&current.config)?);
        self.current.store(Arc::new(Epoch { number, config: Arc::clone(&config) }));
        Ok(config)
    }

    /// Performs the handshake on `io` and admits the session. Set a limit of time
    /// around it; dropping the future drops the connection.
    ///
    /// # Errors
    /// [`AcceptError`].
    pub async fn accept<IO>(&self, io: IO) -> Result<(TlsStream<IO>, Session), AcceptError>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        let start = LazyConfigAcceptor::new(Acceptor::default(), io).await.map_err(AcceptError::Handshake)?;
        let config = self.config().map_err(|error| AcceptError::Handshake(io::Error::other(error)))?;
        let stream = start.into_stream(config).await.map_err(AcceptError::Handshake)?;
        let session =
            self.trust.admit(stream.get_ref().1.peer_certificates()).map_err(AcceptError::Refused)?;
        Ok((stream, session))
    }
}

impl Resumption {
    /// `config` with resumption state that shares nothing with the one before.
    fn begin(self, config: &ServerConfig) -> Result<ServerConfig, TlsError> {
        let mut config = config.clone();
        config.session_storage = match self {
            Self::Stored(sessions) => ServerSessionMemoryCache::new(sessions),
            Self::Tickets | Self::Off => Arc::new(NoServerSessionStorage {}),
        };
        match self {
            Self::Tickets => config.ticketer = Ticketer::new()?,
            Self::Stored(_) => {}
            Self::Off => config.send_tls13_tickets = 0,
        }
        Ok(config)
    }
}
