//! The connection: TLS, the token, and calls that are repeated until they are answered.

use std::path::{Path, PathBuf};
use std::time::Duration;

use catrust_proto::v1::audit_service_client::AuditServiceClient;
use catrust_proto::v1::ca_certificate_service_client::CaCertificateServiceClient;
use catrust_proto::v1::fleet_service_client::FleetServiceClient;
use catrust_proto::v1::instance_service_client::InstanceServiceClient;
use catrust_proto::v1::trust_service_client::TrustServiceClient;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;

use crate::arguments::ConnectionArguments;
use crate::failure::{Failure, is_transport};

/// Replies larger than this are refused: a bundle of 10,000 certificates fits.
const MAX_REPLY_BYTES: usize = 64 * 1_024 * 1_024;
/// Waits before the first, second and third repetition; the server's own wish goes
/// before them.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(400), Duration::from_millis(1_600)];

/// The channel with the token in each call.
pub(crate) type Wire = InterceptedService<Channel, BearerToken>;

/// A server to call. Connects with the first call.
#[derive(Debug)]
pub(crate) struct ApiClient {
    wire: Wire,
    server: String,
    timeout: Duration,
}

impl ApiClient {
    /// Reads the token and the TLS files. Must be called inside a runtime.
    pub(crate) fn open(connection: &ConnectionArguments) -> Result<Self, Failure> {
        let token = read_token(connection.token_file.as_deref())?;
        let timeout = Duration::from_secs(connection.timeout);
        let endpoint = endpoint(connection, timeout)?;
        if token.is_some() && readable_on_the_way(&endpoint) {
            eprintln!("catrust: warning: the token crosses the network readable; use https:// where you can");
        }
        let channel = endpoint.connect_lazy();
        let wire = InterceptedService::new(channel, BearerToken(token));
        Ok(Self { wire, server: connection.server.clone(), timeout })
    }

    pub(crate) fn instances(&self) -> InstanceServiceClient<Wire> {
        InstanceServiceClient::new(self.wire.clone()).max_decoding_message_size(MAX_REPLY_BYTES)
    }

    pub(crate) fn ca_certificates(&self) -> CaCertificateServiceClient<Wire> {
        CaCertificateServiceClient::new(self.wire.clone()).max_decoding_message_size(MAX_REPLY_BYTES)
    }

    pub(crate) fn audit(&self) -> AuditServiceClient<Wire> {
        AuditServiceClient::new(self.wire.clone()).max_decoding_message_size(MAX_REPLY_BYTES)
    }

    pub(crate) fn trust(&self) -> TrustServiceClient<Wire> {
        TrustServiceClient::new(self.wire.clone()).max_decoding_message_size(MAX_REPLY_BYTES)
    }

    pub(crate) fn fleet(&self) -> FleetServiceClient<Wire> {
        FleetServiceClient::new(self.wire.clone()).max_decoding_message_size(MAX_REPLY_BYTES)
    }

    /// Makes a call, and makes it again up to three times while there is no answer.
    ///
    /// Every repetition carries the same message: a mutating one MUST have its
    /// `request_id` set, so that the server knows it again and one call has one effect.
    pub(crate) async fn call<M: Clone, R>(
        &self,
        message: M,
        send: impl AsyncFnMut(Request<M>) -> Result<Response<R>, Status>,
    ) -> Result<R, Failure> {
        self.call_within(self.timeout, message, send).await
    }

    /// As [`ApiClient::call`], with `extra` time for a server that waits for the brokers.
    pub(crate) async fn call_and_wait<M: Clone, R>(
        &self,
        extra: Duration,
        message: M,
        send: impl AsyncFnMut(Request<M>) -> Result<Response<R>, Status>,
    ) -> Result<R, Failure> {
        self.call_within(self.timeout + extra, message, send).await
    }

