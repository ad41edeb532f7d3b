//! How values are spelled for people: enums, times, text from elsewhere.

use std::time::Duration;

use catrust_proto::Timestamp;
use catrust_proto::v1::{CaCertificateState, Edition, InactivationScope};

/// Bits of a revision that count within its log epoch.
const COUNT_BITS: u32 = 32;
/// Highest count.
const COUNT: u64 = (1 << COUNT_BITS) - 1;

/// The last word of an enum's proto name: `ACTIVE`.
pub(crate) fn state(value: CaCertificateState) -> &'static str {
    value.as_str_name().trim_start_matches("CA_CERTIFICATE_STATE_")
}

/// The last word of an enum's proto name: `PLATINUM`.
pub(crate) fn edition(value: Edition) -> &'static str {
    value.as_str_name().trim_start_matches("EDITION_")
}

/// The last word of an enum's proto name: `KEY`; empty where nothing is inactive.
pub(crate) fn scope(value: InactivationScope) -> &'static str {
    match value {
        InactivationScope::Unspecified => "",
        stated => stated.as_str_name().trim_start_matches("INACTIVATION_SCOPE_"),
    }
}

/// A revision in a sentence: `revision 7`, and `epoch 1, revision 7` in a later log epoch.
pub(crate) fn revision(value: u64) -> String {
    match value >> COUNT_BITS {
        0 => format!("revision {value}"),
        epoch => format!("epoch {epoch}, revision {}", value & COUNT),
    }
}

/// A revision in a table, and as it is given on the command line: `7`, and `1:7` in a later
/// log epoch.
pub(crate) fn revision_cell(value: u64) -> String {
    match value >> COUNT_BITS {
        0 => value.to_string(),
        epoch => format!("{epoch}:{}", value & COUNT),
    }
}

/// Reads what [`revision_cell`] spells, or the number as machines have it.
///
/// # Errors
/// A message that says what is expected, for clap.
pub(crate) fn parse_revision(text: &str) -> Result<u64, String> {
    let wrong = || "write a revision, for example 7, or 1:7 in log epoch 1".to_owned();
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    match text.split_once(':') {
        None => number(text),
        Some((epoch, count)) => {
            let (epoch, count) = (number(epoch)?, number(count)?);
            if epoch > COUNT || count > COUNT { Err(wrong()) } else { Ok((epoch << COUNT_BITS) | count) }
        }
    }
}

/// RFC 3339 in UTC: `2026-03-01T12:00:00.000123Z`. A dash where there is no time.
pub(crate) fn time(value: Option<&Timestamp>) -> String {
    let json = value.and_then(|time| serde_json::to_value(time).ok());
    let text = json.as_ref().and_then(|json| json.as_str()).unwrap_or("-");
    text.replace("+00:00", "Z")
}

/// Reads RFC 3339 with any offset.
///
/// # Errors
/// A message that says what is expected, for clap.
pub(crate) fn parse_time(text: &str) -> Result<Timestamp, String> {
    serde_json::from_value(serde_json::Value::from(text))
        .map_err(|_| "write RFC 3339, for example 2026-03-01T12:00:00Z".to_owned())
}

/// Reads `250ms`, `10s` or `1m`; a bare number is seconds.
///
/// # Errors
/// A message that says what is expected, for clap.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let number: u32 = digits.parse().map_err(|_| DURATION.to_owned())?;
    match &text[digits.len()..] {
        "ms" => Ok(Duration::from_millis(number.into())),
        "s" | "" => Ok(Duration::from_secs(number.into())),
        "m" => Ok(Duration::from_secs(60 * u64::from(number))),
        _ => Err(DURATION.to_owned()),
    }
}

const DURATION: &str = "write a whole number and ms, s or m, for example 10s";

/// The text with control characters spelled out: names inside a certificate are the
/// work of strangers, and must not steer the terminal. `lines` keeps line breaks.
pub(crate) fn printable(text: &str, lines: bool) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' if lines => shown.push('\n'),
            _ if character.is_control() => shown.extend(character.escape_unicode()),
            _ => shown.push(character),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enums_lose_their_prefix() {
        assert_eq!(state(CaCertificateState::Inactive), "INACTIVE");
        assert_eq!(edition(Edition::Platinum), "PLATINUM");
        assert_eq!(scope(InactivationScope::Key), "KEY");
        assert_eq!(scope(InactivationScope::Unspecified), "");
    }

    /// Ground rule 1: people see "epoch 1, revision 7".
    #[test]
    fn revisions_are_told_with_their_epoch_and_can_be_given_so() {
        let later = (1 << 32) | 7;
        assert_eq!([revision(7), revision_cell(7)], ["revision 7", "7"]);
        assert_eq!([revision(later), revision_cell(later)], ["epoch 1, revision 7", "1:7"]);
        for value in [0, 7, later, u64::MAX] {
            assert_eq!(parse_revision(&revision_cell(value)), Ok(value));
            assert_eq!(parse_revision(&value.to_string()), Ok(value));
        }
        for wrong in ["", "x", "1:", ":7", "1:7:7", "4294967296:1", "1:4294967296", "-1"] {
            assert!(parse_revision(wrong).unwrap_err().contains("1:7"), "{wrong:?}");
        }
    }

    #[test]
    fn times_are_rfc_3339_in_utc() {
        let moment = Timestamp { seconds: 1_772_366_400, nanos: 123_000 };
        assert_eq!(time(Some(&moment)), "2026-03-01T12:00:00.000123Z");
        assert_eq!(time(None), "-");
        assert_eq!(parse_time("2026-03-01T13:00:00.000123+01:00").unwrap(), moment);
        assert!(parse_time("yesterday").unwrap_err().contains("RFC 3339"));
    }

    #[test]
    fn durations_have_a_unit_or_are_seconds() {
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("1m"), Ok(Duration::from_secs(60)));
        for wrong in ["", "s", "1.5s", "-1s", "1h", "1 s", "10s ", "é"] {
            assert!(parse_duration(wrong).unwrap_err().contains("10s"), "{wrong:?}");
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("CN=\u{1b}[2Jx\n", false), "CN=\\u{1b}[2Jx\\u{a}");
        assert_eq!(printable("a\nb", true), "a\nb");
    }
}
