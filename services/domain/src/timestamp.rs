//! A point in time as the log keeps it.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// 0000-01-01T00:00:00.000000Z.
const FIRST_MICROS: i64 = -62_167_219_200_000_000;
/// 9999-12-31T23:59:59.999999Z.
const LAST_MICROS: i64 = 253_402_300_799_999_999;

/// Microseconds since 1970-01-01T00:00:00Z.
///
/// Microseconds because that is what a Postgres `timestamptz` keeps: a finer
/// clock would make an event differ from its stored row, and break its hash.
/// Serialises as RFC 3339 with six digits of fraction, so that only the years
/// 0000 to 9999 (all that a certificate can hold) survive it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 0000-01-01T00:00:00.000000Z, the first one that RFC 3339 can spell.
    pub const FIRST: Self = Self(FIRST_MICROS);
    /// 9999-12-31T23:59:59.999999Z, the last one that RFC 3339 can spell.
    pub const LAST: Self = Self(LAST_MICROS);

    /// Makes a timestamp from microseconds since the epoch.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the epoch.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// The timestamp `seconds` later, clamped to what 64 bits hold.
    #[must_use]
    pub const fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.timestamp_micros())
    }
}

impl From<Timestamp> for DateTime<Utc> {
    /// Times outside the years 0000 to 9999 are clamped to them: RFC 3339 cannot
    /// spell others, and a payload that cannot be read back would stop the log.
    fn from(time: Timestamp) -> Self {
        DateTime::from_timestamp_micros(time.0.clamp(FIRST_MICROS, LAST_MICROS)).unwrap_or_default()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&DateTime::<Utc>::from(*self).to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        DateTime::parse_from_rfc3339(&text)
            .map(|time| Self::from(time.with_timezone(&Utc)))
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_has_six_digits_of_fraction_and_z() {
        assert_eq!(Timestamp::from_micros(0).to_string(), "1970-01-01T00:00:00.000000Z");
        assert_eq!(Timestamp::from_micros(-1).to_string(), "1969-12-31T23:59:59.999999Z");
        assert_eq!(Timestamp::from_micros(FIRST_MICROS).to_string(), "0000-01-01T00:00:00.000000Z");
        assert_eq!(Timestamp::from_micros(LAST_MICROS).to_string(), "9999-12-31T23:59:59.999999Z");
    }

    #[test]
    fn times_that_have_no_spelling_are_clamped_and_stay_readable() {
        for (micros, clamped) in [(i64::MIN, FIRST_MICROS), (i64::MAX, LAST_MICROS)] {
            let json = serde_json::to_string(&Timestamp::from_micros(micros)).unwrap();
            assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), Timestamp::from_micros(clamped));
        }
    }

    #[test]
    fn seconds_are_added_without_overflow() {
        assert_eq!(Timestamp::from_micros(5).plus_seconds(-2), Timestamp::from_micros(-1_999_995));
        assert_eq!(Timestamp::from_micros(1).plus_seconds(i64::MAX), Timestamp::from_micros(i64::MAX));
        assert_eq!(Timestamp::from_micros(-1).plus_seconds(i64::MIN), Timestamp::from_micros(i64::MIN));
    }

    #[test]
    fn nanoseconds_are_cut_downwards() {
        let before_epoch: DateTime<Utc> = "1969-12-31T23:59:59.999999999Z".parse().unwrap();
        assert_eq!(Timestamp::from(before_epoch), Timestamp::from_micros(-1));
        let after_epoch: DateTime<Utc> = "1970-01-01T00:00:00.000001999Z".parse().unwrap();
        assert_eq!(Timestamp::from(after_epoch), Timestamp::from_micros(1));
    }

    #[test]
    fn text_without_a_zone_is_refused() {
        for text in ["", "2026-01-01", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z", "1764000000"] {
            assert!(serde_json::from_value::<Timestamp>(text.into()).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_time_with_a_spelling_survives_json(micros in FIRST_MICROS..=LAST_MICROS) {
            let json = serde_json::to_string(&Timestamp::from_micros(micros)).unwrap();
            prop_assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), Timestamp::from_micros(micros));
        }
    }
}
