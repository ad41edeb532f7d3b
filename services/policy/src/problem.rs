//! What is wrong with policies, said so that the reader can mend it.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, relative to the policy folder; empty for the folder itself.
    pub path: String,
    /// Line, from 1; 0 where the whole file is meant.
    pub line: usize,
    /// What is wrong and what to do about it.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }

    /// `PATH:LINE`, or `PATH` where there is no line.
    #[must_use]
    pub fn place(&self) -> String {
        match self.line {
            0 => self.path.clone(),
            line => format!("{}:{line}", self.path),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.message),
            _ => write!(f, "{}: {}", self.place(), self.message),
        }
    }
}

/// The policies cannot be used: every problem that was found, by file and line, never
/// none. Not one policy of the folder is in force because of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct PolicyProblems(pub Vec<Problem>);

/// Gives `value` where nothing is wrong.
pub(crate) fn accept<T>(value: T, mut problems: Vec<Problem>) -> Result<T, PolicyProblems> {
    if problems.is_empty() {
        return Ok(value);
    }
    problems.sort();
    // Cedar says the same of a policy for each action that it is about.
    problems.dedup();
    Err(PolicyProblems(problems))
}

/// Line of a byte offset, from 1.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_listed_by_file_and_line() {
        let problems = vec![
            Problem::new("b/x.json", 2, "second"),
            Problem::new("b/x.json", 0, "first"),
            Problem::new("", 0, "the folder"),
        ];
        let refused = accept((), problems).unwrap_err();
        assert_eq!(refused.to_string(), "the folder\nb/x.json: first\nb/x.json:2: second");
    }

    #[test]
    fn lines_count_from_one_and_end_with_the_text() {
        assert_eq!([0, 1, 2, 9].map(|offset| line_of("a\nb", offset)), [1, 1, 2, 2]);
    }
}
