//! Opens the server span of a call under the caller's W3C trace context, and
//! counts and times the call.
//!
//! Handlers find the [`TraceParent`] in the extensions: it is recorded with the
//! event and travels on with the message, so that one trace reaches from the
//! call to the brokers. Without an exporter the caller's own value is passed on.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use http::{Request, Response};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, Meter};
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic::Status;
use tonic::body::Body;
use tower::Service;
use tracing::Instrument as _;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::request_id::RequestId;
use super::{Middleware, ResponseFuture};
use crate::telemetry::duration_histogram;

/// W3C `traceparent` to record with what the call does; empty where there is none.
#[derive(Clone, Debug, Default)]
pub(crate) struct TraceParent(pub(crate) String);

/// Name of every method that the server does not offer. Paths come from anybody: as
/// they are, they would make series and span names without bound.
const OTHER: &str = "_OTHER";

/// Adds the layer described in the module's documentation.
#[derive(Clone, Debug)]
pub(crate) struct TraceContextLayer {
    call_duration: Histogram<f64>,
    methods: Arc<HashSet<String>>,
}

impl TraceContextLayer {
    /// `descriptors` are the encoded file descriptor sets of the services offered:
    /// their methods are named, all others are `_OTHER`. Calls are counted and timed by `meter`.
    ///
    /// # Errors
    /// A descriptor set is malformed.
    pub(crate) fn new(meter: &Meter, descriptors: &[&[u8]]) -> Result<Self, prost::DecodeError> {
        let mut methods = HashSet::new();
        for encoded in descriptors {
            for file in FileDescriptorSet::decode(*encoded)?.file {
                for service in &file.service {
                    let path = |method: &str| format!("{}.{}/{method}", file.package(), service.name());
                    methods.extend(service.method.iter().map(|method| path(method.name())));
                }
            }
        }
        let call_duration =
            duration_histogram(meter, "rpc.server.call.duration", "Duration of calls, by method and code");
        Ok(Self { call_duration, methods: Arc::new(methods) })
    }
}

impl Middleware for TraceContextLayer {
    fn call<S>(&self, inner: &mut S, mut request: Request<Body>) -> ResponseFuture<S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>, Future: Send + 'static>,
    {
        let path = request.uri().path().trim_start_matches('/');
        let method = self.methods.get(path).map_or(OTHER, String::as_str).to_owned();
        let span = server_span(&request, &method);
        let parent = TraceParent(trace_parent(&request, &span));
        request.extensions_mut().insert(parent);
        let call_duration = self.call_duration.clone();
        let started = Instant::now();
        let reply = inner.call(request);
        Box::pin(
            async move {
                let response = reply.await?;
                let code = Status::from_header_map(response.headers()).map_or(tonic::Code::Ok, |s| s.code());
                tracing::Span::current().record("rpc.response.status_code", code as i32);
                let labels = [
                    KeyValue::new("rpc.method", method),
                    KeyValue::new("rpc.response.status_code", i64::from(code as i32)),
                ];
                call_duration.record(started.elapsed().as_secs_f64(), &labels);
                Ok(response)
            }
            .instrument(span),
        )
    }
}

fn server_span(request: &Request<Body>, method: &str) -> tracing::Span {
    let id = request.extensions().get::<RequestId>().map(|id| tracing::field::display(id.0));
    let span = tracing::info_span!(
        "rpc.server",
        otel.name = method,
        otel.kind = "server",
        rpc.system.name = "grpc",
        rpc.method = method,
        rpc.response.status_code = tracing::field::Empty,
        request_id = id,
    );
    let parent = TraceContextPropagator::new().extract(&Headers(request.headers()));
    if parent.span().span_context().is_valid() {
        // Fails only where no OpenTelemetry layer is installed: nothing to link then.
        let _ = span.set_parent(parent);
    }
    span
}

/// The span's own context where one is exported, else the caller's.
fn trace_parent(request: &Request<Body>, span: &tracing::Span) -> String {
    let context = span.context();
    let exported = context.span().span_context().clone();
    if exported.is_valid() {
        return format!(
            "00-{}-{}-{:02x}",
            exported.trace_id(),
            exported.span_id(),
            exported.trace_flags().to_u8()
        );
    }
    let parent = TraceContextPropagator::new().extract(&Headers(request.headers()));
    let header = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    match header {
        Some(text) if parent.span().span_context().is_valid() => text.to_owned(),
        _ => String::new(),
    }
}

struct Headers<'a>(&'a http::HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::metrics::MeterProvider as _;
    use opentelemetry_sdk::metrics::SdkMeterProvider;
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    #[tokio::test]
    async fn paths_that_nobody_offers_share_one_name() {
        let registry = prometheus::Registry::new();
        let reader = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build().unwrap();
        let meters = SdkMeterProvider::builder().with_reader(reader).build();
        let layer =
            TraceContextLayer::new(&meters.meter("test"), &[catrust_proto::FILE_DESCRIPTOR_SET]).unwrap();
        let known = "catrust.v1.CaCertificateService/InactivateCaCertificate";
        for path in [known, "catrust.v1.CaCertificateService/Forged1", "forged/2", "3"] {
            let inner = service_fn(|_: Request<Body>| async {
                Ok::<_, std::convert::Infallible>(Response::new(Body::empty()))
            });
            let request = Request::builder().uri(format!("/{path}")).body(Body::empty()).unwrap();
            layer.layer(inner).oneshot(request).await.unwrap();
        }
        let mut names: Vec<_> = registry
            .gather()
            .iter()
            .flat_map(prometheus::proto::MetricFamily::get_metric)
            .flat_map(|metric| metric.get_label().iter())
            .filter(|label| label.name() == "rpc_method")
            .map(|label| label.value().to_owned())
            .collect();
        names.sort();
        assert_eq!(names, ["_OTHER", known]);
    }
}
