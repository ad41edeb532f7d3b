//! A statement put together from constant parts, with its parameters.
//!
//! A batch is loaded by one statement and written by another; each has only the
//! parts that the batch needs. The few texts that this makes are prepared once per
//! connection. Values are always parameters.

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments as _, AssertSqlSafe, Encode, PgConnection, Postgres, Type};

use super::error::store_error;
use super::parameters::{ColumnArray, RowArray};
use super::shape::Shape;
use crate::StoreError;
use crate::error::BoxError;
use crate::row::{Column, StoredRow, names};
use crate::value::Value;

/// SQL text and parameters, in step.
#[derive(Default)]
pub(super) struct StatementBuilder {
    sql: String,
    arguments: PgArguments,
    parameters: usize,
    failed: Option<BoxError>,
}

impl StatementBuilder {
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

    /// Appends `unnest(…) AS u(names)`: the rows, from an array per column.
    pub(super) fn unnest(&mut self, columns: &[Column], rows: &[Vec<Value<'_>>]) -> &mut Self {
        for (index, column) in columns.iter().enumerate() {
            self.push(if index == 0 { "unnest(" } else { ", " });
            self.bind(ColumnArray { kind: column.kind, index, rows });
            self.push("::").push(column.kind.type_name()).push("[]");
        }
        self.push(") AS u(").push(&names(columns, "")).push(")")
    }

    /// Appends `unnest(…) AS u`: the rows, from one array of a composite type.
    pub(super) fn unnest_rows(&mut self, shape: &'static Shape, rows: &[Vec<Value<'_>>]) -> &mut Self {
        self.push("unnest(").bind(RowArray { shape, rows });
        self.push("::").push(shape.name).push("[]) AS u")
    }

    /// Appends `INSERT INTO … SELECT … FROM`, which the rows follow.
    pub(super) fn insert<R: StoredRow>(&mut self) -> &mut Self {
        let columns = names(R::COLUMNS, "");
        self.push("INSERT INTO ").push(R::TABLE).push(" (").push(&columns).push(") SELECT ");
        self.push(&columns).push(" FROM ")
    }

    /// Appends `UPDATE … SET … FROM` of all columns that change, which the rows follow.
    pub(super) fn update<R: StoredRow>(&mut self) -> &mut Self {
        self.push("UPDATE ").push(R::TABLE).push(" AS t SET ");
        for (index, Column { name, .. }) in R::CHANGING.iter().enumerate() {
            self.push(if index == 0 { "" } else { ", " }).push(name).push(" = u.").push(name);
        }
        self.push(" FROM ")
    }

    /// Appends a DELETE of the rows with these keys.
    pub(super) fn delete<R: StoredRow>(&mut self, keys: &[Vec<Value<'_>>]) -> &mut Self {
        self.push("DELETE FROM ").push(R::TABLE).push(" AS t USING ").unnest(R::KEY, keys);
        self.where_key_is::<R>()
    }

    /// Appends the condition that the row `t` of the table has the key of the row `u`.
    pub(super) fn where_key_is<R: StoredRow>(&mut self) -> &mut Self {
        for (index, Column { name, .. }) in R::KEY.iter().enumerate() {
            self.push(if index == 0 { " WHERE t." } else { " AND t." });
            self.push(name).push(" = u.").push(name);
        }
        self
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

    #[cfg(feature = "contract")]
    pub(super) fn into_text(self) -> String {
        self.sql
    }
}
