//! The identities file (`auth.token_file`).

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use async_trait::async_trait;

use super::{Content, Reload, read_files};
use catrust_access::PermissionSource;
use catrust_access::known_callers::KnownCallers;

/// The file, and who is known by it.
#[derive(Debug)]
pub(crate) struct IdentitiesFile {
    pub(crate) callers: Arc<KnownCallers>,
    pub(crate) path: PathBuf,
    /// Where it is said what they may do.
    pub(crate) permissions: PermissionSource,
}

#[async_trait]
impl Reload for IdentitiesFile {
    fn name(&self) -> &'static str {
        "identities"
    }

    async fn read(self: Arc<Self>) -> anyhow::Result<Content> {
        read_files(vec![self.path.clone()], move |contents| {
            let text = std::str::from_utf8(&contents[0]);
            let text = text.with_context(|| format!("{} is not UTF-8", self.path.display()))?;
            Ok(self.callers.read_identities(text, &self.path, self.permissions)?)
        })
        .await
    }
}
