//! Reads files again while the server runs: certificates, client CAs, identities.
//!
//! As for policies (`access/policy_reload.rs`): every few seconds, and on SIGHUP; the content
//! is what counts; a change counts once the next look finds it unchanged, because a key and
//! its certificate are two files; SIGHUP says that the change is complete. What cannot be used
//! leaves in force what was, and is told in the log and by `catrust.reload.refused`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use catrust_domain::Sha256;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Meter};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(2);

/// Something that is made of files.
pub trait Reload: Send + Sync {
    /// What it is, for logs and metrics.
    fn name(&self) -> &'static str;

    /// The files, in the order in which [`Reload::replace`] takes their contents.
    fn files(&self) -> Vec<PathBuf>;

    /// Puts contents in force, as a whole or not at all. May block for a moment.
    ///
    /// # Errors
    /// Why they cannot be used; what was in force MUST stay.
    fn replace(&self, contents: &[Vec<u8>]) -> anyhow::Result<()>;
}

/// Keeps something true to its files.
pub struct Reloader {
    what: Arc<dyn Reload>,
    in_force: Sha256,
    /// What the last look found.
    seen: Option<Found>,
    /// What is known to be unusable, and was told.
    refused: Option<Found>,
}

/// The hash of the contents, or why there are none.
type Found = Result<Sha256, String>;

impl Reloader {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// One cannot be read, or they cannot be used.
    pub fn start(what: Arc<dyn Reload>) -> anyhow::Result<Self> {
        let contents = read(&what.files())?;
        what.replace(&contents)?;
        Ok(Self { what, in_force: hash(&contents), seen: None, refused: None })
    }

    /// Looks until told to stop.
    ///
    /// # Errors
    /// The process cannot listen for SIGHUP.
    pub async fn run(mut self, metrics: Metrics, stop: CancellationToken) -> anyhow::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let complete = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = hangup.recv() => true,
                _ = ticks.tick() => false,
            };
            if let Some(outcome) = self.look(complete).await? {
                metrics.reloads().reload(self.what.name(), outcome);
            }
            metrics.reloads().refused(self.what.name(), self.refused.is_some());
        }
    }

    /// Reads the files and puts what is new in force; tells what became of a change.
    async fn look(&mut self, complete: bool) -> anyhow::Result<Option<&'static str>> {
        let files = self.what.files();
        let contents = spawn_blocking(move || read(&files)).await?;
        let found = contents.as_ref().map(|contents| hash(contents)).map_err(|error| format!("{error:#}"));
        let name = self.what.name();
        if found == Ok(self.in_force) {
            self.seen = None;
            if self.refused.take().is_some() {
                tracing::info!(name, "the files hold again what is in force");
            }
            return Ok(None);
        }
        let settled = self.seen.as_ref() == Some(&found);
        self.seen = Some(found.clone());
        if !complete && (!settled || self.refused.as_ref() == Some(&found)) {
            return Ok(None);
        }
        let what = Arc::clone(&self.what);
        let replaced = match contents {
            Ok(contents) => spawn_blocking(move || what.replace(&contents).map(|()| hash(&contents))).await?,
            Err(error) => Err(error),
        };
        match replaced {
            Ok(in_force) => {
                self.in_force = in_force;
                self.refused = None;
                tracing::info!(name, "read again, and in force");
                Ok(Some("loaded"))
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(
                    name,
                    error,
                    "cannot be used; what was in force stays: mend it, and it is read again"
                );
                self.refused = Some(found);
                Ok(Some("refused"))
            }
        }
    }
}

fn read(files: &[PathBuf]) -> anyhow::Result<Vec<Vec<u8>>> {
    files
        .iter()
        .map(|path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display())))
        .collect()
}

/// Of the contents and where each ends; a key file's octets are not kept for comparison.
fn hash(contents: &[Vec<u8>]) -> Sha256 {
    let hashes: Vec<u8> = contents.iter().flat_map(|content| *Sha256::of(content).as_bytes()).collect();
    Sha256::of(&hashes)
}

