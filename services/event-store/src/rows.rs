//! The seam between the shared statements and an engine's connection.

use crate::StoreError;
use crate::queries::Query;
use crate::row::Row;
use crate::value::Value;

/// A connection that runs statements.
pub(crate) trait Rows: Send {
    /// Its rows.
    type Row: Row + Send;

    /// Runs one statement that reads.
    fn rows(
        &mut self,
        query: &'static Query,
        binds: &[Value<'_>],
    ) -> impl Future<Output = Result<Vec<Self::Row>, StoreError>> + Send;

    /// Runs one statement that reads at most one row.
    fn row(
        &mut self,
        query: &'static Query,
        binds: &[Value<'_>],
    ) -> impl Future<Output = Result<Option<Self::Row>, StoreError>> + Send {
        async move { Ok(self.rows(query, binds).await?.into_iter().next()) }
    }

    /// The statement that tells the database's time, in microseconds since 1970.
    fn present() -> &'static Query;

    /// Runs one statement that writes; gives the number of rows.
    fn execute(
        &mut self,
        query: &'static Query,
        binds: &[Value<'_>],
    ) -> impl Future<Output = Result<u64, StoreError>> + Send;
}
