//! A caller: the typed clients of every service with one identity, and what a
//! refusal says.

use std::time::Duration;

use anyhow::Context as _;
use catrust_proto::v1::audit_service_client::AuditServiceClient;
use catrust_proto::v1::ca_certificate_service_client::CaCertificateServiceClient;
use catrust_proto::v1::fleet_service_client::FleetServiceClient;
use catrust_proto::v1::instance_service_client::InstanceServiceClient;
use catrust_proto::v1::trust_service_client::TrustServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status};
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use crate::certificates::Leaf;

/// A channel that shows a bearer token, if there is one.
pub type Authenticated = InterceptedService<Channel, Token>;

/// Puts `authorization: Bearer TOKEN` on each call.
#[derive(Clone, Debug)]
pub struct Token(Option<MetadataValue<Ascii>>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// One caller's clients, over one connection. Cloning shares the connection.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The switch.
    pub ca: CaCertificateServiceClient<Authenticated>,
    /// Instances.
    pub instances: InstanceServiceClient<Authenticated>,
    /// The feed.
    pub trust: TrustServiceClient<Authenticated>,
    /// The audit trail.
    pub audit: AuditServiceClient<Authenticated>,
    /// The fleet.
    pub fleet: FleetServiceClient<Authenticated>,
    /// Health, without a token.
    pub health: HealthClient<Channel>,
    /// The bare connection.
    pub channel: Channel,
}

impl Caller {
    /// Connects lazily: the first call does. `address` is `http://HOST:PORT`.
    ///
    /// # Errors
    /// When the address or the token is malformed.
    pub fn new(address: &str, token: Option<&str>) -> anyhow::Result<Self> {
        Self::over(endpoint(address)?.connect_lazy(), token)
    }

    /// Connects with TLS, trusting `server_ca`, as the client of `identity`.
    ///
    /// # Errors
    /// When the address or a certificate is malformed.
    pub fn tls(
        address: &str,
        server_ca: &str,
        identity: Option<&Leaf>,
        token: Option<&str>,
    ) -> anyhow::Result<Self> {
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(server_ca));
        if let Some(leaf) = identity {
            tls = tls.identity(Identity::from_pem(&leaf.pem, &leaf.key_pem));
        }
        Self::over(endpoint(address)?.tls_config(tls)?.connect_lazy(), token)
    }

    fn over(channel: Channel, token: Option<&str>) -> anyhow::Result<Self> {
        let value = token.map(|token| format!("Bearer {token}").parse()).transpose()?;
        let service = || InterceptedService::new(channel.clone(), Token(value.clone()));
        Ok(Self {
            ca: CaCertificateServiceClient::new(service()),
            instances: InstanceServiceClient::new(service()),
            trust: TrustServiceClient::new(service()),
            audit: AuditServiceClient::new(service()),
            fleet: FleetServiceClient::new(service()),
            health: HealthClient::new(channel.clone()),
            channel,
        })
    }
}

fn endpoint(address: &str) -> anyhow::Result<Endpoint> {
    let endpoint = Endpoint::from_shared(address.to_owned()).context("malformed address")?;
    Ok(endpoint.connect_timeout(Duration::from_secs(5)).timeout(Duration::from_secs(30)).tcp_nodelay(true))
}

/// What a refused call says, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// The gRPC code.
    pub status: Code,
    /// `code` in the metadata of `ErrorInfo`.
    pub code: String,
    /// `request_id` there.
    pub request_id: String,
    /// The message for people.
    pub message: String,
    /// Names of the fields that are wrong, in the order given.
    pub fields: Vec<String>,
    /// When a repeat makes sense.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// Takes a status apart and checks what holds for every refusal: the domain, the
    /// spelling of the reason, the request id in the details and in the metadata,
    /// and a message.
    ///
    /// # Errors
    /// When one of these does not hold.
    pub fn of(status: &Status) -> anyhow::Result<Self> {
        let details = status.check_error_details().context("malformed error details")?;
        let info = details.error_info().with_context(|| format!("no ErrorInfo in {status:?}"))?;
        anyhow::ensure!(info.domain == "catrust", "domain {:?}", info.domain);
        let code = info.metadata.get("code").context("no `code` in the metadata")?.clone();
        anyhow::ensure!(info.reason == upper_snake(&code), "reason {} of code {code}", info.reason);
        let request_id = info.metadata.get("request_id").context("no `request_id` in the metadata")?.clone();
        let header = status.metadata().get("x-request-id").context("no x-request-id in the reply")?;
        anyhow::ensure!(header == request_id.as_str(), "x-request-id {header:?}, request_id {request_id}");
        request_id.parse::<uuid::Uuid>().context("the request id is no UUID")?;
        anyhow::ensure!(!status.message().is_empty(), "a refusal without a message");
        let violations = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
        Ok(Self {
            status: status.code(),
            code,
            request_id,
            message: status.message().to_owned(),
            fields: violations.iter().map(|violation| violation.field.clone()).collect(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
        })
    }
}

fn upper_snake(code: &str) -> String {
    let mut out = String::new();
    for letter in code.chars() {
        if letter.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(letter.to_ascii_uppercase());
    }
    out
}

/// Expects `result` to be refused with this status and code.
///
/// # Errors
/// When the call succeeded, or was refused otherwise.
pub fn refused<T: std::fmt::Debug>(
    result: Result<T, Status>,
    status: Code,
    code: &str,
) -> anyhow::Result<Refusal> {
    let error = match result {
        Ok(reply) => anyhow::bail!("expected {code}, got the reply {reply:?}"),
        Err(error) => error,
    };
    let refusal = Refusal::of(&error)?;
    anyhow::ensure!(
        refusal.status == status && refusal.code == code,
        "expected {status:?} {code}, got {refusal:?}"
    );
    Ok(refusal)
}

/// Expects `result` to be refused because of exactly this field.
///
/// # Errors
/// When the call succeeded, or was refused otherwise.
pub fn refused_field<T: std::fmt::Debug>(result: Result<T, Status>, field: &str) -> anyhow::Result<Refusal> {
    let refusal = refused(result, Code::InvalidArgument, "ParameterFieldCheckFailed")?;
    anyhow::ensure!(refusal.fields == [field], "expected {field} alone, got {refusal:?}");
    Ok(refusal)
}