/// What is told about files in numbers.
#[derive(Debug)]
pub struct ReloadInstruments {
    reloads: Counter<u64>,
    refused: Gauge<u64>,
}

impl ReloadInstruments {
    pub(crate) fn new(meter: &Meter) -> Self {
        Self {
            reloads: meter
                .u64_counter("catrust.reloads")
                .with_description("Changes of files, by what they are and outcome")
                .build(),
            refused: meter
                .u64_gauge("catrust.reload.refused")
                .with_description("1 while files hold something that cannot be used, by what they are")
                .build(),
        }
    }

    fn reload(&self, what: &'static str, outcome: &'static str) {
        self.reloads.add(1, &[KeyValue::new("what", what), KeyValue::new("outcome", outcome)]);
    }

    fn refused(&self, what: &'static str, refused: bool) {
        self.refused.record(u64::from(refused), &[KeyValue::new("what", what)]);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Two files that must be equal.
    struct Pair {
        directory: tempfile::TempDir,
        in_force: Mutex<Vec<u8>>,
    }

    impl Pair {
        fn write(&self, one: &str, two: &str) {
            for (path, text) in self.files().iter().zip([one, two]) {
                std::fs::write(path, text).unwrap();
            }
        }

        fn in_force(&self) -> String {
            String::from_utf8(self.in_force.lock().unwrap().clone()).unwrap()
        }
    }

    impl Reload for Pair {
        fn name(&self) -> &'static str {
            "pair"
        }

        fn files(&self) -> Vec<PathBuf> {
            ["one", "two"].map(|name| self.directory.path().join(name)).to_vec()
        }

        fn replace(&self, contents: &[Vec<u8>]) -> anyhow::Result<()> {
            anyhow::ensure!(contents[0] == contents[1], "they differ");
            self.in_force.lock().unwrap().clone_from(&contents[0]);
            Ok(())
        }
    }

    fn pair() -> (Arc<Pair>, Reloader) {
        let pair = Pair { directory: tempfile::tempdir().unwrap(), in_force: Mutex::default() };
        pair.write("a", "a");
        let pair = Arc::new(pair);
        (Arc::clone(&pair), Reloader::start(pair).unwrap())
    }

    #[tokio::test]
    async fn a_change_counts_once_it_has_stayed_for_one_look() {
        let (pair, mut reloader) = pair();
        assert_eq!((pair.in_force().as_str(), reloader.look(false).await.unwrap()), ("a", None));
        pair.write("b", "a");
        assert_eq!(reloader.look(false).await.unwrap(), None, "somebody may be in the middle of it");
        pair.write("b", "b");
        assert_eq!(reloader.look(false).await.unwrap(), None, "and was");
        assert_eq!(reloader.look(false).await.unwrap(), Some("loaded"));
        assert_eq!(pair.in_force(), "b");
        pair.write("c", "c");
        assert_eq!(reloader.look(true).await.unwrap(), Some("loaded"), "said to be complete");
    }

    #[tokio::test]
    async fn what_cannot_be_used_changes_nothing_and_is_told_once() {
        let (pair, mut reloader) = pair();
        pair.write("b", "c");
        assert_eq!(reloader.look(false).await.unwrap(), None);
        assert_eq!(reloader.look(false).await.unwrap(), Some("refused"));
        assert_eq!(reloader.look(false).await.unwrap(), None);
        assert_eq!((pair.in_force().as_str(), reloader.refused.is_some()), ("a", true));
        std::fs::remove_file(&pair.files()[0]).unwrap();
        assert_eq!(reloader.look(true).await.unwrap(), Some("refused"), "a missing file is told as well");
        pair.write("a", "a");
        assert_eq!(reloader.look(false).await.unwrap(), None);
        assert_eq!(reloader.refused, None, "the files are as they were");
        std::fs::remove_file(&pair.files()[0]).unwrap();
        assert!(Reloader::start(pair).is_err(), "at the start there is nothing to fall back on");
    }
}
