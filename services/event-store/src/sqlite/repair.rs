//! Writes rows of the read model for a rebuild.

use catrust_domain::{CaCertificate, Instance};
use sqlx::SqliteConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};

use super::error::store_error;
use super::{append, session, write};
use crate::StoreError;
use crate::rebuild::Repair;
use crate::rows::{Bind, Rows};

/// A connection for one rebuild.
pub(super) struct Repairer(SqliteConnection);

impl Repairer {
    pub(super) async fn open(options: &SqliteConnectOptions) -> Result<Self, StoreError> {
        session::open(options).await.map(Self)
    }
}

impl Rows for Repairer {
    type Row = SqliteRow;

    async fn rows(&mut self, sql: &'static str, binds: &[Bind<'_>]) -> Result<Vec<SqliteRow>, StoreError> {
        self.0.rows(sql, binds).await
    }
}

impl Repair for Repairer {
    async fn begin(&mut self) -> Result<(), StoreError> {
        append::begin(&mut self.0).await
    }

    async fn put_instances(&mut self, rows: &[&Instance]) -> Result<(), StoreError> {
        write::put_instances(&mut self.0, rows).await
    }

    async fn put_certificates(&mut self, rows: &[&CaCertificate]) -> Result<(), StoreError> {
        write::put_certificates(&mut self.0, rows).await
    }

    async fn put_spent_codes(&mut self, rows: &[(&str, &str, u64)]) -> Result<(), StoreError> {
        write::put_spent_codes(&mut self.0, rows).await
    }

    async fn delete_instances(&mut self, ids: &[&str]) -> Result<(), StoreError> {
        write::delete_instances(&mut self.0, ids).await
    }

    async fn delete_certificates(&mut self, keys: &[(&str, &str)]) -> Result<(), StoreError> {
        write::delete_certificates(&mut self.0, keys).await
    }

    async fn delete_spent_codes(&mut self, keys: &[(&str, &str)]) -> Result<(), StoreError> {
        write::delete_spent_codes(&mut self.0, keys).await
    }

    async fn commit(&mut self) -> Result<(), StoreError> {
        sqlx::raw_sql("COMMIT").execute(&mut self.0).await.map_err(store_error).map(drop)
    }
}
