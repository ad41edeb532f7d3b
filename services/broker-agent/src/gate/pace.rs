//! How fast connections are closed, so that devices do not all come back at once.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Slots in time, handed out one after the other.
#[derive(Debug)]
pub struct Pace {
    interval: Duration,
    next: Mutex<Option<Instant>>,
}

impl Pace {
    /// At most `per_second` slots each second; `None` for no limit.
    #[must_use]
    pub fn new(per_second: Option<u32>) -> Self {
        let interval = per_second.map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate.max(1));
        Self { interval, next: Mutex::new(None) }
    }

    /// Whether there is a limit.
    #[must_use]
    pub const fn is_limited(&self) -> bool {
        !self.interval.is_zero()
    }

    /// Waits for the next slot.
    pub async fn wait(&self) {
        if self.is_limited() {
            tokio::time::sleep_until(self.take(Instant::now())).await;
        }
    }

    fn take(&self, now: Instant) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        // Slots that nobody took do not add up: after a quiet hour the pace is the same.
        let slot = next.map_or(now, |next| next.max(now));
        *next = Some(slot + self.interval);
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_an_interval_apart_and_do_not_add_up() {
        let pace = Pace::new(Some(10));
        let start = Instant::now();
        let slots: Vec<_> = (0..3).map(|_| pace.take(start) - start).collect();
        assert_eq!(slots, [0, 100, 200].map(Duration::from_millis));
        let later = start + Duration::from_secs(60);
        assert_eq!([pace.take(later), pace.take(later)], [later, later + Duration::from_millis(100)]);
    }
}
