//! SQLite rows and parameters.

use catrust_domain::Timestamp;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Arguments as _, Decode, Row as _, Sqlite, Type, ValueRef as _};
use uuid::Uuid;

use super::error::store_error;
use crate::StoreError;
use crate::columns::Columns;
use crate::rows::{Bind, Rows};

/// The tables are STRICT, but aggregates are not: every value's type is checked.
fn value<'r, T>(row: &'r SqliteRow, index: usize) -> Result<T, String>
where
    T: Decode<'r, Sqlite> + Type<Sqlite>,
{
    row.try_get(index).map_err(|error| error.to_string())
}

impl Columns for SqliteRow {
    fn text(&self, index: usize) -> Result<&str, String> {
        value(self, index)
    }

    fn number(&self, index: usize) -> Result<i64, String> {
        value(self, index)
    }

    fn octets(&self, index: usize) -> Result<&[u8], String> {
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

    async fn rows(&mut self, sql: &'static str, binds: &[Bind<'_>]) -> Result<Vec<SqliteRow>, StoreError> {
        let mut arguments = SqliteArguments::default();
        for bind in binds {
            let added = match *bind {
                Bind::Text(text) => arguments.add(text),
                Bind::Number(number) => arguments.add(number),
                Bind::Time(time) => arguments.add(time.micros()),
                Bind::Uuid(uuid) => arguments.add(uuid.to_string()),
            };
            added.map_err(StoreError::Internal)?;
        }
        sqlx::query_with(sql, arguments).fetch_all(self).await.map_err(store_error)
    }
}
