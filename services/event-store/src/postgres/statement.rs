//! A statement put together from constant parts, with its parameters.
//!
//! A batch is loaded by one statement and written by another; each has only the
//! parts that the batch needs. The few texts that this makes are prepared once per
//! connection. Values are always parameters.

use catrust_domain::Timestamp;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments as _, AssertSqlSafe, Encode, PgConnection, Postgres, Type};
use uuid::Uuid;

use super::error::store_error;
use super::records::Records;
use super::row::PgTime;
use crate::StoreError;
use crate::error::BoxError;

/// The values of one column over all rows of a part.
pub(super) enum Column<'a> {
    Text(Vec<&'a str>),
    OptionalText(Vec<Option<&'a str>>),
    OwnedText(Vec<String>),
    /// Text that is stored as `json`.
    Json(Vec<&'a str>),
    Number(Vec<i64>),
    OptionalNumber(Vec<Option<i64>>),
    SmallNumber(Vec<i16>),
    Octets(Vec<&'a [u8]>),
    OptionalOctets(Vec<Option<&'a [u8]>>),
    OwnedOctets(Vec<Vec<u8>>),
    Uuid(Vec<Uuid>),
    Time(Vec<Timestamp>),
    OptionalTime(Vec<Option<Timestamp>>),
}

/// Collects one column from rows.
macro_rules! column {
    ($kind:ident, $rows:expr, $row:pat => $value:expr) => {
        $crate::postgres::statement::Column::$kind($rows.iter().map(|$row| $value).collect())
    };
}
pub(super) use column;

/// SQL text and parameters, in step.
#[derive(Default)]
pub(super) struct Statement {
    sql: String,
    arguments: PgArguments,
    parameters: usize,
    failed: Option<BoxError>,
}

impl Statement {
    /// Appends constant text.
    pub(super) fn push(&mut self, sql: &str) -> &mut Self {
        self.sql.push_str(sql);
        self
    }

    /// Appends the place of a parameter.
    pub(super) fn bind<'q, T>(&mut self, value: T) -> &mut Self
    where
        T: Encode<'q, Postgres> + Type<Postgres>,
    {
        self.parameters += 1;
        self.sql.push('$');
        self.sql.push_str(&self.parameters.to_string());
        if let Err(error) = self.arguments.add(value) {
            self.failed.get_or_insert(error);
        }
        self
    }

    /// Appends `unnest(…) AS u(names)`: the rows that `columns` make.
    pub(super) fn unnest(&mut self, columns: Vec<(&str, Column<'_>)>) -> &mut Self {
        let names = names(&columns);
        for (index, (_, column)) in columns.into_iter().enumerate() {
            self.push(if index == 0 { "unnest(" } else { ", " });
            match column {
                Column::Text(values) | Column::Json(values) => self.bind(values),
                Column::OptionalText(values) => self.bind(values),
                Column::OwnedText(values) => self.bind(values),
                Column::Number(values) => self.bind(values),
                Column::OptionalNumber(values) => self.bind(values),
                Column::SmallNumber(values) => self.bind(values),
                Column::Octets(values) => self.bind(values),
                Column::OptionalOctets(values) => self.bind(values),
                Column::OwnedOctets(values) => self.bind(values),
                Column::Uuid(values) => self.bind(values),
                Column::Time(values) => self.bind(values.into_iter().map(PgTime).collect::<Vec<_>>()),
                Column::OptionalTime(values) => {
                    self.bind(values.into_iter().map(|time| time.map(PgTime)).collect::<Vec<_>>())
                }
            };
        }
        self.push(") AS u(").push(&names).push(")")
    }

    /// Appends `unnest(…) AS u(names)` as [`Statement::unnest`] does, of one array of the
    /// composite type `shape`, whose attributes MUST be `columns` in their order.
    pub(super) fn unnest_records(
        &mut self,
        shape: &'static str,
        columns: &[(&'static str, Column<'_>)],
    ) -> &mut Self {
        self.push("unnest(").bind(Records { shape, columns });
        self.push(") AS u(").push(&names(columns)).push(")")
    }

    /// As [`Statement::insert`], from one array of the composite type `shape`.
    pub(super) fn insert_records(
        &mut self,
        table: &str,
        shape: &'static str,
        columns: &[(&'static str, Column<'_>)],
    ) -> &mut Self {
        self.push_insert(table, &names(columns)).unnest_records(shape, columns)
    }

    fn push_insert(&mut self, table: &str, names: &str) -> &mut Self {
        self.push("INSERT INTO ").push(table).push(" (").push(names);
        self.push(") SELECT ").push(names).push(" FROM ")
    }

    /// Appends `INSERT INTO table (names) SELECT … FROM unnest(…)`.
    pub(super) fn insert(&mut self, table: &str, columns: Vec<(&str, Column<'_>)>) -> &mut Self {
        self.push_insert(table, &names(&columns)).unnest(columns)
    }

    /// Runs it and gives its rows.
    pub(super) async fn fetch(self, connection: &mut PgConnection) -> Result<Vec<PgRow>, StoreError> {
        if let Some(error) = self.failed {
            return Err(StoreError::Internal(error));
        }
        // Safe: every part is a constant of this crate; what callers gave is bound.
        let query = sqlx::query_with(AssertSqlSafe(self.sql), self.arguments);
        query.fetch_all(connection).await.map_err(store_error)
    }
}

fn names(columns: &[(&str, Column<'_>)]) -> String {
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    names.join(", ")
}
