//! Names of instances, accounts, regions and brokers, each its own type.
//!
//! They become tokens of NATS subjects and of resource names, so that a dot, a
//! star, `>`, a colon or a space in one would reach into somebody else's. They
//! are therefore refused here, never escaped.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest identifier, in bytes.
pub const MAX_IDENTIFIER_LENGTH: usize = 64;

/// The text is not an identifier; `Display` says what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentifier {
    /// Nothing was given.
    #[error("is required")]
    Missing,
    /// More than [`MAX_IDENTIFIER_LENGTH`] bytes.
    #[error("is longer than 64 characters")]
    TooLong,
    /// A character outside the permitted ones.
    #[error("may contain only A-Z, a-z, 0-9, '_' and '-'")]
    Character,
}

fn check(text: &str) -> Result<(), InvalidIdentifier> {
    if text.is_empty() {
        return Err(InvalidIdentifier::Missing);
    }
    if text.len() > MAX_IDENTIFIER_LENGTH {
        return Err(InvalidIdentifier::TooLong);
    }
    let permitted = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if text.bytes().all(permitted) { Ok(()) } else { Err(InvalidIdentifier::Character) }
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidIdentifier;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                check(text).map(|()| Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidIdentifier;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                check(&text).map(|()| Self(text))
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

identifier! {
    /// Name of an MQTT fleet (`mqtt_instance_id`).
    InstanceId
}
identifier! {
    /// Name of an account: the owner of instances, and the account of a caller.
    AccountId
}
identifier! {
    /// Name of a region.
    RegionId
}
identifier! {
    /// Name of a broker node.
    BrokerId
}

/// Name under which the log keeps what happens to itself; no fleet has it.
pub const LOG_INSTANCE: &str = "_log";

impl InstanceId {
    /// The reserved name [`LOG_INSTANCE`].
    #[must_use]
    pub fn of_log() -> Self {
        Self(LOG_INSTANCE.to_owned())
    }

    /// Whether it is reserved, so that no fleet may be registered under it.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0 == LOG_INSTANCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subject_wildcards_and_separators_are_refused() {
        for text in ["a.b", "*", ">", "a b", "a:b", "a/b", "é", "a\0", "a\n"] {
            assert_eq!(text.parse::<InstanceId>(), Err(InvalidIdentifier::Character), "{text:?}");
        }
    }

    #[test]
    fn the_reserved_name_is_an_identifier() {
        assert_eq!(LOG_INSTANCE.parse(), Ok(InstanceId::of_log()));
        assert!(InstanceId::of_log().is_reserved());
        assert!(!"log".parse::<InstanceId>().unwrap().is_reserved());
    }

    #[test]
    fn length_is_bounded_on_both_sides() {
        assert_eq!("".parse::<BrokerId>(), Err(InvalidIdentifier::Missing));
        assert!("x".repeat(64).parse::<BrokerId>().is_ok());
        assert_eq!("x".repeat(65).parse::<BrokerId>(), Err(InvalidIdentifier::TooLong));
    }
}
