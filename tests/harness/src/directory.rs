//! Temporary directories that are gone when the tests are, in whatever way these end.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::Context as _;
use tempfile::TempDir;

/// Reads names of directories until the tests' process is gone, and removes them when
/// their servers have ended, too.
const CLEANER: &str = r#"
while IFS= read -r directory; do set -- "$@" "$directory"; done
sleep 1
rm -rf -- "$@"
"#;

static CLEANER_INPUT: Mutex<Option<ChildStdin>> = Mutex::new(None);

/// Makes a directory that is removed when dropped; and after the end of this process
/// where it never is: in a static, or because the process was killed.
///
/// # Errors
/// When it cannot be made, or no shell be started.
pub fn temporary(prefix: &str) -> anyhow::Result<TempDir> {
    let directory = tempfile::Builder::new().prefix(prefix).tempdir()?;
    remove_at_the_end(directory.path())?;
    Ok(directory)
}

fn remove_at_the_end(directory: &Path) -> anyhow::Result<()> {
    let mut input = CLEANER_INPUT.lock().unwrap_or_else(PoisonError::into_inner);
    if input.is_none() {
        let mut shell = Command::new("sh");
        shell.args(["-c", CLEANER, "cleaner"]).process_group(0);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        *input = shell.spawn().context("cannot run sh")?.stdin.take();
    }
    Ok(writeln!(input.as_mut().context("no standard input")?, "{}", directory.display())?)
}
