//! Bounded waiting.

use std::time::{Duration, Instant};

/// Longest that anything in these tests is waited for.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Asks until the answer is `Ok`, and panics with the last other one when it takes
/// too long.
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let begin = Instant::now();
    loop {
        match ask().await {
            Ok(value) => return value,
            Err(state) if begin.elapsed() > LIMIT => panic!("{what}: not within {LIMIT:?}; last: {state}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Waits for a future for [`LIMIT`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {LIMIT:?}"),
    }
}
