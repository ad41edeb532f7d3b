//! Bounded waiting.

use std::time::Duration;

pub use catrust_test_harness::eventually::eventually;

/// Longest that anything in these tests is waited for.
pub const LIMIT: Duration = Duration::from_secs(20);

/// Waits for a future for [`LIMIT`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {LIMIT:?}"),
    }
}
