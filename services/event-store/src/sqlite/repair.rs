//! Writes rows of the read model for a rebuild.

use catrust_domain::batch::Writes;
use catrust_domain::{LogHead, Timestamp};
use sqlx::SqliteConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};

use super::error::store_error;
use super::{append, session, write};
use crate::StoreError;
use crate::queries::Query;
use crate::rebuild::Repair;
use crate::row::StoredRow;
use crate::rows::Rows;
use crate::value::Value;

/// A connection for one rebuild.
pub(crate) struct Repairer(SqliteConnection);

impl Repairer {
    pub(super) async fn open(options: &SqliteConnectOptions) -> Result<Self, StoreError> {
        session::open(options).await.map(Self)
    }
}

impl Rows for Repairer {
    type Row = SqliteRow;

    fn present() -> &'static Query {
        SqliteConnection::present()
    }

    async fn rows(
        &mut self,
        query: &'static Query,
        binds: &[Value<'_>],
    ) -> Result<Vec<SqliteRow>, StoreError> {
        self.0.rows(query, binds).await
    }

    async fn execute(&mut self, query: &'static Query, binds: &[Value<'_>]) -> Result<u64, StoreError> {
        self.0.execute(query, binds).await
    }
}

impl Repair for Repairer {
    /// There is one file, and whoever has its lock can write it.
    async fn confirm(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn end(&mut self) -> Result<(), StoreError> {
        self.commit().await
    }

    async fn begin(&mut self) -> Result<(), StoreError> {
        append::begin(&mut self.0).await
    }

    async fn insert<R: StoredRow + Sync>(&mut self, rows: &[&R]) -> Result<(), StoreError> {
        write::insert(&mut self.0, rows.iter().copied()).await
    }

    async fn delete<R: StoredRow>(&mut self, keys: &[Vec<Value<'_>>]) -> Result<(), StoreError> {
        for key in keys {
            write::delete::<R>(&mut self.0, key).await?;
        }
        Ok(())
    }

    async fn write(
        &mut self,
        writes: &Writes,
        _before: &LogHead,
        _after: &LogHead,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        write::write(&mut self.0, writes, now).await
    }

    async fn commit(&mut self) -> Result<(), StoreError> {
        sqlx::raw_sql("COMMIT").execute(&mut self.0).await.map_err(store_error).map(drop)
    }
}
