//! Each role of `deploy/postgres/roles.sql` can do its work, and no more.

use catrust_event_store::contract::Fixture as _;
use catrust_event_store::contract::commands::{
    append_all, delete, inactivate, instance, populate, unique_id, with_request_id,
};
use catrust_event_store::contract::receipts::receipt;
use catrust_event_store::{CommandStore as _, EventLog as _, FleetStore as _, Maintenance as _};
use sqlx::error::DatabaseError;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::PgFixture;

const ROLES: &str = include_str!("../../../../deploy/postgres/roles.sql");

/// What no role may do, whatever it is for.
const FORBIDDEN_TO_ALL: [&str; 9] = [
    "UPDATE events SET actor = 'nobody'",
    "DELETE FROM events",
    "TRUNCATE events",
    "ALTER TABLE events DISABLE TRIGGER ALL",
    "DROP TRIGGER events_append_only ON events",
    "UPDATE log_identity SET log_id = gen_random_uuid()",
    "UPDATE replies SET reply = '{}'",
    "DELETE FROM _sqlx_migrations",
    "CREATE TABLE mine (id int)",
];

impl PgFixture {
    fn url_as(&self, role: &str) -> String {
        self.cluster.url_at(self.cluster.port(), role, &self.database)
    }

    async fn grant(&self) {
        // Twice: it is run again after each migration.
        for _ in 0..2 {
            self.execute(ROLES).await.unwrap();
        }
    }

    /// Checks that each statement is refused to a role for want of the right.
    async fn refuses(&self, role: &str, statements: &[&str]) {
        let mut connection = PgConnection::connect(&self.url_as(role)).await.unwrap();
        for statement in FORBIDDEN_TO_ALL.iter().chain(statements) {
            let error = sqlx::raw_sql(AssertSqlSafe(*statement)).execute(&mut connection).await.unwrap_err();
            let code = error.as_database_error().and_then(DatabaseError::code).unwrap_or_default();
            assert_eq!(code, "42501", "{role}: {statement}: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_application_role_serves_with_least_rights() {
    let fixture = PgFixture::create().await;
    fixture.grant().await;
    let store = fixture.open_at(&fixture.url_as("catrust_app")).await;
    let id = instance("served");
    let sns = populate(&store, &id, &["a", "b"]).await;
    let off = with_request_id(inactivate(&id, &sns[0]), unique_id(), "off");
    append_all(&store, &[off, delete(&id, &sns[1])]).await;
    assert!(store.verify().await.unwrap().is_clean());
    assert_eq!(store.prune_replies(fixture.clock.now()).await.unwrap(), 1);
    let said = receipt(&id, "broker", 1);
    assert_eq!(store.record_receipts(&[said.clone(), said]).await.unwrap(), 2);
    assert_eq!(store.list_brokers(&id).await.unwrap().len(), 1);
    assert_eq!(store.forget_brokers(fixture.clock.now()).await.unwrap(), 1);
    assert!(store.try_lease_publisher().await.unwrap().is_some());
    let forbidden = [
        "DELETE FROM instances",
        "DELETE FROM spent_register_codes",
        "UPDATE spent_register_codes SET register_code = 'again'",
        "UPDATE log_identity SET read_model_generation = 0",
        "UPDATE tree_nodes SET hash = hash",
        "DELETE FROM tree_nodes",
        "UPDATE log_evidence SET position = 1",
        "DELETE FROM log_evidence",
        "INSERT INTO log_evidence (number, mark) OVERRIDING SYSTEM VALUE VALUES (9000000, 'ROW')",
    ];
    fixture.refuses("catrust_app", &forbidden).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rebuilding_role_mends_the_read_model_and_appends_nothing() {
    let fixture = PgFixture::create().await;
    fixture.grant().await;
    let owner = fixture.open().await;
    let id = instance("mended");
    let sns = populate(&owner, &id, &["a", "b"]).await;
    append_all(&owner, &[inactivate(&id, &sns[0])]).await;
    let damage = "UPDATE instances SET edition = 'STANDARD'; DELETE FROM ca_certificates; \
                  UPDATE spent_register_codes SET register_code = 'x' || substr(register_code, 2)";
    fixture.execute(damage).await.unwrap();
    let store = fixture.open_at(&fixture.url_as("catrust_rebuild")).await;
    assert_eq!(store.rebuild().await.unwrap().instances, 1);
    assert!(store.verify().await.unwrap().is_clean());
    let forbidden = [
        "INSERT INTO events SELECT * FROM events",
        "SELECT count(*) FROM replies",
        "DELETE FROM broker_receipts",
        "INSERT INTO tree_nodes VALUES (8, 0, '')",
        "SELECT count(*) FROM log_evidence",
    ];
    fixture.refuses("catrust_rebuild", &forbidden).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_auditing_role_verifies_and_writes_nothing() {
    let fixture = PgFixture::create().await;
    fixture.grant().await;
    let owner = fixture.open().await;
    let id = instance("audited");
    let sns = populate(&owner, &id, &["a"]).await;
    append_all(&owner, &[inactivate(&id, &sns[0])]).await;
    let store = fixture.open_at(&fixture.url_as("catrust_audit")).await;
    assert!(store.verify().await.unwrap().is_clean());
    assert_eq!(store.read(0, 10).await.unwrap().len(), 4);
    assert!(store.rebuild().await.is_err());
    let forbidden = [
        "INSERT INTO events SELECT * FROM events",
        "UPDATE instances SET edition = 'STANDARD'",
        "UPDATE ca_certificates SET state = 'ACTIVE'",
        "INSERT INTO spent_register_codes SELECT * FROM spent_register_codes",
        "UPDATE log_identity SET read_model_generation = 0",
        "INSERT INTO tree_nodes VALUES (8, 0, '')",
        "SELECT count(*) FROM replies",
        "SELECT count(*) FROM broker_receipts",
        "INSERT INTO log_evidence (mark) VALUES ('ROW')",
    ];
    fixture.refuses("catrust_audit", &forbidden).await;
}
