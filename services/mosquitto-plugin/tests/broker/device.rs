//! Devices: TLS clients with certificates that speak MQTT.

use std::sync::Arc;
use std::time::Instant;

use rustls::client::{Resumption, Tls12Resumption};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::authority::{self, Authority};
use crate::eventually::within;
use crate::mosquitto::Broker;
use crate::mqtt::{self, Connect, Packet};

/// A device that can connect again and again, and then resumes where it can.
#[derive(Clone)]
pub struct Device {
    config: Arc<ClientConfig>,
    pub name: String,
}

/// How an attempt to connect ended.
pub enum Attempt {
    /// With a session.
    Connected(Box<Session>),
    /// In the TLS handshake, with the error that the device saw.
    TlsRefused(String),
    /// At CONNECT, with the return code.
    ConnectRefused(u8),
}

/// A live session.
pub struct Session {
    stream: TlsStream<TcpStream>,
}

/// A TLS connection before CONNECT.
pub struct Connection {
    stream: TlsStream<TcpStream>,
}

/// TLS version and kind of resumption.
#[derive(Clone, Copy, Debug)]
pub struct Tls {
    pub version: &'static SupportedProtocolVersion,
    /// TLS 1.2: whether the device asks for the session by identifier, not by ticket.
    pub by_session_id: bool,
}

pub const TLS12: Tls = Tls { version: &rustls::version::TLS12, by_session_id: false };
pub const TLS12_BY_ID: Tls = Tls { version: &rustls::version::TLS12, by_session_id: true };
pub const TLS13: Tls = Tls { version: &rustls::version::TLS13, by_session_id: false };

impl Device {
    /// A device of `ca` that connects to `broker`.
    pub fn new(broker: &Broker, ca: &Authority, name: &str) -> Self {
        Self::with(broker, &ca.device(name), &[], TLS13, name)
    }

    pub fn tls(broker: &Broker, ca: &Authority, name: &str, tls: Tls) -> Self {
        Self::with(broker, &ca.device(name), &[], tls, name)
    }

    /// A device that shows `chain` along with its certificate.
    pub fn with(
        broker: &Broker,
        device: &authority::Device,
        chain: &[&Authority],
        tls: Tls,
        name: &str,
    ) -> Self {
        let mut shown = vec![CertificateDer::from(device.der.clone())];
        shown.extend(chain.iter().map(|ca| CertificateDer::from(ca.der.clone())));
        Self { name: name.to_owned(), ..Self::showing(broker, &shown, &device.key_der, tls) }
    }

    /// A device that shows this chain, with a key in PKCS #8.
    pub fn showing(broker: &Broker, chain: &[CertificateDer<'static>], key: &[u8], tls: Tls) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(broker.server_ca.der.clone().into()).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.to_vec()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        // Unchecked: what no honest client would show is shown as well.
        let key = provider.key_provider.load_private_key(key).unwrap();
        let identity = SingleCertAndKey::from(CertifiedKey::new(chain.to_vec(), key));
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[tls.version])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_cert_resolver(Arc::new(identity));
        if tls.by_session_id {
            config.resumption =
                Resumption::in_memory_sessions(32).tls12_resumption(Tls12Resumption::SessionIdOnly);
        }
        Self { config: Arc::new(config), name: String::new() }
    }

    /// Makes a TLS connection and no more. In TLS 1.3 the device takes it for made
    /// before the broker has seen its certificate.
    pub async fn dial(&self, broker: &Broker) -> Result<Connection, String> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let tcp = TcpStream::connect(broker.address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let stream = within("the TLS handshake ends", connector.connect(name, tcp)).await;
        stream.map(|stream| Connection { stream }).map_err(|error| error.to_string())
    }

    pub async fn attempt_with(&self, broker: &Broker, connect: &Connect) -> Attempt {
        match self.dial(broker).await {
            Ok(connection) => connection.connect(connect).await,
            Err(error) => Attempt::TlsRefused(error),
        }
    }

    pub async fn attempt(&self, broker: &Broker) -> Attempt {
        self.attempt_with(broker, &Connect::new(&self.name)).await
    }

    /// Connects; panics where that is refused.
    pub async fn connect(&self, broker: &Broker) -> Session {
        self.attempt(broker).await.connected()
    }

    pub async fn connect_with(&self, broker: &Broker, connect: &Connect) -> Session {
        self.attempt_with(broker, connect).await.connected()
    }
}

impl Attempt {
    pub fn connected(self) -> Session {
        match self {
            Self::Connected(session) => *session,
            Self::TlsRefused(error) => panic!("refused in the TLS handshake: {error}"),
            Self::ConnectRefused(code) => panic!("refused at CONNECT: {code}"),
        }
    }

    /// The TLS error; panics where the attempt went on.
    pub fn tls_refused(self) -> String {
        match self {
            Self::TlsRefused(error) => error,
            Self::Connected(_) => panic!("connected, and not refused in the TLS handshake"),
            Self::ConnectRefused(code) => panic!("refused at CONNECT ({code}), not in the TLS handshake"),
        }
    }

    /// The return code; panics where the attempt ended otherwise.
    pub fn connect_refused(self) -> u8 {
        match self {
            Self::ConnectRefused(code) => code,
            Self::Connected(_) => panic!("connected, and not refused at CONNECT"),
            Self::TlsRefused(error) => panic!("refused in the TLS handshake ({error}), not at CONNECT"),
        }
    }
}

impl Connection {
    pub fn is_resumed(&self) -> bool {
        self.stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    pub async fn connect(mut self, connect: &Connect) -> Attempt {
        if let Err(error) = self.stream.write_all(&connect.encode()).await {
            return Attempt::TlsRefused(error.to_string());
        }
        match within("the broker answers CONNECT", mqtt::read(&mut self.stream)).await {
            Ok(Some(packet)) if packet.kind == mqtt::CONNACK => match packet.body[1] {
                0 => Attempt::Connected(Box::new(Session { stream: self.stream })),
                code => Attempt::ConnectRefused(code),
            },
            Ok(other) => Attempt::TlsRefused(format!("{other:?}")),
            Err(error) => Attempt::TlsRefused(error.to_string()),
        }
    }
}

impl Session {
    pub fn is_resumed(&self) -> bool {
        self.stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    pub async fn send(&mut self, packet: &[u8]) {
        self.stream.write_all(packet).await.unwrap();
    }

    /// The next packet; `None` when the broker has ended the connection.
    pub async fn next(&mut self) -> Option<Packet> {
        within("the broker says something", mqtt::read(&mut self.stream)).await.unwrap_or(None)
    }

    /// Panics unless the session answers.
    pub async fn assert_alive(&mut self) {
        let alive = self.is_alive().await;
        assert!(alive, "the session is closed");
    }

    pub async fn is_alive(&mut self) -> bool {
        if self.stream.write_all(&[0xc0, 0]).await.is_err() {
            return false;
        }
        loop {
            match self.next().await {
                Some(packet) if packet.kind == mqtt::PINGRESP => return true,
                Some(_) => {}
                None => return false,
            }
        }
    }

    /// Waits until the broker ends the session; gives the last packet and the time.
    pub async fn closed(mut self) -> (Option<Packet>, Instant) {
        let mut last = None;
        while let Some(packet) = self.next().await {
            last = Some(packet);
        }
        (last, Instant::now())
    }

    pub async fn subscribe(&mut self, topic: &str) -> u8 {
        self.send(&mqtt::subscribe(topic, 1)).await;
        let packet = self.next().await.unwrap();
        assert_eq!(packet.kind, mqtt::SUBACK);
        packet.body[2]
    }
}
