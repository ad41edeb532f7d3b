//! Lets a test kill one task of a running server, to see that the others do not go on without
//! it. Builds without debug assertions, those that are shipped among them, have none of this.
//!
//! `CATRUST_FAULT="NAME=panic"` or `"NAME=end"` names the task; SIGUSR1 kills it.

use std::future::Future;

/// Runs `task` to its end, unless a test kills it before: then it panics, or gives `ended`.
#[cfg(debug_assertions)]
pub(crate) fn may_fail_on_demand<T>(
    name: &'static str,
    task: impl Future<Output = T> + Send,
    ended: impl FnOnce() -> T + Send,
) -> impl Future<Output = T> + Send {
    use tokio::signal::unix::{SignalKind, signal};
    let wanted = std::env::var("CATRUST_FAULT").unwrap_or_default();
    let how = match wanted.split_once('=') {
        Some((part, how)) if part == name => Some(how.to_owned()),
        _ => None,
    };
    // Before the task is polled: without a handler the signal would kill the process.
    let demand =
        how.as_ref().map(|_| signal(SignalKind::user_defined1()).expect("SIGUSR1 can be waited for"));
    async move {
        let (Some(how), Some(mut demand)) = (how, demand) else { return task.await };
        tokio::select! {
            outcome = task => outcome,
            _ = demand.recv() => {
                assert!(how != "panic", "a panic on demand");
                ended()
            }
        }
    }
}

#[cfg(not(debug_assertions))]
pub(crate) fn may_fail_on_demand<T, F: Future<Output = T> + Send>(
    _name: &'static str,
    task: F,
    _ended: impl FnOnce() -> T + Send,
) -> F {
    task
}
