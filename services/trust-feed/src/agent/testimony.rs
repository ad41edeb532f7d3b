//! How often an agent tells a server what it has: evidence is a few hundred bytes beside a
//! receipt, a bundle may be megabytes, and a server that was set back may have a whole
//! fleet to listen to.

use std::time::Duration;

/// Shortest time between two heads.
const HEADS: Duration = Duration::from_secs(5);
/// Shortest time between two bundles.
const BUNDLES: Duration = Duration::from_secs(30);

/// See the module. Numbers the receipts as well.
#[derive(Debug, Default)]
pub struct Testimony {
    head_at: Option<Duration>,
    bundle_at: Option<Duration>,
    sequence: u64,
}

impl Testimony {
    /// Whether a head may be added now; then it counts as added.
    pub fn may_give(&mut self, monotonic: Duration) -> bool {
        pass(&mut self.head_at, HEADS, monotonic)
    }

    /// Whether a bundle may be sent now; then it counts as sent.
    pub fn may_give_bundle(&mut self, monotonic: Duration) -> bool {
        pass(&mut self.bundle_at, BUNDLES, monotonic)
    }

    /// The number of the next receipt, from 1.
    pub const fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }
}

fn pass(last: &mut Option<Duration>, pause: Duration, monotonic: Duration) -> bool {
    let due = last.is_none_or(|at| monotonic.saturating_sub(at) >= pause);
    if due {
        *last = Some(monotonic);
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_given_every_five_seconds_and_a_bundle_every_thirty() {
        let mut testimony = Testimony::default();
        let given = |what: fn(&mut Testimony, Duration) -> bool, testimony: &mut Testimony| {
            (0..60).filter(|second| what(testimony, Duration::from_secs(*second))).count()
        };
        assert_eq!(given(Testimony::may_give, &mut testimony), 12);
        assert_eq!(given(Testimony::may_give_bundle, &mut testimony), 2);
        assert_eq!([testimony.next_sequence(), testimony.next_sequence()], [1, 2]);
    }
}
