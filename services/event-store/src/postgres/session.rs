//! Opens connections, sets them up, and refuses servers that cannot be relied on.

use std::time::Duration;

use catrust_domain::Timestamp;
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::time::timeout;

use super::append::PREPARE_APPEND_LOCK;
use super::error::store_error;
use super::memory::PREPARE_LOG_END;
use super::servers::DatabaseServers;
use crate::StoreError;

/// How long the settings of a connection may take.
const SET_UP_TIMEOUT: Duration = Duration::from_secs(3);

/// How long one of the small questions at connect may take.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(3);

/// Oldest server that is known to work, as `server_version_num` spells it.
const OLDEST_SERVER: u32 = 150_000;

/// Settings of every session: a peer that is gone without a word is noticed within
/// some 10 s, so that its transaction and its locks go too. Servers that lack one
/// of them go without.
pub(super) const EVERY_SESSION: &str = "SELECT set_config(s.name, v.value, false) FROM pg_settings AS s JOIN (VALUES \
     ('tcp_keepalives_idle', '5'), ('tcp_keepalives_interval', '2'), ('tcp_keepalives_count', '3'), \
     ('tcp_user_timeout', '10000'), ('client_connection_check_interval', '1000')) \
     AS v(name, value) ON v.name = s.name";

/// Settings of a session that holds the append lock.
///
/// - Whoever waits gives up after 2 s; whoever holds and falls silent (stopped, cut
///   off) loses the transaction after 5 s. Both end before COMMIT: there is no
///   `statement_timeout`, because a COMMIT that is cancelled while it waits for a
///   standby is committed here and not there.
/// - A commit is durable before it is answered, whatever the server's default;
///   the stronger or explicitly remote settings stay.
/// - All statements find their rows by key. Plans are made once and use the indexes
///   even while the tables are small, so that a plan from the first minute is right
///   with ten million rows.
const APPEND_SESSION: &str = "SELECT set_config(s.name, v.value, false) FROM pg_settings AS s JOIN (VALUES \
     ('lock_timeout', '2000'), ('idle_in_transaction_session_timeout', '5000'), \
     ('transaction_timeout', '10000'), ('statement_timeout', '0'), \
     ('default_transaction_isolation', 'read committed'), ('synchronous_commit', 'on'), \
     ('plan_cache_mode', 'force_generic_plan'), ('enable_seqscan', 'off'), ('enable_bitmapscan', 'off'), \
     ('enable_hashjoin', 'off'), \
     ('enable_mergejoin', 'off'), ('jit', 'off')) \
     AS v(name, value) ON v.name = s.name \
     WHERE s.name <> 'synchronous_commit' OR s.setting NOT LIKE 'remote%'";

/// Settings of a pool's session: what one caller asks for may not hold a connection, and
/// the server's processor, for longer than anybody waits for it.
const POOL_SESSION: &str = "SELECT set_config('statement_timeout', '5000', false), \
     set_config('idle_in_transaction_session_timeout', '5000', false)";

/// Settings of a session that rebuilds: it holds the append lock for as long as the
/// rows that differ take to write. It may think for longer between two statements, but
/// one that was stopped gives the lock back.
const REPAIR_SESSION: &str = "SELECT set_config(s.name, v.value, false) FROM pg_settings AS s JOIN (VALUES \
     ('transaction_timeout', '0'), ('idle_in_transaction_session_timeout', '60000')) \
     AS v(name, value) ON v.name = s.name";

/// Opens a connection for reading.
pub(super) async fn open(servers: &DatabaseServers) -> Result<PgConnection, StoreError> {
    servers.open().await.map(|(connection, _)| connection)
}

/// Opens a connection of a pool, and tells the number of its server.
pub(super) async fn open_pooled(servers: &DatabaseServers) -> Result<(PgConnection, u64), StoreError> {
    open_with(servers, &[POOL_SESSION]).await
}

/// Opens a connection whose commits are of full durability, and tells the number of its server.
pub(super) async fn open_durable(servers: &DatabaseServers) -> Result<(PgConnection, u64), StoreError> {
    open_with(servers, &[APPEND_SESSION]).await
}

/// Opens a connection for appending. The database MUST have the schema of this program.
pub(super) async fn open_appender(servers: &DatabaseServers) -> Result<(PgConnection, u64), StoreError> {
    open_with(servers, &[APPEND_SESSION, PREPARE_APPEND_LOCK, PREPARE_LOG_END]).await
}

