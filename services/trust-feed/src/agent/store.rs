//! What survives a restart: the last signed bundle, the signed changes since, and a
//! signed head.
//!
//! ```text
//! bundle.json    replaced as a whole (write beside, fsync, rename, fsync the directory)
//! changes.jsonl  a change per line, appended (fsync); emptied by the next bundle
//! head.json      replaced as a whole
//! keys.json      the key set, replaced as a whole
//! lock           held while an agent runs
//! ```
//!
//! Messages are kept exactly as they were signed, so that all of it is verified again when
//! it is read: a disk is not trusted more than a network. What the signatures cannot tell
//! is a directory put back as a whole to an earlier one; its head tells how old it is.
//!
//! Everything blocks.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use catrust_proto::v1::{KeySet, TrustBundle};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::core::{SavedMessage, SavedState};

const BUNDLE: &str = "bundle.json";
const CHANGES: &str = "changes.jsonl";
const HEAD: &str = "head.json";
const KEYS: &str = "keys.json";
const LOCK: &str = "lock";

/// A failure of the state directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateFileError {
    /// The system says no. While the agent runs, what is not written is tried again.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Another agent runs with this directory. Give each its own.
    #[error("{} is in use by another agent; give each agent a state directory of its own", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The file is not what an agent writes. [Discard](Store::discard) it.
    #[error("{} is damaged", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        #[source]
        source: serde_json::Error,
    },
}

/// The state directory, locked.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    /// Given back by the system when it is closed, however the process ends.
    _lock: File,
    changes: File,
    /// Length of the part of the changes that is known to be whole and on disk.
    length: u64,
    /// Records that are not on disk yet, in order.
    pending: Vec<SavedMessage>,
}

