//! The policy folder (`auth.policy_dir`).

use std::sync::Arc;

use async_trait::async_trait;
use catrust_policy::{Policies, PolicyBundle, PolicyProblems};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use tokio::task::spawn_blocking;

use super::{Content, Reload, ReloadInstruments};
use catrust_access::policy_folder::PolicyFolder;

/// Most problems that are logged one by one.
const LOGGED_PROBLEMS: usize = 20;

/// The folder, taken as a whole or not at all.
pub(crate) struct PolicyFiles(pub(crate) Arc<PolicyFolder>);

#[async_trait]
impl Reload for PolicyFiles {
    fn name(&self) -> &'static str {
        "policies"
    }

    fn instruments(&self, meter: &Meter) -> ReloadInstruments {
        let folder = Arc::clone(&self.0);
        // Observed and not set, so that versions of the past do not stay on the page.
        meter
            .u64_observable_gauge("catrust.policy.info")
            .with_description("1, with the version of the policies in force as label")
            .with_callback(move |observer| {
                if let Some(version) = folder.version() {
                    observer.observe(1, &[KeyValue::new("version", version)]);
                }
            })
            .build();
        ReloadInstruments {
            reloads: Some(
                meter
                    .u64_counter("catrust.policy.reloads")
                    .with_description("Changes of the policy folder, by outcome")
                    .build(),
            ),
            refused: meter
                .u64_gauge("catrust.policy.refused")
                .with_description("1 while the policy folder holds something that cannot be used")
                .build(),
            labels: Vec::new(),
        }
    }

    async fn read(self: Arc<Self>) -> anyhow::Result<Content> {
        let path = self.0.path().to_owned();
        let bundle = spawn_blocking(move || PolicyBundle::read(&path)).await?.map_err(bounded)?;
        let version = bundle.version().to_owned();
        let adopt = move || {
            let policies = Policies::compile(&bundle).map_err(bounded)?;
            let accounts = policies.accounts();
            tracing::info!(
                version = policies.version(),
                before = self.0.version().as_deref(),
                folder = %self.0.path().display(),
                accounts = accounts.len(),
                policies = accounts.iter().map(|(_, policies)| policies).sum::<usize>(),
                "policies in force"
            );
            self.0.replace(policies);
            Ok(())
        };
        Ok(Content { version, adopt: Box::new(adopt) })
    }
}

/// The first problems: a folder may have any number of them.
fn bounded(mut refused: PolicyProblems) -> anyhow::Error {
    let problems = refused.0.len();
    refused.0.truncate(LOGGED_PROBLEMS);
    if problems > LOGGED_PROBLEMS {
        return anyhow::anyhow!("{refused}\nand {} more", problems - LOGGED_PROBLEMS);
    }
    refused.into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use opentelemetry::metrics::MeterProvider as _;
    use opentelemetry_sdk::metrics::SdkMeterProvider;

    use super::super::Reloader;
    use super::*;

    const GOOD: &str = "permit(principal, action, resource);";

    fn write(folder: &Path, name: &str, text: &str) {
        std::fs::create_dir_all(folder.join("1")).unwrap();
        std::fs::write(folder.join("1").join(name), text).unwrap();
    }

    async fn watched(path: &Path) -> (Arc<PolicyFolder>, Reloader) {
        let folder = Arc::new(PolicyFolder::new(path));
        let files = Arc::new(PolicyFiles(Arc::clone(&folder)));
        let meter = SdkMeterProvider::default().meter("test");
        (folder, Reloader::start(files, &meter).await.unwrap())
    }

    #[tokio::test]
    async fn a_change_counts_once_it_has_stayed_for_one_look() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "a.cedar", GOOD);
        let (folder, mut reloader) = watched(directory.path()).await;
        let before = folder.version();
        reloader.look(false).await.unwrap();
        write(directory.path(), "b.cedar", GOOD);
        reloader.look(false).await.unwrap();
        assert_eq!(folder.version(), before, "somebody may be in the middle of it");
        write(directory.path(), "c.cedar", GOOD);
        reloader.look(false).await.unwrap();
        assert_eq!(folder.version(), before, "and was");
        reloader.look(false).await.unwrap();
        let after = folder.version();
        assert_ne!(after, before);
        assert_eq!(after.as_deref(), Some(PolicyBundle::read(directory.path()).unwrap().version()));
    }

    #[tokio::test]
    async fn a_change_that_is_complete_counts_at_once() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "a.cedar", GOOD);
        let (folder, mut reloader) = watched(directory.path()).await;
        let before = folder.version();
        write(directory.path(), "b.cedar", GOOD);
        reloader.look(true).await.unwrap();
        assert_ne!(folder.version(), before);
    }

    #[tokio::test]
    async fn a_bad_folder_is_told_once_and_forgotten_when_it_is_mended() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), "a.cedar", GOOD);
        let (folder, mut reloader) = watched(directory.path()).await;
        let before = folder.version();
        for (bad, text) in [("b.cedar", "permit"), ("b.txt", "not a policy file")] {
            write(directory.path(), bad, text);
            reloader.look(false).await.unwrap();
            assert_eq!(reloader.refused, None, "{bad}: not before it has settled");
            reloader.look(false).await.unwrap();
            let told = reloader.refused.clone();
            assert!(told.is_some(), "{bad}");
            reloader.look(false).await.unwrap();
            assert_eq!((reloader.refused.clone(), folder.version()), (told, before.clone()), "{bad}");
            std::fs::remove_file(directory.path().join("1").join(bad)).unwrap();
            reloader.look(false).await.unwrap();
            assert_eq!(reloader.refused, None, "{bad}: the folder is as it was");
        }
    }
}
