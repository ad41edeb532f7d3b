//! A gate in this process, and devices that talk to it over real TLS.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use catrust_broker_agent::BrokerTrust;
use catrust_broker_agent::gate::settings::GateSettings;
use catrust_broker_agent::gate::{GateParts, Listener};
use catrust_test_harness::eventually::eventually;
use catrust_trust_feed::agent::{AgentTrust, Applied, Enforcer as _};
use clap::Parser;
use rustls::client::{ClientSessionMemoryCache, Resumption, Tls12Resumption};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::fixtures::{Ca, Device};

pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// Longest wait for anything in a test.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A minimal CONNECT of MQTT 3.1.1, clean session, client id "d".
pub const CONNECT: &[u8] = b"\x10\x0d\0\x04MQTT\x04\x02\0\x3c\0\x01d";
pub const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
pub const PING: [u8; 2] = [0xc0, 0];
pub const PONG: [u8; 2] = [0xd0, 0];
pub const DISCONNECT: [u8; 2] = [0xe0, 0];

/// Waits for `future`, for a bounded time.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {PATIENCE:?}: {what}"),
    }
}

/// Looks until `look` gives something that `wanted` accepts; tells the last look
/// otherwise.
pub async fn until<T: std::fmt::Debug>(what: &str, look: impl Fn() -> T, wanted: impl Fn(&T) -> bool) -> T {
    eventually(PATIENCE, what, async || {
        let seen = look();
        if wanted(&seen) { Ok(seen) } else { Err(format!("{seen:?}")) }
    })
    .await
    .unwrap()
}

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    settings: GateSettings,
}

pub struct Gate {
    pub trust: Arc<BrokerTrust>,
    pub parts: Arc<GateParts>,
    pub address: SocketAddr,
    pub server_ca: Ca,
    pub dir: TempDir,
    pub stop: CancellationToken,
    pub running: JoinHandle<()>,
}

impl Gate {
    /// Starts a gate before `upstream` with further command-line `arguments`.
    pub async fn start(upstream: &str, arguments: &[&str]) -> Self {
        let server_ca = Ca::new("gate CA");
        let (dir, (certificate, key)) = (TempDir::new().unwrap(), server_ca.server());
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("gate.pem"), certificate).unwrap();
        std::fs::write(path("gate.key"), key).unwrap();
        std::fs::write(path("ca.pem"), &server_ca.pem).unwrap();
        let (certificate, key) = (path("gate.pem"), path("gate.key"));
        let fixed = ["gate", "--listen", "127.0.0.1:0", "--cert", &certificate, "--key", &key];
        let line = [&fixed[..], &["--upstream", upstream], arguments].concat();
        let settings = Arguments::parse_from(line).settings;
        let trust = Arc::new(BrokerTrust::default());
        let parts = Arc::new(GateParts::new(settings, Arc::clone(&trust)).unwrap());
        let listener = Listener::bind(Arc::clone(&parts)).await.unwrap();
        let (address, stop) = (listener.address(), CancellationToken::new());
        tokio::spawn({
            let (trust, stop) = (Arc::clone(&trust), stop.clone());
            async move { trust.watch_expiry(stop).await }
        });
        let running = tokio::spawn(listener.run(stop.clone()));
        Self { trust, parts, address, server_ca, dir, stop, running }
    }

    pub async fn apply(&self, trust: &AgentTrust) -> Applied {
        soon("the trust is applied", self.trust.apply(trust)).await.unwrap()
    }

    /// A client of `device`, with a memory of its sessions.
    pub fn client(&self, device: &Device, version: &'static SupportedProtocolVersion) -> Client {
        self.client_with(device, version, Tls12Resumption::SessionIdOrTickets)
    }

    pub fn client_with(
        &self,
        device: &Device,
        version: &'static SupportedProtocolVersion,
        tls12: Tls12Resumption,
    ) -> Client {
        Client::with(self.address, &self.server_ca.der, device, version, tls12)
    }
}

#[derive(Clone)]
pub struct Client {
    config: Arc<ClientConfig>,
    address: SocketAddr,
}

impl Client {
    /// A client with a memory of its sessions.
    pub fn with(
        address: SocketAddr,
        server_ca: &CertificateDer<'static>,
        device: &Device,
        version: &'static SupportedProtocolVersion,
        tls12: Tls12Resumption,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(server_ca.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        // Unchecked: what no honest client would show is shown as well.
        let key = provider.key_provider.load_private_key(device.private_key()).unwrap();
        let identity = SingleCertAndKey::from(CertifiedKey::new(device.chain.clone(), key));
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_cert_resolver(Arc::new(identity));
        config.resumption =
            Resumption::store(Arc::new(ClientSessionMemoryCache::new(8))).tls12_resumption(tls12);
        Self { config: Arc::new(config), address }
    }

    /// The same device, connecting elsewhere.
    pub fn to(&self, address: SocketAddr) -> Self {
        Self { address, ..self.clone() }
    }

    /// The same device without a memory of its sessions.
    pub fn forgetful(&self) -> Self {
        let mut config = (*self.config).clone();
        config.resumption = Resumption::disabled();
        Self { config: Arc::new(config), address: self.address }
    }

    /// TLS handshake; the server's refusal may come with the first read only.
    pub async fn handshake(&self) -> std::io::Result<Connection> {
        let stream = TcpStream::connect(self.address).await?;
        self.handshake_over(stream).await
    }

    async fn handshake_over(&self, stream: TcpStream) -> std::io::Result<Connection> {
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let tls = TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await?;
        Ok(Connection { tls })
    }

    /// Handshake, CONNECT and CONNACK; an error says that the device was refused.
    pub async fn connect(&self) -> std::io::Result<Connection> {
        self.connect_over(TcpStream::connect(self.address).await?).await
    }

    /// As [`Client::connect`], on a TCP connection that is there already.
    pub async fn connect_over(&self, stream: TcpStream) -> std::io::Result<Connection> {
        let mut connection = self.handshake_over(stream).await?;
        connection.tls.write_all(CONNECT).await?;
        connection.expect(&CONNACK).await?;
        Ok(connection)
    }

    /// As [`Client::connect`], and fails the test when it is refused.
    pub async fn must_connect(&self) -> Connection {
        soon("the device connects", self.connect()).await.unwrap()
    }

    /// Fails the test unless the device is refused before it has an answer.
    pub async fn must_be_refused(&self) -> std::io::Error {
        match soon("the device is refused", self.connect()).await {
            Ok(connection) => panic!("accepted: {:?}", connection.kind()),
            Err(error) => error,
        }
    }
}

pub struct Connection {
    pub tls: TlsStream<TcpStream>,
}

impl Connection {
    pub fn kind(&self) -> HandshakeKind {
        self.tls.get_ref().1.handshake_kind().unwrap()
    }

    pub async fn expect(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut read = vec![0; bytes.len()];
        self.tls.read_exact(&mut read).await?;
        assert_eq!(read, bytes);
        Ok(())
    }

    pub async fn ping(&mut self) -> std::io::Result<()> {
        self.tls.write_all(&PING).await?;
        self.expect(&PONG).await
    }

    /// Waits until the gate has closed; anything else that comes fails the test.
    pub async fn closed(&mut self) {
        let mut byte = [0];
        match soon("the session is closed", self.tls.read(&mut byte)).await {
            Ok(0) | Err(_) => {}
            Ok(_) => panic!("a byte came instead of the end: {byte:?}"),
        }
    }

    /// Fails the test unless the broker still answers.
    pub async fn must_live(&mut self) {
        soon("the session lives", self.ping()).await.unwrap();
    }
}
