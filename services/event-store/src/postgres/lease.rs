//! The publisher's lease: a session lock on a connection of its own, which the
//! server gives back when the connection ends.

use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection as _, Row as _};
use tokio::time::timeout;

use super::error::store_error;
use super::session;
use crate::{PublisherLease, StoreError};

const PUBLISHER_LOCK: i64 = i64::from_be_bytes(*b"catrustP");

/// How long the connection may take to show that it lives.
const PING_TIMEOUT: Duration = Duration::from_secs(2);

/// `None` once the lease is lost.
struct PgLease(Option<PgConnection>);

/// Takes the lease where nobody holds it.
pub(super) async fn try_lease(
    options: &PgConnectOptions,
) -> Result<Option<Box<dyn PublisherLease>>, StoreError> {
    let mut connection = session::open(options).await?;
    let question = sqlx::query("SELECT pg_try_advisory_lock($1)").bind(PUBLISHER_LOCK);
    let answer = timeout(PING_TIMEOUT, question.fetch_one(&mut connection)).await;
    let row = answer.map_err(|late| StoreError::Unavailable(late.into()))?.map_err(store_error)?;
    if row.try_get(0).map_err(store_error)? {
        return Ok(Some(Box::new(PgLease(Some(connection)))));
    }
    drop(connection.close().await);
    Ok(None)
}

#[async_trait]
impl PublisherLease for PgLease {
    async fn is_held(&mut self) -> bool {
        let Some(connection) = &mut self.0 else { return false };
        let held = matches!(timeout(PING_TIMEOUT, connection.ping()).await, Ok(Ok(())));
        if !held {
            // Closed, so that a server that was only slow gives the lock to another.
            self.0 = None;
        }
        held
    }
}
