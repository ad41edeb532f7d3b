//! Standbys of a [`Postgres`]: made by copying it, fed by its stream, promoted on demand.

use std::time::Duration;

use anyhow::Context as _;

use crate::directory::temporary;
use crate::eventually::eventually;
use crate::postgres::{Postgres, as_server_user, open_to_all, programs};

/// How long replication may take to get somewhere.
const LIMIT: Duration = Duration::from_secs(60);

impl Postgres {
    /// Makes a standby named `name`, which follows this server by streaming, and waits until
    /// it does. Asynchronous until [`Postgres::wait_for_standbys`].
    ///
    /// # Errors
    /// When the copy cannot be made, or the standby does not follow.
    pub async fn standby(&self, name: &str) -> anyhow::Result<Self> {
        self.standby_through(name, self.port()).await
    }

    /// As [`Postgres::standby`]; the standby reaches this server at `port`, of a proxy for
    /// example.
    ///
    /// # Errors
    /// As [`Postgres::standby`].
    pub async fn standby_through(&self, name: &str, port: u16) -> anyhow::Result<Self> {
        let directory = temporary("catrust-pg-")?;
        open_to_all(directory.path())?;
        let data = directory.path().join("data").to_string_lossy().into_owned();
        let program = programs()?.join("pg_basebackup").to_string_lossy().into_owned();
        let from = format!("host=127.0.0.1 port={} user=postgres", self.port());
        let command = [&*program, "-D", &data, "-d", &from, "-X", "stream", "-c", "fast", "--no-sync"]
            .map(str::to_owned);
        tokio::task::spawn_blocking(move || as_server_user(&command.each_ref().map(String::as_str), ""))
            .await?
            .context("the primary cannot be copied")?;
        // The server only looks whether it is there.
        std::fs::write(directory.path().join("data/standby.signal"), "")?;
        let to_primary = format!(
            "primary_conninfo=host=127.0.0.1 port={port} user=postgres application_name={name} \
             connect_timeout=2 keepalives_idle=1"
        );
        let settings = vec![to_primary, "wal_retrieve_retry_interval=100ms".to_owned()];
        let standby = Self::launch_in(directory, self.durability(), settings).await?;
        self.has_follower(name).await?;
        Ok(standby)
    }

    /// Waits until the standby `name` streams.
    ///
    /// # Errors
    /// When it does not.
    pub async fn has_follower(&self, name: &str) -> anyhow::Result<()> {
        let question = format!("SELECT state FROM pg_stat_replication WHERE application_name = '{name}'");
        eventually(LIMIT, &format!("the standby {name} follows"), async || match self.ask(&question).await {
            Ok(state) if state == "streaming" => Ok(()),
            Ok(state) => Err(format!("its state is {state:?}")),
            Err(error) => Err(format!("{error:#}")),
        })
        .await
    }

    /// Sets `synchronous_standby_names`: from now on a commit waits for these standbys.
    /// Empty: it waits for none.
    ///
    /// # Errors
    /// When the server does not take it.
    pub async fn wait_for_standbys(&self, names: &str) -> anyhow::Result<()> {
        self.set("synchronous_standby_names", names).await
    }

    /// Sets a setting of the whole server that needs no restart, and waits until new
    /// sessions have it.
    ///
    /// # Errors
    /// When the server does not take it.
    pub async fn set(&self, name: &str, value: &str) -> anyhow::Result<()> {
        self.ask(&format!("ALTER SYSTEM SET {name} = '{value}'")).await?;
        self.ask("SELECT pg_reload_conf()").await?;
        eventually(LIMIT, &format!("{name} is set"), async || match self.ask(&format!("SHOW {name}")).await {
            Ok(now) if now == value => Ok(()),
            Ok(now) => Err(format!("it is {now:?}")),
            Err(error) => Err(format!("{error:#}")),
        })
        .await
    }

    /// Makes a standby take writes, on a timeline of its own, and waits until it does.
    ///
    /// # Errors
    /// When it is none, or does not.
    pub async fn promote(&self) -> anyhow::Result<()> {
        let promoted = self.ask("SELECT pg_promote(true, 60)").await?;
        anyhow::ensure!(promoted == "t", "the standby was not promoted");
        Ok(())
    }
}
