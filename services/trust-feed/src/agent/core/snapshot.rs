//! Asking for a bundle: one question at a time, and again until one has come.

use std::time::Duration;

/// How long an answer may take before the question is taken for lost.
const PATIENCE: Duration = Duration::from_secs(15);
/// Shortest time from an answer to the next question: a server may answer with what the
/// agent has already.
const PAUSE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub struct Snapshot {
    wanted: bool,
    /// When to ask again, at the earliest.
    again_at: Duration,
}

impl Snapshot {
    /// A bundle is wanted; gives whether to ask now.
    pub fn want(&mut self, monotonic: Duration) -> bool {
        self.wanted = true;
        self.due(monotonic)
    }

    /// A good one came.
    pub fn came(&mut self, monotonic: Duration) {
        if self.wanted {
            self.again_at = monotonic + PAUSE;
        }
        self.wanted = false;
    }

    /// The answer was none, or not good enough. Does nothing where none is wanted.
    pub fn failed(&mut self, monotonic: Duration) {
        if self.wanted {
            self.again_at = monotonic + PAUSE;
        }
    }

    /// Whether one is wanted and it is time to ask; then it counts as asked.
    pub fn due(&mut self, monotonic: Duration) -> bool {
        let due = self.wanted && self.again_at <= monotonic;
        if due {
            self.again_at = monotonic + PATIENCE;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_question_is_asked_once_and_again_when_it_failed_or_was_lost() {
        let mut snapshot = Snapshot::default();
        assert!(!snapshot.due(s(0)), "none is wanted");
        assert!(snapshot.want(s(0)));
        assert!(!snapshot.want(s(1)), "it is asked already");
        snapshot.failed(s(2));
        assert!(!snapshot.due(s(2)));
        assert!(snapshot.due(s(3)));
        assert!(!snapshot.due(s(17)));
        assert!(snapshot.due(s(18)), "the answer is lost");
        snapshot.came(s(18));
        assert!(!snapshot.due(s(100)));
    }

    #[test]
    fn an_answer_that_did_not_help_is_followed_by_a_pause() {
        let mut snapshot = Snapshot::default();
        assert!(snapshot.want(s(0)));
        snapshot.came(s(0));
        assert!(!snapshot.want(s(0)));
        assert!(snapshot.due(s(1)));
    }
}
