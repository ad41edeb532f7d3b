//! ColumnValue rows: each is declared once, by [`stored_row!`], as a list of columns with the
//! value that is written to each, and an expression that makes the row of what is read.
//!
//! The names, the width, the NULLs, the reader and the values of both engines' writers
//! follow from the list, so that their order is one and the same.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use catrust_domain::set_hash::SetHash;
use catrust_domain::{
    AccountId, BrokerId, Edition, Enforcement, InactivationScope, InstanceId, OutcomeKind, RegionId,
    SerialNumber, Sha256, Timestamp,
};
use uuid::Uuid;

use crate::StoreError;
use crate::value::{Kind, Value};

/// A row that a statement gave, read by the index of its columns. An error is a text for
/// [`StoreError::Corrupt`].
pub(crate) trait Row {
    fn text(&self, index: usize) -> Result<&str, String>;
    fn number(&self, index: usize) -> Result<i64, String>;
    fn bytes(&self, index: usize) -> Result<&[u8], String>;
    fn uuid(&self, index: usize) -> Result<Uuid, String>;
    fn time(&self, index: usize) -> Result<Timestamp, String>;
    fn is_null(&self, index: usize) -> Result<bool, String>;

    /// Reads a column as the type that is asked for.
    fn get<T: ColumnValue>(&self, index: usize) -> Result<T, String>
    where
        Self: Sized,
    {
        T::read(self, index)
    }
}

/// A type as one column holds it.
pub(crate) trait ColumnValue: Sized {
    const KIND: Kind;

    fn read(row: &impl Row, index: usize) -> Result<Self, String>;
}

/// A column of a stored row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
}

/// Implemented by [`stored_row!`].
pub(crate) trait StoredRow: Sized {
    const TABLE: &'static str;
    /// Those of the key first, those that change last.
    const COLUMNS: &'static [Column];
    /// The columns that name the row.
    const KEY: &'static [Column];
    /// The columns that change after the row was inserted.
    const CHANGING: &'static [Column];
    const WIDTH: usize = Self::COLUMNS.len();

    /// What is written, in the order of the columns.
    fn values(&self) -> Vec<Value<'_>>;

    /// Reads the columns from `at` on; the text of the error where one does not parse.
    fn parse(row: &impl Row, at: usize) -> Result<Self, String>;

    /// Names the columns in which `self` is not what it should be, with both values.
    fn differences(&self, wanted: &Self) -> Vec<String>;

    /// Reads the columns from `at` on.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] with table and key where one does not parse: the store
    /// wrote it, so somebody else changed it.
    fn read(row: &impl Row, at: usize) -> Result<Self, StoreError> {
        Self::parse(row, at).map_err(|reason| {
            let key = Self::KEY.iter().zip(at..).map(|(column, index)| key_text(row, column.kind, index));
            corrupt(Self::TABLE, &key.collect::<Vec<_>>(), reason)
        })
    }
}

/// Declares a stored row.
///
/// `column: Type = value;` writes `value` and reads `Type`, which the last expression
/// finds under the name of the column. `as Kind` where the kind is not that of the type.
/// `key` names the row; `changing` are the columns that are written again later.
macro_rules! stored_row {
    (
        $type:ty as $row:ident in $table:literal;
        key { $($key:tt)* }
        fixed { $($fixed:tt)* }
        changing { $($changing:tt)* }
        $read:expr
    ) => {
        impl $crate::row::StoredRow for $type {
            const TABLE: &'static str = $table;
            const COLUMNS: &'static [$crate::row::Column] =
                $crate::row::columns![$($key)* $($fixed)* $($changing)*];
            const KEY: &'static [$crate::row::Column] = $crate::row::columns![$($key)*];
            const CHANGING: &'static [$crate::row::Column] = $crate::row::columns![$($changing)*];

            fn values(&self) -> Vec<$crate::value::Value<'_>> {
                let $row = self;
                $crate::row::values![$($key)* $($fixed)* $($changing)*]
            }

            fn parse(row: &impl $crate::row::Row, at: usize) -> Result<Self, String> {
                let mut indices = at..;
                $crate::row::read_columns!(row, indices; $($key)* $($fixed)* $($changing)*);
                Ok($read)
            }

            fn differences(&self, wanted: &Self) -> Vec<String> {
                let mut differences = Vec::new();
                $crate::row::compare!(self, wanted, differences, $row; $($key)* $($fixed)* $($changing)*);
                differences
            }
        }
    };
}

