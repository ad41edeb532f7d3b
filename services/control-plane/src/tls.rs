//! TLS of the gRPC listener: the server's certificate and the CAs of its callers, changed
//! while it runs.
//!
//! A new handshake meets what is in force; one with the old settings cannot be resumed. An
//! open connection stays when the server's certificate changes. When the client CAs change,
//! the certificate that it showed is checked once more: whose CA is gone must connect again.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::reload::{Content, Reload, read_files};
use catrust_access::client_certificate::ClientCertificate;

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// The files, all PEM.
#[derive(Clone, Debug)]
pub(crate) struct TlsFiles {
    /// The server's certificate, followed by its intermediates.
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// The CAs that client certificates are checked against.
    pub(crate) client_cas: Option<PathBuf>,
}

impl TlsFiles {
    /// The files, in the order in which [`ServerTls::replace`] takes their contents.
    #[must_use]
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        [&self.certificate, &self.key].into_iter().chain(&self.client_cas).cloned().collect()
    }
}

/// What handshakes are made with.
pub(crate) struct ServerTls {
    files: TlsFiles,
    /// Present once it was read.
    in_force: ArcSwapOption<HandshakeSettings>,
    shown: Mutex<ClientConnections>,
}

struct HandshakeSettings {
    server: Arc<ServerConfig>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
}

/// The certificates of open connections.
#[derive(Default)]
struct ClientConnections {
    next: u64,
    connections: HashMap<u64, (Vec<CertificateDer<'static>>, CancellationToken)>,
}

/// What a handshake has made.
pub(crate) struct Handshake<S> {
    pub(crate) stream: TlsStream<S>,
    /// What the client has shown, verified.
    pub(crate) client_certificate: Option<Arc<ClientCertificate>>,
    /// To be kept as long as the connection.
    pub(crate) place: Option<ConnectionPlace>,
}

/// A connection among those whose certificates are checked again.
pub(crate) struct ConnectionPlace {
    tls: Arc<ServerTls>,
    number: u64,
    /// Cancelled when the certificate is no longer accepted.
    pub(crate) withdrawn: CancellationToken,
}

impl ServerTls {
    /// Nothing is read yet: see [`Reload`].
    #[must_use]
    pub(crate) fn new(files: TlsFiles) -> Self {
        Self { files, in_force: ArcSwapOption::empty(), shown: Mutex::default() }
    }

    /// Puts the contents of the files in force, as a whole or not at all.
    ///
    /// # Errors
    /// They cannot be used.
    pub(crate) fn replace(&self, contents: &[Vec<u8>]) -> anyhow::Result<()> {
        let [certificate, key, rest @ ..] = contents else { anyhow::bail!("a file is missing") };
        let certificate = certificates(certificate).context("tls.cert_file cannot be used")?;
        let key = PrivateKeyDer::from_pem_slice(key).context("tls.key_file holds no private key")?;
        let clients = rest.first().map(|cas| client_verifier(cas)).transpose();
        let clients = clients.context("tls.client_ca_file cannot be used")?;
        let server = server_config(certificate, key, clients.clone());
        let server = server.context("the certificate and the key in [tls] cannot be used together")?;
        self.in_force.store(Some(Arc::new(HandshakeSettings { server: Arc::new(server), clients })));
        self.check_again();
        Ok(())
    }

    /// Makes a handshake.
    ///
    /// # Errors
    /// The client gave up, took too long, or showed a certificate of nobody's.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        self: &Arc<Self>,
        stream: S,
    ) -> io::Result<Handshake<S>> {
        let in_force = self.in_force.load_full();
        let in_force = in_force.ok_or_else(|| io::Error::other("no certificate was read yet"))?;
        let handshake = TlsAcceptor::from(Arc::clone(&in_force.server)).accept(stream);
        let stream =
            tokio::time::timeout(HANDSHAKE, handshake).await.map_err(|_| io::ErrorKind::TimedOut)??;
        let Some(chain) = stream.get_ref().1.peer_certificates() else {
            return Ok(Handshake { stream, client_certificate: None, place: None });
        };
        let chain: Vec<_> = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let read = chain.first().and_then(|leaf| ClientCertificate::read(leaf));
        let read = read.ok_or_else(|| io::Error::other("the client certificate cannot be read"))?;
        let place = self.show(chain);
        // The CAs may have changed between the handshake and the registration above.
        if !self.in_force.load().as_ref().is_some_and(|now| Arc::ptr_eq(now, &in_force)) {
            self.check_again();
        }
        Ok(Handshake { stream, client_certificate: Some(Arc::new(read)), place: Some(place) })
    }

    fn show(self: &Arc<Self>, chain: Vec<CertificateDer<'static>>) -> ConnectionPlace {
        let withdrawn = CancellationToken::new();
        let mut shown = self.shown();
        let number = shown.next;
        shown.next += 1;
        shown.connections.insert(number, (chain, withdrawn.clone()));
        ConnectionPlace { tls: Arc::clone(self), number, withdrawn }
    }

    /// Withdraws from open connections the certificates that the CAs in force do not vouch
    /// for.
    fn check_again(&self) {
        let in_force = self.in_force.load();
        let clients = in_force.as_ref().and_then(|in_force| in_force.clients.as_ref());
        let (mut kept, mut withdrawn) = (0_usize, 0_usize);
        for (chain, token) in self.shown().connections.values() {
            let vouched = chain.split_first().zip(clients).is_some_and(|((leaf, rest), clients)| {
                clients.verify_client_cert(leaf, rest, UnixTime::now()).is_ok()
            });
            if vouched {
                kept += 1;
            } else {
                withdrawn += 1;
                token.cancel();
            }
        }
        if kept + withdrawn > 0 {
            tracing::info!(kept, withdrawn, "client certificates of open connections checked again");
        }
    }

    fn shown(&self) -> MutexGuard<'_, ClientConnections> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ConnectionPlace {
    fn drop(&mut self) {
        self.tls.shown().connections.remove(&self.number);
    }
}

#[async_trait]
impl Reload for ServerTls {
    fn name(&self) -> &'static str {
        "tls"
    }

    async fn read(self: Arc<Self>) -> anyhow::Result<Content> {
        read_files(self.files.paths(), move |contents| self.replace(contents)).await
    }
}

fn certificates(pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>()?;
    ensure!(!found.is_empty(), "it holds no certificate (PEM)");
    Ok(found)
}

/// Optional, so that callers with a token need no certificate; who brings neither is refused
/// by the identity layer.
fn client_verifier(pem: &[u8]) -> anyhow::Result<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .allow_unauthenticated()
        .build()?)
}

fn server_config(
    certificate: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
) -> anyhow::Result<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(clients),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_single_cert(certificate, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