/// Opens a connection for a rebuild.
pub(super) async fn open_repairer(servers: &DatabaseServers) -> Result<PgConnection, StoreError> {
    let (connection, _) = open_with(servers, &[APPEND_SESSION, PREPARE_APPEND_LOCK, REPAIR_SESSION]).await?;
    Ok(connection)
}

async fn open_with(
    servers: &DatabaseServers,
    settings: &[&'static str],
) -> Result<(PgConnection, u64), StoreError> {
    let (mut connection, turn) = servers.open().await?;
    within_set_up_timeout(async {
        for setting in settings {
            sqlx::raw_sql(*setting).execute(&mut connection).await?;
        }
        Ok((connection, turn))
    })
    .await
}

/// A network that is cut between two steps of the set-up would otherwise be waited for
/// until the kernel gives up: a quarter of an hour.
async fn within_set_up_timeout<T>(
    steps: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    timeout(SET_UP_TIMEOUT, steps)
        .await
        .map_err(|late| StoreError::Unavailable(late.into()))?
        .map_err(store_error)
}

/// Refuses a server that cannot be relied on.
pub(super) async fn check_server(connection: &mut PgConnection) -> Result<(), StoreError> {
    let version = connection.server_version_num().unwrap_or(0);
    if version < OLDEST_SERVER {
        let major = version / 10_000;
        return Err(StoreError::Unsuitable(format!("Postgres 15 or later is needed, this is {major}")));
    }
    let row = sqlx::query(
        "SELECT current_setting('server_encoding'), \
         current_setting('fsync'), current_setting('full_page_writes')",
    );
    let row = row.fetch_one(connection).await.map_err(store_error)?;
    let text = |index: usize| row.try_get::<String, _>(index).map_err(store_error);
    if text(0)? != "UTF8" {
        return Err(StoreError::Unsuitable(format!("the database's encoding is {}, not UTF8", text(0)?)));
    }
    for (index, setting) in [(1, "fsync"), (2, "full_page_writes")] {
        if text(index)? == "off" {
            tracing::warn!(setting, "the server may lose acknowledged changes: {setting} is off");
        }
    }
    Ok(())
}

/// Refuses a pooler in transaction mode, behind which session locks, LISTEN and the
/// settings above belong to whoever comes next.
///
/// A session has one backend for its life. A pooler hands an idle client's backend
/// to the next one that asks: so the other connection holds a transaction open
/// while this one looks which backend it has. A pooler with a single backend
/// cannot answer at all, which is told by time.
///
/// MUST come before any prepared statement: those of another client may be there
/// already behind a pooler, and fail with a less helpful error.
pub(super) async fn refuse_pooler(
    connection: &mut PgConnection,
    servers: &DatabaseServers,
) -> Result<(), StoreError> {
    let pooled = || {
        StoreError::Unsuitable(
            "a pooler in transaction mode is in between; give the address of the server, \
             or of a pooler in session mode"
                .into(),
        )
    };
    let before = backend(connection).await?;
    let mut other = open(servers).await?;
    sqlx::raw_sql("BEGIN").execute(&mut other).await.map_err(store_error)?;
    let theirs = backend(&mut other).await?;
    let after = timeout(QUESTION_TIMEOUT, backend(connection)).await.map_err(|_| pooled())??;
    // The transaction has served; how its connection ends does not matter.
    drop(other.close().await);
    if before != after || theirs == after { Err(pooled()) } else { Ok(()) }
}

/// Commits something of full durability, and tells the database's time of it: until it is
/// acknowledged, what was committed before may be on this server alone. The connection MUST be
/// one of [`open_durable`] or [`open_appender`].
///
/// A message in the log of the database, since a transaction that writes nothing waits for no
/// standby; no table grows by it. By the simple protocol, which acknowledges COMMIT itself.
pub(super) async fn commit_durably(connection: &mut PgConnection) -> Result<Timestamp, StoreError> {
    let statements = "BEGIN; SELECT pg_logical_emit_message(true, 'catrust', ''); \
         SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint::text; COMMIT";
    let rows = sqlx::raw_sql(statements).fetch_all(connection).await.map_err(store_error)?;
    let micros = rows.last().and_then(|row| row.try_get::<String, _>(0).ok()?.parse().ok());
    let micros = micros.ok_or_else(|| StoreError::Internal("the database tells no time".into()))?;
    Ok(Timestamp::from_micros(micros))
}

/// Asks by the simple protocol, which prepares nothing.
async fn backend(connection: &mut PgConnection) -> Result<i32, StoreError> {
    let row = sqlx::raw_sql("SELECT pg_backend_pid()").fetch_one(connection).await.map_err(store_error)?;
    row.try_get(0).map_err(store_error)
}
