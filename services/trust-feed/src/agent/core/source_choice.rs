//! Which source is leaned on: NATS while heads come there, gRPC otherwise.
//!
//! ```text
//!          3 heads in a row on NATS
//!   gRPC ───────────────────────────▶ NATS      both deliver to the core all the time;
//!        ◀───────────────────────────           the gRPC stream is open only while it is
//!   NATS silent for 2 heads, or its             the choice
//!   connection away for a second
//! ```
//!
//! gRPC is first: it starts with a bundle and a head, which NATS does not have.

use std::time::Duration;

use catrust_domain::Timestamp;

/// A way by which messages come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceKind {
    /// NATS: changes and heads as they are published.
    Nats,
    /// gRPC: `WatchTrust` and `GetTrustBundle`.
    Grpc,
}

impl SourceKind {
    /// A word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Grpc => "grpc",
        }
    }
}

/// Heads in a row after which NATS is well.
const WELL: u32 = 3;
/// How long a lost connection may take to come back before it counts. A NATS node that
/// is restarted shall not send its whole fleet to the servers.
const RECONNECT_GRACE: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
pub struct SourceChoice {
    active: SourceKind,
    /// How long NATS may be silent: two heads of the soft budget's three.
    patience: Duration,
    last: Option<(Duration, Timestamp)>,
    in_a_row: u32,
    lost_since: Option<Duration>,
}

impl SourceChoice {
    /// Starts with gRPC.
    pub fn new(soft_budget: Duration) -> Self {
        Self {
            active: SourceKind::Grpc,
            patience: soft_budget * 2 / 3,
            last: None,
            in_a_row: 0,
            lost_since: None,
        }
    }

    /// The choice.
    pub const fn active(&self) -> SourceKind {
        self.active
    }

    /// A valid head came by NATS and agrees with the bundle. One that is not newer than
    /// the last is a replay, and no sign of life.
    pub fn nats_head(&mut self, issued_at: Timestamp, monotonic: Duration) {
        match self.last {
            Some((_, last)) if issued_at <= last => return,
            Some((at, _)) if monotonic.saturating_sub(at) <= self.patience => self.in_a_row += 1,
            _ => self.in_a_row = 1,
        }
        self.last = Some((monotonic, issued_at));
    }

    /// The servers' clock was set back: heads before say nothing about those to come.
    pub const fn forget_heads(&mut self) {
        self.last = None;
        self.in_a_row = 0;
    }

    /// The connection to NATS is up again.
    pub const fn nats_up(&mut self) {
        self.lost_since = None;
    }

    /// The connection to NATS is lost.
    pub fn nats_lost(&mut self, monotonic: Duration) {
        self.lost_since.get_or_insert(monotonic);
        self.in_a_row = 0;
    }

    /// Gives the new choice where it changes. `fresh` is whether the bundle is.
    pub fn decide(&mut self, fresh: bool, monotonic: Duration) -> Option<SourceKind> {
        let silent = self.last.is_none_or(|(at, _)| monotonic.saturating_sub(at) > self.patience);
        let lost = self.lost_since.is_some_and(|since| monotonic.saturating_sub(since) >= RECONNECT_GRACE);
        let next = match self.active {
            SourceKind::Grpc if self.in_a_row >= WELL && !silent && self.lost_since.is_none() && fresh => {
                SourceKind::Nats
            }
            SourceKind::Nats if silent || lost || !fresh => SourceKind::Grpc,
            same => same,
        };
        if next == self.active {
            return None;
        }
        self.in_a_row = 0;
        self.active = next;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOFT: Duration = Duration::from_secs(6);

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn issued(milliseconds: u64) -> Timestamp {
        Timestamp::from_micros(i64::try_from(milliseconds * 1_000).unwrap())
    }

    /// A head every 2 s, from 0 on.
    fn on_nats() -> SourceChoice {
        let mut choice = SourceChoice::new(SOFT);
        for at in [0, 2_000, 4_000] {
            assert_eq!(choice.decide(true, ms(at)), None);
            choice.nats_head(issued(at), ms(at));
        }
        assert_eq!(choice.decide(true, ms(4_000)), Some(SourceKind::Nats));
        choice
    }

    #[test]
    fn three_heads_in_a_row_make_nats_the_choice() {
        assert_eq!(on_nats().active(), SourceKind::Nats);
        let mut choice = SourceChoice::new(SOFT);
        for at in [0, 2_000, 7_000, 9_000] {
            choice.nats_head(issued(at), ms(at));
            assert_eq!(choice.decide(true, ms(at)), None, "a pause begins the row anew");
        }
    }

    #[test]
    fn silence_of_two_heads_changes_to_grpc_within_the_soft_budget() {
        let mut choice = on_nats();
        assert_eq!(choice.decide(true, ms(8_000)), None);
        assert_eq!(choice.decide(true, ms(8_001)), Some(SourceKind::Grpc));
    }

    #[test]
    fn replayed_heads_are_silence() {
        let mut choice = on_nats();
        for at in [5_000, 6_000, 7_000] {
            choice.nats_head(issued(4_000), ms(at));
        }
        assert_eq!(choice.decide(true, ms(8_001)), Some(SourceKind::Grpc));
    }

    #[test]
    fn a_connection_that_is_soon_back_changes_nothing() {
        let mut choice = on_nats();
        choice.nats_lost(ms(4_100));
        choice.nats_lost(ms(4_800));
        assert_eq!(choice.decide(true, ms(5_000)), None);
        choice.nats_up();
        assert_eq!(choice.decide(true, ms(5_200)), None);
        choice.nats_lost(ms(5_300));
        assert_eq!(choice.decide(true, ms(6_300)), Some(SourceKind::Grpc));
    }

    #[test]
    fn a_stale_bundle_never_leans_on_nats() {
        let mut choice = on_nats();
        assert_eq!(choice.decide(false, ms(4_001)), Some(SourceKind::Grpc));
        for at in [6_000, 8_000, 10_000] {
            choice.nats_head(issued(at), ms(at));
        }
        assert_eq!(choice.decide(false, ms(10_000)), None);
        assert_eq!(choice.decide(true, ms(10_000)), Some(SourceKind::Nats));
    }
}
