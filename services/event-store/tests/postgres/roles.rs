//! The role of `deploy/postgres/roles.sql` can do what a server does, and no more.

use catrust_event_store::EventStore;
use catrust_event_store::contract::Fixture as _;
use catrust_event_store::contract::commands::{
    append_all, delete, inactivate, instance, populate, unique_id, with_request_id,
};
use catrust_event_store::contract::receipts::receipt;
use sqlx::error::DatabaseError;
use sqlx::{Connection as _, PgConnection};

use crate::PgFixture;

const ROLES: &str = include_str!("../../../../deploy/postgres/roles.sql");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_application_role_serves_with_least_rights() {
    let fixture = PgFixture::create().await;
    for _ in 0..2 {
        fixture.execute(ROLES).await.unwrap();
    }
    let url = fixture.cluster.url_at(fixture.cluster.port(), "catrust_app", &fixture.database);
    let store = fixture.open_at(&url).await;
    let id = instance("served");
    let sns = populate(&store, &id, &["a", "b"]).await;
    let off = with_request_id(inactivate(&id, &sns[0]), unique_id(), "off");
    append_all(&store, &[off, delete(&id, &sns[1])]).await;
    fixture.execute("UPDATE instances SET edition = 'STANDARD'").await.unwrap();
    assert_eq!(store.rebuild().await.unwrap().instances, 1);
    assert!(store.verify().await.unwrap().is_clean());
    assert_eq!(store.prune_replies(fixture.clock.now()).await.unwrap(), 1);
    let said = receipt(&id, "broker", 1);
    assert_eq!(store.record_receipts(&[said.clone(), said]).await.unwrap(), 2);
    assert_eq!(store.list_brokers(&id).await.unwrap().len(), 1);
    assert_eq!(store.forget_brokers(fixture.clock.now()).await.unwrap(), 1);
    assert!(store.try_lease_publisher().await.unwrap().is_some());

    let mut connection = PgConnection::connect(&url).await.unwrap();
    for refused in [
        "UPDATE events SET actor = 'nobody'",
        "DELETE FROM events",
        "TRUNCATE events",
        "ALTER TABLE events DISABLE TRIGGER ALL",
        "DROP TRIGGER events_append_only ON events",
        "UPDATE log_identity SET log_id = gen_random_uuid()",
        "UPDATE replies SET reply = '{}'",
        "DELETE FROM _sqlx_migrations",
        "CREATE TABLE mine (id int)",
    ] {
        let error = sqlx::raw_sql(refused).execute(&mut connection).await.unwrap_err();
        let code = error.as_database_error().and_then(DatabaseError::code).unwrap_or_default();
        assert_eq!(code, "42501", "{refused}: {error}");
    }
}
