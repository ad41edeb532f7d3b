//! Taking receipts in: one statement for a round of receipts, in which each broker
//! speaks once.
//!
//! The statement folds each receipt into what is stored by the rule of
//! `BrokerState::take`, spelled in SQL, since another replica may be at the same row;
//! the contract suite compares the two on random receipts. It also finds out which
//! instances have news, and others are notified of those alone: a fleet's signs of life
//! would wake every replica all the time.
//!
//! The notification is a transaction of its own. One that notifies takes a lock of the
//! whole cluster when it commits, and gives it back after its flush; the log's commits
//! notify too, and would queue behind the flush of every batch of receipts. This one has
//! nothing to flush: it is a hint, about rows that are on disk by then.

use catrust_domain::{BrokerState, Receipt};
use sqlx::PgConnection;
use sqlx::Row as _;
use tokio::time::timeout;

use super::PgEventStore;
use super::error::store_error;
use super::statement::StatementBuilder;
use super::write::WRITE_TIMEOUT;
use crate::engine::Engine as _;
use crate::row::{StoredRow, names_of};
use crate::value::Value;
use crate::{MAX_BROKERS, StoreError, receipts};

/// Channel of the hint that a fleet has news; the payload is the instance.
pub(super) const RECEIPTS_CHANNEL: &str = "catrust_receipts";

/// After `WITH said AS (SELECT * FROM unnest(…) AS u(…)), put AS (INSERT INTO
/// broker_receipts AS b (…) SELECT … FROM said`. Only a broker that is not known yet is
/// worth a count.
const WITH_ROOM: &str = " WHERE CASE WHEN EXISTS (SELECT FROM broker_receipts AS k \
     WHERE k.instance_id = said.instance_id AND k.broker_id = said.broker_id) THEN true \
     ELSE (SELECT count(*) FROM broker_receipts AS k WHERE k.instance_id = said.instance_id) < ";

/// `success`: the receipt is one, and not late. `refusal`: likewise, unless it would
/// cover an outstanding refusal of a later revision.
const FOLD: &str = " END ORDER BY said.instance_id COLLATE \"C\", said.broker_id COLLATE \"C\" \
     ON CONFLICT (instance_id, broker_id) DO UPDATE SET (revision, digest, applied_at, sessions_cut, \
     refused_revision, refusal, refused_at, outcome, enforcement, sessions_open, received_at) = (SELECT \
     CASE WHEN take.success THEN excluded.revision ELSE b.revision END, \
     CASE WHEN take.success THEN excluded.digest ELSE b.digest END, \
     CASE WHEN take.success THEN excluded.applied_at ELSE b.applied_at END, \
     CASE WHEN take.success AND b.revision = excluded.revision \
          THEN greatest(b.sessions_cut, excluded.sessions_cut) \
          WHEN take.success THEN excluded.sessions_cut ELSE b.sessions_cut END, \
     CASE WHEN take.refusal THEN excluded.refused_revision ELSE b.refused_revision END, \
     CASE WHEN take.refusal THEN excluded.refusal ELSE b.refusal END, \
     CASE WHEN take.refusal THEN excluded.refused_at ELSE b.refused_at END, \
     CASE WHEN take.success OR take.refusal THEN excluded.outcome ELSE b.outcome END, \
     CASE WHEN take.success OR take.refusal THEN excluded.enforcement ELSE b.enforcement END, \
     CASE WHEN take.success OR take.refusal THEN excluded.sessions_open ELSE b.sessions_open END, \
     greatest(b.received_at, excluded.received_at) \
     FROM (SELECT \
     excluded.revision IS NOT NULL AND (b.revision IS NULL OR excluded.revision >= b.revision) AS success, \
     excluded.refused_revision IS NOT NULL AND NOT (b.refused_revision IS NOT NULL \
       AND excluded.refused_revision < b.refused_revision \
       AND (b.revision IS NULL OR b.refused_revision > b.revision \
         OR (b.refused_revision = b.revision AND b.outcome = 'REFUSED'))) AS refusal) AS take) \
     RETURNING b.instance_id, b.broker_id, b.revision, b.digest, b.refused_revision, b.outcome)";

