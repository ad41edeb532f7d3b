//! Serial numbers of certificates, in one canonical spelling.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest spelling that is accepted, in bytes (the vendor's limit).
pub const MAX_SPELLING_LENGTH: usize = 128;

/// Serial number of a certificate: upper-case hexadecimal in whole bytes without
/// leading zero bytes, as `openssl x509 -serial` prints it. Zero is `00`.
///
/// Unique only within its issuer (RFC 5280 §4.1.2.2): an alias inside one
/// instance, never an identity on the enforcing side.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SerialNumber(String);

/// The text is not a serial number; `Display` says what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSerialNumber {
    /// Nothing was given.
    #[error("is required")]
    Missing,
    /// More than [`MAX_SPELLING_LENGTH`] bytes.
    #[error("is longer than 128 bytes")]
    TooLong,
    /// Not hexadecimal, or colons not between bytes.
    #[error("is not hexadecimal; spell it like `openssl x509 -serial` does, for example 7A0F or 7A:0F")]
    NotHexadecimal,
}

impl SerialNumber {
    /// Takes the bytes of a certificate's serial number, big endian, not negative.
    ///
    /// # Errors
    /// [`InvalidSerialNumber::TooLong`] where the canonical spelling would exceed
    /// [`MAX_SPELLING_LENGTH`]; [`InvalidSerialNumber::Missing`] for no bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidSerialNumber> {
        // DER puts a zero byte before a set high bit: it is not part of the spelling.
        let significant = bytes.iter().position(|byte| *byte != 0);
        hex::encode(significant.map_or_else(|| &bytes[..bytes.len().min(1)], |first| &bytes[first..])).parse()
    }

    /// The canonical spelling.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SerialNumber {
    type Err = InvalidSerialNumber;

    /// Accepts `7A0F`, `7a:0f`, `0x7a0f`, `00007A0F` and the like.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(InvalidSerialNumber::Missing);
        }
        if text.len() > MAX_SPELLING_LENGTH {
            return Err(InvalidSerialNumber::TooLong);
        }
        let digits = digits_of(text).ok_or(InvalidSerialNumber::NotHexadecimal)?;
        let significant = digits.trim_start_matches('0');
        Ok(Self(match significant.len() {
            0 => "00".to_owned(),
            length if length % 2 == 1 => format!("0{significant}"),
            _ => significant.to_owned(),
        }))
    }
}

/// Upper-case digits without prefix and colons; `None` where the text is malformed.
fn digits_of(text: &str) -> Option<String> {
    let body = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    let has_colons = body.contains(':');
    let mut digits = String::with_capacity(body.len());
    for (index, group) in body.split(':').enumerate() {
        let whole_byte = group.len() == 2 || (index == 0 && group.len() == 1);
        if group.is_empty() || (has_colons && !whole_byte) {
            return None;
        }
        if !group.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        digits.push_str(&group.to_ascii_uppercase());
    }
    Some(digits)
}

impl TryFrom<String> for SerialNumber {
    type Error = InvalidSerialNumber;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<SerialNumber> for String {
    fn from(serial: SerialNumber) -> Self {
        serial.0
    }
}

impl fmt::Display for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn common_spellings_name_the_same_serial() {
        for text in ["7A0F", "7a0f", "7A:0F", "7a:0f", "0x7a0f", "0X7A0F", "007A0F", "00:7A:0F", "07A0F"] {
            assert_eq!(text.parse::<SerialNumber>().map(|sn| sn.to_string()), Ok("7A0F".into()), "{text}");
        }
    }

    #[test]
    fn zero_and_odd_digits_are_whole_bytes() {
        assert_eq!("0".parse::<SerialNumber>().map(String::from), Ok("00".into()));
        assert_eq!("F".parse::<SerialNumber>().map(String::from), Ok("0F".into()));
        assert_eq!("1:02".parse::<SerialNumber>().map(String::from), Ok("0102".into()));
    }

    #[test]
    fn malformed_spellings_are_refused() {
        for text in
            ["0x", ":", "7A:", ":7A", "7A::0F", "7:0F:1", "7A0F:11", "G1", "-7A", " 7A", "7A ", "7A\n", "é"]
        {
            assert_eq!(text.parse::<SerialNumber>(), Err(InvalidSerialNumber::NotHexadecimal), "{text:?}");
        }
    }

    #[test]
    fn the_limit_is_128_bytes_of_spelling() {
        assert!("A".repeat(128).parse::<SerialNumber>().is_ok());
        assert_eq!("A".repeat(129).parse::<SerialNumber>(), Err(InvalidSerialNumber::TooLong));
    }

    #[test]
    fn leading_zero_bytes_do_not_count() {
        assert_eq!(SerialNumber::from_bytes(&[0, 0x80]).map(String::from), Ok("80".into()));
        assert_eq!(SerialNumber::from_bytes(&[0; 99]).map(String::from), Ok("00".into()));
        assert_eq!(SerialNumber::from_bytes(&[]), Err(InvalidSerialNumber::Missing));
        let longest = [vec![0], vec![0xff; 64]].concat();
        assert_eq!(SerialNumber::from_bytes(&longest).map(String::from), Ok("F".repeat(128)));
        assert_eq!(SerialNumber::from_bytes(&[1; 65]), Err(InvalidSerialNumber::TooLong));
    }

    proptest! {
        #[test]
        fn canonical_form_is_a_fixed_point(text in ".{0,140}") {
            if let Ok(serial) = text.parse::<SerialNumber>() {
                prop_assert_eq!(serial.as_str().parse::<SerialNumber>(), Ok(serial.clone()));
            }
        }

        #[test]
        fn bytes_survive_every_spelling(bytes in proptest::collection::vec(any::<u8>(), 1..40)) {
            let serial = SerialNumber::from_bytes(&bytes).unwrap();
            let colons = bytes.iter().map(|o| format!("{o:02x}")).collect::<Vec<_>>().join(":");
            if colons.len() <= MAX_SPELLING_LENGTH {
                prop_assert_eq!(colons.parse::<SerialNumber>().unwrap(), serial.clone());
            }
            prop_assert_eq!(format!("0x00{}", hex::encode(&bytes)).parse::<SerialNumber>().unwrap(), serial);
        }
    }
}
