//! Prints replies: aligned columns for people, ProtoJSON for scripts.

use std::io::{self, Write as _};

use serde::Serialize;

use crate::arguments::OutputFormat;
use crate::failure::Failure;
use crate::spelling::printable;

/// Where replies go.
#[derive(Debug)]
pub(crate) struct Printer {
    format: OutputFormat,
}

impl Printer {
    /// Prints in `format` on stdout.
    pub(crate) fn new(format: OutputFormat) -> Self {
        Self { format }
    }

    /// Prints a reply: as ProtoJSON, or as the text that `table` makes of it.
    pub(crate) fn reply<T: Serialize>(
        &self,
        reply: &T,
        table: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            OutputFormat::Json => line(&json(reply, false)?),
            OutputFormat::Table => line(&table(reply)),
        }
    }

    /// As [`Printer::reply`], but one line a reply, for streams.
    pub(crate) fn message<T: Serialize>(
        &self,
        message: &T,
        table: impl FnOnce(&T) -> Option<String>,
    ) -> Result<(), Failure> {
        match self.format {
            OutputFormat::Json => line(&json(message, true)?),
            OutputFormat::Table => table(message).map_or(Ok(()), |text| line(&text)),
        }
    }
}

fn json<T: Serialize>(value: &T, compact: bool) -> Result<String, Failure> {
    let text = if compact { serde_json::to_string(value) } else { serde_json::to_string_pretty(value) };
    text.map_err(|error| Failure::Usage(format!("the reply has no JSON: {error}")))
}

/// Writes a text and a line break. Flushes, so that `watch | grep` shows each message
/// when it comes.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", text.trim_end_matches('\n')).and_then(|()| stdout.flush()).map_err(|error| {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Usage(format!("cannot write the output: {error}")),
        }
    })
}

/// Columns as wide as their widest cell, two spaces apart, nothing behind the last one.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut lines: Vec<Vec<String>> = vec![header.iter().map(ToString::to_string).collect()];
    lines.extend(rows.iter().map(|row| row.iter().map(|cell| shown(cell)).collect()));
    let width = |column: usize| {
        lines.iter().filter_map(|cells| cells.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut text = String::new();
    for cells in &lines {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Names and values below each other, for one thing.
pub(crate) fn fields(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    pairs.iter().map(|(name, value)| format!("{name:<width$}  {}\n", shown(value))).collect()
}

/// An empty cell would let the eye slip into the next column.
fn shown(cell: &str) -> String {
    if cell.is_empty() { "-".to_owned() } else { printable(cell, false) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_end_without_spaces() {
        let rows = [vec!["7A0F".to_owned(), "ACTIVE".to_owned()], vec!["01".to_owned(), String::new()]];
        assert_eq!(table(&["SN", "STATE"], &rows), "SN    STATE\n7A0F  ACTIVE\n01    -\n");
    }

    #[test]
    fn a_table_without_rows_is_its_header() {
        assert_eq!(table(&["SN", "STATE"], &[]), "SN  STATE\n");
    }

    #[test]
    fn wide_characters_count_once() {
        let rows = [vec!["é".to_owned(), "x".to_owned()]];
        assert_eq!(table(&["AB", "C"], &rows), "AB  C\né   x\n");
    }

    #[test]
    fn fields_are_aligned_and_free_of_control_characters() {
        let text = fields(&[("sn", "01".to_owned()), ("subject", "CN=a\u{7}".to_owned())]);
        assert_eq!(text, "sn       01\nsubject  CN=a\\u{7}\n");
    }
}