    async fn call_within<M: Clone, R>(
        &self,
        timeout: Duration,
        message: M,
        mut send: impl AsyncFnMut(Request<M>) -> Result<Response<R>, Status>,
    ) -> Result<R, Failure> {
        let deadline = Instant::now() + timeout;
        let mut pauses = PAUSES.into_iter();
        loop {
            let mut request = Request::new(message.clone());
            request.set_timeout(deadline.saturating_duration_since(Instant::now()));
            let Ok(outcome) = tokio::time::timeout_at(deadline, send(request)).await else {
                return Err(self.silent(timeout));
            };
            let status = match outcome {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            let pause = pauses.next().filter(|_| worth_repeating(&status));
            let pause = pause.map(|pause| requested_pause(&status).unwrap_or(pause));
            match pause {
                Some(pause) if Instant::now() + pause < deadline => tokio::time::sleep(pause).await,
                _ => return Err(self.failure(&status)),
            }
        }
    }

    /// Says what a status of this server means.
    pub(crate) fn failure(&self, status: &Status) -> Failure {
        Failure::from_status(status, &self.server)
    }

    fn silent(&self, timeout: Duration) -> Failure {
        let why = format!("nothing within {} s (--timeout)", timeout.as_secs());
        Failure::Unreachable { server: self.server.clone(), why }
    }
}

/// Whether the same call may be answered next time. A deadline that has passed here has
/// passed for the repetition too.
pub(crate) fn worth_repeating(status: &Status) -> bool {
    status.code() == Code::Unavailable || (is_transport(status) && status.code() != Code::DeadlineExceeded)
}

fn requested_pause(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|retry| retry.retry_delay)
}

/// Puts the token into each call.
#[derive(Debug, Clone)]
pub(crate) struct BearerToken(Option<MetadataValue<Ascii>>);

impl Interceptor for BearerToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

fn read_token(file: Option<&Path>) -> Result<Option<MetadataValue<Ascii>>, Failure> {
    let text = match file {
        Some(path) => std::fs::read_to_string(path).map_err(|error| Failure::unreadable(path, &error))?,
        // Not an option of clap's: a value on the command line shows in the list of processes.
        None => std::env::var("CATRUST_TOKEN").unwrap_or_default(),
    };
    match (text.trim(), file) {
        ("", Some(path)) => Err(Failure::Usage(format!("{} holds no token", path.display()))),
        ("", None) => Ok(None),
        (token, _) => bearer(token).map(Some),
    }
}

fn bearer(token: &str) -> Result<MetadataValue<Ascii>, Failure> {
    let mut value: MetadataValue<Ascii> = format!("Bearer {token}")
        .parse()
        .map_err(|_| Failure::Usage("the token holds characters that no header may hold".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn endpoint(connection: &ConnectionArguments, timeout: Duration) -> Result<Endpoint, Failure> {
    let server = &connection.server;
    let usage = |error: tonic::transport::Error| Failure::Usage(format!("--server {server}: {error}"));
    let secure = match server.split_once("://") {
        Some(("http", host)) if !host.is_empty() => false,
        Some(("https", host)) if !host.is_empty() => true,
        _ => {
            return Err(Failure::Usage(format!(
                "--server {server}: write http://HOST:PORT or https://HOST:PORT"
            )));
        }
    };
    let endpoint = Endpoint::from_shared(server.clone())
        .map_err(usage)?
        .connect_timeout(timeout.min(Duration::from_secs(5)))
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10));
    match (secure, &connection.tls_ca_file) {
        (true, Some(ca_file)) => endpoint.tls_config(tls(ca_file, connection)?).map_err(usage),
        (true, None) => Err(Failure::Usage(
            "https needs --tls-ca-file: the CA that signed the server's certificate".to_owned(),
        )),
        (false, None) if connection.tls_cert_file.is_none() => Ok(endpoint),
        (false, _) => {
            Err(Failure::Usage(format!("--server {server}: TLS files are given, so write https://")))
        }
    }
}

/// Whether what is sent leaves this machine without TLS. A name other than `localhost`
/// may stand for any machine.
fn readable_on_the_way(endpoint: &Endpoint) -> bool {
    let uri = endpoint.uri();
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let loopback = host.parse::<std::net::IpAddr>().map_or(host == "localhost", |ip| ip.is_loopback());
    uri.scheme_str() != Some("https") && !loopback
}

fn tls(ca_file: &PathBuf, connection: &ConnectionArguments) -> Result<ClientTlsConfig, Failure> {
    let read = |path: &PathBuf| std::fs::read(path).map_err(|error| Failure::unreadable(path, &error));
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(ca_file)?));
    if let (Some(cert), Some(key)) = (&connection.tls_cert_file, &connection.tls_key_file) {
        tls = tls.identity(Identity::from_pem(read(cert)?, read(key)?));
    }
    Ok(tls)
}

