//! Whether what is acknowledged survives the loss of the primary.
//!
//! Postgres waits for as many of the named standbys as `synchronous_standby_names` says. Whoever
//! of the others is promoted may lack what was acknowledged: so each of them has to acknowledge
//! every commit, unless whatever promotes takes care of that.

use sqlx::Row as _;
use tokio::time::{Duration, timeout};

use super::error::store_error;
use super::{PgEventStore, session};
use crate::StoreError;

/// How long the standbys may take to acknowledge a commit.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(5);

/// What `synchronous_standby_names` says.
#[derive(Debug, PartialEq, Eq)]
struct SynchronousStandbys {
    /// How many have to acknowledge a commit.
    needed: usize,
    /// Their names; `*` is any.
    names: Vec<String>,
}

impl SynchronousStandbys {
    /// Reads `a, b`, `2 (a, b)`, `FIRST 2 (a, b)` and `ANY 2 (a, b)`; names may be quoted.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (count, list) = match text.split_once('(') {
            None => ("1", text),
            Some((count, list)) => (count.trim(), list.trim_end().strip_suffix(')')?),
        };
        let count = count.rsplit_once(char::is_whitespace).map_or(count, |(_, count)| count);
        let unquoted = |name: &str| name.trim().trim_matches('"').to_owned();
        let names: Vec<String> = list.split(',').map(unquoted).filter(|name| !name.is_empty()).collect();
        Some(Self { needed: count.parse().ok()?, names })
    }

    /// Refuses what leaves a standby without acknowledged commits that may be promoted.
    fn check(&self, following: &[String], failover_fences: bool) -> Result<(), String> {
        if self.names.is_empty() {
            return Err("synchronous_standby_names is empty: no standby acknowledges anything".to_owned());
        }
        if failover_fences {
            return Ok(());
        }
        if self.names.iter().any(|name| name == "*") {
            return Err("synchronous_standby_names names no standby: '*' is whichever was first".to_owned());
        }
        if self.needed < self.names.len() {
            return Err(format!(
                "synchronous_standby_names waits for {} of {} standbys: another may be promoted",
                self.needed,
                self.names.len()
            ));
        }
        let is_away = |name: &&String| !following.iter().any(|one| one.eq_ignore_ascii_case(name));
        match self.names.iter().find(is_away) {
            Some(name) => Err(format!("the standby {name} does not follow")),
            None => Ok(()),
        }
    }
}

impl PgEventStore {
    /// Makes sure that every standby that may be promoted acknowledges every commit: each that is
    /// named in `synchronous_standby_names` follows, and all of them have to acknowledge. With
    /// `failover_fences` it is enough that some do: whatever promotes knows which ones have what
    /// was acknowledged, and keeps the old primary from taking writes. A commit is tried.
    ///
    /// # Errors
    /// [`StoreError::Unsuitable`] says what is missing.
    pub async fn check_standbys(&self, failover_fences: bool) -> Result<(), StoreError> {
        let (mut connection, _) = session::open_durable(&self.servers).await?;
        let question = "SELECT current_setting('synchronous_standby_names'), \
             coalesce((SELECT array_agg(application_name) FROM pg_stat_replication), '{}')";
        let row = sqlx::query(question).fetch_one(&mut connection).await.map_err(store_error)?;
        let setting: String = row.try_get(0).map_err(store_error)?;
        let following: Vec<String> = row.try_get(1).map_err(store_error)?;
        let refused = |reason: String| {
            StoreError::Unsuitable(format!(
                "database.durability is \"synchronous\", and {reason}. Let all named standbys follow and \
                 acknowledge, or set database.failover_fences = true where your failover promotes none \
                 that lacks an acknowledged commit, or database.durability = \"local\" where a failover may \
                 lose some"
            ))
        };
        SynchronousStandbys::parse(&setting)
            .ok_or_else(|| format!("synchronous_standby_names = {setting:?} cannot be read"))
            .and_then(|standbys| standbys.check(&following, failover_fences))
            .map_err(refused)?;
        match timeout(ACKNOWLEDGED_WITHIN, session::commit_durably(&mut connection)).await {
            Ok(committed) => committed.map(drop),
            Err(_) => Err(refused("the standbys do not acknowledge a commit".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(setting: &str, following: &[&str], fences: bool) -> Option<String> {
        let following: Vec<String> = following.iter().map(|&name| name.to_owned()).collect();
        SynchronousStandbys::parse(setting).expect("it can be read").check(&following, fences).err()
    }

    /// Ground rule 18: "synchronous" needs every named standby to answer, or failover_fences.
    #[test]
    fn every_named_standby_has_to_follow_and_to_acknowledge() {
        for setting in ["one", "1 (one)", "FIRST 1 (one)", "ANY 1 (\"one\")"] {
            assert_eq!(refusal(setting, &["one"], false), None, "{setting}");
        }
        assert_eq!(refusal("ANY 2 (one, other)", &["other", "one"], false), None);
        let refused = [
            ("", &["one"][..], "is empty"),
            ("*", &["one"], "names no standby"),
            ("one, other", &["one", "other"], "1 of 2"),
            ("ANY 1 (one, other)", &["one", "other"], "1 of 2"),
            ("2 (one, other)", &["one"], "other does not follow"),
        ];
        for (setting, following, reason) in refused {
            let told = refusal(setting, following, false).unwrap_or_default();
            assert!(told.contains(reason), "{setting}: {told}");
        }
    }

    #[test]
    fn with_a_failover_that_fences_some_are_enough_and_none_is_not() {
        assert_eq!(refusal("ANY 1 (one, other)", &["one"], true), None);
        assert_eq!(refusal("*", &["one"], true), None);
        assert!(refusal("", &[], true).is_some());
    }
}
