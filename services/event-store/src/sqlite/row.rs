//! SQLite rows and parameters.

use catrust_domain::Timestamp;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Arguments as _, Decode, Row as _, Sqlite, Type, ValueRef as _};
use uuid::Uuid;

use super::PRESENT;
use super::error::store_error;
use crate::StoreError;
use crate::queries::Query;
use crate::row::Row;
use crate::rows::Rows;
use crate::value::Value;

/// The tables are STRICT, but aggregates are not: every value's type is checked.
fn value<'r, T>(row: &'r SqliteRow, index: usize) -> Result<T, String>
where
    T: Decode<'r, Sqlite> + Type<Sqlite>,
{
    row.try_get(index).map_err(|error| error.to_string())
}

impl Row for SqliteRow {
    fn text(&self, index: usize) -> Result<&str, String> {
        value(self, index)
    }

    fn number(&self, index: usize) -> Result<i64, String> {
        value(self, index)
    }

    fn bytes(&self, index: usize) -> Result<&[u8], String> {
        value(self, index)
    }

    fn uuid(&self, index: usize) -> Result<Uuid, String> {
        let text: &str = value(self, index)?;
        text.parse().map_err(|error| format!("{text:?} {error}"))
    }

    fn time(&self, index: usize) -> Result<Timestamp, String> {
        value(self, index).map(Timestamp::from_micros)
    }

    fn is_null(&self, index: usize) -> Result<bool, String> {
        self.try_get_raw(index).map(|value| value.is_null()).map_err(|error| error.to_string())
    }
}

impl Rows for SqliteConnection {
    type Row = SqliteRow;

    fn present() -> &'static Query {
        &PRESENT
    }

    async fn rows(
        &mut self,
        query: &'static Query,
        binds: &[Value<'_>],
    ) -> Result<Vec<SqliteRow>, StoreError> {
        let query = sqlx::query_with(query.text(), arguments(binds)?);
        query.fetch_all(self).await.map_err(store_error)
    }

    async fn execute(&mut self, query: &'static Query, binds: &[Value<'_>]) -> Result<u64, StoreError> {
        let query = sqlx::query_with(query.text(), arguments(binds)?);
        Ok(query.execute(self).await.map_err(store_error)?.rows_affected())
    }
}

/// Times are microseconds, UUIDs are text: SQLite has no types of its own for them.
pub(super) fn arguments<'a>(
    binds: impl IntoIterator<Item = &'a Value<'a>>,
) -> Result<SqliteArguments, StoreError> {
    let mut arguments = SqliteArguments::default();
    for bind in binds {
        let added = match bind {
            Value::Null => arguments.add(None::<i64>),
            Value::Text(text) => arguments.add(&**text),
            Value::Number(number) => arguments.add(number),
            Value::Bytes(bytes) => arguments.add(&**bytes),
            Value::Time(time) => arguments.add(time.micros()),
            Value::Uuid(id) => arguments.add(id.to_string()),
        };
        added.map_err(StoreError::Internal)?;
    }
    Ok(arguments)
}
