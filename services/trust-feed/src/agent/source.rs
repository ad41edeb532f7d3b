//! Thin sources: whatever comes by NATS and gRPC goes to the core, unjudged.

mod grpc;
mod nats;
mod servers;

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use tokio::sync::mpsc;

use super::core::Input;

pub use grpc::{GrpcSource, snapshot, snapshots};
pub use nats::NatsSource;
pub use servers::{ServerError, Servers};

/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);

/// The agent has ended.
pub struct AgentGone;

/// Hands an input to the driver, waiting where it is busy.
async fn send(inputs: &mpsc::Sender<Input>, input: Input) -> Result<(), AgentGone> {
    inputs.send(input).await.map_err(|_| AgentGone)
}

/// Pause after the n-th failure in a row: doubling, and between half and the whole of it
/// by chance, so that a fleet that lost its server does not come back as one.
fn pause(failures: u32) -> Duration {
    let whole = SHORTEST_PAUSE.saturating_mul(1 << failures.min(8)).min(LONGEST_PAUSE);
    // Each hasher has keys of its own.
    let chance = u32::try_from(RandomState::new().hash_one(failures) % 1_000).unwrap_or(0);
    whole / 2 + whole / 2 * chance / 1_000
}

/// Tells an error when it is another than the last one: an outage is told once.
#[derive(Default)]
struct OutageLog(String);

impl OutageLog {
    fn tell(&mut self, source: &'static str, error: String) {
        if self.0 == error {
            tracing::debug!(source, %error, "still away");
        } else {
            tracing::warn!(source, %error, "the source of trust is away; trying again");
            self.0 = error;
        }
    }

    fn forget(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_second_and_differ() {
        for failures in 0..40 {
            let pause = pause(failures);
            assert!(pause >= SHORTEST_PAUSE / 2 && pause <= LONGEST_PAUSE, "{pause:?}");
        }
        let pauses: std::collections::BTreeSet<Duration> = (0..50).map(|_| pause(20)).collect();
        assert!(pauses.len() > 10, "{pauses:?}");
        assert!(pauses.first() >= Some(&(LONGEST_PAUSE / 2)));
    }
}
