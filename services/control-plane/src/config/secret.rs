//! Values that are never printed.

use std::fmt;
use std::path::Path;

use catrust_access::secret_toml::hidden_text;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::ConfigError;

/// What is printed in place of a secret.
pub const REDACTED: &str = "<redacted>";

/// A password or token. `Debug` and `Serialize` give [`REDACTED`]; only
/// [`Secret::expose`] gives the value, so that each use can be searched for.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Takes the value as it is.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The value. Callers MUST NOT log or store it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Reads a secret from a file, without the line break that editors leave at its end.
    ///
    /// # Errors
    /// [`ConfigError::Unreadable`]; [`ConfigError::Settings`] under `key` when the file
    /// holds nothing.
    pub fn read(key: &str, path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::unreadable(path, source))?;
        let value = text.trim_end_matches(['\n', '\r']);
        if value.is_empty() {
            return Err(ConfigError::of(key, format!("{} is empty", path.display())));
        }
        Ok(Self(value.to_owned()))
    }

    /// The secret given inline, else the one in the file, else none.
    ///
    /// # Errors
    /// Those of [`Secret::read`].
    pub(crate) fn from_either(
        inline: Option<&Self>,
        file_key: &str,
        file: Option<&Path>,
    ) -> Result<Option<Self>, ConfigError> {
        match (inline, file) {
            (Some(secret), _) => Ok(Some(secret.clone())),
            (None, Some(path)) => Self::read(file_key, path).map(Some),
            (None, None) => Ok(None),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(REDACTED)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        hidden_text(deserializer).map(Self)
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_debug_nor_serialize_gives_the_value_away() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), REDACTED);
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"<redacted>\"");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_number_in_place_of_a_secret_is_refused_without_quoting_it() {
        for json in ["90210", "-90210", "90210.5"] {
            let error = serde_json::from_str::<Secret>(json).unwrap_err().to_string();
            assert!(error.starts_with("must be a text in quotes"), "{error}");
            assert!(!error.contains("90210"), "{error}");
        }
    }

    #[test]
    fn the_line_break_at_the_end_of_a_file_is_not_part_of_the_secret() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        std::fs::write(&path, "two words \r\n").unwrap();
        assert_eq!(Secret::read("database.password_file", &path).unwrap().expose(), "two words ");
    }

    #[test]
    fn an_empty_file_is_refused_and_a_missing_one_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        let error = Secret::read("database.password_file", &path).unwrap_err();
        assert!(matches!(error, ConfigError::Unreadable { .. }), "{error}");
        std::fs::write(&path, "\n").unwrap();
        let error = Secret::read("database.password_file", &path).unwrap_err().to_string();
        assert!(error.starts_with("database.password_file: ") && error.ends_with("is empty"), "{error}");
    }

    #[test]
    fn an_inline_secret_wins_over_a_file() {
        let inline = Secret::new("inline".to_owned());
        let found = Secret::from_either(Some(&inline), "k", Some(Path::new("absent"))).unwrap();
        assert_eq!(found, Some(inline));
        assert_eq!(Secret::from_either(None, "k", None).unwrap(), None);
    }
}
