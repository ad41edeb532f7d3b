//! Rows that a store remembers from its last batch: never believed when they may be wrong.

use catrust_domain::{InstanceId, Rejection, ReplyBody, SerialNumber};
use catrust_event_store::contract::Fixture as _;
use catrust_event_store::contract::commands::{
    activate, add, append_all, delete, inactivate, instance, populate, unique_id, with_request_id,
};
use catrust_event_store::postgres::PgEventStore;
use catrust_event_store::{CommandStore as _, EventLog as _, Maintenance as _};

use crate::PgFixture;

/// A store that remembers the rows of an instance with two CA certificates.
async fn warm() -> (PgFixture, PgEventStore, InstanceId, Vec<SerialNumber>) {
    let fixture = PgFixture::create().await;
    let store = fixture.open().await;
    let id = instance("remembered");
    let sns = populate(&store, &id, &["a", "b"]).await;
    append_all(&store, &[inactivate(&id, &sns[0]), activate(&id, &sns[0])]).await;
    (fixture, store, id, sns)
}

fn certificate_of(body: &ReplyBody) -> &catrust_domain::CaCertificate {
    let ReplyBody::CaCertificate { certificate, .. } = body else { panic!("{body:?}") };
    certificate
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_replica_did_is_seen_by_the_next_batch() {
    let (fixture, store, id, sns) = warm().await;
    let other = fixture.open().await;
    append_all(&other, &[inactivate(&id, &sns[0]), delete(&id, &sns[1])]).await;
    let results = store.append(&[inactivate(&id, &sns[0]), activate(&id, &sns[1])]).await.unwrap();
    assert!(!results[0].as_ref().unwrap().changed, "{results:?}");
    assert_eq!(results[1], Err(Rejection::CertificateNotFound), "{results:?}");
    assert!(store.verify().await.unwrap().is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_twin_of_a_remembered_certificate_is_named() {
    let (fixture, store, id, _) = warm().await;
    let first = add(&store, &id, "first", "shared key").await;
    let second = add(&fixture.open().await, &id, "second", "shared key").await;
    let third = add(&store, &id, "third", "shared key").await;
    let reply = append_all(&store, &[inactivate(&id, &first)]).await.remove(0).unwrap();
    let ReplyBody::CaCertificate { same_key_sns, .. } = reply.body else { panic!("{reply:?}") };
    let mut twins = [second, third];
    twins.sort();
    assert_eq!(same_key_sns, twins);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_among_new_requests_gets_its_stored_reply_and_the_others_go_through() {
    let (_fixture, store, id, sns) = warm().await;
    let off = with_request_id(inactivate(&id, &sns[0]), unique_id(), "off");
    let first = append_all(&store, std::slice::from_ref(&off)).await;
    append_all(&store, &[activate(&id, &sns[0])]).await;
    let before = store.head().await.unwrap().position;

    let new = with_request_id(inactivate(&id, &sns[1]), unique_id(), "off");
    let results = append_all(&store, &[new, off.clone(), activate(&id, &sns[1])]).await;
    assert_eq!(results[1], first[0]);
    assert_eq!(results[0].as_ref().unwrap().position, before + 1);
    assert_eq!(results[2].as_ref().unwrap().position, before + 2);
    assert_eq!(store.head().await.unwrap().position, before + 2);

    let other = with_request_id(activate(&id, &sns[1]), off.context.request_id, "on");
    assert_eq!(store.append(&[other]).await.unwrap(), [Err(Rejection::RequestIdReused)]);
    assert!(store.verify().await.unwrap().is_clean());
}

/// The state would refuse it by now; the stored reply says what it did then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_that_would_be_refused_by_now_gets_its_stored_reply() {
    let (_fixture, store, id, sns) = warm().await;
    let gone = with_request_id(delete(&id, &sns[0]), unique_id(), "delete");
    let off = with_request_id(inactivate(&id, &sns[0]), unique_id(), "off");
    let first = append_all(&store, &[off.clone(), gone.clone()]).await;
    append_all(&store, &[inactivate(&id, &sns[1])]).await;
    assert_eq!(append_all(&store, &[off, gone]).await, first);
}

/// A rebuild changes rows without appending: what was remembered before is forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_forgotten_after_a_rebuild() {
    let fixture = PgFixture::create().await;
    let store = fixture.open().await;
    let id = instance("rebuilt");
    let sns = populate(&store, &id, &["a"]).await;
    let restarted = fixture.open().await;
    fixture.execute("UPDATE ca_certificates SET ca_name = 'edited'").await.unwrap();
    let edited = append_all(&restarted, &[inactivate(&id, &sns[0])]).await.remove(0).unwrap();
    assert_eq!(certificate_of(&edited.body).ca_name, "edited", "the edit was not loaded");

    assert_eq!(store.rebuild().await.unwrap().certificates, 1);
    let right = append_all(&restarted, &[activate(&id, &sns[0])]).await.remove(0).unwrap();
    assert_eq!(certificate_of(&right.body).ca_name, "factory");
    assert!(restarted.verify().await.unwrap().is_clean());
}
