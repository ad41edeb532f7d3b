//! A private Postgres for the tests of this process, one database a test.

use catrust_event_store::postgres::migrate;
use catrust_test_harness::postgres::{Durability, Postgres};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OnceCell};
use tokio::task::spawn_blocking;

static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();

/// A running server.
pub struct Cluster {
    postgres: Postgres,
    /// Creating a database copies the template, which nobody may do at the same time.
    creating: Mutex<u32>,
}

impl Cluster {
    /// The server of this process, with a migrated database `template`.
    pub async fn shared() -> &'static Self {
        // On a thread of its own: the harness's futures cannot change threads.
        let start = || Handle::current().block_on(Self::start());
        CLUSTER.get_or_init(|| async { spawn_blocking(start).await.unwrap() }).await
    }

    async fn start() -> Self {
        // Relaxed: these tests end connections and processes, never the machine.
        let postgres = Postgres::start(Durability::Relaxed).await.unwrap();
        let cluster = Self { postgres, creating: Mutex::new(0) };
        cluster.administer("CREATE DATABASE template").await;
        migrate(&cluster.url("template")).await.unwrap();
        cluster
    }

    /// Makes a database; a copy of `template`, or an empty one.
    pub async fn create_database(&self, template: &str) -> String {
        let mut number = self.creating.lock().await;
        *number += 1;
        let name = format!("test{number}");
        self.administer(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        name
    }

    /// The address of a database.
    pub fn url(&self, database: &str) -> String {
        self.url_at(self.port(), "postgres", database)
    }

    /// The address of a database behind another port, or for another role.
    pub fn url_at(&self, port: u16, role: &str, database: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{port}/{database}?sslmode=disable")
    }

    /// The server's port.
    pub fn port(&self) -> u16 {
        self.postgres.port()
    }

    async fn administer(&self, sql: &str) {
        let mut connection = PgConnection::connect(&self.postgres.url()).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
}
