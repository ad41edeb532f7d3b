//! The composite types of the schema: the shapes in which rows of a batch are sent.
//!
//! The order of their attributes is the order of the values. It is looked up when a store
//! connects: one that does not have the declared order refuses to start.

use std::sync::LazyLock;

use catrust_domain::{CaCertificate, Instance, RecordedEvent};
use sqlx::{PgConnection, Row as _};

use super::error::store_error;
use crate::StoreError;
use crate::row::{Column, StoredRow};
use crate::tables::ReplyRow;
use crate::value::Value;

/// A composite type.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) name: &'static str,
    /// Its attributes.
    pub(super) columns: LazyLock<Vec<Column>>,
}

pub(super) static NEW_EVENT: Shape = whole_row::<RecordedEvent>("new_event");
pub(super) static NEW_REPLY: Shape = whole_row::<ReplyRow>("new_reply");
pub(super) static INSTANCE_CHANGE: Shape = change_of::<Instance>("instance_change");
pub(super) static CA_CERTIFICATE_CHANGE: Shape = change_of::<CaCertificate>("ca_certificate_change");

static ALL: [&Shape; 4] = [&NEW_EVENT, &NEW_REPLY, &INSTANCE_CHANGE, &CA_CERTIFICATE_CHANGE];

const fn whole_row<R: StoredRow>(name: &'static str) -> Shape {
    Shape { name, columns: LazyLock::new(|| R::COLUMNS.to_vec()) }
}

/// What changes in a row, and its key.
const fn change_of<R: StoredRow>(name: &'static str) -> Shape {
    Shape { name, columns: LazyLock::new(|| [R::CHANGING, R::KEY].concat()) }
}

/// The values of a shape made by [`change_of`].
pub(super) fn change_values<R: StoredRow>(row: &R) -> Vec<Value<'_>> {
    let mut values = row.values();
    values.drain(R::KEY.len()..R::WIDTH - R::CHANGING.len());
    values.rotate_left(R::KEY.len());
    values
}

/// Refuses a database whose composite types are not what is sent.
pub(super) async fn check(connection: &mut PgConnection) -> Result<(), StoreError> {
    for shape in ALL {
        let question = sqlx::query(
            "SELECT coalesce(string_agg(attname || ' ' || atttypid, ', ' ORDER BY attnum), '') \
             FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped",
        );
        let row = question.bind(shape.name).fetch_one(&mut *connection).await.map_err(store_error)?;
        let found: String = row.try_get(0).map_err(store_error)?;
        let wanted: Vec<String> =
            shape.columns.iter().map(|column| format!("{} {}", column.name, column.kind.oid())).collect();
        if found != wanted.join(", ") {
            let text =
                format!("type {} is ({found}), this program sends ({})", shape.name, wanted.join(", "));
            return Err(StoreError::Unsuitable(text));
        }
    }
    Ok(())
}
