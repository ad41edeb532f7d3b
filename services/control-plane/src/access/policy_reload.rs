//! Reads the policy folder again while the server runs.
//!
//! Every few seconds, and on SIGHUP. The content is what counts, not times of files. A
//! change that a look comes upon counts once the next look finds it unchanged: somebody may
//! be in the middle of it, and half of a change can be valid and wrong. SIGHUP says that
//! the change is complete, and skips that.
//!
//! The folder is taken as a whole or not at all. One with a mistake in it leaves in force
//! what was: it is told in the log and by `catrust.policy.refused`, and makes nobody unready,
//! because a server that goes on deciding by good policies is better than none.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use catrust_policy::{Bundle, Policies, Refused};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Gauge, Meter};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::policy_folder::PolicyFolder;
use crate::metrics::Metrics;

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(2);

/// Most problems that are logged one by one.
const LOGGED_PROBLEMS: usize = 20;

/// Keeps a folder's policies true to the disk.
pub struct PolicyReload {
    folder: Arc<PolicyFolder>,
    metrics: Metrics,
    /// What the last look found: a version, or problems with reading.
    seen: Option<String>,
    /// What is known to be unusable, and was told.
    refused: Option<String>,
}

impl PolicyReload {
    /// Watches a folder whose policies are in force.
    #[must_use]
    pub fn new(folder: Arc<PolicyFolder>, metrics: Metrics) -> Self {
        Self { folder, metrics, seen: None, refused: None }
    }

    /// Looks until told to stop.
    ///
    /// # Errors
    /// The process cannot listen for SIGHUP.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let version = self.folder.version();
        tracing::info!(version = &*version, folder = %self.folder.path().display(), "policies loaded");
        self.metrics.policies().in_force(&version);
        let mut hangup = signal(SignalKind::hangup())?;
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let complete = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = hangup.recv() => true,
                _ = ticks.tick() => false,
            };
            self.look(complete).await?;
        }
    }

    /// Reads the folder and puts what is new of it in force. `complete`: nobody is in the
    /// middle of a change.
    async fn look(&mut self, complete: bool) -> anyhow::Result<()> {
        let path = self.folder.path().to_owned();
        let read = spawn_blocking(move || Bundle::read(&path)).await?;
        let found = read.as_ref().map_or_else(ToString::to_string, |bundle| bundle.version().to_owned());
        if found == *self.folder.version() {
            self.all_is_well(&found);
            return Ok(());
        }
        let settled = self.seen.as_ref() == Some(&found);
        self.seen = Some(found.clone());
        let known = self.refused.as_ref() == Some(&found);
        if !complete && (!settled || known) {
            return Ok(());
        }
        let compiled = match read {
            Ok(bundle) => spawn_blocking(move || Policies::compile(&bundle)).await?,
            Err(refused) => Err(refused),
        };
        match compiled {
            Ok(policies) => self.put_in_force(policies),
            Err(refused) => self.refuse(found, &refused),
        }
        Ok(())
    }

    fn all_is_well(&mut self, version: &str) {
        self.seen = None;
        if self.refused.take().is_some() {
            tracing::info!(version, "the policy folder holds the policies in force again");
        }
        self.metrics.policies().refused(false);
    }

    fn put_in_force(&mut self, policies: Policies) {
        let (before, version) = (self.folder.version(), Arc::<str>::from(policies.version()));
        let accounts = policies.accounts();
        let (accounts, policies_in_all) = (accounts.len(), accounts.iter().map(|(_, n)| n).sum::<usize>());
        self.folder.replace(policies);
        self.refused = None;
        tracing::info!(
            version = &*version,
            before = &*before,
            accounts,
            policies = policies_in_all,
            "policies reloaded"
        );
        self.metrics.policies().in_force(&version);
        self.metrics.policies().reload("loaded");
        self.metrics.policies().refused(false);
    }

    fn refuse(&mut self, found: String, refused: &Refused) {
        for problem in refused.0.iter().take(LOGGED_PROBLEMS) {
            tracing::error!(place = problem.place(), problem = problem.message, "a policy cannot be used");
        }
        let version = self.folder.version();
        tracing::error!(
            problems = refused.0.len(),
            in_force = &*version,
            "the policy folder is refused as a whole; what was in force stays: mend it, and it is read again"
        );
        self.refused = Some(found);
        self.metrics.policies().reload("refused");
        self.metrics.policies().refused(true);
    }
}