macro_rules! columns {
    ($($name:ident: $type:ty $(as $kind:ident)? = $value:expr;)*) => {
        &[$($crate::row::Column {
            name: stringify!($name),
            kind: $crate::row::kind!($type $(as $kind)?),
        }),*]
    };
}

macro_rules! kind {
    ($type:ty) => {
        <$type as $crate::row::ColumnValue>::KIND
    };
    ($type:ty as $kind:ident) => {
        $crate::value::Kind::$kind
    };
}

macro_rules! values {
    ($($name:ident: $type:ty $(as $kind:ident)? = $value:expr;)*) => {
        vec![$($crate::value::Value::from($value)),*]
    };
}

macro_rules! read_columns {
    ($row:ident, $indices:ident; $($name:ident: $type:ty $(as $kind:ident)? = $value:expr;)*) => {
        $(let $name: $type = $crate::row::next($row, &mut $indices)?;)*
    };
}

macro_rules! compare {
    ($self:ident, $wanted:ident, $into:ident, $row:ident;
     $($name:ident: $type:ty $(as $kind:ident)? = $value:expr;)*) => {
        $(
            let found = { let $row = $self; $value };
            let wanted = { let $row = $wanted; $value };
            $into.extend($crate::row::difference(stringify!($name), &found, &wanted));
        )*
    };
}

pub(crate) use {columns, compare, kind, read_columns, stored_row, values};

/// Reads the next column.
pub(crate) fn next<T: ColumnValue>(
    row: &impl Row,
    indices: &mut impl Iterator<Item = usize>,
) -> Result<T, String> {
    T::read(row, indices.next().unwrap_or(usize::MAX))
}

pub(crate) fn difference<T: PartialEq + Debug>(name: &str, found: &T, wanted: &T) -> Option<String> {
    (found != wanted).then(|| format!("{name} is {found:?}, the log says {wanted:?}"))
}

/// Names columns in a statement, each after `alias`.
pub(crate) fn names(columns: &[Column], alias: &str) -> String {
    let names: Vec<String> = columns.iter().map(|column| format!("{alias}{}", column.name)).collect();
    names.join(", ")
}

/// Names the columns of a row in a statement, each after `alias`.
pub(crate) fn names_of<R: StoredRow>(alias: &str) -> String {
    names(R::COLUMNS, alias)
}

/// What an INSERT does to a row that is there: replaces all but its key.
pub(crate) fn upsert<R: StoredRow>() -> String {
    let sets = R::COLUMNS[R::KEY.len()..].iter().map(|column| format!("{0} = excluded.{0}", column.name));
    let sets: Vec<String> = sets.collect();
    format!(" ON CONFLICT ({}) DO UPDATE SET {}", names(R::KEY, ""), sets.join(", "))
}

fn key_text(row: &impl Row, kind: Kind, index: usize) -> Result<String, String> {
    match kind {
        Kind::Number | Kind::SmallNumber => row.number(index).map(|number| number.to_string()),
        Kind::Uuid => row.uuid(index).map(|id| id.to_string()),
        _ => row.text(index).map(str::to_owned),
    }
}

/// Names a row that does not parse, by whatever of its key can be read.
pub(crate) fn corrupt(table: &'static str, key: &[Result<String, String>], reason: String) -> StoreError {
    let parts: Vec<&str> = key.iter().map(|part| part.as_deref().unwrap_or("?")).collect();
    StoreError::Corrupt { table, row: parts.join("/"), reason }
}

// === impl ColumnValue ===

impl ColumnValue for String {
    const KIND: Kind = Kind::Text;

