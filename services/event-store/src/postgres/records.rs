//! Rows of a batch as one array of a composite type, in the binary format of the protocol.
//!
//! The server unnests an array of rows into one buffer, and an array per column into as
//! many buffers, which cost more than the rows of a small batch.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgBindIterExt as _, PgHasArrayType, PgTypeInfo};
use sqlx::{Encode, Postgres, Type};

use super::row::PgTime;
use super::statement::Column;

/// Rows, given by column.
pub(super) struct Records<'a> {
    /// Composite type of the schema.
    pub(super) shape: &'static str,
    /// Its attributes with their values, in its order; all of one length.
    pub(super) columns: &'a [(&'static str, Column<'a>)],
}

/// One of the rows.
struct Record<'a> {
    records: &'a Records<'a>,
    row: usize,
}

impl Type<Postgres> for Records<'_> {
    /// Not used: [`Encode::produces`] tells the type of each value.
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("record[]")
    }
}

impl Encode<'_, Postgres> for Records<'_> {
    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::array_of(self.shape))
    }

    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let rows = self.columns.first().map_or(0, |(_, column)| column.len());
        (0..rows).map(|row| Record { records: self, row }).bind_iter().encode_by_ref(buffer)
    }
}

impl Type<Postgres> for Record<'_> {
    /// Not used, as that of [`Records`].
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("record")
    }
}

impl PgHasArrayType for Record<'_> {
    /// Not used, as that of [`Records`].
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_name("record[]")
    }
}

impl Encode<'_, Postgres> for Record<'_> {
    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_name(self.records.shape))
    }

    /// As `record_recv` of Postgres reads it: the number of attributes, and of each the OID
    /// of its type and its value behind its length, -1 for NULL.
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let columns = self.records.columns;
        buffer.extend_from_slice(&u32::try_from(columns.len())?.to_be_bytes());
        for (_, column) in columns {
            buffer.extend_from_slice(&column.type_oid().to_be_bytes());
            let at = buffer.len();
            buffer.extend_from_slice(&(-1_i32).to_be_bytes());
            if column.put(self.row, buffer)? {
                let length = i32::try_from(buffer.len() - at - 4)?;
                buffer[at..at + 4].copy_from_slice(&length.to_be_bytes());
            }
        }
        Ok(IsNull::No)
    }
}

impl Column<'_> {
    /// Rows.
    fn len(&self) -> usize {
        match self {
            Self::Text(values) | Self::Json(values) => values.len(),
            Self::OptionalText(values) => values.len(),
            Self::OwnedText(values) => values.len(),
            Self::Number(values) => values.len(),
            Self::OptionalNumber(values) => values.len(),
            Self::SmallNumber(values) => values.len(),
            Self::Octets(values) => values.len(),
            Self::OptionalOctets(values) => values.len(),
            Self::OwnedOctets(values) => values.len(),
            Self::Uuid(values) => values.len(),
            Self::Time(values) => values.len(),
            Self::OptionalTime(values) => values.len(),
        }
    }

    /// The OID of the type: the built-in ones never change (`pg_type.dat` of Postgres).
    const fn type_oid(&self) -> u32 {
        match self {
            Self::Octets(_) | Self::OptionalOctets(_) | Self::OwnedOctets(_) => 17,
            Self::Number(_) | Self::OptionalNumber(_) => 20,
            Self::SmallNumber(_) => 21,
            Self::Text(_) | Self::OptionalText(_) | Self::OwnedText(_) => 25,
            Self::Json(_) => 114,
            Self::Time(_) | Self::OptionalTime(_) => 1184,
            Self::Uuid(_) => 2950,
        }
    }

    /// Appends the value of a row; false where it is NULL.
    fn put(&self, row: usize, buffer: &mut PgArgumentBuffer) -> Result<bool, BoxDynError> {
        let octets: Option<&[u8]> = match self {
            Self::Text(values) | Self::Json(values) => Some(values[row].as_bytes()),
            Self::OptionalText(values) => values[row].map(str::as_bytes),
            Self::OwnedText(values) => Some(values[row].as_bytes()),
            Self::Octets(values) => Some(values[row]),
            Self::OptionalOctets(values) => values[row],
            Self::OwnedOctets(values) => Some(&values[row]),
            Self::Uuid(values) => Some(values[row].as_bytes()),
            Self::SmallNumber(values) => return put_number(&values[row].to_be_bytes(), buffer),
            Self::Number(values) => return put_number(&values[row].to_be_bytes(), buffer),
            Self::OptionalNumber(values) => {
                return values[row].map_or(Ok(false), |number| put_number(&number.to_be_bytes(), buffer));
            }
            Self::Time(values) => return PgTime(values[row]).encode_by_ref(buffer).map(|_| true),
            Self::OptionalTime(values) => {
                let Some(time) = values[row] else { return Ok(false) };
                return PgTime(time).encode_by_ref(buffer).map(|_| true);
            }
        };
        octets.inspect(|octets| buffer.extend_from_slice(octets));
        Ok(octets.is_some())
    }
}

fn put_number(octets: &[u8], buffer: &mut PgArgumentBuffer) -> Result<bool, BoxDynError> {
    buffer.extend_from_slice(octets);
    Ok(true)
}