/// What was before is read from the statement's snapshot. As `BrokerState::is_news`.
const TELL: &str = ", news AS (SELECT DISTINCT put.instance_id FROM put LEFT JOIN broker_receipts AS b \
     ON b.instance_id = put.instance_id AND b.broker_id = put.broker_id \
     WHERE (b.revision, b.digest, b.refused_revision, b.outcome) IS DISTINCT FROM \
     (put.revision, put.digest, put.refused_revision, put.outcome)) \
     SELECT (SELECT count(*) FROM put), (SELECT array_agg(news.instance_id) FROM news)";

/// $1 instances. Holds the notification lock for as long as it takes to put the hints into
/// the queue.
const NOTIFY: &str = "SELECT set_config('synchronous_commit', 'off', true), \
     pg_notify('catrust_receipts', news.instance_id) FROM unnest($1::text[]) AS news (instance_id)";

impl PgEventStore {
    pub(super) async fn take_receipts(&self, batch: &[Receipt]) -> Result<u64, StoreError> {
        let rounds = receipts::rounds(batch)?;
        if rounds.is_empty() {
            return Ok(0);
        }
        let mut connection = self.own_reader().await?;
        let mut taken = 0;
        for round in rounds {
            let taking = timeout(WRITE_TIMEOUT, take_round(&mut connection, &round)).await;
            let (count, news) = taking.map_err(|late| StoreError::Unavailable(late.into()))??;
            taken += count;
            // Before the next round: whoever waits for the first one shall not wait for both.
            let telling = timeout(WRITE_TIMEOUT, tell(&mut connection, news)).await;
            telling.map_err(|late| StoreError::Unavailable(late.into()))??;
        }
        Ok(taken)
    }
}

/// Gives the number of receipts that were taken, and the instances that have news.
async fn take_round(
    connection: &mut PgConnection,
    round: &[&Receipt],
) -> Result<(u64, Vec<String>), StoreError> {
    let brokers: Vec<BrokerState> = round.iter().map(|receipt| BrokerState::first(receipt)).collect();
    let values: Vec<_> = brokers.iter().map(StoredRow::values).collect();
    let rows = statement(&values).fetch(connection).await?;
    let row = rows.first().ok_or_else(|| StoreError::Internal("taking receipts gave no row".into()))?;
    let taken: i64 = row.try_get(0).map_err(store_error)?;
    let news: Option<Vec<String>> = row.try_get(1).map_err(store_error)?;
    Ok((u64::try_from(taken).unwrap_or(0), news.unwrap_or_default()))
}

async fn tell(connection: &mut PgConnection, news: Vec<String>) -> Result<(), StoreError> {
    if !news.is_empty() {
        sqlx::query(NOTIFY).bind(news).execute(connection).await.map_err(store_error)?;
    }
    Ok(())
}

/// Takes brokers as they are after their receipts alone.
fn statement(brokers: &[Vec<Value<'_>>]) -> StatementBuilder {
    let mut statement = StatementBuilder::default();
    statement.push("WITH said AS (SELECT * FROM ").unnest(BrokerState::COLUMNS, brokers);
    statement.push("), put AS (INSERT INTO broker_receipts AS b (").push(&names_of::<BrokerState>(""));
    statement.push(") SELECT ").push(&names_of::<BrokerState>("said.")).push(" FROM said").push(WITH_ROOM);
    statement.bind(i64::try_from(MAX_BROKERS).unwrap_or(i64::MAX)).push(FOLD).push(TELL);
    statement
}

#[cfg(feature = "contract")]
pub(crate) fn whole_statements() -> [String; 2] {
    [statement(&[vec![Value::Null; BrokerState::WIDTH]]).into_text(), NOTIFY.to_owned()]
}
