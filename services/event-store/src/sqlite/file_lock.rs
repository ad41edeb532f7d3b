//! Locks between processes, as files beside the database: SQLite has no named
//! locks. The operating system gives a lock back when its holder ends, whatever
//! the way; the empty files stay.

use std::ffi::OsString;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use crate::{PublisherLease, StoreError};

/// How long a migration waits for another one.
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(60);

/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// The publisher's lease.
struct FileLease(File);

#[async_trait]
impl PublisherLease for FileLease {
    /// A file lock cannot be lost while the file is open.
    async fn is_held(&mut self) -> bool {
        self.0.metadata().is_ok()
    }
}

/// Takes the publisher's lease where nobody holds it.
pub(super) fn try_lease(database: &Path) -> Result<Option<Box<dyn PublisherLease>>, StoreError> {
    Ok(try_lock(&beside(database, "-publisher"))?.map(|file| Box::new(FileLease(file)) as _))
}

/// Waits for the right to migrate; it ends with the file.
pub(super) async fn lock_migration(database: &Path) -> Result<File, StoreError> {
    let path = beside(database, "-migration");
    let deadline = Instant::now() + MIGRATION_TIMEOUT;
    loop {
        if let Some(file) = try_lock(&path)? {
            return Ok(file);
        }
        if Instant::now() > deadline {
            return Err(StoreError::Unavailable("another process migrates the file".into()));
        }
        sleep(PAUSE).await;
    }
}

fn try_lock(path: &Path) -> Result<Option<File>, StoreError> {
    let opened = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    let file = opened.map_err(|error| StoreError::Unsuitable(format!("{}: {error}", path.display())))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(StoreError::Unavailable(error.into())),
    }
}

fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(database);
    path.push(suffix);
    path.into()
}
