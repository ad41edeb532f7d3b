//! Ground rule 24: N and N+1 run on one database, and N starts again while N+1 is there. This
//! program, as the older one, keeps the whole contract on a schema that was expanded.

use std::sync::Arc;

use async_trait::async_trait;
use catrust_domain::Notary;
use catrust_event_store::contract::{CommitStep, Fixture, TestClock};
use catrust_event_store::contract_suite;
use catrust_event_store::postgres::PgEventStore;

use crate::PgFixture;

/// What a later version may add: columns that may be empty or have a default, tables, indexes.
const EXPANSION: &str = "\
    ALTER TABLE events ADD COLUMN added_later text; \
    ALTER TABLE instances ADD COLUMN added_later bigint NOT NULL DEFAULT 7; \
    ALTER TABLE ca_certificates ADD COLUMN added_later bytea; \
    ALTER TABLE spent_register_codes ADD COLUMN added_later text; \
    ALTER TABLE replies ADD COLUMN added_later text; \
    ALTER TABLE broker_receipts ADD COLUMN added_later text; \
    ALTER TABLE refusals ADD COLUMN added_later text; \
    ALTER TABLE tree_nodes ADD COLUMN added_later text; \
    ALTER TABLE log_identity ADD COLUMN added_later text; \
    ALTER TABLE log_evidence ADD COLUMN added_later text; \
    CREATE INDEX events_by_time ON events (occurred_at); \
    CREATE TABLE added_later (id bigint PRIMARY KEY); \
    INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
        VALUES (1000, 'added later', true, '', 0);";

/// A database of a later schema version.
pub struct NewerSchema(PgFixture);

#[async_trait]
impl Fixture for NewerSchema {
    type Store = PgEventStore;
    const PAYLOAD_TYPE: &'static str = PgFixture::PAYLOAD_TYPE;

    async fn create() -> Self {
        let fixture = PgFixture::create().await;
        fixture.execute(EXPANSION).await.unwrap();
        Self(fixture)
    }

    fn clock(&self) -> &TestClock {
        self.0.clock()
    }

    async fn open(&self) -> PgEventStore {
        self.0.open().await
    }

    async fn open_with(&self, notary: Arc<dyn Notary>) -> PgEventStore {
        self.0.open_with(notary).await
    }

    fn crash_at(store: &PgEventStore, step: CommitStep) {
        store.crash_at(step);
    }

    async fn execute(&self, sql: &str) -> Result<(), String> {
        self.0.execute(sql).await
    }

    async fn drop_guards(&self) {
        self.0.drop_guards().await;
    }
}

contract_suite!(NewerSchema);
