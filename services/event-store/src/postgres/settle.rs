//! Finds out what became of a COMMIT whose answer was lost.

use std::time::Duration;

use catrust_domain::{RequestKey, Sha256};
use sqlx::{Error, PgConnection, Row as _};
use tokio::time::{Instant, sleep, timeout_at};

use super::error::store_error;
use super::servers::DatabaseServers;
use super::session;
use crate::{StoreError, reads};

/// How long to go on asking: until the server has noticed a connection that is gone
/// (5 s, see the session's settings), and a little more.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(6);

/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(50);

/// What identifies a commit in the database.
pub(super) struct Evidence {
    /// Transaction id, as `pg_current_xact_id` gave it.
    pub(super) xid: String,
    /// Its last event.
    pub(super) event: Option<(u64, Sha256)>,
    /// One of its stored replies.
    pub(super) reply: Option<RequestKey>,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CommitOutcome {
    Committed,
    Aborted,
}

/// Whether an error in answer to COMMIT leaves the outcome open: the server was
/// stopped, or broke, while it may have been past the point of no return.
pub(super) fn is_ambiguous(error: &Error) -> bool {
    match error {
        Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            ["08", "53", "57", "58", "XX"].iter().any(|class| code.starts_with(class))
        }
        _ => true,
    }
}

/// Asks a fresh connection, which then is the one to go on with.
///
/// # Errors
/// [`StoreError::Ambiguous`] when nothing certain was heard in time.
pub(super) async fn settle(
    servers: &DatabaseServers,
    evidence: &Evidence,
) -> Result<(CommitOutcome, PgConnection, u64), StoreError> {
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    let mut last = None;
    while Instant::now() < deadline {
        match timeout_at(deadline, ask(servers, evidence)).await {
            Ok(Ok(Some(settled))) => return Ok(settled),
            Ok(Ok(None)) => last = Some("the transaction is still in progress".into()),
            Ok(Err(error @ StoreError::Ambiguous(_))) => return Err(error),
            Ok(Err(error)) => last = Some(error.into()),
            Err(late) => last = last.or(Some(late.into())),
        }
        sleep(PAUSE).await;
    }
    Err(StoreError::Ambiguous(last.unwrap_or_else(|| "no answer".into())))
}

/// Asks once; `None` while the server has not made up its mind.
async fn ask(
    servers: &DatabaseServers,
    evidence: &Evidence,
) -> Result<Option<(CommitOutcome, PgConnection, u64)>, StoreError> {
    let (mut connection, turn) = session::open_appender(servers).await?;
    let question = sqlx::query("SELECT pg_xact_status($1::text::xid8)").bind(&evidence.xid);
    let row = question.fetch_one(&mut connection).await.map_err(store_error)?;
    let status: Option<String> = row.try_get(0).map_err(store_error)?;
    if status.as_deref() == Some("in progress") {
        return Ok(None);
    }
    // The rows have the last word: after a failover to a server that never heard of
    // the commit, another transaction may have the same id.
    let recorded = reads::is_recorded(&mut connection, evidence.event, evidence.reply.as_ref()).await?;
    match (status.as_deref(), recorded) {
        (Some("committed") | None, true) => {
            // It is here, and perhaps on no standby yet: a commit after it is not acknowledged
            // before it is there too.
            let lost = |error: StoreError| StoreError::Ambiguous(error.into());
            session::commit_durably(&mut connection).await.map_err(lost)?;
            Ok(Some((CommitOutcome::Committed, connection, turn)))
        }
        (Some("aborted"), false) => Ok(Some((CommitOutcome::Aborted, connection, turn))),
        (status, _) => {
            let text = format!("transaction {} is {status:?}, its rows are there: {recorded}", evidence.xid);
            Err(StoreError::Ambiguous(text.into()))
        }
    }
}
