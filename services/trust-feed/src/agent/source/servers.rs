//! The connection to one of several servers.

use std::path::Path;
use std::time::Duration;

use catrust_proto::v1::trust_service_client::TrustServiceClient;
use tokio::sync::Mutex;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status};

use crate::agent::settings::GrpcSettings;

/// Larger messages are refused: a bundle of 10,000 certificates fits.
const MAX_MESSAGE_BYTES: usize = 64 * 1_024 * 1_024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A server that is dead without a word is noticed after both together: 3 s.
const PING_INTERVAL: Duration = Duration::from_secs(1);
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// A client with the token in each call.
pub type Client = TrustServiceClient<InterceptedService<Channel, Bearer>>;

/// Why a server cannot be used. The next attempt goes to the next one.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A file cannot be read.
    #[error("cannot read {file}")]
    Unreadable {
        /// The file.
        file: String,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The token holds characters that no header may hold.
    #[error("{file} does not hold a token")]
    NotAToken {
        /// The file.
        file: String,
    },
    /// There is no connection.
    #[error("cannot connect to {server}")]
    Unreachable {
        /// The server.
        server: String,
        /// What is in the way.
        #[source]
        source: tonic::transport::Error,
    },
    /// The server answers with an error, or the connection was lost.
    #[error("the server says {:?}: {}", .0.code(), .0.message())]
    Status(Box<Status>),
    /// The server has nothing to say for too long.
    #[error("nothing came for {0:?}")]
    Silent(Duration),
    /// The server ended the stream.
    #[error("the server ended the stream")]
    Ended,
    /// The reply does not hold what was asked for.
    #[error("the reply is empty")]
    Empty,
}

impl From<Status> for ServerError {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl ServerError {
    /// The error with its causes, as one text.
    pub fn text(&self) -> String {
        catrust_domain::error_chain(self)
    }
}

/// One connection, shared by whoever calls; to the next server when it fails.
#[derive(Debug)]
pub struct Servers {
    settings: GrpcSettings,
    current: Mutex<Current>,
}

#[derive(Debug, Default)]
struct Current {
    /// Counts connections, so that a failure that two callers saw counts once.
    number: usize,
    client: Option<Client>,
}

impl Servers {
    /// Connects with the first call.
    pub fn new(settings: GrpcSettings) -> Self {
        Self { settings, current: Mutex::default() }
    }

    /// A client, and the number of its connection. Connects where there is none; others
    /// wait meanwhile.
    ///
    /// # Errors
    /// [`ServerError`]; the next call tries the next server.
    pub async fn client(&self) -> Result<(usize, Client), ServerError> {
        let mut current = self.current.lock().await;
        if let Some(client) = &current.client {
            return Ok((current.number, client.clone()));
        }
        let servers = &self.settings.servers;
        let server = &servers[current.number % servers.len()];
        match self.connect(server).await {
            Ok(client) => {
                tracing::info!(%server, "connected to a server");
                current.client = Some(client.clone());
                Ok((current.number, client))
            }
            Err(error) => {
                current.number += 1;
                Err(error)
            }
        }
    }

    /// Leaves the server in use for the next one.
    pub async fn leave(&self) {
        let mut current = self.current.lock().await;
        current.number += 1;
        current.client = None;
    }

    /// How many there are.
    pub const fn count(&self) -> usize {
        self.settings.servers.len()
    }

    /// A client of one of them, counted from 0 and around, which nobody else uses.
    ///
    /// # Errors
    /// [`ServerError`].
    pub async fn client_of(&self, number: usize) -> Result<Client, ServerError> {
        let servers = &self.settings.servers;
        self.connect(&servers[number % servers.len()]).await
    }

    /// Says that the connection with this number is of no use.
    pub async fn failed(&self, number: usize) {
        let mut current = self.current.lock().await;
        if current.number == number {
            current.number += 1;
            current.client = None;
        }
    }

    async fn connect(&self, server: &str) -> Result<Client, ServerError> {
        let token = self.token().await?;
        let unreachable = |source| ServerError::Unreachable { server: server.to_owned(), source };
        let mut endpoint = Endpoint::from_shared(server.to_owned())
            .map_err(unreachable)?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        if let Some(ca_file) = &self.settings.tls_ca_file {
            endpoint = endpoint.tls_config(self.tls(ca_file).await?).map_err(unreachable)?;
        }
        let channel = endpoint.connect().await.map_err(unreachable)?;
        let wire = InterceptedService::new(channel, Bearer(token));
        Ok(TrustServiceClient::new(wire).max_decoding_message_size(MAX_MESSAGE_BYTES))
    }

    async fn token(&self) -> Result<Option<MetadataValue<Ascii>>, ServerError> {
        let Some(file) = &self.settings.token_file else { return Ok(None) };
        let text = String::from_utf8_lossy(&read(file).await?).into_owned();
        let not_a_token = || ServerError::NotAToken { file: file.display().to_string() };
        if text.trim().is_empty() {
            return Err(not_a_token());
        }
        let mut value: MetadataValue<Ascii> =
            format!("Bearer {}", text.trim()).parse().map_err(|_| not_a_token())?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    async fn tls(&self, ca_file: &Path) -> Result<ClientTlsConfig, ServerError> {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca_file).await?));
        if let (Some(certificate), Some(key)) =
            (&self.settings.tls_certificate_file, &self.settings.tls_key_file)
        {
            tls = tls.identity(Identity::from_pem(read(certificate).await?, read(key).await?));
        }
        Ok(tls)
    }
}

async fn read(file: &Path) -> Result<Vec<u8>, ServerError> {
    let name = || file.display().to_string();
    tokio::fs::read(file).await.map_err(|source| ServerError::Unreadable { file: name(), source })
}

/// Puts the token into each call.
#[derive(Debug, Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}
