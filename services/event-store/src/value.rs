//! What stands in a column, and what is bound to a parameter.

use std::borrow::Cow;

use catrust_domain::set_hash::SetHash;
use catrust_domain::{Sha256, Timestamp};
use uuid::Uuid;

/// The kind of a column. SQLite knows fewer, see `sqlite/row.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Json,
    Number,
    SmallNumber,
    Bytes,
    Uuid,
    Time,
}

/// A value on its way to the database.
#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    Null,
    Number(i64),
    /// Also for [`Kind::Json`].
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    Uuid(Uuid),
    Time(Timestamp),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text.into())
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(text: &'a String) -> Self {
        Self::Text(text.into())
    }
}

/// Words that have no space in them, separated by one.
impl From<&Vec<String>> for Value<'_> {
    fn from(words: &Vec<String>) -> Self {
        Self::Text(words.join(" ").into())
    }
}

/// Positions, revisions and versions count from 1 by one, so that the upper half of 64
/// bits, which the databases do not have, is out of reach.
impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u16> for Value<'_> {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl<'a> From<&'a Sha256> for Value<'a> {
    fn from(digest: &'a Sha256) -> Self {
        Self::Bytes(digest.as_bytes().as_slice().into())
    }
}

impl From<&SetHash> for Value<'_> {
    fn from(hash: &SetHash) -> Self {
        Self::Bytes(hash.to_bytes().into())
    }
}

impl From<Uuid> for Value<'_> {
    fn from(id: Uuid) -> Self {
        Self::Uuid(id)
    }
}

impl From<Timestamp> for Value<'_> {
    fn from(time: Timestamp) -> Self {
        Self::Time(time)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}
