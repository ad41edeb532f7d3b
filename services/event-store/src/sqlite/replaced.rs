//! Notices that another file lies where the database was opened: one copied back, say. The
//! connections to the old one would go on with a file that nobody finds any more.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Device and number of a file; `None` where there is none.
type FileIdentity = Option<(u64, u64)>;

/// Which file lies at the path, and since when, as far as anybody looked.
#[derive(Debug)]
pub(super) struct DatabaseFile {
    path: PathBuf,
    seen: Mutex<(FileIdentity, Instant)>,
}

impl DatabaseFile {
    /// Looks at the file. MUST be made before the connections that are asked about.
    pub(super) fn at(path: PathBuf) -> Self {
        let seen = Mutex::new((identity(&path), Instant::now()));
        Self { path, seen }
    }

    /// Whether a connection that was opened `age` ago leads to the file that is there now.
    pub(super) fn is_that_of(&self, age: Duration) -> bool {
        let now = identity(&self.path);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 != now {
            tracing::warn!(path = %self.path.display(), "another file lies where the database was");
            *seen = (now, Instant::now());
        }
        age <= seen.1.elapsed()
    }
}

fn identity(path: &PathBuf) -> FileIdentity {
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}