impl Store {
    /// Opens a directory, and makes it where it is missing.
    ///
    /// # Errors
    /// [`StateFileError::InUse`], [`StateFileError::Io`].
    pub fn open(directory: &Path) -> Result<Self, StateFileError> {
        make(directory)?;
        let path = directory.join(LOCK);
        let lock = OpenOptions::new().create(true).append(true).open(&path).map_err(failed("open", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StateFileError::InUse { path: directory.to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
        }
        let path = directory.join(CHANGES);
        let changes = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(&path)
            .map_err(failed("open", &path))?;
        sync_directory(directory)?;
        Ok(Self { directory: directory.to_owned(), _lock: lock, changes, length: 0, pending: Vec::new() })
    }

    /// Reads what was saved; `None` where nothing was. A last line that was not finished
    /// is dropped: the end came while it was written, and nothing was stated about it.
    ///
    /// # Errors
    /// [`StateFileError::Damaged`], [`StateFileError::Io`].
    pub fn load(&mut self) -> Result<Option<SavedState>, StateFileError> {
        let Some(bundle) = self.read(BUNDLE)? else { return Ok(None) };
        let path = self.path(CHANGES);
        let mut text = fs::read(&path).map_err(failed("read", &path))?;
        let whole = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        if whole < text.len() {
            tracing::warn!(file = %path.display(), "the last saved change was not finished; it is dropped");
            text.truncate(whole);
        }
        self.length = whole as u64;
        self.cut()?;
        let mut changes = Vec::new();
        for line in text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            changes.push(serde_json::from_slice(line).map_err(damaged(&path))?);
        }
        Ok(Some(SavedState { bundle, changes, head: self.read(HEAD)? }))
    }

    /// Reads the bundle that was saved last, exactly as it was signed.
    ///
    /// # Errors
    /// [`StateFileError::Damaged`], [`StateFileError::Io`].
    pub fn load_bundle(&self) -> Result<Option<TrustBundle>, StateFileError> {
        self.read(BUNDLE)
    }

    /// Reads the key set that was saved.
    ///
    /// # Errors
    /// [`StateFileError::Damaged`], [`StateFileError::Io`].
    pub fn load_keys(&self) -> Result<Option<KeySet>, StateFileError> {
        self.read(KEYS)
    }

    /// Puts aside a key set that cannot be used, as [`Store::discard`] does the rest.
    ///
    /// # Errors
    /// [`StateFileError::Io`].
    pub fn discard_keys(&mut self) -> Result<(), StateFileError> {
        self.put_aside(KEYS)?;
        sync_directory(&self.directory)
    }

    /// Puts aside what cannot be used, but for the key set, as `*.refused`, for somebody to
    /// look at.
    ///
    /// # Errors
    /// [`StateFileError::Io`].
    pub fn discard(&mut self) -> Result<(), StateFileError> {
        let path = self.path(CHANGES);
        fs::copy(&path, refused(&path)).map_err(failed("copy", &path))?;
        for name in [BUNDLE, HEAD] {
            self.put_aside(name)?;
        }
        sync_directory(&self.directory)?;
        self.length = 0;
        self.cut()
    }

    fn put_aside(&self, name: &str) -> Result<(), StateFileError> {
        let path = self.path(name);
        match fs::rename(&path, refused(&path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("rename", &path)(error)),
            _ => Ok(()),
        }
    }

    /// Puts a record on disk, after those that failed before. When it returns, all of them
    /// are there, and stay there if the power fails.
    ///
    /// # Errors
    /// [`StateFileError::Io`]: the record is kept; call [`Store::flush`] later.
    pub fn write(&mut self, record: SavedMessage) -> Result<(), StateFileError> {
        if matches!(record, SavedMessage::Bundle(_)) {
            // A new beginning, but not for the keys.
            self.pending.retain(|record| matches!(record, SavedMessage::KeySet(_)));
        }
        self.pending.push(record);
        self.flush()
    }

    /// Puts on disk what failed before.
    ///
    /// # Errors
    /// [`StateFileError::Io`]: call it again later.
    pub fn flush(&mut self) -> Result<(), StateFileError> {
        while let Some(record) = self.pending.first() {
            match record {
                SavedMessage::Bundle(bundle) => {
                    replace(&self.directory, BUNDLE, bundle)?;
                    // The bundle first: old changes beside a new bundle are passed over, a
                    // new start without either would not know how far it had been.
                    self.length = 0;
                    self.cut()?;
                }
                SavedMessage::Change(change) => {
                    let line = line(change, &self.path(CHANGES))?;
                    self.append(&line)?;
                }
                SavedMessage::Head(head) => replace(&self.directory, HEAD, head)?,
                SavedMessage::KeySet(set) => replace(&self.directory, KEYS, set)?,
            }
            self.pending.remove(0);
        }
        Ok(())
    }

    fn append(&mut self, line: &[u8]) -> Result<(), StateFileError> {
        // Whatever an attempt before has left behind the whole part.
        self.cut()?;
        let path = self.path(CHANGES);
        self.changes.write_all(line).map_err(failed("append to", &path))?;
        self.changes.sync_data().map_err(failed("sync", &path))?;
        self.length += line.len() as u64;
        Ok(())
    }

    /// Cuts the changes to their whole part, where there is more.
    fn cut(&mut self) -> Result<(), StateFileError> {
        let path = self.path(CHANGES);
        let length = self.changes.metadata().map_err(failed("inspect", &path))?.len();
        if length == self.length {
            return Ok(());
        }
        self.changes.set_len(self.length).map_err(failed("truncate", &path))?;
        self.changes.sync_data().map_err(failed("sync", &path))
    }

    fn read<M: DeserializeOwned>(&self, name: &str) -> Result<Option<M>, StateFileError> {
        let path = self.path(name);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map(Some).map_err(damaged(&path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

fn make(directory: &Path) -> Result<(), StateFileError> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(directory).map_err(failed("create", directory))
}

/// Writes a file beside the old one, and puts it in its place.
fn replace(directory: &Path, name: &str, message: &impl Serialize) -> Result<(), StateFileError> {
    let path = directory.join(name);
    let beside = directory.join(format!("{name}.new"));
    let text = line(message, &path)?;
    let mut file = File::create(&beside).map_err(failed("create", &beside))?;
    file.write_all(&text).map_err(failed("write", &beside))?;
    file.sync_all().map_err(failed("sync", &beside))?;
    fs::rename(&beside, &path).map_err(failed("replace", &path))?;
    sync_directory(directory)
}

fn line(message: &impl Serialize, path: &Path) -> Result<Vec<u8>, StateFileError> {
    // A verified message has a JSON form, as it has a canonical one.
    let mut line = serde_json::to_vec(message).map_err(damaged(path))?;
    line.push(b'\n');
    Ok(line)
}

/// A renamed or new file is on disk when its directory is.
fn sync_directory(directory: &Path) -> Result<(), StateFileError> {
    File::open(directory).and_then(|file| file.sync_all()).map_err(failed("sync", directory))
}

fn refused(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".refused");
    PathBuf::from(name)
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateFileError {
    let path = path.to_owned();
    move |source| StateFileError::Io { doing, path, source }
}

fn damaged(path: &Path) -> impl FnOnce(serde_json::Error) -> StateFileError {
    let path = path.to_owned();
    move |source| StateFileError::Damaged { path, source }
}

#[cfg(test)]
mod tests;
