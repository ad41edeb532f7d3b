//! Values in the binary format of the protocol, alone, as an array of one column, and as
//! an array of rows of a composite type.
//!
//! The server unnests an array of rows into one buffer, and an array per column into as
//! many buffers, which cost more than the rows of a small batch.

use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgBindIterExt as _, PgHasArrayType, PgTypeInfo};
use sqlx::{Encode, Postgres, Type};

use super::row::PgTime;
use super::shape::Shape;
use crate::value::{Kind, Value};

impl Kind {
    /// The SQL type, the OID of it, and that of its array. Those of the built-in types
    /// never change (`pg_type.dat` of Postgres).
    const fn postgres(self) -> (&'static str, u32, u32) {
        match self {
            Self::Text => ("text", 25, 1009),
            Self::Json => ("json", 114, 199),
            Self::Number => ("bigint", 20, 1016),
            Self::SmallNumber => ("smallint", 21, 1005),
            Self::Bytes => ("bytea", 17, 1001),
            Self::Uuid => ("uuid", 2950, 2951),
            Self::Time => ("timestamptz", 1184, 1185),
        }
    }

    /// The SQL type.
    pub(super) const fn type_name(self) -> &'static str {
        self.postgres().0
    }

    /// Its OID.
    pub(super) const fn oid(self) -> u32 {
        self.postgres().1
    }
}

/// Appends a value that is stored as `kind`.
fn put(value: &Value<'_>, kind: Kind, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
    match (value, kind) {
        (Value::Null, _) => return Ok(IsNull::Yes),
        (Value::Text(text), Kind::Text | Kind::Json) => buffer.extend_from_slice(text.as_bytes()),
        (Value::Bytes(bytes), Kind::Bytes) => buffer.extend_from_slice(bytes),
        (Value::Uuid(id), Kind::Uuid) => buffer.extend_from_slice(id.as_bytes()),
        (Value::Time(time), Kind::Time) => return PgTime(*time).encode_by_ref(buffer),
        (Value::Number(number), Kind::Number) => buffer.extend_from_slice(&number.to_be_bytes()),
        (Value::Number(number), Kind::SmallNumber) => {
            buffer.extend_from_slice(&i16::try_from(*number)?.to_be_bytes());
        }
        (value, kind) => return Err(format!("{value:?} in a column of kind {kind:?}").into()),
    }
    Ok(IsNull::No)
}

/// One column of several rows, as an array.
pub(super) struct ColumnArray<'a> {
    pub(super) kind: Kind,
    pub(super) index: usize,
    pub(super) rows: &'a [Vec<Value<'a>>],
}

/// Several rows, as an array of a composite type.
pub(super) struct RowArray<'a> {
    pub(super) shape: &'static Shape,
    pub(super) rows: &'a [Vec<Value<'a>>],
}

/// An element of a [`ColumnArray`].
struct Element<'a> {
    kind: Kind,
    value: &'a Value<'a>,
}

/// An element of a [`RowArray`].
struct Record<'a> {
    shape: &'static Shape,
    values: &'a [Value<'a>],
}

impl Encode<'_, Postgres> for ColumnArray<'_> {
    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(self.kind.postgres().2)))
    }

    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let elements = self.rows.iter().map(|row| Element { kind: self.kind, value: &row[self.index] });
        elements.bind_iter().encode_by_ref(buffer)
    }
}

impl Encode<'_, Postgres> for Element<'_> {
    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_oid(Oid(self.kind.oid())))
    }

    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        put(self.value, self.kind, buffer)
    }
}

impl Encode<'_, Postgres> for RowArray<'_> {
    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::array_of(self.shape.name))
    }

    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let records = self.rows.iter().map(|values| Record { shape: self.shape, values });
        records.bind_iter().encode_by_ref(buffer)
    }
}

impl Encode<'_, Postgres> for Record<'_> {
    fn produces(&self) -> Option<PgTypeInfo> {
        Some(PgTypeInfo::with_name(self.shape.name))
    }

    /// As `record_recv` of Postgres reads it: the number of attributes, and of each the OID
    /// of its type and its value behind its length, -1 for NULL.
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        buffer.extend_from_slice(&u32::try_from(self.values.len())?.to_be_bytes());
        for (column, value) in self.shape.columns.iter().zip(self.values) {
            buffer.extend_from_slice(&column.kind.oid().to_be_bytes());
            let at = buffer.len();
            buffer.extend_from_slice(&(-1_i32).to_be_bytes());
            if let IsNull::No = put(value, column.kind, buffer)? {
                let length = i32::try_from(buffer.len() - at - 4)?;
                buffer[at..at + 4].copy_from_slice(&length.to_be_bytes());
            }
        }
        Ok(IsNull::No)
    }
}

/// The types that sqlx asks for where it has no value to ask for `produces`: of an empty
/// array, whose elements' type the server does not look at.
macro_rules! types_without_a_value {
    ($($type:ident: $name:literal),*) => {
        $(impl Type<Postgres> for $type<'_> {
            fn type_info() -> PgTypeInfo {
                PgTypeInfo::with_name($name)
            }
        })*
    };
}

types_without_a_value!(ColumnArray: "text[]", Element: "text", RowArray: "record[]", Record: "record");

impl PgHasArrayType for Element<'_> {
    fn array_type_info() -> PgTypeInfo {
        ColumnArray::type_info()
    }
}

impl PgHasArrayType for Record<'_> {
    fn array_type_info() -> PgTypeInfo {
        RowArray::type_info()
    }
}
