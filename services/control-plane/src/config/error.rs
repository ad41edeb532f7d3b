//! What is wrong with the settings, said so that the reader can mend it.
//!
//! No message holds the value of a secret: parse errors name a line and a column,
//! never the text that stands there.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use catrust_access::secret_toml::SyntaxError;

/// The settings cannot be used. `Display` is meant for a person at a terminal.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read. Check the path and the permissions of the process's user.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// Settings are unknown, of the wrong type, out of range or do not fit together.
    /// All that were found, never an empty list.
    #[error("{}", list(.0))]
    Settings(Vec<SettingProblem>),
}

impl ConfigError {
    /// One problem with one setting.
    pub(crate) fn of(key: &str, message: impl Into<String>) -> Self {
        Self::Settings(vec![SettingProblem { key: key.to_owned(), message: message.into() }])
    }

    pub(crate) fn unreadable(path: &Path, source: std::io::Error) -> Self {
        Self::Unreadable { path: path.to_owned(), source }
    }
}

fn list(problems: &[SettingProblem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// One thing that is wrong with one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingProblem {
    /// The setting as `section.key`, or `FILE:LINE` for an entry of a list file.
    pub key: String,
    /// What is wrong and what to do about it.
    pub message: String,
}

impl fmt::Display for SettingProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// Collects problems, so that a person mends all of them in one go.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<SettingProblem>);

impl Problems {
    pub(crate) fn add(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.0.push(SettingProblem { key: key.into(), message: message.into() });
    }

    /// Adds a problem unless `holds`.
    pub(crate) fn require(&mut self, holds: bool, key: &str, message: &str) {
        if !holds {
            self.add(key, message);
        }
    }

    /// Adds a problem unless `value` is in `range`; `why` says what breaks outside of it.
    pub(crate) fn within(&mut self, key: &str, value: u64, range: RangeInclusive<u64>, why: &str) {
        if !range.contains(&value) {
            self.add(key, format!("is {value}, must be {} to {}: {why}", range.start(), range.end()));
        }
    }

    /// Succeeds when nothing was added.
    pub(crate) fn into_result(self) -> Result<(), ConfigError> {
        if self.0.is_empty() { Ok(()) } else { Err(ConfigError::Settings(self.0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_is_listed_on_its_own_line() {
        let mut problems = Problems::default();
        problems.within("a.b", 0, 1..=5, "zero would stop everything");
        problems.require(false, "c.d", "is required");
        problems.within("e.f", 3, 1..=5, "fine");
        let error = problems.into_result().unwrap_err().to_string();
        assert_eq!(error, "a.b: is 0, must be 1 to 5: zero would stop everything\nc.d: is required");
    }
}
