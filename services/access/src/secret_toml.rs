//! TOML that may hold secrets: errors name a place, and quote nothing that stands there.

use std::path::{Path, PathBuf};

use serde::de::{Deserialize as _, Deserializer, Error as _};

/// A file is not TOML.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}:{line}:{column}: {message}", path.display())]
pub struct SyntaxError {
    path: PathBuf,
    line: usize,
    column: usize,
    message: String,
}

impl SyntaxError {
    /// Where the parser of `text` stopped. Its own `Display` would quote the line.
    #[must_use]
    pub fn new(path: &Path, text: &str, error: &toml::de::Error) -> Self {
        let (line, column) = line_and_column(text, error.span().map_or(0, |span| span.start));
        Self { path: path.to_owned(), line, column, message: error.message().to_owned() }
    }
}

/// Line, and column in characters, of a byte offset; both from 1.
pub(crate) fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |rest| rest.chars().count()) + 1;
    (line, column)
}

/// Deserializes a text whose value must not appear in any error: serde's own message for a
/// wrong type quotes what it found.
///
/// # Errors
/// It is not a text.
pub fn hidden_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match toml::Value::deserialize(deserializer) {
        Ok(toml::Value::String(text)) => Ok(text),
        Ok(_) | Err(_) => Err(D::Error::custom("must be a text in quotes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_from_one_and_in_characters() {
        assert_eq!(line_and_column("abc", 0), (1, 1));
        assert_eq!(line_and_column("a\nöx", 4), (2, 2));
        assert_eq!(line_and_column("a\n", 99), (2, 1));
    }
}
