//! The publisher inside a replica: its heads come from the directory, its status goes
//! to the metrics, its spans into the traces of the calls.

use std::sync::Arc;
use std::time::Duration;

use catrust_domain::RecordedEvent;
use catrust_trust_feed::{TrustFeed, TrustPoint};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use super::{HeadSource, Publisher, PublisherHooks, PublisherStatus};
use crate::assemble::Parts;
use crate::directory::Directory;
use crate::lifecycle::{Stages, Tasks};
use crate::metrics::Metrics;

/// How recently the directory must have agreed with the log for a head to be true.
const HEAD_FRESHNESS: Duration = Duration::from_secs(1);

impl HeadSource for Directory {
    fn heads(&self) -> Option<Vec<TrustPoint>> {
        if !self.is_fresh(HEAD_FRESHNESS) {
            return None;
        }
        let point = |summary: crate::directory::InstanceSummary| TrustPoint {
            instance_id: summary.instance_id,
            revision: summary.revision,
            position: summary.trust_position,
            digest: summary.bundle_digest,
        };
        Some(self.all().into_iter().map(point).collect())
    }
}

/// Opens a span per event under the trace of the call that made it.
pub struct TracingHooks;

impl PublisherHooks for TracingHooks {
    fn publishing(&self, event: &RecordedEvent) -> tracing::Span {
        let span = tracing::info_span!(
            "publish",
            otel.kind = "producer",
            messaging.system = "nats",
            messaging.destination.name = "CATRUST",
            messaging.message.id = %event.event_id,
            catrust.position = event.position,
            catrust.event_type = %event.event_type,
        );
        let carrier =
            std::collections::HashMap::from([("traceparent".to_owned(), event.traceparent.clone())]);
        let parent = TraceContextPropagator::new().extract(&carrier);
        if parent.span().span_context().is_valid() {
            // Fails only where no OpenTelemetry layer is installed: nothing to link then.
            let _ = span.set_parent(parent);
        }
        span
    }
}

/// Starts the publisher of a replica among its tasks.
pub fn spawn(
    parts: &Parts,
    feed: Arc<dyn TrustFeed>,
    directory: &Arc<Directory>,
    metrics: &Metrics,
    stages: &Stages,
    tasks: &mut Tasks,
) -> watch::Receiver<PublisherStatus> {
    let (publisher, status) = Publisher::new(
        Arc::clone(&parts.store),
        feed,
        Arc::clone(&parts.keys),
        Arc::clone(directory) as Arc<dyn HeadSource>,
        Arc::new(TracingHooks),
        Arc::clone(&parts.clock),
    );
    let stopping = stages.stopping.clone();
    let take_over = parts.take_over_stream;
    tasks.spawn("publisher", {
        let stopping = stopping.clone();
        async move {
            publisher.taking_over(take_over).run(stopping).await;
            Ok(())
        }
    });
    tasks.spawn("publisher's metrics", report(status.clone(), metrics.clone(), stopping));
    status
}

/// Keeps the metrics as the status is.
async fn report(
    mut status: watch::Receiver<PublisherStatus>,
    metrics: Metrics,
    stopping: CancellationToken,
) -> anyhow::Result<()> {
    let mut rebuilds = 0;
    loop {
        {
            let now = status.borrow_and_update();
            metrics.published(now.published_position, now.feed_available);
            if now.rebuilds > rebuilds {
                metrics.feed_rebuilt(now.rebuilds - rebuilds);
                rebuilds = now.rebuilds;
            }
        }
        match stopping.run_until_cancelled(status.changed()).await {
            Some(Ok(())) => {}
            // The publisher has ended, or is told to.
            Some(Err(_)) | None => {
                stopping.cancelled().await;
                return Ok(());
            }
        }
    }
}
