//! One trace from the call to the message, seen by an OTLP collector.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use catrust_proto::v1::InactivateCaCertificateRequest;
use catrust_tests::deployment::Plan;
use catrust_tests::eventually::eventually;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::feed::nats::collect;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER_SPAN: &str = "00f067aa0ba902b7";

/// Keeps every span that is exported to it.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes =
            request.into_inner().resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(scopes.flat_map(|scope| scope.spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        _: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

impl Collector {
    /// Starts to collect; gives the endpoint.
    async fn start(&self) -> anyhow::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let router = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(self.clone()))
            .add_service(MetricsServiceServer::new(self.clone()));
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok(endpoint)
    }

    fn of_trace(&self) -> Vec<Span> {
        let spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        spans.iter().filter(|span| hex::encode(&span.trace_id) == TRACE).cloned().collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_reaches_from_the_call_to_the_message() -> anyhow::Result<()> {
    let collector = Collector::default();
    let endpoint = collector.start().await?;
    let plan = Plan::default().set("telemetry.otlp_endpoint", &format!("{endpoint:?}"));
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    let ca = instance.new_ca().await?;

    let mut request = Request::new(InactivateCaCertificateRequest {
        mqtt_instance_id: instance.id.clone(),
        sn: ca.sn.clone(),
        ..Default::default()
    });
    let parent = format!("00-{TRACE}-{CALLER_SPAN}-01").parse()?;
    request.metadata_mut().insert("traceparent", parent);
    replica.owner()?.ca.inactivate_ca_certificate(request).await?;

    let spans = eventually(Duration::from_secs(20), "both spans are exported", async || {
        let spans = collector.of_trace();
        let names: Vec<_> = spans.iter().map(|span| span.name.clone()).collect();
        if names.iter().any(|name| name == "publish") && names.iter().any(|name| name.contains("Inactivate"))
        {
            Ok(spans)
        } else {
            Err(format!("{names:?}"))
        }
    })
    .await?;
    let call = spans.iter().find(|span| span.name.contains("Inactivate")).context("no span of the call")?;
    let publish = spans.iter().find(|span| span.name == "publish").context("no span of the message")?;
    assert_eq!(call.name, "catrust.v1.CaCertificateService/InactivateCaCertificate");
    assert_eq!(hex::encode(&call.parent_span_id), CALLER_SPAN, "the call continues the caller's trace");
    assert_eq!(publish.parent_span_id, call.span_id, "the message continues the call's");

    let messages = collect(deployment.nats.as_ref().context("the plan has NATS")?).await?;
    let message = messages.iter().max_by_key(|message| message.sequence).context("no message")?;
    let carried = message.headers.get("traceparent").context("the message carries no trace context")?;
    assert_eq!(*carried, format!("00-{TRACE}-{}-01", hex::encode(&call.span_id)));
    Ok(())
}
