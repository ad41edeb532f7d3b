//! Checkpoints: how many events the log has, and the root of the tree over them, signed.
//!
//! The format is C2SP tlog-checkpoint (<https://c2sp.org/tlog-checkpoint>), a signed note:
//!
//! ```text
//! catrust/log/0f0e8d7c-…            origin: which log
//! 1234                              number of events
//! base64 of the root of the tree
//!
//! — catrust/log/0f0e8d7c-… base64 of key id and signature
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use catrust_domain::Sha256;
use catrust_signing::note::{self, NoteError};
use catrust_signing::{SigningKey, TrustKeys};

/// A state of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log, as its signer calls it.
    pub origin: String,
    /// Number of events: the last position.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Sha256,
}

/// A checkpoint whose signature holds, with the note that says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// What it says.
    pub checkpoint: Checkpoint,
    /// The signed note, byte for byte.
    pub note: String,
}

/// A text that is no checkpoint, or not one to be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The signature.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// The lines.
    #[error("not a checkpoint: {0}")]
    Malformed(&'static str),
}

impl Checkpoint {
    /// The text that is signed.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root.as_bytes()))
    }

    /// The signed note.
    ///
    /// # Errors
    /// [`NoteError::Name`]: the origin cannot be the name of a key.
    pub fn sign(&self, key: &SigningKey) -> Result<SignedCheckpoint, NoteError> {
        let note = note::sign(&self.text(), &self.origin, key)?;
        Ok(SignedCheckpoint { checkpoint: self.clone(), note })
    }

    /// Reads the text of a note whose signature was checked. Lines after the root are
    /// extensions, and say nothing here.
    fn parse(text: &str) -> Result<Self, CheckpointError> {
        let malformed = CheckpointError::Malformed;
        let mut lines = text.lines();
        let origin = lines.next().filter(|line| !line.is_empty()).ok_or(malformed("no origin"))?;
        let size = lines.next().ok_or(malformed("no size"))?;
        let number: u64 = size.parse().map_err(|_| malformed("the size is not a number"))?;
        if number.to_string() != size {
            return Err(malformed("the size is not spelled as a plain number"));
        }
        let root = lines.next().ok_or(malformed("no root"))?;
        let root = STANDARD.decode(root).map_err(|_| malformed("the root is not base64"))?;
        let root = Sha256::from_slice(&root).ok_or(malformed("the root is not 32 bytes"))?;
        Ok(Self { origin: origin.to_owned(), size: number, root })
    }
}

impl SignedCheckpoint {
    /// Reads a signed note, and checks that one of `keys` signed it under its origin.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn open(note: &str, keys: &TrustKeys) -> Result<Self, CheckpointError> {
        let opened = note::open(note, keys)?;
        let checkpoint = Checkpoint::parse(opened.text)?;
        if checkpoint.origin != opened.name {
            return Err(CheckpointError::Malformed("the signature is for another origin"));
        }
        Ok(Self { checkpoint, note: note.to_owned() })
    }
}

/// Takes a file of notes, one behind the other, apart. What follows the last whole note (a
/// write that was cut off) comes second; it is empty for a file that was closed well.
#[must_use]
pub fn split_notes(file: &str) -> (Vec<&str>, &str) {
    let mut notes = Vec::new();
    let (mut start, mut at, mut signed) = (0, 0, false);
    for line in file.split_inclusive('\n') {
        let is_signature = line.starts_with(note::SIGNATURE_MARK) && line.ends_with('\n');
        if signed && !is_signature {
            notes.push(&file[start..at]);
            (start, signed) = (at, false);
        }
        signed |= is_signature;
        at += line.len();
    }
    if signed {
        notes.push(&file[start..at]);
        start = at;
    }
    (notes, &file[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap()
    }

    fn checkpoint(size: u64) -> Checkpoint {
        Checkpoint { origin: "catrust/log/test".to_owned(), size, root: Sha256::of(&size.to_be_bytes()) }
    }

    #[test]
    fn a_signed_checkpoint_is_read_back_and_every_changed_byte_is_noticed() {
        let key = key();
        let keys = TrustKeys::from(&key);
        let signed = checkpoint(1_234).sign(&key).unwrap();
        assert_eq!(SignedCheckpoint::open(&signed.note, &keys), Ok(signed.clone()));
        for index in 0..signed.note.len() {
            let mut changed = signed.note.clone().into_bytes();
            changed[index] ^= 1;
            let Ok(changed) = String::from_utf8(changed) else { continue };
            assert!(SignedCheckpoint::open(&changed, &keys).is_err(), "{index}: {changed}");
        }
        assert!(SignedCheckpoint::open(&signed.note, &TrustKeys::from(&self::key())).is_err());
    }

    #[test]
    fn what_is_signed_and_no_checkpoint_is_refused() {
        let key = key();
        let name = "catrust/log/test";
        for text in
            ["catrust/log/test\n", "catrust/log/test\n01\nAAAA\n", "catrust/log/test\n1\nAAAA\n", "x\n1\n"]
        {
            let note = note::sign(text, name, &key).unwrap();
            let opened = SignedCheckpoint::open(&note, &TrustKeys::from(&key));
            assert!(matches!(opened, Err(CheckpointError::Malformed(_))), "{text:?}");
        }
        let other = note::sign(&checkpoint(1).text(), "another/log", &key).unwrap();
        assert!(SignedCheckpoint::open(&other, &TrustKeys::from(&key)).is_err());
    }

    #[test]
    fn a_file_of_notes_is_taken_apart_and_its_torn_end_is_told() {
        let key = key();
        let notes: Vec<String> = (1..4).map(|size| checkpoint(size).sign(&key).unwrap().note).collect();
        let file = notes.concat();
        assert_eq!(split_notes(&file), (notes.iter().map(String::as_str).collect(), ""));
        let last = file.len() - notes[2].len();
        for cut in last + 1..file.len() {
            let Some(torn) = file.get(..cut) else { continue };
            let (whole, rest) = split_notes(torn);
            assert_eq!((whole.len(), rest), (2, &torn[last..]));
        }
        assert_eq!(split_notes(""), (vec![], ""));
    }
}
