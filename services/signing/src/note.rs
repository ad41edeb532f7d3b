//! Signed notes (<https://c2sp.org/signed-note>): a text for people, signed, in one file.
//!
//! The text ends with a line break; an empty line and one line per signature follow:
//! `— NAME base64(key id, 4 bytes || Ed25519 signature over the text)`. No text of a note
//! is the signing input of a message ([`crate::canonical`]): those begin with a digit and
//! hold no line break at their end, a note's first line is its origin and never does.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use catrust_domain::Sha256;

use crate::signing::{SigningKey, TrustKeys};

/// How the line of a signature begins: an em dash and a space.
pub const SIGNATURE_MARK: &str = "\u{2014} ";
/// The type of key in the key id: Ed25519.
const ED25519: u8 = 1;

/// A note that is not to be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not the format.
    #[error("not a signed note: {0}")]
    Malformed(&'static str),
    /// The name cannot stand in a signature's line, or begins like another kind of text.
    #[error(
        "{0:?} cannot be the name of a log: begin with a letter, no white space and no `+`, 255 bytes at most"
    )]
    Name(String),
    /// No signature is of a pinned key.
    #[error("none of the signatures is of a key that is trusted here")]
    UnknownKey,
    /// A signature of a pinned key does not match.
    #[error("the signature does not match the text")]
    BadSignature,
}

/// A note whose signature holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenNote<'a> {
    /// The text, with the line break at its end.
    pub text: &'a str,
    /// Under which name it was signed.
    pub name: &'a str,
}

/// Signs `text`, which MUST end with a line break, under `name`.
///
/// # Errors
/// [`NoteError::Name`], [`NoteError::Malformed`].
pub fn sign(text: &str, name: &str, key: &SigningKey) -> Result<String, NoteError> {
    check_name(name)?;
    if !text.ends_with('\n') || text.starts_with(|first: char| !first.is_ascii_alphabetic()) {
        return Err(NoteError::Malformed("the text begins with no letter or ends with no line break"));
    }
    let public = TrustKeys::from(key);
    let raw = public.raw().next().ok_or(NoteError::UnknownKey)?;
    let signature = [&key_id(name, raw)[..], &key.sign(text.as_bytes())].concat();
    Ok(format!("{text}\n{SIGNATURE_MARK}{name} {}\n", STANDARD.encode(signature)))
}

/// Checks that one of `keys` signed the note. Signatures of other keys are passed over.
///
/// # Errors
/// [`NoteError`].
pub fn open<'a>(note: &'a str, keys: &TrustKeys) -> Result<OpenNote<'a>, NoteError> {
    let (text, signatures) =
        note.rsplit_once("\n\n").ok_or(NoteError::Malformed("no empty line before the signatures"))?;
    let text = &note[..=text.len()];
    let signatures =
        signatures.strip_suffix('\n').ok_or(NoteError::Malformed("it ends with no line break"))?;
    for line in signatures.split('\n') {
        let line = line.strip_prefix(SIGNATURE_MARK);
        let (name, signature) = line
            .and_then(|line| line.split_once(' '))
            .ok_or(NoteError::Malformed("a line after the text is no signature"))?;
        check_name(name)?;
        let signature =
            STANDARD.decode(signature).map_err(|_| NoteError::Malformed("a signature is not base64"))?;
        let Some((id, signature)) = signature.split_first_chunk::<4>() else {
            return Err(NoteError::Malformed("a signature is too short"));
        };
        if let Some(raw) = keys.raw().find(|raw| key_id(name, raw) == *id) {
            let holds = SigningKey::check_raw(raw, text.as_bytes(), signature);
            return if holds { Ok(OpenNote { text, name }) } else { Err(NoteError::BadSignature) };
        }
    }
    Err(NoteError::UnknownKey)
}

/// `SHA-256(name || 0x0A || type || public key)`, the first four bytes.
fn key_id(name: &str, raw: &[u8; 32]) -> [u8; 4] {
    let hash = Sha256::of(&[name.as_bytes(), b"\n", &[ED25519], raw].concat());
    let [a, b, c, d, ..] = *hash.as_bytes();
    [a, b, c, d]
}

/// What tools of other makers want to be told of a key: `NAME+KEYID+base64(type || key)`, one
/// for each key.
#[must_use]
pub fn verifier_keys(name: &str, keys: &TrustKeys) -> Vec<String> {
    let spell = |raw: &[u8; 32]| {
        let key = STANDARD.encode([&[ED25519][..], raw].concat());
        format!("{name}+{}+{key}", hex::encode(key_id(name, raw)))
    };
    keys.raw().map(spell).collect()
}

/// Whether a log may have this name.
///
/// # Errors
/// [`NoteError::Name`].
pub fn check_name(name: &str) -> Result<(), NoteError> {
    let good = name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.len() <= 255
        && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+');
    if good { Ok(()) } else { Err(NoteError::Name(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of the example in the specification, and its note: made by Go's
    /// `golang.org/x/mod/sumdb/note`, not by this code.
    const PUBLIC: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    const NOTE: &str = "If you think cryptography is the answer to your problem,\n\
        then you don't know what your problem is.\n\n\
        \u{2014} PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

    fn peter_neumann() -> TrustKeys {
        let key = STANDARD.decode(PUBLIC.rsplit('+').next().unwrap()).unwrap();
        let spki = [&crate::signing::SPKI_PREFIX[..], &key[1..]].concat();
        TrustKeys::from_pem(&crate::pem::encode("PUBLIC KEY", &spki)).unwrap()
    }

    #[test]
    fn the_note_of_another_maker_is_opened_and_its_key_is_spelled_alike() {
        let opened = open(NOTE, &peter_neumann()).unwrap();
        assert_eq!(opened.name, "PeterNeumann");
        assert!(opened.text.ends_with("problem is.\n"));
        assert_eq!(verifier_keys("PeterNeumann", &peter_neumann()), [PUBLIC]);
        let changed = NOTE.replace("your problem is", "your problem was");
        assert_eq!(open(&changed, &peter_neumann()), Err(NoteError::BadSignature));
    }

    #[test]
    fn signatures_of_strangers_are_passed_over() {
        let key = SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap();
        let own = sign("text\n", "own/log", &key).unwrap();
        let stranger = NOTE.lines().last().unwrap();
        let both = own.replace("\n\n", &format!("\n\n{stranger}\n"));
        assert_eq!(open(&both, &TrustKeys::from(&key)).map(|opened| opened.name), Ok("own/log"));
        assert_eq!(open(NOTE, &TrustKeys::from(&key)), Err(NoteError::UnknownKey));
    }

    #[test]
    fn names_and_texts_that_could_be_something_else_are_refused() {
        let key = SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap();
        for name in ["", "a b", "a+b", "1a", "a\n", &"a".repeat(256)] {
            assert!(matches!(sign("text\n", name, &key), Err(NoteError::Name(_))), "{name:?}");
        }
        for text in ["", "text", "23:catrust/trust-bundle/v1,\n"] {
            assert!(matches!(sign(text, "a", &key), Err(NoteError::Malformed(_))), "{text:?}");
        }
        for note in
            ["", "text\n", "text\n\n", "text\n\nx\n", "text\n\n\u{2014} a AAAA", "text\n\n\u{2014} a AA==\n"]
        {
            assert!(open(note, &TrustKeys::from(&key)).is_err(), "{note:?}");
        }
    }
}
