//! Reads again, while the server runs, what it is made of: certificates, identities, policies
//! and key sets.
//!
//! Every few seconds, and on SIGHUP. The content is what counts, not times of files. Where a
//! change may be spread over several files, it counts once the next look finds it unchanged:
//! somebody may be in the middle of it, and half of a change can be valid and wrong. SIGHUP says
//! that the change is complete. What cannot be used leaves in force what was, makes nobody
//! unready, and is told once: in the log, and by the gauge of its source.

pub(crate) mod identities;
pub(crate) mod issuer;
pub(crate) mod policies;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use catrust_domain::Sha256;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Meter};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

/// Time between two looks at a file.
const FILE_INTERVAL: Duration = Duration::from_secs(2);

/// Something that is made of what lies outside of the process.
#[async_trait]
pub(crate) trait Reload: Send + Sync {
    /// What it is, for the log and for metrics.
    fn name(&self) -> &'static str;

    /// Makes the instruments that tell how reading it went.
    fn instruments(&self, meter: &Meter) -> ReloadInstruments {
        ReloadInstruments::of_files(meter, self.name())
    }

    /// Whether a change may be come upon half made, so that it has to stay for one look. Where
    /// it may not, what was refused is tried again at each look.
    fn settles(&self) -> bool {
        true
    }

    /// Whether the server may start while it cannot be read.
    fn may_be_away(&self) -> bool {
        false
    }

    /// Reads what is there now.
    ///
    /// # Errors
    /// It cannot be read.
    async fn read(self: Arc<Self>) -> anyhow::Result<Content>;

    /// Hears that a look has found what is in force.
    fn confirm(&self) {}

    /// Waits until the next look is due. `failing`: the last one found nothing that can be used.
    async fn due(&self, _failing: bool) {
        tokio::time::sleep(FILE_INTERVAL).await;
    }
}

/// What a look has read.
pub(crate) struct Content {
    /// Tells it from other contents; no secret.
    pub(crate) version: String,
    /// Puts it in force, as a whole or not at all: where it fails, what was in force MUST stay.
    /// May block.
    pub(crate) adopt: Box<dyn FnOnce() -> anyhow::Result<()> + Send>,
}

/// Keeps something true to its source.
pub(crate) struct Reloader {
    source: Arc<dyn Reload>,
    instruments: ReloadInstruments,
    in_force: Option<String>,
    /// What the last look found.
    seen: Option<LookOutcome>,
    /// What is known to be unusable, and why, as it was told.
    refused: Option<(LookOutcome, String)>,
}

/// The version of the content, or why it cannot be read.
type LookOutcome = Result<String, String>;

impl Reloader {
    /// Reads the source for the first time.
    ///
    /// # Errors
    /// It cannot be read or used, and [`Reload::may_be_away`] does not allow for that.
    pub(crate) async fn start(source: Arc<dyn Reload>, meter: &Meter) -> anyhow::Result<Self> {
        let instruments = source.instruments(meter);
        let mut reloader = Self { source, instruments, in_force: None, seen: None, refused: None };
        match Arc::clone(&reloader.source).read().await {
            Ok(content) => {
                let version = content.version.clone();
                match spawn_blocking(content.adopt).await? {
                    Ok(()) => reloader.in_force = Some(version),
                    Err(error) => reloader.not_yet(Ok(version), error)?,
                }
            }
            Err(error) => reloader.not_yet(Err(format!("{error:#}")), error)?,
        }
        Ok(reloader)
    }

    fn not_yet(&mut self, found: LookOutcome, error: anyhow::Error) -> anyhow::Result<()> {
        if !self.source.may_be_away() {
            return Err(error);
        }
        self.refuse(found, format!("{error:#}"), true);
        Ok(())
    }

    /// Looks until told to stop.
    ///
    /// # Errors
    /// The process cannot listen for SIGHUP.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut hangup = signal(SignalKind::hangup())?;
        loop {
            self.instruments.refused(self.refused.is_some());
            let complete = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = hangup.recv() => true,
                () = self.source.due(self.refused.is_some()) => false,
            };
            if let Some(outcome) = self.look(complete).await? {
                self.instruments.reload(outcome);
            }
        }
    }

    /// Reads the source and puts what is new in force; tells what became of a change.
    /// `complete`: nobody is in the middle of one.
    async fn look(&mut self, complete: bool) -> anyhow::Result<Option<&'static str>> {
        let content = Arc::clone(&self.source).read().await;
        let found = content.as_ref().map(|c| c.version.clone()).map_err(|error| format!("{error:#}"));
        if found.as_ref().ok() == self.in_force.as_ref() && self.in_force.is_some() {
            self.seen = None;
            self.source.confirm();
            if self.refused.take().is_some() {
                tracing::info!(name = self.source.name(), "holds again what is in force");
            }
            return Ok(None);
        }
        let settled = self.seen.replace(found.clone()).as_ref() == Some(&found);
        let known = self.refused.as_ref().is_some_and(|(refused, _)| *refused == found);
        if self.source.settles() && !complete && (!settled || known) {
            return Ok(None);
        }
        let adopted = match content {
            Ok(content) => spawn_blocking(content.adopt).await?,
            Err(error) => Err(error),
        };
        match adopted {
            Ok(()) => {
                self.in_force = found.ok();
                self.refused = None;
                tracing::info!(name = self.source.name(), "read again, and in force");
                Ok(Some("loaded"))
            }
            Err(error) => Ok(self.refuse(found, format!("{error:#}"), complete).then_some("refused")),
        }
    }

    /// Tells why what was found cannot be used, unless that is known; whether it was told.
    fn refuse(&mut self, found: LookOutcome, error: String, again: bool) -> bool {
        let refused = Some((found, error));
        let told = again || self.refused != refused;
        if let (true, Some((_, error))) = (told, &refused) {
            tracing::error!(
                name = self.source.name(),
                error,
                "cannot be used; what was in force stays: mend it, and it is read again"
            );
        }
        self.refused = refused;
        told
    }
}

