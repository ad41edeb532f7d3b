//! The listener for probes and metrics: plain HTTP, nothing that changes anything.
//!
//! | path | answers |
//! |---|---|
//! | `/healthz` | 200 while the process lives |
//! | `/readyz` | 200 when devices are admitted, 503 with the reason otherwise |
//! | `/metrics` | Prometheus text |

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use super::GateParts;

#[derive(Clone)]
struct Admin {
    parts: Arc<GateParts>,
    stopping: CancellationToken,
}

/// The routes. Readiness ends when `stopping` is cancelled.
pub fn routes(parts: Arc<GateParts>, stopping: CancellationToken) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Admin { parts, stopping })
}

async fn ready(State(admin): State<Admin>) -> Response {
    let reason = if admin.stopping.is_cancelled() {
        "draining"
    } else if !admin.parts.trust.current().admits() {
        "no trust bundle that is fresh enough"
    } else {
        return "ready\n".into_response();
    };
    (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {reason}\n")).into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    let text = admin.parts.metrics.render(&admin.parts.trust);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}
