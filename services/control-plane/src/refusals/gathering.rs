//! Refusals that are alike, gathered into rows. Pure.

use std::collections::HashMap;

use catrust_event_store::RefusedCall;

/// Rows that are gathered at once; what would be one more is dropped.
const MOST_ROWS: usize = 1_000;
/// The code of refusals by the rate limit, which come by the hundred.
const RATE_LIMITED: &str = "RateLimitExceeded";

/// What refusals of one row have in common.
type RefusalKey = (String, String, String, String, String, String);

/// Rows that wait to be written.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    rows: HashMap<RefusalKey, RefusedCall>,
    limited: HashMap<RefusalKey, RefusedCall>,
}

impl Gathering {
    /// Takes a refusal in; `false` where there is no place for one of its kind.
    pub(crate) fn take(&mut self, refusal: RefusedCall) -> bool {
        let rows = if refusal.code == RATE_LIMITED { &mut self.limited } else { &mut self.rows };
        let alike = alike(&refusal);
        if let Some(row) = rows.get_mut(&alike) {
            row.attempts += refusal.attempts;
            row.last_at = row.last_at.max(refusal.last_at);
            return true;
        }
        let room = rows.len() < MOST_ROWS;
        if room {
            rows.insert(alike, refusal);
        }
        room
    }

    /// Gives the rows, the oldest first; those of the rate limit only where `limited`.
    pub(crate) fn drain(&mut self, limited: bool) -> Vec<RefusedCall> {
        let mut rows: Vec<RefusedCall> = self.rows.drain().map(|(_, row)| row).collect();
        if limited {
            rows.extend(self.limited.drain().map(|(_, row)| row));
        }
        rows.sort_by_key(|row| row.first_at);
        rows
    }
}

fn alike(refusal: &RefusedCall) -> RefusalKey {
    (
        refusal.account_id.clone(),
        refusal.principal.clone(),
        refusal.method.clone(),
        refusal.code.clone(),
        refusal.instance_id.clone(),
        refusal.source_address.clone(),
    )
}

#[cfg(test)]
mod tests {
    use catrust_domain::Timestamp;

    use super::*;

    fn refusal(principal: &str, code: &str, second: i64) -> RefusedCall {
        let at = Timestamp::from_micros(second * 1_000_000);
        RefusedCall {
            first_at: at,
            last_at: at,
            attempts: 1,
            principal: principal.to_owned(),
            account_id: "a".to_owned(),
            method: "/s/m".to_owned(),
            code: code.to_owned(),
            message: String::new(),
            instance_id: String::new(),
            source_address: String::new(),
            request_id: second.to_string(),
        }
    }

    #[test]
    fn what_is_alike_becomes_one_row_with_its_first_request_and_its_last_time() {
        let mut gathering = Gathering::default();
        for second in 1..=500 {
            assert!(gathering.take(refusal("alice", "X", second)));
        }
        assert!(gathering.take(refusal("bob", "X", 7)));
        assert!(gathering.take(refusal("alice", "Y", 600)));
        let rows = gathering.drain(false);
        let told: Vec<_> =
            rows.iter().map(|row| (row.principal.as_str(), row.code.as_str(), row.attempts)).collect();
        assert_eq!(told, [("alice", "X", 500), ("bob", "X", 1), ("alice", "Y", 1)]);
        assert_eq!((rows[0].request_id.as_str(), rows[0].last_at.micros()), ("1", 500_000_000));
        assert_eq!(gathering.drain(true), []);
    }

    #[test]
    fn refusals_by_the_rate_limit_wait_for_their_minute() {
        let mut gathering = Gathering::default();
        for second in 1..=60 {
            assert!(gathering.take(refusal("alice", RATE_LIMITED, second)));
            assert_eq!(gathering.drain(false), []);
        }
        assert_eq!(gathering.drain(true).iter().map(|row| row.attempts).collect::<Vec<_>>(), [60]);
    }

    #[test]
    fn a_flood_of_different_ones_has_a_bound_and_leaves_the_others_alone() {
        let mut gathering = Gathering::default();
        let kept = (0..5_000).filter(|n| gathering.take(refusal(&n.to_string(), "X", 1))).count();
        assert_eq!(kept, MOST_ROWS);
        assert!(gathering.take(refusal("0", "X", 2)), "one that has a row");
        assert!(gathering.take(refusal("new", RATE_LIMITED, 2)), "the other kind");
    }
}
