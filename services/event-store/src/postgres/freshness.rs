//! The freshness lease on Postgres: a commit of full durability each second, and the end of
//! the log after it, on a connection of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use catrust_domain::{LogHead, Timestamp};
use sqlx::PgConnection;

use super::servers::DatabaseServers;
use super::session;
use crate::freshness::LeaseSource;
use crate::{StoreError, reads};

/// How often all servers are asked, where there are several, although the one in use does as
/// it should: it may not know that it was superseded.
const LOOK_AROUND: Duration = Duration::from_secs(5);

pub(super) struct PgLeaseSource {
    servers: Arc<DatabaseServers>,
    connection: Option<(PgConnection, u64)>,
    looked: Instant,
}

impl PgLeaseSource {
    pub(super) fn new(servers: &Arc<DatabaseServers>) -> Self {
        Self { servers: Arc::clone(servers), connection: None, looked: Instant::now() }
    }
}

impl LeaseSource for PgLeaseSource {
    async fn renew(&mut self) -> Result<(LogHead, Timestamp), StoreError> {
        if self.servers.are_several() && self.looked.elapsed() >= LOOK_AROUND {
            self.looked = Instant::now();
            self.servers.doubt();
            self.connection = None;
        }
        let open = self.connection.take().filter(|(_, turn)| *turn == self.servers.turn());
        let (mut connection, turn) = match open {
            Some(open) => open,
            None => session::open_durable(&self.servers).await?,
        };
        // From here on the connection is lost where the lease is given up in the middle.
        let issued_at = session::commit_durably(&mut connection).await?;
        let end = reads::head(&mut connection).await?;
        self.servers.confirm(turn);
        self.connection = Some((connection, turn));
        Ok((end, issued_at))
    }

    fn failed(&mut self) {
        self.connection = None;
        self.servers.doubt();
    }
}
