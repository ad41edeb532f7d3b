//! The listener for probes and metrics: plain HTTP, nothing that changes anything.
//!
//! | path | answers |
//! |---|---|
//! | `/healthz` | 200 while the process lives |
//! | `/readyz` | 200 when calls will be served, 503 with the reason otherwise |
//! | `/metrics` | Prometheus text |

use std::borrow::Cow;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::{Encoder as _, TextEncoder};
use tokio::sync::watch;

/// Why the server is not ready; `None` when it is.
pub(crate) type Unreadiness = Option<Cow<'static, str>>;

#[derive(Clone)]
struct Admin {
    registry: prometheus::Registry,
    readiness: watch::Receiver<Unreadiness>,
}

pub(crate) fn routes(registry: prometheus::Registry, readiness: watch::Receiver<Unreadiness>) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Admin { registry, readiness })
}

async fn ready(State(admin): State<Admin>) -> Response {
    match &*admin.readiness.borrow() {
        None => "ready\n".into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response(),
    }
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    match encoder.encode(&admin.registry.gather(), &mut text) {
        Ok(()) => ([(header::CONTENT_TYPE, encoder.format_type().to_owned())], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
