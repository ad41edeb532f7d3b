//! Tasks of a store: each ends with the store, and its own end is noticed.

use tokio::sync::watch;
use tokio::task::JoinHandle;

/// A running task.
#[derive(Debug)]
pub(crate) struct OwnedTask {
    handle: JoinHandle<()>,
    /// Closed when the task has ended.
    alive: watch::Receiver<()>,
}

impl OwnedTask {
    /// Starts a task, which MUST run for ever.
    pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        let (life, alive) = watch::channel(());
        let handle = tokio::spawn(async move {
            let _life = life;
            task.await;
        });
        Self { handle, alive }
    }

    /// Waits until the task has ended: by a panic, or a defect.
    pub(crate) async fn ended(&self) {
        let mut alive = self.alive.clone();
        while alive.changed().await.is_ok() {}
    }
}

impl Drop for OwnedTask {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn the_end_of_a_task_is_noticed() {
        let running = OwnedTask::spawn(std::future::pending());
        assert!(timeout(Duration::from_millis(50), running.ended()).await.is_err(), "it is alive");
        let limit = Duration::from_secs(10);
        let panicking = OwnedTask::spawn(async { panic!("on purpose") });
        timeout(limit, panicking.ended()).await.expect("a panic is noticed");
        let ending = OwnedTask::spawn(async {});
        timeout(limit, ending.ended()).await.expect("an end is noticed");
    }
}
