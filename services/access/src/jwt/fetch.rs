//! Fetches a key set over HTTP: one GET, a bounded answer, no redirects.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::key_set::MAX_BYTES;

/// How long connection, handshake and answer may take together.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where a key set is published.
pub struct Endpoint {
    uri: Uri,
    tls: Option<TlsConnector>,
}

impl Endpoint {
    /// Reads the CAs of `ca_file`, or the system's, where the address is https. Blocks.
    ///
    /// # Errors
    /// The CAs cannot be used.
    pub fn new(uri: Uri, ca_file: Option<&Path>) -> anyhow::Result<Self> {
        let tls = match uri.scheme_str() {
            Some("https") => Some(connector(ca_file)?),
            _ => None,
        };
        Ok(Self { uri, tls })
    }

    /// The document.
    ///
    /// # Errors
    /// There is no answer in 10 s, or one that is no document.
    pub async fn fetch(&self) -> anyhow::Result<Bytes> {
        tokio::time::timeout(TIMEOUT, self.exchange()).await.context("no answer in 10 s")?
    }

    async fn exchange(&self) -> anyhow::Result<Bytes> {
        let authority = self.uri.authority().context("the address has no host")?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = authority.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await.context("cannot connect")?;
        let Some(tls) = &self.tls else { return self.get(stream).await };
        let name = ServerName::try_from(host.to_owned()).context("the host is no name of a server")?;
        self.get(tls.connect(name, stream).await.context("the TLS handshake failed")?).await
    }

    async fn get(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> anyhow::Result<Bytes> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let answer = self.ask(&mut sender).await;
        connection.abort();
        answer
    }

    async fn ask(&self, sender: &mut http1::SendRequest<Empty<Bytes>>) -> anyhow::Result<Bytes> {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path)
            .header(header::HOST, self.uri.authority().context("the address has no host")?.as_str())
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .header(header::USER_AGENT, concat!("catrust-server/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())?;
        let response = sender.send_request(request).await?;
        ensure!(response.status() == StatusCode::OK, "the answer is {}", response.status());
        match Limited::new(response.into_body(), MAX_BYTES).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) => bail!("the answer breaks off, or is larger than {MAX_BYTES} bytes: {error}"),
        }
    }
}

fn connector(ca_file: Option<&Path>) -> anyhow::Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    match ca_file {
        Some(path) => {
            let at = || path.display().to_string();
            for certificate in CertificateDer::pem_file_iter(path).with_context(at)? {
                roots.add(certificate.with_context(at)?).with_context(at)?;
            }
            ensure!(!roots.is_empty(), "{} holds no certificate", path.display());
        }
        None => {
            // The system's store may hold certificates that rustls refuses: they are left out.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            ensure!(!roots.is_empty(), "the system has no CA certificates; set auth.jwt.key_set_ca_file");
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}
