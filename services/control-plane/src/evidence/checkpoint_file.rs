//! Checkpoints in a file, one signed note behind the other: what a database cannot take back.
//!
//! Keep it where whoever administers the database cannot write: on the servers' own disks, a
//! volume of its own, storage that only grows.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use catrust_evidence::checkpoint::split_notes;
use catrust_evidence::{SignedCheckpoint, TrustKeys};

/// The file, open for appending. Blocks: a note is written and on the disk within
/// milliseconds.
pub(crate) struct CheckpointFile {
    path: PathBuf,
    file: File,
}

impl CheckpointFile {
    /// Opens the file, makes it where there is none; gives the last note in it that one of
    /// `keys` signed. An end that was cut off in the middle of a write is removed: nobody was
    /// ever told of it.
    ///
    /// # Errors
    /// The file cannot be opened or read.
    pub(crate) fn open(path: &Path, keys: &TrustKeys) -> anyhow::Result<(Self, Option<SignedCheckpoint>)> {
        let cannot = |what: &str| format!("cannot {what} the checkpoint file {}", path.display());
        let mut options = OpenOptions::new();
        let mut file =
            options.read(true).append(true).create(true).open(path).with_context(|| cannot("open"))?;
        let mut text = String::new();
        file.read_to_string(&mut text).with_context(|| cannot("read"))?;
        let (notes, torn) = split_notes(&text);
        if !torn.is_empty() {
            tracing::warn!(bytes = torn.len(), "the checkpoint file ended in the middle of a note");
            file.set_len((text.len() - torn.len()) as u64).with_context(|| cannot("mend"))?;
            file.seek(SeekFrom::End(0)).with_context(|| cannot("mend"))?;
        }
        let last = notes.iter().rev().find_map(|note| SignedCheckpoint::open(note, keys).ok());
        Ok((Self { path: path.to_owned(), file }, last))
    }

    /// Appends a note and puts it onto the disk.
    ///
    /// # Errors
    /// The disk's. The note may be there in part, and is removed when the file is opened again.
    pub(crate) fn append(&mut self, signed: &SignedCheckpoint) -> anyhow::Result<()> {
        let written = self.file.write_all(signed.note.as_bytes()).and_then(|()| self.file.sync_data());
        written.with_context(|| format!("cannot write the checkpoint file {}", self.path.display()))
    }
}

/// Every checkpoint of a file, in its order, each with a signature of one of `keys`.
///
/// # Errors
/// The file cannot be read, or a note in it is not to be trusted.
pub(crate) fn read(path: &Path, keys: &TrustKeys) -> anyhow::Result<Vec<SignedCheckpoint>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (notes, torn) = split_notes(&text);
    anyhow::ensure!(
        torn.is_empty() || !notes.is_empty(),
        "{} holds no checkpoint: it is not the format of c2sp.org/tlog-checkpoint",
        path.display()
    );
    let open = |(number, note): (usize, &&str)| {
        SignedCheckpoint::open(note, keys)
            .with_context(|| format!("checkpoint {} of {} is not to be trusted", number + 1, path.display()))
    };
    notes.iter().enumerate().map(open).collect()
}

#[cfg(test)]
mod tests {
    use catrust_evidence::{Checkpoint, Sha256, SigningKey};

    use super::*;

    fn signed(key: &SigningKey, size: u64) -> SignedCheckpoint {
        let root = Sha256::of(&size.to_be_bytes());
        Checkpoint { origin: "catrust/log/test".to_owned(), size, root }.sign(key).unwrap()
    }

    #[test]
    fn notes_are_appended_and_a_torn_end_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("checkpoints");
        let key = SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap();
        let keys = TrustKeys::from(&key);
        let notes: Vec<_> = (1..4).map(|size| signed(&key, size)).collect();
        let (mut file, last) = CheckpointFile::open(&path, &keys).unwrap();
        assert_eq!(last, None);
        file.append(&notes[0]).unwrap();
        file.append(&notes[1]).unwrap();
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"catrust/log/t").unwrap();
        let (mut file, last) = CheckpointFile::open(&path, &keys).unwrap();
        assert_eq!(last.as_ref(), Some(&notes[1]));
        file.append(&notes[2]).unwrap();
        assert_eq!(read(&path, &keys).unwrap(), notes);
    }

    #[test]
    fn a_note_of_a_stranger_is_not_taken_for_one_of_ours() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("checkpoints");
        let [key, stranger] =
            [(); 2].map(|()| SigningKey::from_pem(&SigningKey::generate_pem().unwrap()).unwrap());
        std::fs::write(&path, signed(&stranger, 9).note).unwrap();
        assert_eq!(CheckpointFile::open(&path, &TrustKeys::from(&key)).unwrap().1, None);
        assert!(read(&path, &TrustKeys::from(&key)).is_err());
    }
}
