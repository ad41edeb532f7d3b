//! Waiting for a condition, within a bound, with the last state in the report.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(10);

/// Looks at `condition` until it gives a value, for `within` at most.
///
/// # Errors
/// When the time is up; the error names `what` and the last state that
/// `condition` reported.
pub async fn eventually<T, E: Display>(
    within: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<T, E>,
) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        // A hung attempt counts as a state, too: it must not outlast the bound.
        let left = within.saturating_sub(started.elapsed()).max(INTERVAL);
        let state = match tokio::time::timeout(left, condition()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(state)) => state.to_string(),
            Err(_) => "the attempt itself did not end".to_owned(),
        };
        if started.elapsed() >= within {
            anyhow::bail!("not within {within:?}: {what}; last state: {state}");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
