//! The servers that the address names, and which of them is the one in use.
//!
//! Each connection says which server it leads to: the system, its timeline, and when it was
//! started. Another one than before is a *turn*: what the one before is still connected to is
//! given up, and what was merely read from it counts for nothing. Of several that take writes
//! the one on the highest timeline is taken, and none below a timeline that this process has
//! used: whoever stayed behind there was superseded, and does not know it.

use std::cmp::Reverse;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use catrust_domain::error_chain;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Connection as _, Row as _};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use super::error::store_error;
use super::session::EVERY_SESSION;
use crate::{PrimaryInUse, StoreError};

/// How long one server may take until a connection to it is up, checks included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// `recovery, system, timeline, start`, as text. The timeline of the last checkpoint would be
/// that of before a promotion for a while; the name of the file that is written to has the
/// true one.
const WHICH_SERVER: &str = "SELECT pg_is_in_recovery()::text, \
     (SELECT system_identifier FROM pg_control_system())::text, \
     CASE WHEN pg_is_in_recovery() THEN '00000000' \
          ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END, \
     extract(epoch FROM pg_postmaster_start_time())::text";

/// A server, from its start to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ServerRun {
    /// Which of the addresses led to it.
    address: usize,
    system: String,
    timeline: u32,
    started: String,
}

/// What is known of the servers.
#[derive(Debug, Default)]
struct Known {
    log_id: Option<Uuid>,
    in_use: Option<ServerRun>,
    /// Of the system in use.
    highest_timeline: u32,
}

/// The servers of one database.
pub(super) struct DatabaseServers {
    /// One per host, in the order of the address; never empty.
    addresses: Vec<PgConnectOptions>,
    known: Mutex<Known>,
    in_doubt: AtomicBool,
    primary: watch::Sender<PrimaryInUse>,
}

impl DatabaseServers {
    pub(super) fn new(addresses: Vec<PgConnectOptions>) -> Self {
        Self {
            addresses,
            known: Mutex::default(),
            in_doubt: AtomicBool::new(false),
            primary: watch::Sender::new(PrimaryInUse { turn: 0, confirmed: false }),
        }
    }

    /// From now on each server MUST have this log.
    pub(super) fn hold(&self, log_id: Uuid) {
        self.known().log_id = Some(log_id);
    }

    /// Which server is in use, by its number, and whether a commit has confirmed it.
    pub(super) fn primary(&self) -> watch::Receiver<PrimaryInUse> {
        self.primary.subscribe()
    }

    /// Number of the server in use: another one has another number.
    pub(super) fn turn(&self) -> u64 {
        self.primary.borrow().turn
    }

    /// Notes that a commit of full durability on the server `turn` was acknowledged.
    pub(super) fn confirm(&self, turn: u64) {
        self.primary.send_if_modified(|primary| {
            let news = primary.turn == turn && !primary.confirmed;
            primary.confirmed |= news;
            news
        });
    }

    /// Notes that the server in use did not do as it should: the next connection asks all.
    pub(super) fn doubt(&self) {
        self.in_doubt.store(true, Ordering::Relaxed);
    }

    /// Opens a connection to the server that takes writes, and tells its number.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where none does, with what each said;
    /// [`StoreError::Unsuitable`] where that will stay so.
    pub(super) async fn open(&self) -> Result<(PgConnection, u64), StoreError> {
        let (in_use, log_id) = {
            let known = self.known();
            (known.in_use.clone(), known.log_id)
        };
        if let Some(run) = in_use
            && !self.in_doubt.load(Ordering::Relaxed)
            && let Ok((connection, found)) =
                reach(self.addresses[run.address].clone(), run.address, log_id).await
            && found == run
        {
            return Ok((connection, self.turn()));
        }
        self.ask_all().await
    }

    /// Where the server in use is; for what opens connections by itself.
    pub(super) fn address_in_use(&self) -> &PgConnectOptions {
        let address = self.known().in_use.as_ref().map_or(0, |run| run.address);
        &self.addresses[address]
    }

    /// Whether more than one server may answer.
    pub(super) fn are_several(&self) -> bool {
        self.addresses.len() > 1
    }

    /// Says where several servers take writes; `None` where it is one at most. One that does not
    /// answer is not known to.
    pub(super) async fn rivals(&self) -> Result<Option<String>, StoreError> {
        if !self.are_several() {
            return Ok(None);
        }
        let (found, _) = self.reach_all().await?;
        let mut runs: Vec<ServerRun> = Vec::new();
        for (_, run) in found {
            // Two addresses may lead to one server.
            if !runs.iter().any(|known| (&known.system, &known.started) == (&run.system, &run.started)) {
                runs.push(run);
            }
        }
        if runs.len() < 2 {
            return Ok(None);
        }
        let told = |run: &ServerRun| {
            let address = &self.addresses[run.address];
            format!("{}:{} on timeline {}", address.get_host(), address.get_port(), run.timeline)
        };
        Ok(Some(runs.iter().map(told).collect::<Vec<_>>().join(", ")))
    }

