//! Reading and writing keys and key sets.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use catrust_proto::v1 as proto;
use catrust_signing::{KeyError, SigningKey, Timestamp, TrustKeys};

use crate::failure::Failure;

/// Writes a file that must not be there yet, with `mode`, and onto the disk.
pub(crate) fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(|error| match error
            .kind()
        {
            ErrorKind::AlreadyExists => Failure::Usage(format!(
                "{} is there already, and a key that is overwritten is lost; choose another name",
                path.display()
            )),
            _ => unwritable(path, &error),
        })?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| unwritable(path, &error))
}

/// Puts a file in the place of the one before, whole or not at all.
pub(crate) fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    let beside = beside(path, ".new");
    let write = || -> std::io::Result<()> {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    write().map_err(|error| unwritable(path, &error))
}

/// The path with something after its name.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| Failure::unreadable(path, &error))
}

/// Reads a key set; `None` where there is no file. Nothing about it is checked.
pub(crate) fn read_set(path: &Path) -> Result<Option<proto::KeySet>, Failure> {
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| Failure::Usage(format!("{} is no key set: {error}", path.display()))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::unreadable(path, &error)),
    }
}

/// Reads a private key.
pub(crate) fn private_key(path: &Path) -> Result<SigningKey, Failure> {
    SigningKey::load(path).map_err(|error| unusable(path, &error))
}

/// Reads public keys from several files.
pub(crate) fn public_keys(paths: &[PathBuf]) -> Result<TrustKeys, Failure> {
    let mut all = TrustKeys::default();
    for path in paths {
        all.extend(TrustKeys::load([path]).map_err(|error| unusable(path, &error))?);
    }
    Ok(all)
}

fn unusable(path: &Path, error: &KeyError) -> Failure {
    match error {
        KeyError::Unreadable { source, .. } => Failure::unreadable(path, source),
        other => Failure::Usage(format!("{}: {other}", path.display())),
    }
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Usage(format!("cannot write {}: {error}", path.display()))
}

/// The wall clock; before 1970 is 1970.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}