/// A new `request_id`, made once for a command and kept through its repetitions.
pub(crate) fn new_request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(server: &str) -> ConnectionArguments {
        ConnectionArguments {
            server: server.to_owned(),
            token_file: None,
            tls_ca_file: None,
            tls_cert_file: None,
            tls_key_file: None,
            timeout: 15,
        }
    }

    async fn attempts(timeout: Duration, mut answer: impl FnMut(usize) -> Status) -> (usize, Failure) {
        let api = ApiClient::open(&connection("http://127.0.0.1:1")).unwrap();
        let mut count = 0;
        let outcome = api.call_within(timeout, (), async |_: Request<()>| {
            count += 1;
            Err::<Response<()>, _>(answer(count))
        });
        let failure = outcome.await.unwrap_err();
        (count, failure)
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_answer_is_made_four_times() {
        let (count, failure) = attempts(Duration::from_secs(15), |_| Status::unavailable("away")).await;
        assert_eq!((count, failure.exit_code()), (4, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_not_repeated() {
        let (count, failure) = attempts(Duration::from_secs(15), |_| Status::not_found("no")).await;
        assert_eq!((count, failure.exit_code()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn no_repetition_starts_after_the_deadline() {
        let (count, _) = attempts(Duration::from_millis(300), |_| Status::unavailable("away")).await;
        assert_eq!(count, 2, "the second pause would end after the deadline");
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_that_the_server_asks_for_is_kept() {
        let started = Instant::now();
        let (count, _) = attempts(Duration::from_secs(15), |attempt| match attempt {
            1 => {
                let mut details = tonic_types::ErrorDetails::new();
                details.set_retry_info(Some(Duration::from_secs(7)));
                Status::with_error_details(Code::Unavailable, "overloaded", details)
            }
            _ => Status::not_found("no"),
        })
        .await;
        assert_eq!((count, started.elapsed().as_secs()), (2, 7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_is_given_up_at_the_deadline() {
        let api = ApiClient::open(&connection("http://127.0.0.1:1")).unwrap();
        let call = api.call_within(Duration::from_secs(2), (), async |_: Request<()>| {
            std::future::pending::<Result<Response<()>, Status>>().await
        });
        let failure = call.await.unwrap_err();
        assert_eq!(failure.exit_code(), 3);
        assert!(failure.to_string().contains("nothing within 2 s"), "{failure}");
    }

    #[tokio::test]
    async fn servers_and_tls_files_must_fit_together() {
        let mut tls_without_https = connection("http://127.0.0.1:1");
        tls_without_https.tls_ca_file = Some(PathBuf::from("ca.pem"));
        let cases = [
            (connection("127.0.0.1:50051"), "write http://HOST:PORT"),
            (connection("ftp://127.0.0.1"), "write http://HOST:PORT"),
            (connection("https://127.0.0.1:1"), "https needs --tls-ca-file"),
            (tls_without_https, "so write https://"),
        ];
        for (connection, expected) in cases {
            let failure = ApiClient::open(&connection).unwrap_err();
            assert_eq!(failure.exit_code(), 2);
            assert!(failure.to_string().contains(expected), "{failure}");
        }
    }

    #[test]
    fn only_tls_and_loopback_hide_a_token() {
        let cases = [
            ("http://127.0.0.1:1", false),
            ("http://[::1]:1", false),
            ("http://localhost:1", false),
            ("https://catrust.example.org:1", false),
            ("http://10.0.0.1:1", true),
            ("http://localhost.example.org:1", true),
        ];
        for (url, expected) in cases {
            assert_eq!(readable_on_the_way(&Endpoint::from_static(url)), expected, "{url}");
        }
    }

    #[test]
    fn a_token_file_must_hold_a_token() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        assert!(read_token(Some(&path)).unwrap_err().to_string().starts_with("cannot read "));
        std::fs::write(&path, "\n").unwrap();
        assert!(read_token(Some(&path)).unwrap_err().to_string().ends_with("holds no token"));
        std::fs::write(&path, "s3cret\n").unwrap();
        let value = read_token(Some(&path)).unwrap().unwrap();
        assert_eq!(value.to_str().unwrap(), "Bearer s3cret");
        assert!(!format!("{value:?}").contains("s3cret"));
    }
}