    /// Asks all at once, and takes the best that takes writes.
    async fn ask_all(&self) -> Result<(PgConnection, u64), StoreError> {
        // Before they are asked: a doubt that comes up meanwhile stays.
        self.in_doubt.store(false, Ordering::Relaxed);
        let (found, refusals) = self.reach_all().await?;
        let best = found.into_iter().max_by_key(|(_, run)| (run.timeline, Reverse(run.address)));
        match best {
            Some((connection, run)) => Ok((connection, self.take(run)?)),
            None => Err(none_of(refusals)),
        }
    }

    /// Asks all at once: connections to those that take writes, and what the others said.
    async fn reach_all(&self) -> Result<(Vec<(PgConnection, ServerRun)>, Vec<StoreError>), StoreError> {
        let mut asked = JoinSet::new();
        for address in 0..self.addresses.len() {
            asked.spawn(reach(self.addresses[address].clone(), address, self.known().log_id));
        }
        let (mut found, mut refusals) = (Vec::new(), Vec::new());
        while let Some(answer) = asked.join_next().await {
            match answer.map_err(|error| StoreError::Internal(error.into()))? {
                Ok(server) => found.push(server),
                Err(error) => refusals.push(error),
            }
        }
        Ok((found, refusals))
    }

    /// Takes a server into use, where it is not.
    fn take(&self, run: ServerRun) -> Result<u64, StoreError> {
        let mut known = self.known();
        let is_same_system = known.in_use.as_ref().is_some_and(|before| before.system == run.system);
        if is_same_system && run.timeline < known.highest_timeline {
            return Err(unavailable(format!(
                "the server that takes writes is on timeline {}, and this process has used timeline {}: \
                 it was superseded. Where it was put back on purpose, restart this program",
                run.timeline, known.highest_timeline
            )));
        }
        known.highest_timeline = run.timeline;
        if known.in_use.as_ref() == Some(&run) {
            return Ok(self.turn());
        }
        if let Some(before) = known.in_use.replace(run.clone()) {
            tracing::warn!(?before, now = ?run, "another database server is in use");
        }
        self.primary.send_modify(|primary| {
            *primary = PrimaryInUse { turn: primary.turn + 1, confirmed: false };
        });
        Ok(self.turn())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for DatabaseServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseServers").field("known", &*self.known()).finish_non_exhaustive()
    }
}

/// Connects to one server, and finds out which it is; within bounds.
async fn reach(
    options: PgConnectOptions,
    address: usize,
    log_id: Option<Uuid>,
) -> Result<(PgConnection, ServerRun), StoreError> {
    timeout(CONNECT_TIMEOUT, connect(options, address, log_id))
        .await
        .map_err(|late| StoreError::Unavailable(late.into()))?
}

async fn connect(
    options: PgConnectOptions,
    address: usize,
    log_id: Option<Uuid>,
) -> Result<(PgConnection, ServerRun), StoreError> {
    let mut connection = options.connect().await.map_err(store_error)?;
    set_up(&mut connection).await?;
    let row = sqlx::raw_sql(WHICH_SERVER).fetch_one(&mut connection).await.map_err(store_error)?;
    let text = |index: usize| row.try_get::<String, _>(index).map_err(store_error);
    if text(0)? == "true" {
        drop(connection.close().await);
        return Err(StoreError::Unsuitable(
            "this server is a standby; give the address of the primary, or of all servers".into(),
        ));
    }
    let timeline = u32::from_str_radix(&text(2)?, 16)
        .map_err(|_| StoreError::Internal("the server has no timeline".into()))?;
    let run = ServerRun { address, system: text(1)?, timeline, started: text(3)? };
    if let Some(expected) = log_id {
        let question = sqlx::raw_sql("SELECT log_id::text FROM log_identity");
        let row = question.fetch_optional(&mut connection).await.map_err(store_error)?;
        let found: Option<String> = row.map(|row| row.try_get(0)).transpose().map_err(store_error)?;
        if found.as_deref() != Some(&expected.to_string()) {
            return Err(StoreError::Unsuitable(format!(
                "this server has the log {}, and {expected} is in use",
                found.unwrap_or_default()
            )));
        }
    }
    Ok((connection, run))
}

/// Sets up any session.
async fn set_up(connection: &mut PgConnection) -> Result<(), StoreError> {
    match sqlx::raw_sql(EVERY_SESSION).execute(connection).await {
        // An operating system without one of the socket options: the others are
        // lost too then, which costs time after a failure, and nothing else.
        Err(sqlx::Error::Database(error)) => {
            tracing::warn!(%error, "no keepalive settings");
            Ok(())
        }
        set => set.map(drop).map_err(store_error),
    }
}

/// One error of all: one that may pass is said before one that stays.
fn none_of(mut refusals: Vec<StoreError>) -> StoreError {
    if refusals.len() == 1 {
        return refusals.remove(0);
    }
    let told: Vec<String> = refusals.iter().map(|refusal| error_chain(refusal).to_string()).collect();
    let text = format!("none of {} servers takes writes: {}", told.len(), told.join("; "));
    if refusals.iter().all(|refusal| matches!(refusal, StoreError::Unsuitable(_))) {
        return StoreError::Unsuitable(text);
    }
    unavailable(text)
}

fn unavailable(text: String) -> StoreError {
    StoreError::Unavailable(text.into())
}
