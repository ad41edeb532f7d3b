//! Logs, traces and metrics of the process.
//!
//! Metrics are always collected for `/metrics`; traces and metrics go to an OTLP
//! collector where one is set. A collector that is away costs telemetry, not calls.

use std::io::{self, IsTerminal as _};

use opentelemetry::metrics::{Histogram, Meter, MeterProvider as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, fmt};

use crate::config::{LogFormat, TelemetryConfig};

/// What [`Telemetry::init`] set up. MUST be kept until the end, and shut down.
pub(crate) struct Telemetry {
    /// What `/metrics` shows.
    pub(crate) registry: prometheus::Registry,
    /// Makes instruments: each room its own, beside what it counts.
    pub(crate) meter: Meter,
    meters: SdkMeterProvider,
    tracers: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Installs the process's subscriber and meters. Once per process, inside the
    /// runtime.
    ///
    /// # Errors
    /// The OTLP endpoint is unusable, or a subscriber is installed already.
    pub(crate) fn init(config: &TelemetryConfig) -> anyhow::Result<Self> {
        let resource = Resource::builder().with_service_name(config.service_name.clone()).build();
        let registry = prometheus::Registry::new();
        let meters = meters(config, &registry, resource.clone())?;
        let tracers =
            config.otlp_endpoint.as_deref().map(|url| tracers(config, url, resource)).transpose()?;
        let traces = tracers.as_ref().map(|provider| {
            // The log filter selects lines; spans are exported from INFO on, whatever it says.
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer("catrust"))
                .with_filter(tracing_subscriber::filter::LevelFilter::INFO)
        });
        let filter = EnvFilter::try_new(&config.log_filter)?;
        let logs = match config.log_format {
            LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(io::stderr).boxed(),
            LogFormat::Text => {
                let colours = io::stderr().is_terminal();
                fmt::layer().with_target(false).with_ansi(colours).with_writer(io::stderr).boxed()
            }
        };
        tracing_subscriber::registry().with(logs.with_filter(filter)).with(traces).try_init()?;
        Ok(Self { registry, meter: meters.meter("catrust"), meters, tracers })
    }

    /// Sends what is left. Blocks for seconds at most.
    pub(crate) fn shutdown(self) {
        if let Some(tracers) = self.tracers
            && let Err(error) = tracers.shutdown()
        {
            tracing::debug!(%error, "the last traces were not sent");
        }
        if let Err(error) = self.meters.shutdown() {
            tracing::debug!(%error, "the last metrics were not sent");
        }
    }
}

/// Bounds in seconds, from 100 µs to 10 s.
const DURATION_BOUNDS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0];

/// An instrument for durations in seconds, all with the same bounds.
pub(crate) fn duration_histogram(
    meter: &Meter,
    name: &'static str,
    description: &'static str,
) -> Histogram<f64> {
    let histogram = meter.f64_histogram(name).with_unit("s").with_description(description);
    histogram.with_boundaries(DURATION_BOUNDS.to_vec()).build()
}

fn meters(
    config: &TelemetryConfig,
    registry: &prometheus::Registry,
    resource: Resource,
) -> anyhow::Result<SdkMeterProvider> {
    let scraped = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build()?;
    let builder = SdkMeterProvider::builder().with_resource(resource).with_reader(scraped);
    let Some(endpoint) = &config.otlp_endpoint else { return Ok(builder.build()) };
    let exporter = opentelemetry_otlp::MetricExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint.as_str())
        .build()?;
    Ok(builder.with_reader(PeriodicReader::builder(exporter).build()).build())
}

fn tracers(
    config: &TelemetryConfig,
    endpoint: &str,
    resource: Resource,
) -> anyhow::Result<SdkTracerProvider> {
    let exporter =
        opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.sample_ratio)));
    Ok(SdkTracerProvider::builder()
        .with_resource(resource)
        .with_sampler(sampler)
        .with_batch_exporter(exporter)
        .build())
}
