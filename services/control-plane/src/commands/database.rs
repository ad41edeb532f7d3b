//! `migrate` and `rebuild`, and how a store is opened.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use catrust_domain::Notary;
use catrust_domain::seal::NoKeys;
use catrust_event_store::postgres::{self, PgAddress, PgEventStore};
use catrust_event_store::sqlite::{self, SqliteEventStore};
use catrust_event_store::{Clock, EventStore, StoreError};

use super::{DatabaseArguments, load};
use crate::assemble::system_clock;
use crate::config::{CommitDurability, Config, DatabaseConfig, DatabaseUrl};

/// File of the log inside the data directory of `dev`.
pub(super) const DEV_DATABASE: &str = "catrust.db";

/// Opens the store that `database.url` names, which believes the keys of `notary`.
pub(super) async fn open(
    config: &DatabaseConfig,
    clock: Clock,
    notary: Arc<dyn Notary>,
) -> anyhow::Result<Arc<dyn EventStore>> {
    Ok(match target(config)? {
        Target::Sqlite(path) => {
            Arc::new(SqliteEventStore::open(&path, clock).await.map_err(explain)?.with_notary(notary))
        }
        Target::Postgres(address) => {
            let store = PgEventStore::connect_with(address, clock, config.read_connections).await;
            Arc::new(store.map_err(explain)?.with_notary(notary))
        }
    })
}

/// Opens the store for a server that acknowledges changes: refused where they would not be as
/// durable as the settings promise.
pub(super) async fn open_to_serve(
    config: &DatabaseConfig,
    clock: Clock,
    notary: Arc<dyn Notary>,
) -> anyhow::Result<Arc<dyn EventStore>> {
    if let Some(notice) = config.durability_notice() {
        tracing::warn!("{notice}");
    }
    let Target::Postgres(address) = target(config)? else { return open(config, clock, notary).await };
    let store = PgEventStore::connect_with(address, clock, config.read_connections).await.map_err(explain)?;
    if config.durability == CommitDurability::Synchronous {
        store.check_standbys(config.failover_fences).await.map_err(explain)?;
    }
    Ok(Arc::new(store.with_notary(notary).dated_by_the_database()))
}

enum Target {
    Sqlite(PathBuf),
    Postgres(PgAddress),
}

fn target(config: &DatabaseConfig) -> anyhow::Result<Target> {
    Ok(match config.required_url()? {
        DatabaseUrl::Sqlite(path) => Target::Sqlite(path.clone()),
        DatabaseUrl::Postgres(url) => {
            let password = config.read_password()?;
            Target::Postgres(config.address(url, password.as_ref()))
        }
    })
}

/// The store's errors say what to do themselves; their causes follow.
fn explain(error: StoreError) -> anyhow::Error {
    anyhow::Error::new(error)
}

/// The settings, with the data directory of `dev` in place of `database.url` where it is
/// given.
pub(super) fn settings(arguments: &DatabaseArguments) -> anyhow::Result<Config> {
    let mut config = load(arguments.config.as_deref())?;
    if let Some(directory) = &arguments.data_dir {
        config.database.url = Some(DatabaseUrl::Sqlite(directory.join(DEV_DATABASE)));
    }
    Ok(config)
}

pub(super) async fn migrate(arguments: DatabaseArguments) -> anyhow::Result<ExitCode> {
    let report = match target(&settings(&arguments)?.database)? {
        Target::Sqlite(path) => sqlite::migrate(&path).await.map_err(explain)?,
        Target::Postgres(address) => postgres::migrate(address).await.map_err(explain)?,
    };
    if report.from == report.to {
        println!("the schema is at version {} already", report.to);
    } else {
        println!("the schema was at version {}, and is at version {} now", report.from, report.to);
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn rebuild(arguments: DatabaseArguments) -> anyhow::Result<ExitCode> {
    let store = open_existing(&settings(&arguments)?, Arc::new(NoKeys)).await?;
    let started = Instant::now();
    let report = store.rebuild().await.map_err(explain)?;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "rebuilt {} instances and {} CA certificates from {} events in {seconds:.1} s ({:.0} events/s)",
        report.instances,
        report.certificates,
        report.events,
        report.events as f64 / seconds.max(0.001)
    );
    for instance in &report.differing_instances {
        println!("the old read model of instance {instance} differed from the log");
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens the store of `config`, which MUST be there.
pub(super) async fn open_existing(
    config: &Config,
    notary: Arc<dyn Notary>,
) -> anyhow::Result<Arc<dyn EventStore>> {
    if let Target::Sqlite(path) = target(&config.database)? {
        anyhow::ensure!(Path::new(&path).exists(), "there is no database at {}", path.display());
    }
    open(&config.database, system_clock(), notary).await
}
