//! The policy folder of a deployment.

use std::fs;
use std::path::{Path, PathBuf};

use crate::deployment::ACCOUNT;

/// The folder `auth.policy_dir`.
#[derive(Clone, Debug)]
pub struct PolicyFolder(PathBuf);

impl PolicyFolder {
    pub(crate) fn new(files: &Path) -> Self {
        Self(files.join("policies"))
    }

    /// Where it lies.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes the files, and what the harness's own callers need.
    pub(crate) fn begin(&self, files: &[(String, String)]) -> anyhow::Result<()> {
        let everything = |principal: &str| {
            format!("permit(principal == Principal::\"principal-of-{principal}\", action, resource);\n")
        };
        self.write("operators/harness.cedar", &everything(crate::deployment::OPERATOR))?;
        self.write(&format!("{ACCOUNT}/harness.cedar"), &everything(crate::deployment::OWNER))?;
        for (path, text) in files {
            self.write(path, text)?;
        }
        Ok(())
    }

    /// Puts a file `ACCOUNT/NAME` in its place, whole.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &str, text: &str) -> anyhow::Result<()> {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap_or(&self.0))?;
        let temporary = path.with_file_name(".new");
        fs::write(&temporary, text)?;
        Ok(fs::rename(temporary, path)?)
    }

    /// Removes a file `ACCOUNT/NAME`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn remove(&self, path: &str) -> anyhow::Result<()> {
        Ok(fs::remove_file(self.0.join(path))?)
    }
}
