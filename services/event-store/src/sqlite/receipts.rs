//! Taking receipts in, under the file's write lock: what is known is read, fold by
//! the domain's rule, and written back.

use std::collections::{BTreeMap, BTreeSet};

use catrust_domain::{BrokerId, BrokerState, InstanceId, Receipt};
use sqlx::SqliteConnection;

use super::SqliteEventStore;
use super::append::begin;
use super::error::store_error;
use super::write::put;
use crate::queries::queries;
use crate::row::{StoredRow as _, names_of};
use crate::rows::Rows as _;
use crate::{MAX_BROKERS, StoreError, reads, receipts};

queries! { LIST:
    /// $1 instance, $2 broker.
    BROKER = format!(
        "SELECT {} FROM broker_receipts WHERE instance_id = $1 AND broker_id = $2",
        names_of::<BrokerState>(""),
    );

    /// $1 instance.
    COUNT = "SELECT count(*) FROM broker_receipts WHERE instance_id = $1";
}

/// What a batch came to.
#[derive(Default)]
struct ReceiptFold {
    /// `None` for a broker that there is no room for.
    brokers: BTreeMap<(InstanceId, BrokerId), Option<BrokerState>>,
    changed: BTreeSet<InstanceId>,
    taken: u64,
}

impl SqliteEventStore {
    pub(super) async fn take_receipts(&self, batch: &[Receipt]) -> Result<u64, StoreError> {
        let rounds = receipts::rounds(batch)?;
        if rounds.is_empty() {
            return Ok(0);
        }
        let mut slot = self.writer.lock().await;
        // As in `append_batch`: a connection that fails, or is abandoned, is closed.
        let (mut connection, opened) = self.take_writer(&mut slot).await?;
        begin(&mut connection).await?;
        let mut fold = ReceiptFold::default();
        for receipt in rounds.into_iter().flatten() {
            fold.take(&mut connection, receipt).await?;
        }
        let brokers: Vec<BrokerState> = fold.brokers.into_values().flatten().collect();
        put(&mut connection, brokers.iter()).await?;
        sqlx::raw_sql("COMMIT").execute(&mut connection).await.map_err(store_error)?;
        *slot = Some((connection, opened));
        fold.changed.into_iter().for_each(|id| self.fleet.tell(id));
        Ok(fold.taken)
    }
}

impl ReceiptFold {
    async fn take(&mut self, connection: &mut SqliteConnection, receipt: &Receipt) -> Result<(), StoreError> {
        let key = (receipt.instance_id.clone(), receipt.broker_id.clone());
        let known = match self.brokers.get(&key) {
            Some(None) => return Ok(()),
            Some(known) => known.clone(),
            None => find(connection, receipt).await?,
        };
        let next = match &known {
            Some(broker) => {
                let mut next = broker.clone();
                next.take(receipt);
                Some(next)
            }
            None if self.has_room(connection, &key.0).await? => Some(BrokerState::first(receipt)),
            None => None,
        };
        let news = match (&known, &next) {
            (Some(known), Some(next)) => known.is_news(next),
            (_, next) => next.is_some(),
        };
        if news {
            self.changed.insert(key.0.clone());
        }
        self.taken += u64::from(next.is_some());
        self.brokers.insert(key, next);
        Ok(())
    }

    async fn has_room(&self, connection: &mut SqliteConnection, id: &InstanceId) -> Result<bool, StoreError> {
        let stored = reads::number(connection, &COUNT, &[id.into()]).await?.unwrap_or(0);
        Ok(usize::try_from(stored).is_ok_and(|stored| stored < MAX_BROKERS))
    }
}

async fn find(
    connection: &mut SqliteConnection,
    receipt: &Receipt,
) -> Result<Option<BrokerState>, StoreError> {
    let key = [(&receipt.instance_id).into(), (&receipt.broker_id).into()];
    let row = connection.row(&BROKER, &key).await?;
    row.map(|row| BrokerState::read(&row, 0)).transpose()
}
