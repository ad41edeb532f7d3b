//! When a log epoch began, as far as its number tells.

use catrust_domain::{LogEpoch, Timestamp};

/// 2020-01-01T00:00:00Z, from which on epochs count their seconds.
const BEGINNING_SECONDS: i64 = 1_577_836_800;

/// When an epoch began, at the latest: its number is that many seconds after 2020, unless
/// the one before had that number already.
#[must_use]
pub fn began_at(epoch: LogEpoch) -> Timestamp {
    Timestamp::from_micros(0).plus_seconds(BEGINNING_SECONDS + i64::from(epoch.0))
}
