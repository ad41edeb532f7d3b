//! The seam between the shared reads and an engine's connection.

use catrust_domain::{RequestKey, Timestamp};
use uuid::Uuid;

use crate::StoreError;
use crate::columns::Columns;

/// A parameter of a reading statement.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bind<'a> {
    Text(&'a str),
    Number(i64),
    Time(Timestamp),
    Uuid(Uuid),
}

impl<'a> Bind<'a> {
    /// The two parameters of a request key.
    pub(crate) fn request_key(key: &'a RequestKey) -> [Self; 2] {
        [Self::Text(key.account_id.as_str()), Self::Uuid(key.request_id)]
    }
}

/// A connection that answers reading statements.
pub(crate) trait Rows: Send {
    /// Its rows.
    type Row: Columns + Send;

    /// Runs one statement.
    fn rows(
        &mut self,
        sql: &'static str,
        binds: &[Bind<'_>],
    ) -> impl Future<Output = Result<Vec<Self::Row>, StoreError>> + Send;

    /// Runs one statement that gives at most one row.
    fn row(
        &mut self,
        sql: &'static str,
        binds: &[Bind<'_>],
    ) -> impl Future<Output = Result<Option<Self::Row>, StoreError>> + Send {
        async move { Ok(self.rows(sql, binds).await?.into_iter().next()) }
    }
}
