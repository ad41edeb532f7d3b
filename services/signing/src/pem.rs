//! PEM (RFC 7468), as far as keys and certificates need it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Bytes per line of base64, as RFC 7468 §2 asks of writers.
const LINE: usize = 64;

/// Reads the content of every block with `label`; blocks with other labels and
/// text around them are passed over. `None` where a block is malformed.
#[must_use]
pub fn decode_all(label: &str, text: &str) -> Option<Vec<Vec<u8>>> {
    let begin = format!("-----BEGIN {label}-----");
    let end = format!("-----END {label}-----");
    let mut blocks = Vec::new();
    let mut open: Option<String> = None;
    for line in text.lines().map(str::trim) {
        match &mut open {
            None if line == begin => open = Some(String::new()),
            None => {}
            Some(content) if line == end => {
                blocks.push(STANDARD.decode(content.as_bytes()).ok()?);
                open = None;
            }
            Some(content) => content.push_str(line),
        }
    }
    open.is_none().then_some(blocks)
}

/// Reads the content of the only block with `label`; `None` where there is not
/// exactly one.
#[must_use]
pub fn decode_one(label: &str, text: &str) -> Option<Vec<u8>> {
    let mut blocks = decode_all(label, text)?;
    if blocks.len() == 1 { blocks.pop() } else { None }
}

/// Writes one block.
#[must_use]
pub fn encode(label: &str, content: &[u8]) -> String {
    let base64 = STANDARD.encode(content);
    let mut pem = format!("-----BEGIN {label}-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str(&format!("-----END {label}-----\n"));
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for length in [0, 1, 47, 48, 49, 500] {
            let content = vec![7; length];
            assert_eq!(decode_one("X", &encode("X", &content)), Some(content), "{length}");
        }
    }

    #[test]
    fn text_and_other_blocks_around_are_passed_over() {
        let text = format!("a comment\n{}{}", encode("OTHER", b"no"), encode("X", b"yes"));
        assert_eq!(decode_one("X", &text), Some(b"yes".to_vec()));
    }

    #[test]
    fn unfinished_or_damaged_blocks_are_refused() {
        assert_eq!(decode_one("X", "-----BEGIN X-----\nAAAA\n"), None);
        assert_eq!(decode_one("X", "-----BEGIN X-----\nA*AA\n-----END X-----\n"), None);
        assert_eq!(decode_one("X", &format!("{0}{0}", encode("X", b"twice"))), None);
    }
}
