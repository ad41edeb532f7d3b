//! Connections that are used again.
//!
//! A pool of our own, since a server may vanish without a word: what is taken, used and given
//! back is bounded in time, one connection that is found dead takes the idle ones with it, and
//! none to a server that is not in use any more is handed out.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::servers::DatabaseServers;
use super::session;
use crate::StoreError;

/// How long a caller waits for one of the connections.
const WAIT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a connection may take to show that it lives.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection that was used within this time is handed out without a question.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

struct IdleConnection {
    connection: PgConnection,
    turn: u64,
    since: Instant,
}

struct Shared {
    servers: Arc<DatabaseServers>,
    idle: Mutex<Vec<IdleConnection>>,
}

/// A bounded number of connections for reading and for small writes.
pub(super) struct ConnectionPool {
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
}

impl ConnectionPool {
    /// At most `size` connections; none is opened yet.
    pub(super) fn new(servers: &Arc<DatabaseServers>, size: u32) -> Self {
        let shared = Shared { servers: Arc::clone(servers), idle: Mutex::default() };
        let places = usize::try_from(size).unwrap_or(usize::MAX).clamp(1, Semaphore::MAX_PERMITS);
        Self { shared: Arc::new(shared), places: Arc::new(Semaphore::new(places)) }
    }

    /// Takes a connection; it comes back when it is dropped.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where all are in use for too long, or no server answers.
    pub(super) async fn take(&self) -> Result<PooledConnection, StoreError> {
        let place = timeout(WAIT_TIMEOUT, Arc::clone(&self.places).acquire_owned()).await;
        let place = place
            .map_err(|_| StoreError::Unavailable("all connections are in use".into()))?
            .map_err(|closed| StoreError::Internal(closed.into()))?;
        let (connection, turn) = match self.shared.take_idle().await {
            Some(idle) => idle,
            None => session::open_pooled(&self.shared.servers).await?,
        };
        let shared = Arc::clone(&self.shared);
        Ok(PooledConnection { connection: Some(connection), turn, shared, place: Some(place) })
    }
}

impl Shared {
    async fn take_idle(&self) -> Option<(PgConnection, u64)> {
        loop {
            let IdleConnection { mut connection, turn, since } = self.idle().pop()?;
            if turn != self.servers.turn() {
                continue;
            }
            if since.elapsed() < TRUSTED_FOR || is_alive(&mut connection).await {
                return Some((connection, turn));
            }
            self.give_up();
        }
    }

    /// Forgets the idle ones: they lead to where one was found dead.
    fn give_up(&self) {
        self.idle().clear();
        self.servers.doubt();
    }

    fn idle(&self) -> MutexGuard<'_, Vec<IdleConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn is_alive(connection: &mut PgConnection) -> bool {
    matches!(timeout(PING_TIMEOUT, connection.ping()).await, Ok(Ok(())))
}

/// A connection in use.
pub(crate) struct PooledConnection {
    /// `None` once it is on its way back.
    connection: Option<PgConnection>,
    turn: u64,
    shared: Arc<Shared>,
    place: Option<OwnedSemaphorePermit>,
}

const IN_USE: &str = "a connection is there until it is dropped";

impl Deref for PooledConnection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect(IN_USE)
    }
}

impl DerefMut for PooledConnection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect(IN_USE)
    }
}

impl Drop for PooledConnection {
    fn drop(&mut self) {
        let (connection, turn, shared) = (self.connection.take(), self.turn, Arc::clone(&self.shared));
        let place = self.place.take();
        let (Some(mut connection), Ok(runtime)) = (connection, tokio::runtime::Handle::try_current()) else {
            return;
        };
        runtime.spawn(async move {
            // Also takes in what an interrupted statement still had to say.
            if is_alive(&mut connection).await {
                if turn == shared.servers.turn() {
                    shared.idle().push(IdleConnection { connection, turn, since: Instant::now() });
                }
            } else {
                drop(connection);
                shared.give_up();
            }
            drop(place);
        });
    }
}