/// Reads files, in this order; `adopt` puts their contents in force.
///
/// # Errors
/// One cannot be read.
pub(crate) async fn read_files(
    files: Vec<PathBuf>,
    adopt: impl FnOnce(&[Vec<u8>]) -> anyhow::Result<()> + Send + 'static,
) -> anyhow::Result<Content> {
    let read = move || {
        let read =
            |path: &PathBuf| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        files.iter().map(read).collect::<anyhow::Result<Vec<_>>>()
    };
    let contents = spawn_blocking(read).await??;
    // Of the contents and where each ends; a key file's bytes are not kept for comparison.
    let hashes: Vec<u8> = contents.iter().flat_map(|content| *Sha256::of(content).as_bytes()).collect();
    let version = Sha256::of(&hashes).to_string();
    Ok(Content { version, adopt: Box::new(move || adopt(&contents)) })
}

/// What is told about a source in numbers.
#[derive(Debug)]
pub(crate) struct ReloadInstruments {
    /// Changes by outcome; `None` where nobody counts them.
    pub(crate) reloads: Option<Counter<u64>>,
    /// 1 while the source holds something that cannot be used.
    pub(crate) refused: Gauge<u64>,
    /// Labels of both.
    pub(crate) labels: Vec<KeyValue>,
}

impl ReloadInstruments {
    fn of_files(meter: &Meter, what: &'static str) -> Self {
        Self {
            reloads: Some(
                meter
                    .u64_counter("catrust.reloads")
                    .with_description("Changes of files, by what they are and outcome")
                    .build(),
            ),
            refused: meter
                .u64_gauge("catrust.reload.refused")
                .with_description("1 while files hold something that cannot be used, by what they are")
                .build(),
            labels: vec![KeyValue::new("what", what)],
        }
    }

    fn reload(&self, outcome: &'static str) {
        if let Some(reloads) = &self.reloads {
            let labels = [&self.labels[..], &[KeyValue::new("outcome", outcome)]].concat();
            reloads.add(1, &labels);
        }
    }

    fn refused(&self, refused: bool) {
        self.refused.record(u64::from(refused), &self.labels);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use opentelemetry::metrics::MeterProvider as _;
    use opentelemetry_sdk::metrics::SdkMeterProvider;

    use super::*;

    /// Two files that must be equal.
    struct Pair {
        directory: tempfile::TempDir,
        in_force: Mutex<Vec<u8>>,
    }

    impl Pair {
        fn files(&self) -> Vec<PathBuf> {
            ["one", "two"].map(|name| self.directory.path().join(name)).to_vec()
        }

        fn write(&self, one: &str, two: &str) {
            for (path, text) in self.files().iter().zip([one, two]) {
                std::fs::write(path, text).unwrap();
            }
        }

        fn in_force(&self) -> String {
            String::from_utf8(self.in_force.lock().unwrap().clone()).unwrap()
        }
    }

    #[async_trait]
    impl Reload for Pair {
        fn name(&self) -> &'static str {
            "pair"
        }

        async fn read(self: Arc<Self>) -> anyhow::Result<Content> {
            read_files(self.files(), move |contents| {
                anyhow::ensure!(contents[0] == contents[1], "they differ");
                self.in_force.lock().unwrap().clone_from(&contents[0]);
                Ok(())
            })
            .await
        }
    }

    fn meter() -> Meter {
        SdkMeterProvider::default().meter("test")
    }

    async fn pair() -> (Arc<Pair>, Reloader) {
        let pair = Pair { directory: tempfile::tempdir().unwrap(), in_force: Mutex::default() };
        pair.write("a", "a");
        let pair = Arc::new(pair);
        let source: Arc<dyn Reload> = Arc::clone(&pair) as _;
        (pair, Reloader::start(source, &meter()).await.unwrap())
    }

    #[tokio::test]
    async fn a_change_counts_once_it_has_stayed_for_one_look() {
        let (pair, mut reloader) = pair().await;
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
        let (pair, mut reloader) = pair().await;
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
        assert!(
            Reloader::start(pair, &meter()).await.is_err(),
            "at the start there is nothing to fall back on"
        );
    }
}
