//! The two halves of a revision: the log epoch, and the count within it.
//!
//! A log epoch is one unbroken history of the log. Its number is in the upper half of every
//! revision, so that whatever a later epoch says outranks whatever an earlier one said.

use catrust_domain::Timestamp;

/// 2020-01-01T00:00:00Z, from which on epochs count their seconds.
const BEGINNING_SECONDS: i64 = 1_577_836_800;

/// The log epoch of a revision.
#[must_use]
pub const fn epoch(revision: u64) -> u64 {
    revision >> 32
}

/// The count of a revision within its epoch.
#[must_use]
pub const fn count(revision: u64) -> u64 {
    revision & 0xffff_ffff
}

/// When the log epoch of a revision began, at the latest: its number is that many seconds
/// after 2020, unless the one before had that number already.
#[must_use]
pub fn began_at(revision: u64) -> Timestamp {
    let seconds = i64::try_from(epoch(revision)).unwrap_or(i64::MAX);
    Timestamp::from_micros(0).plus_seconds(BEGINNING_SECONDS.saturating_add(seconds))
}