    fn read(row: &impl Row, index: usize) -> Result<Self, String> {
        row.text(index).map(str::to_owned)
    }
}

/// Words that have no space in them, separated by one.
impl ColumnValue for Vec<String> {
    const KIND: Kind = Kind::Text;

    fn read(row: &impl Row, index: usize) -> Result<Self, String> {
        Ok(row.text(index)?.split_ascii_whitespace().map(str::to_owned).collect())
    }
}

/// Numbers that are never negative.
macro_rules! stored_numbers {
    ($($type:ty: $kind:ident),*) => {
        $(impl ColumnValue for $type {
            const KIND: Kind = Kind::$kind;

            fn read(row: &impl Row, index: usize) -> Result<Self, String> {
                let number = row.number(index)?;
                Self::try_from(number).map_err(|_| format!("{number} is out of range"))
            }
        })*
    };
}

stored_numbers!(u64: Number, u32: Number, u16: SmallNumber);

impl ColumnValue for Sha256 {
    const KIND: Kind = Kind::Bytes;

    fn read(row: &impl Row, index: usize) -> Result<Self, String> {
        let bytes = row.bytes(index)?;
        Self::from_slice(bytes).ok_or_else(|| format!("a digest of {} bytes", bytes.len()))
    }
}

impl ColumnValue for SetHash {
    const KIND: Kind = Kind::Bytes;

    fn read(row: &impl Row, index: usize) -> Result<Self, String> {
        Self::from_bytes(row.bytes(index)?).ok_or_else(|| "a set hash of another length".to_owned())
    }
}

impl ColumnValue for Uuid {
    const KIND: Kind = Kind::Uuid;

    fn read(row: &impl Row, index: usize) -> Result<Self, String> {
        row.uuid(index)
    }
}

impl ColumnValue for Timestamp {
    const KIND: Kind = Kind::Time;

    fn read(row: &impl Row, index: usize) -> Result<Self, String> {
        row.time(index)
    }
}

/// NULL for `None`.
impl<T: ColumnValue> ColumnValue for Option<T> {
    const KIND: Kind = T::KIND;

    fn read(row: &impl Row, index: usize) -> Result<Self, String> {
        if row.is_null(index)? { Ok(None) } else { T::read(row, index).map(Some) }
    }
}

/// Types whose text form is stored.
macro_rules! stored_texts {
    ($($type:ty),*) => {
        $(impl ColumnValue for $type {
            const KIND: Kind = Kind::Text;

            fn read(row: &impl Row, index: usize) -> Result<Self, String> {
                parsed(row.text(index)?)
            }
        }

        impl<'a> From<&'a $type> for Value<'a> {
            fn from(value: &'a $type) -> Self {
                value.as_str().into()
            }
        })*
    };
}

stored_texts!(InstanceId, RegionId, AccountId, BrokerId, SerialNumber);

pub(crate) fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("{text:?} {error}"))
}

/// Enums whose variants have a name in the database.
macro_rules! stored_variants {
    ($($type:ident { $($variant:ident = $name:literal),* })*) => {
        $(impl ColumnValue for $type {
            const KIND: Kind = Kind::Text;

            fn read(row: &impl Row, index: usize) -> Result<Self, String> {
                match row.text(index)? {
                    $($name => Ok(Self::$variant),)*
                    other => Err(format!(concat!("unknown ", stringify!($type), " {:?}"), other)),
                }
            }
        }

        impl From<$type> for Value<'_> {
            fn from(value: $type) -> Self {
                match value {
                    $($type::$variant => $name.into(),)*
                }
            }
        })*
    };
}

stored_variants! {
    Edition { Platinum = "PLATINUM", Professional = "PROFESSIONAL", Standard = "STANDARD" }
    InactivationScope { Key = "KEY", Certificate = "CERTIFICATE" }
    OutcomeKind { Applied = "APPLIED", Refused = "REFUSED" }
    Enforcement { Tls = "TLS", Connect = "CONNECT" }
}
