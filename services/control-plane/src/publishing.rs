//! The publisher inside a replica: its heads come from the directory, its status goes
//! to the metrics, its spans into the traces of the calls.

use catrust_domain::{RecordedEvent, Timestamp};
use catrust_publisher::{HeadSource, Publisher, PublisherHooks, PublisherStatus};
use catrust_trust_feed::TrustPoint;
use opentelemetry::metrics::{Counter, Gauge, Meter};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use crate::directory::Directory;
use crate::lifecycle::{Stages, Tasks};

impl HeadSource for Directory {
    fn heads(&self) -> Option<(Timestamp, Vec<TrustPoint>)> {
        // Before the instances: they may be newer than that, and not older.
        let issued_at = self.current_at()?;
        let point = |summary: crate::directory::InstanceSummary| TrustPoint {
            instance_id: summary.instance_id,
            revision: summary.revision,
            position: summary.trust_position,
            digest: summary.bundle_digest,
        };
        Some((issued_at, self.all().into_iter().map(point).collect()))
    }
}

/// Opens a span per event under the trace of the call that made it.
pub(crate) struct TracingHooks;

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

/// Runs `publisher` among the tasks of a replica, and tells its status in numbers.
pub(crate) fn spawn(
    publisher: Publisher,
    status: watch::Receiver<PublisherStatus>,
    meter: &Meter,
    stages: &Stages,
    tasks: &mut Tasks,
) {
    let stopping = stages.stopping.clone();
    tasks.spawn("publisher", {
        let stopping = stopping.clone();
        async move {
            publisher.run(stopping).await;
            Ok(())
        }
    });
    tasks.spawn("publisher's metrics", report(status, PublisherInstruments::new(meter), stopping));
}

struct PublisherInstruments {
    published: Gauge<u64>,
    feed_available: Gauge<u64>,
    feed_rebuilds: Counter<u64>,
    streams: Gauge<u64>,
    live_only: Gauge<u64>,
}

impl PublisherInstruments {
    fn new(meter: &Meter) -> Self {
        Self {
            published: meter
                .u64_gauge("catrust.published.position")
                .with_description("Last position known to be on the NATS stream")
                .build(),
            feed_available: meter
                .u64_gauge("catrust.feed.available")
                .with_description("1 while the NATS feed can be published to")
                .build(),
            feed_rebuilds: meter
                .u64_counter("catrust.feed.rebuilds")
                .with_description("Times a NATS stream was filled again from the log")
                .build(),
            streams: meter
                .u64_gauge("catrust.feed.streams")
                .with_description(
                    "NATS streams there are, the one in use among them; told by the replica that publishes",
                )
                .build(),
            live_only: meter
                .u64_gauge("catrust.feed.live_only")
                .with_description("1 while no NATS stream can be filled, and new changes go past it")
                .build(),
        }
    }
}

async fn report(
    mut status: watch::Receiver<PublisherStatus>,
    instruments: PublisherInstruments,
    stopping: CancellationToken,
) -> anyhow::Result<()> {
    let mut rebuilds = 0;
    loop {
        {
            let now = status.borrow_and_update();
            instruments.published.record(now.published_position, &[]);
            instruments.feed_available.record(u64::from(now.feed_available), &[]);
            instruments.live_only.record(u64::from(now.live_only.is_some()), &[]);
            if now.streams > 0 {
                instruments.streams.record(now.streams, &[]);
            }
            if now.rebuilds > rebuilds {
                instruments.feed_rebuilds.add(now.rebuilds - rebuilds, &[]);
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
