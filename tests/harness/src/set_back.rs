//! Copies of a [`Postgres`] at one moment, put back in its place later: what a restore does, or
//! a failover to a standby that lacks the last commits.

use tempfile::TempDir;

use crate::directory::temporary;
use crate::postgres::{Postgres, copy};

/// A cluster's files as they were at one moment.
#[derive(Debug)]
pub struct PostgresImage(TempDir);

impl Postgres {
    /// Copies the files, with the server down meanwhile.
    ///
    /// # Errors
    /// When they cannot be copied, or the server does not come up again.
    pub async fn image(&mut self) -> anyhow::Result<PostgresImage> {
        let directory = temporary("catrust-pg-image-")?;
        self.kill();
        copy(&self.data(), &directory.path().join("data"))?;
        self.restart().await?;
        Ok(PostgresImage(directory))
    }

    /// Puts an earlier image in the place of what there is, and starts the server on it, at the
    /// same port.
    ///
    /// # Errors
    /// When the files cannot be copied, or the server does not come up.
    pub async fn put_back(&mut self, image: &PostgresImage) -> anyhow::Result<()> {
        self.kill();
        std::fs::remove_dir_all(self.data())?;
        copy(&image.0.path().join("data"), &self.data())?;
        self.restart().await
    }
}
