//! Postgres rows and parameters, without detours through other types.

use std::time::Duration;

use catrust_domain::Timestamp;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgArguments, PgRow, PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::types::chrono::{DateTime, Utc};
use sqlx::{Arguments as _, Decode, Encode, PgConnection, Postgres, Row as _, Type, ValueRef as _};
use tokio::time::timeout;
use uuid::Uuid;

use super::PRESENT;
use super::error::store_error;
use crate::StoreError;
use crate::queries::Query;
use crate::row::Row;
use crate::rows::Rows;
use crate::value::Value;

/// Microseconds from 1970 to 2000, where Postgres counts from.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// How long a statement may take before its connection counts as lost.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(7);

/// A `timestamptz`. Both sides keep microseconds: nothing is rounded.
#[derive(Clone, Copy, Debug)]
pub(super) struct PgTime(pub(super) Timestamp);

impl Type<Postgres> for PgTime {
    fn type_info() -> PgTypeInfo {
        <DateTime<Utc> as Type<Postgres>>::type_info()
    }
}

impl Encode<'_, Postgres> for PgTime {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let micros = self.0.micros().checked_sub(POSTGRES_EPOCH).ok_or("a time before Postgres begins")?;
        <i64 as Encode<Postgres>>::encode(micros, buffer)
    }
}

impl Decode<'_, Postgres> for PgTime {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        if value.format() != PgValueFormat::Binary {
            return Ok(Self(<DateTime<Utc> as Decode<Postgres>>::decode(value)?.into()));
        }
        let micros = <i64 as Decode<Postgres>>::decode(value)?;
        Ok(Self(Timestamp::from_micros(micros.saturating_add(POSTGRES_EPOCH))))
    }
}

/// The decoders read by index and know the types from the migrations: the check of
/// each value's type would cost as much as the value, and refuse `json` as text.
impl Row for PgRow {
    fn text(&self, index: usize) -> Result<&str, String> {
        self.try_get_unchecked(index).map_err(|error| error.to_string())
    }

    fn number(&self, index: usize) -> Result<i64, String> {
        self.try_get_unchecked(index).map_err(|error| error.to_string())
    }

    fn bytes(&self, index: usize) -> Result<&[u8], String> {
        self.try_get_unchecked(index).map_err(|error| error.to_string())
    }

    fn uuid(&self, index: usize) -> Result<Uuid, String> {
        self.try_get_unchecked(index).map_err(|error| error.to_string())
    }

    fn time(&self, index: usize) -> Result<Timestamp, String> {
        self.try_get_unchecked::<PgTime, _>(index).map(|time| time.0).map_err(|error| error.to_string())
    }

    fn is_null(&self, index: usize) -> Result<bool, String> {
        self.try_get_raw(index).map(|value| value.is_null()).map_err(|error| error.to_string())
    }
}

impl Rows for PgConnection {
    type Row = PgRow;

    fn present() -> &'static Query {
        &PRESENT
    }

    async fn rows(&mut self, query: &'static Query, binds: &[Value<'_>]) -> Result<Vec<PgRow>, StoreError> {
        let query = sqlx::query_with(query.text(), arguments(binds)?);
        let answer = timeout(STATEMENT_TIMEOUT, query.fetch_all(self)).await;
        answer.map_err(|late| StoreError::Unavailable(late.into()))?.map_err(store_error)
    }

    async fn execute(&mut self, query: &'static Query, binds: &[Value<'_>]) -> Result<u64, StoreError> {
        let query = sqlx::query_with(query.text(), arguments(binds)?);
        let answer = timeout(STATEMENT_TIMEOUT, query.execute(self)).await;
        let done = answer.map_err(|late| StoreError::Unavailable(late.into()))?.map_err(store_error)?;
        Ok(done.rows_affected())
    }
}

fn arguments(binds: &[Value<'_>]) -> Result<PgArguments, StoreError> {
    let mut arguments = PgArguments::default();
    for bind in binds {
        let added = match bind {
            Value::Null => arguments.add(None::<&str>),
            Value::Text(text) => arguments.add(&**text),
            Value::Number(number) => arguments.add(number),
            Value::Bytes(bytes) => arguments.add(&**bytes),
            Value::Time(time) => arguments.add(PgTime(*time)),
            Value::Uuid(id) => arguments.add(id),
        };
        added.map_err(StoreError::Internal)?;
    }
    Ok(arguments)
}
