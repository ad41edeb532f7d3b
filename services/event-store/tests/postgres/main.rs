//! [`PgEventStore`] keeps the contract of every event store, and its own promises,
//! on a private Postgres.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cluster;
mod faults;
mod memory;
mod newer_schema;
mod proxy;
mod receipts;
mod roles;
mod schema;
mod servers;

use std::sync::Arc;

use async_trait::async_trait;
use catrust_domain::Notary;
use catrust_event_store::contract::{CommitStep, Fixture, TestClock};
use catrust_event_store::contract_suite;
use catrust_event_store::postgres::PgEventStore;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::cluster::Cluster;

/// A database of the current schema.
pub struct PgFixture {
    clock: TestClock,
    cluster: &'static Cluster,
    database: String,
}

impl PgFixture {
    fn url(&self) -> String {
        self.cluster.url(&self.database)
    }

    /// Opens the database as `psql` would.
    async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.unwrap()
    }

    /// Opens the store at another address of the database.
    async fn open_at(&self, url: &str) -> PgEventStore {
        PgEventStore::connect(url, self.clock.reader()).await.unwrap()
    }

    /// An empty database, never migrated.
    async fn empty() -> Self {
        let cluster = Cluster::shared().await;
        let database = cluster.create_database("template0").await;
        Self { clock: TestClock::new(), cluster, database }
    }
}

#[async_trait]
impl Fixture for PgFixture {
    type Store = PgEventStore;
    const PAYLOAD_TYPE: &'static str = "json";

    async fn create() -> Self {
        let cluster = Cluster::shared().await;
        let database = cluster.create_database("template").await;
        Self { clock: TestClock::new(), cluster, database }
    }

    fn clock(&self) -> &TestClock {
        &self.clock
    }

    async fn open(&self) -> PgEventStore {
        self.open_at(&self.url()).await
    }

    async fn open_with(&self, notary: Arc<dyn Notary>) -> PgEventStore {
        self.open().await.with_notary(notary)
    }

    fn crash_at(store: &PgEventStore, step: CommitStep) {
        store.crash_at(step);
    }

    async fn execute(&self, sql: &str) -> Result<(), String> {
        let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connect().await).await;
        done.map(drop).map_err(|error| error.to_string())
    }

    async fn drop_guards(&self) {
        self.execute("DROP TRIGGER IF EXISTS events_append_only ON events").await.unwrap();
    }
}

contract_suite!(PgFixture);
