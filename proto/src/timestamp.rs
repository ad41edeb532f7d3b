//! `google.protobuf.Timestamp` with the ProtoJSON that the specification asks for.

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};

/// `google.protobuf.Timestamp`: UTC, to the nanosecond.
///
/// By hand, because the generated one writes `+00:00` where ProtoJSON says that
/// output is always `Z`, and the JSON of the feed is a promise.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z, from year 1 to year 9999.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds after `seconds`, 0 to 999,999,999.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Timestamp {
    /// The time, `None` outside of the years 1 to 9999 or with other nanoseconds.
    fn to_utc(self) -> Option<DateTime<Utc>> {
        let time = DateTime::from_timestamp(self.seconds, u32::try_from(self.nanos).ok()?)?;
        let years =
            DateTime::from_timestamp(-62_135_596_800, 0)?..DateTime::from_timestamp(253_402_300_800, 0)?;
        years.contains(&time).then_some(time)
    }
}

impl Serialize for Timestamp {
    /// RFC 3339 with 0, 3, 6 or 9 digits of fraction, always `Z`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let time =
            self.to_utc().ok_or_else(|| S::Error::custom("a timestamp outside of the years 1 to 9999"))?;
        serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    /// RFC 3339 with any offset.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let time = DateTime::parse_from_rfc3339(&text).map_err(D::Error::custom)?.to_utc();
        let nanos = i32::try_from(time.timestamp_subsec_nanos()).map_err(D::Error::custom)?;
        Ok(Self { seconds: time.timestamp(), nanos })
    }
}

#[cfg(test)]
mod tests {
    use super::Timestamp;

    #[test]
    fn output_is_normalised_to_z_with_groups_of_three_digits() {
        for (seconds, nanos, text) in [
            (0, 0, "\"1970-01-01T00:00:00Z\""),
            (1, 500_000_000, "\"1970-01-01T00:00:01.500Z\""),
            (-1, 999_999_000, "\"1969-12-31T23:59:59.999999Z\""),
            (253_402_300_799, 1, "\"9999-12-31T23:59:59.000000001Z\""),
        ] {
            let time = Timestamp { seconds, nanos };
            assert_eq!(serde_json::to_string(&time).unwrap(), text);
            assert_eq!(serde_json::from_str::<Timestamp>(text).unwrap(), time);
        }
    }

    #[test]
    fn input_may_have_an_offset_and_output_must_be_in_range() {
        let time: Timestamp = serde_json::from_str("\"1970-01-01T02:00:00+02:00\"").unwrap();
        assert_eq!(time, Timestamp { seconds: 0, nanos: 0 });
        for (seconds, nanos) in [(253_402_300_800, 0), (-62_135_596_801, 0), (0, -1), (0, 1_000_000_000)] {
            assert!(serde_json::to_string(&Timestamp { seconds, nanos }).is_err());
        }
    }
}
