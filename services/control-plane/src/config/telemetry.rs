//! `[telemetry]`: logs, traces and metrics.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Problems;

/// What the server tells about itself. `/metrics` is on whatever is set here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// `http://HOST:PORT` of an OTLP collector (gRPC) for traces and metrics. No default:
    /// without it nothing is exported. A collector that is away costs telemetry, not calls.
    pub otlp_endpoint: Option<String>,
    /// How log lines look. Default `json`.
    pub log_format: LogFormat,
    /// Which log lines are written: a level, or directives such as
    /// `info,catrust_control_plane=debug`. Default `info`.
    pub log_filter: String,
    /// `service.name` of the telemetry. Default `catrust-server`.
    pub service_name: String,
    /// Share of traces that start here and are recorded, 0.0 to 1.0. Default 1.0. A caller's
    /// own decision in `traceparent` goes first.
    pub sample_ratio: f64,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            log_format: LogFormat::Json,
            log_filter: "info".to_owned(),
            service_name: "catrust-server".to_owned(),
            sample_ratio: 1.0,
        }
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line, for collectors.
    Json,
    /// For people.
    Text,
}

impl TelemetryConfig {
    pub(crate) fn validate(&self, problems: &mut Problems) {
        if let Some(endpoint) = &self.otlp_endpoint {
            let known = endpoint.starts_with("http://") || endpoint.starts_with("https://");
            problems.require(
                known && !endpoint.contains('@'),
                "telemetry.otlp_endpoint",
                "must be http://HOST:PORT or https://HOST:PORT, without credentials",
            );
        }
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.log_filter) {
            problems.add(
                "telemetry.log_filter",
                format!("is no filter ({error}): write a level such as info, or TARGET=LEVEL,…"),
            );
        }
        problems.require(!self.service_name.is_empty(), "telemetry.service_name", "must not be empty");
        problems.require(
            (0.0..=1.0).contains(&self.sample_ratio),
            "telemetry.sample_ratio",
            "must be 0.0 (no traces) to 1.0 (all of them)",
        );
    }
}
