//! PEM (RFC 7468), as far as keys and certificates need it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject;

pub use rustls_pki_types::CertificateDer;

/// Bytes per line of base64, as RFC 7468 §2 asks of writers.
const LINE: usize = 64;

/// Reads every block of one kind; blocks of other kinds and text around them are passed over.
/// `None` where a block is malformed.
#[must_use]
pub fn decode_all<T: PemObject>(text: &str) -> Option<Vec<T>> {
    T::pem_slice_iter(text.as_bytes()).collect::<Result<_, _>>().ok()
}

/// Reads the only block of one kind; `None` where there is not exactly one.
#[must_use]
pub fn decode_one<T: PemObject>(text: &str) -> Option<T> {
    let mut blocks = decode_all(text)?;
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

    const LABEL: &str = "CERTIFICATE";

    #[test]
    fn what_is_written_is_read() {
        for length in [0, 1, 47, 48, 49, 500] {
            let content = vec![7; length];
            let read = decode_one::<CertificateDer<'_>>(&encode(LABEL, &content));
            assert_eq!(read.as_deref(), Some(&*content), "{length}");
        }
    }

    #[test]
    fn text_and_other_blocks_around_are_passed_over() {
        let text = format!("a comment\n{}{}", encode("OTHER", b"no"), encode(LABEL, b"yes"));
        assert_eq!(decode_one::<CertificateDer<'_>>(&text).as_deref(), Some(&b"yes"[..]));
    }

    #[test]
    fn unfinished_or_damaged_blocks_are_refused() {
        let twice = format!("{0}{0}", encode(LABEL, b"twice"));
        let unfinished = "-----BEGIN CERTIFICATE-----\nAAAA\n";
        let damaged = "-----BEGIN CERTIFICATE-----\nA*AA\n-----END CERTIFICATE-----\n";
        for text in [unfinished, damaged, &twice] {
            assert_eq!(decode_one::<CertificateDer<'_>>(text), None, "{text}");
        }
    }
}
