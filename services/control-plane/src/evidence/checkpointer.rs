//! Signs checkpoints on a schedule, and lets them out: to a file, and to NATS.
//!
//! Every replica does so by itself. The same log gives the same checkpoint, byte by byte, so
//! that nobody has to be chosen for it, and two of them do no harm.

use std::sync::Arc;
use std::time::Duration;

use catrust_evidence::SignedCheckpoint;
use catrust_trust_feed::TrustFeed;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Meter};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::checkpoint_file::CheckpointFile;
use super::{CheckpointContradiction, Evidence};
use crate::ground::LogGround;

pub(crate) struct Checkpointer {
    evidence: Arc<Evidence>,
    /// Nothing is signed while the log is set back.
    ground: LogGround,
    /// Where notes are appended.
    file: Option<CheckpointFile>,
    /// Where they are published.
    feed: Option<Arc<dyn TrustFeed>>,
    interval: Duration,
    size: Gauge<u64>,
    failures: Counter<u64>,
}

impl Checkpointer {
    /// Checkpoints of `evidence` every `interval`, appended to `file` and published on `feed`.
    #[must_use]
    pub(crate) fn new(
        evidence: Arc<Evidence>,
        ground: LogGround,
        file: Option<CheckpointFile>,
        feed: Option<Arc<dyn TrustFeed>>,
        interval: Duration,
        meter: &Meter,
    ) -> Self {
        let size = meter
            .u64_gauge("catrust.checkpoint.size")
            .with_description("Events that the last signed checkpoint of the log covers")
            .build();
        let failures = meter
            .u64_counter("catrust.checkpoint.failures")
            .with_description("Checkpoints that were not made or not let out, by reason")
            .build();
        Self { evidence, ground, file, feed, interval, size, failures }
    }

    fn failed(&self, reason: &'static str) {
        self.failures.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// Runs until `stopping`. Failures are told and tried again: revocations do not wait for
    /// evidence.
    pub(crate) async fn run(mut self, stopping: CancellationToken) {
        let mut ticks = interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut written = self.evidence.last().map_or(0, |last| last.checkpoint.size);
        let mut published = 0;
        while stopping.run_until_cancelled(ticks.tick()).await.is_some() {
            if self.ground.reason().is_some() {
                self.failed("set_back");
                continue;
            }
            let signed = match self.evidence.checkpoint().await {
                Ok(signed) => signed,
                Err(error) => {
                    let contradiction = error.downcast_ref::<CheckpointContradiction>().is_some();
                    self.failed(if contradiction { "contradiction" } else { "unavailable" });
                    if contradiction {
                        tracing::error!("{error}");
                    } else {
                        tracing::warn!(error = format!("{error:#}"), "no checkpoint could be made");
                    }
                    continue;
                }
            };
            let size = signed.checkpoint.size;
            self.size.record(size, &[]);
            if size > written && self.write(&signed).await {
                written = size;
            }
            // Also where nothing is new: it tells listeners that the log has not grown.
            if self.publish(&signed).await && size > published {
                tracing::debug!(size, "published a checkpoint");
                published = size;
            }
        }
    }

    async fn write(&mut self, signed: &SignedCheckpoint) -> bool {
        let Some(mut file) = self.file.take() else { return true };
        let note = signed.clone();
        let outcome = tokio::task::spawn_blocking(move || (file.append(&note), file)).await;
        match outcome {
            Ok((written, file)) => {
                self.file = Some(file);
                if let Err(error) = &written {
                    self.failed("file");
                    tracing::error!(error = format!("{error:#}"), "a checkpoint is not in its file");
                }
                written.is_ok()
            }
            Err(error) => {
                tracing::error!(%error, "the checkpoint file is lost to this server");
                false
            }
        }
    }

    async fn publish(&self, signed: &SignedCheckpoint) -> bool {
        let Some(feed) = &self.feed else { return false };
        let published = feed.publish_checkpoint(&signed.note).await;
        if let Err(error) = &published {
            self.failed("nats");
            tracing::debug!(%error, "a checkpoint was not published");
        }
        published.is_ok()
    }
}
