//! Writes rows of the read model for a rebuild.

use catrust_domain::batch::Writes;
use catrust_domain::{LogHead, Timestamp};
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

use super::error::store_error;
use super::servers::DatabaseServers;
use super::statement::StatementBuilder;
use super::{append, session, write};
use crate::StoreError;
use crate::queries::Query;
use crate::rebuild::Repair;
use crate::row::StoredRow;
use crate::rows::Rows;
use crate::value::Value;

/// A connection set up as the appender's, for one rebuild.
pub(crate) struct Repairer(PgConnection);

impl Repairer {
    pub(super) async fn open(servers: &DatabaseServers) -> Result<Self, StoreError> {
        session::open_repairer(servers).await.map(Self)
    }
}

impl Rows for Repairer {
    type Row = PgRow;

    fn present() -> &'static Query {
        PgConnection::present()
    }

    async fn rows(&mut self, query: &'static Query, binds: &[Value<'_>]) -> Result<Vec<PgRow>, StoreError> {
        self.0.rows(query, binds).await
    }

    async fn execute(&mut self, query: &'static Query, binds: &[Value<'_>]) -> Result<u64, StoreError> {
        self.0.execute(query, binds).await
    }
}

impl Repair for Repairer {
    async fn confirm(&mut self) -> Result<(), StoreError> {
        session::commit_durably(&mut self.0).await.map(drop)
    }

    async fn end(&mut self) -> Result<(), StoreError> {
        sqlx::raw_sql("COMMIT").execute(&mut self.0).await.map_err(store_error).map(drop)
    }

    async fn begin(&mut self) -> Result<(), StoreError> {
        append::lock(&mut self.0).await.map_err(append::Failure::into_error)
    }

    async fn insert<R: StoredRow + Sync>(&mut self, rows: &[&R]) -> Result<(), StoreError> {
        let values: Vec<_> = rows.iter().map(|row| row.values()).collect();
        insertion::<R>(&values).fetch(&mut self.0).await.map(drop)
    }

    async fn delete<R: StoredRow>(&mut self, keys: &[Vec<Value<'_>>]) -> Result<(), StoreError> {
        deletion::<R>(keys).fetch(&mut self.0).await.map(drop)
    }

    async fn write(
        &mut self,
        writes: &Writes,
        before: &LogHead,
        after: &LogHead,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        write::write(&mut self.0, writes, before, after, now).await.map(drop)
    }

    async fn commit(&mut self) -> Result<(), StoreError> {
        // Servers that remember rows notice by it that those are no longer true.
        let statements = "UPDATE log_identity SET read_model_generation = read_model_generation + 1; COMMIT";
        sqlx::raw_sql(statements).execute(&mut self.0).await.map_err(store_error).map(drop)
    }
}

fn insertion<R: StoredRow>(rows: &[Vec<Value<'_>>]) -> StatementBuilder {
    let mut statement = StatementBuilder::default();
    statement.insert::<R>().unnest(R::COLUMNS, rows);
    statement
}

fn deletion<R: StoredRow>(keys: &[Vec<Value<'_>>]) -> StatementBuilder {
    let mut statement = StatementBuilder::default();
    statement.delete::<R>(keys);
    statement
}

/// The statements that write and delete rows of a table.
#[cfg(feature = "contract")]
pub(crate) fn statements<R: StoredRow>() -> Vec<String> {
    vec![insertion::<R>(&[]).into_text(), deletion::<R>(&[]).into_text()]
}