/// What is told about policies in numbers.
#[derive(Debug)]
pub struct PolicyInstruments {
    version: Arc<Mutex<Option<Arc<str>>>>,
    reloads: Counter<u64>,
    refused: Gauge<u64>,
}

impl PolicyInstruments {
    pub(crate) fn new(meter: &Meter) -> Self {
        let version = Arc::<Mutex<Option<Arc<str>>>>::default();
        let current = Arc::clone(&version);
        // Observed and not set, so that versions of the past do not stay on the page.
        meter
            .u64_observable_gauge("catrust.policy.info")
            .with_description("1, with the version of the policies in force as label")
            .with_callback(move |observer| {
                let version = current.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if let Some(version) = version {
                    observer.observe(1, &[KeyValue::new("version", version)]);
                }
            })
            .build();
        Self {
            version,
            reloads: meter
                .u64_counter("catrust.policy.reloads")
                .with_description("Changes of the policy folder, by outcome")
                .build(),
            refused: meter
                .u64_gauge("catrust.policy.refused")
                .with_description("1 while the policy folder holds something that cannot be used")
                .build(),
        }
    }

    fn in_force(&self, version: &Arc<str>) {
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(version));
    }

    fn reload(&self, outcome: &'static str) {
        self.reloads.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    fn refused(&self, refused: bool) {
        self.refused.record(u64::from(refused), &[]);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use opentelemetry::metrics::MeterProvider as _;
    use opentelemetry_sdk::metrics::SdkMeterProvider;

    use super::*;

    const GOOD: &str = "permit(principal, action, resource);";

    fn write(folder: &Path, name: &str, text: &str) {
        std::fs::create_dir_all(folder.join("1")).unwrap();
        std::fs::write(folder.join("1").join(name), text).unwrap();
    }

    fn watched(folder: &Path) -> PolicyReload {
        let metrics = Metrics::new(&SdkMeterProvider::builder().build().meter("test"));
        PolicyReload::new(Arc::new(PolicyFolder::load(folder).unwrap()), metrics)
    }

    #[tokio::test]
    async fn a_change_counts_once_it_has_stayed_for_one_look() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "a.cedar", GOOD);
        let mut reload = watched(directory.path());
        let before = reload.folder.version();
        reload.look(false).await.unwrap();
        write(directory.path(), "b.cedar", GOOD);
        reload.look(false).await.unwrap();
        assert_eq!(reload.folder.version(), before, "somebody may be in the middle of it");
        write(directory.path(), "c.cedar", GOOD);
        reload.look(false).await.unwrap();
        assert_eq!(reload.folder.version(), before, "and was");
        reload.look(false).await.unwrap();
        let after = reload.folder.version();
        assert_ne!(after, before);
        assert_eq!(*after, *Bundle::read(directory.path()).unwrap().version());
    }

    #[tokio::test]
    async fn a_change_that_is_complete_counts_at_once() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "a.cedar", GOOD);
        let mut reload = watched(directory.path());
        let before = reload.folder.version();
        write(directory.path(), "b.cedar", GOOD);
        reload.look(true).await.unwrap();
        assert_ne!(reload.folder.version(), before);
    }

    #[tokio::test]
    async fn a_bad_folder_is_told_once_and_forgotten_when_it_is_mended() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "a.cedar", GOOD);
        let mut reload = watched(directory.path());
        let before = reload.folder.version();
        for (bad, text) in [("b.cedar", "permit"), ("b.txt", "not a policy file")] {
            write(directory.path(), bad, text);
            reload.look(false).await.unwrap();
            assert_eq!(reload.refused, None, "{bad}: not before it has settled");
            reload.look(false).await.unwrap();
            let told = reload.refused.clone();
            assert!(told.is_some(), "{bad}");
            reload.look(false).await.unwrap();
            assert_eq!(
                (reload.refused.clone(), reload.folder.version()),
                (told, Arc::clone(&before)),
                "{bad}"
            );
            std::fs::remove_file(directory.path().join("1").join(bad)).unwrap();
            reload.look(false).await.unwrap();
            assert_eq!(reload.refused, None, "{bad}: the folder is as it was");
        }
    }
}
