//! The publisher's lease: a session lock on a connection of its own, which the
//! server gives back when the connection ends.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::time::timeout;

use super::error::store_error;
use super::servers::DatabaseServers;
use crate::{PublisherLease, StoreError};

const PUBLISHER_LOCK: i64 = i64::from_be_bytes(*b"catrustP");

/// How long the connection may take to show that it lives.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

struct PgLease {
    /// `None` once the lease is lost.
    connection: Option<PgConnection>,
    servers: Arc<DatabaseServers>,
    turn: u64,
}

/// Takes the lease where nobody holds it.
pub(super) async fn try_lease(
    servers: &Arc<DatabaseServers>,
) -> Result<Option<Box<dyn PublisherLease>>, StoreError> {
    let (mut connection, turn) = servers.open().await?;
    let question = sqlx::query("SELECT pg_try_advisory_lock($1)").bind(PUBLISHER_LOCK);
    let answer = timeout(PING_TIMEOUT, question.fetch_one(&mut connection)).await;
    let row = answer.map_err(|late| StoreError::Unavailable(late.into()))?.map_err(store_error)?;
    if row.try_get(0).map_err(store_error)? {
        let servers = Arc::clone(servers);
        return Ok(Some(Box::new(PgLease { connection: Some(connection), servers, turn })));
    }
    drop(connection.close().await);
    Ok(None)
}

#[async_trait]
impl PublisherLease for PgLease {
    async fn is_held(&mut self) -> bool {
        let Some(connection) = &mut self.connection else { return false };
        // The lock of a server that is not in use any more keeps nobody away.
        let held = self.servers.turn() == self.turn
            && matches!(timeout(PING_TIMEOUT, connection.ping()).await, Ok(Ok(())));
        if !held {
            // Closed, so that a server that was only slow gives the lock to another.
            self.connection = None;
        }
        held
    }
}
