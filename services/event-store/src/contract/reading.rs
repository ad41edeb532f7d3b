//! Promises of the reads.

use catrust_domain::{Event, InstanceId, SerialNumber, Timestamp, TrustBundle};
use catrust_test_harness::eventually::eventually;

use super::appending::assert_clean;
use super::commands::{
    activate, add, append_all, delete, inactivate, instance, key_of, populate, register_instance, unique_id,
    with_request_id,
};
use super::{Fixture, PATIENCE};
use crate::{
    BundleAt, CommandStore as _, EventLog as _, Maintenance as _, ReadModelStore as _, SearchScope,
    StateFilter, StoreError, TrustChangeSearch,
};

/// The bundle of each moment is found again, by its revision and by any time at which
/// it was current.
pub async fn bundles_are_found_now_by_revision_and_by_time<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("bundles");
    let load = async |at| store.load_bundle(&id, at).await.expect("a bundle");
    let born = fixture.clock().now();
    assert_eq!(load(BundleAt::Now).await, None);
    assert_eq!(load(BundleAt::Revision(0)).await, None);
    fixture.clock().advance(1);
    append_all(&store, &[register_instance(&id)]).await;
    let mut moments = vec![moment(fixture, &store, &id).await];
    let one = add(&store, &id, "a", "a").await;
    moments.push(moment(fixture, &store, &id).await);
    let other = add(&store, &id, "b", "b").await;
    moments.push(moment(fixture, &store, &id).await);
    for command in [
        inactivate(&id, &one),
        inactivate(&id, &other),
        activate(&id, &one),
        delete(&id, &other),
        inactivate(&id, &one),
        delete(&id, &one),
    ] {
        append_all(&store, &[command]).await;
        moments.push(moment(fixture, &store, &id).await);
    }
    for (revision, (bundle, time)) in moments.iter().enumerate() {
        assert_eq!(bundle.revision, revision as u64);
        assert_eq!(bundle.digest, TrustBundle::compute_digest(&bundle.entries));
        assert!(bundle.entries.is_sorted_by_key(|entry| entry.facts.sha256));
        assert_eq!(load(BundleAt::Revision(bundle.revision)).await.as_ref(), Some(bundle));
        assert_eq!(load(BundleAt::Time(*time)).await.as_ref(), Some(bundle));
    }
    assert_eq!(load(BundleAt::Revision(moments.len() as u64)).await, None);
    assert_eq!(load(BundleAt::Time(born)).await, None);
}

/// The current bundle, and a time between the last change and the next one.
async fn moment<F: Fixture>(fixture: &F, store: &F::Store, id: &InstanceId) -> (TrustBundle, Timestamp) {
    let bundle = store.load_bundle(id, BundleAt::Now).await.expect("a read").expect("the bundle");
    let time = fixture.clock().now();
    fixture.clock().advance(10);
    (bundle, time)
}

/// A read model that somebody edited is not handed to brokers.
pub async fn a_bundle_that_contradicts_its_digest_is_corrupt<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("edited");
    let sn = populate(&store, &id, &["a", "b"]).await.remove(0);
    append_all(&store, &[inactivate(&id, &sn)]).await;
    let edit =
        format!("UPDATE ca_certificates SET state = 'ACTIVE', inactivation_scope = NULL WHERE sn = '{sn}'");
    fixture.execute(&edit).await.expect("the edit");
    let loaded = store.load_bundle(&id, BundleAt::Now).await;
    assert!(matches!(loaded, Err(StoreError::Corrupt { .. })), "{loaded:?}");
    let recorded = store.load_bundle(&id, BundleAt::Revision(3)).await.expect("the log is not edited");
    assert!(recorded.is_some());
    fixture.tamper("UPDATE events SET bundle_digest = hash WHERE revision = 2").await;
    let loaded = store.load_bundle(&id, BundleAt::Revision(2)).await;
    assert!(matches!(loaded, Err(StoreError::Corrupt { table: "events", .. })), "{loaded:?}");
}

/// A reader that pages on meets every row once that was there throughout, whatever
/// is registered, switched or deleted meanwhile.
pub async fn pages_stay_stable_while_rows_change<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("pages");
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let sns = populate(&store, &id, &names).await;
    let page = async |after| {
        let page = store.list_certificates(&id, StateFilter::Any, after, 4).await.expect("a page");
        let last = page.items.last().map_or(after, |view| view.certificate.registered_position);
        let found: Vec<SerialNumber> =
            page.items.into_iter().map(|view| view.certificate.facts.sn.clone()).collect();
        (found, last, page.total)
    };
    let (first, after, total) = page(0).await;
    assert_eq!((first, total), (sns[..4].to_vec(), 9));
    append_all(&store, &[delete(&id, &sns[1]), inactivate(&id, &sns[6]), delete(&id, &sns[5])]).await;
    let late = add(&store, &id, "late", "late").await;
    let (second, after, total) = page(after).await;
    assert_eq!((second, total), (vec![sns[4].clone(), sns[6].clone(), sns[7].clone(), sns[8].clone()], 8));
    let (third, after, _) = page(after).await;
    assert_eq!(third, [late]);
    let (fourth, _, total) = page(after).await;
    assert_eq!((fourth, total), (vec![], 8));
}

/// A filter counts and lists the rows of its state only.
pub async fn lists_are_filtered_by_state<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("filter");
    let sns = populate(&store, &id, &["a", "b", "c"]).await;
    populate(&store, &instance("neighbour"), &["d"]).await;
    append_all(&store, &[inactivate(&id, &sns[1])]).await;
    let list = async |state| {
        let page = store.list_certificates(&id, state, 0, 10).await.expect("a page");
        assert_eq!(page.items.len() as u64, page.total);
        page.items.into_iter().map(|view| view.certificate.facts.sn.clone()).collect::<Vec<_>>()
    };
    assert_eq!(list(StateFilter::Any).await, sns);
    assert_eq!(list(StateFilter::Active).await, [sns[0].clone(), sns[2].clone()]);
    assert_eq!(list(StateFilter::Inactive).await, [sns[1].clone()]);
}

/// Instances come in the order in which they were registered.
pub async fn instances_are_listed_in_the_order_of_registration<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    for name in ["zulu", "alpha", "mike"] {
        append_all(&store, &[register_instance(&instance(name))]).await;
    }
    let page = store.list_instances(0, 2).await.expect("a page");
    let names: Vec<&str> = page.items.iter().map(|found| found.instance_id.as_str()).collect();
    assert_eq!((names, page.total), (vec!["zulu", "alpha"], 3));
    let rest = store.list_instances(page.items[1].registered_position, 2).await.expect("a page");
    assert_eq!((rest.items.len(), rest.total), (1, 3));
    let found = store.find_instance(&instance("mike")).await.expect("a read");
    assert_eq!(found.as_ref(), rest.items.first());
    assert_eq!(store.find_instance(&instance("none")).await.expect("a read"), None);
}

/// History of a serial number goes on over deletion and registration.
pub async fn history_includes_deleted_and_re_registered_certificates<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("history");
    let sns = populate(&store, &id, &["a", "b"]).await;
    append_all(&store, &[inactivate(&id, &sns[0]), delete(&id, &sns[0]), inactivate(&id, &sns[1])]).await;
    assert_eq!(add(&store, &id, "a", "a").await, sns[0]);
    append_all(&store, &[delete(&id, &sns[0])]).await;
    let types = |events: &[catrust_domain::RecordedEvent]| {
        events.iter().map(|event| event.event_type.replace("CaCertificate", "")).collect::<Vec<_>>()
    };
    let of_one = TrustChangeSearch::all(SearchScope::Certificate(id.clone(), sns[0].clone()));
    let of_all = TrustChangeSearch::all(SearchScope::Instance(id.clone()));
    let list = async |search: &TrustChangeSearch, after, limit| {
        store.search_trust_changes(search, after, limit).await.expect("a page").events
    };
    let history = list(&of_one, 0, 100).await;
    assert_eq!(types(&history), ["Registered", "Inactivated", "Deleted", "Registered", "Deleted"]);
    let rest = list(&of_one, history[2].position, 1).await;
    assert_eq!(rest, history[3..4]);
    let whole = list(&of_all, 0, 100).await;
    assert_eq!(
        whole.iter().map(|event| event.revision).collect::<Vec<_>>(),
        (1..=7).map(Some).collect::<Vec<_>>()
    );
    for (index, event) in whole.iter().enumerate() {
        let rest = list(&of_all, event.position, 2).await;
        assert_eq!(rest, whole[index + 1..].iter().take(2).cloned().collect::<Vec<_>>());
    }
}

/// A broker that knows a revision reads the changes after it.
pub async fn trust_changes_are_read_by_revision<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("changes");
    let sns = populate(&store, &id, &["a", "b"]).await;
    append_all(&store, &[inactivate(&id, &sns[0]), activate(&id, &sns[0])]).await;
    let changes = store.read_trust_changes(&id, 1, 2).await.expect("changes");
    assert_eq!(changes.iter().map(|event| event.revision).collect::<Vec<_>>(), [Some(2), Some(3)]);
    assert!(matches!(changes[1].decode(), Ok(Event::CaCertificateInactivated(_))));
    assert_eq!(store.read_trust_changes(&id, 4, 10).await.expect("changes"), []);
}

/// Twins are those of the same instance, ascending, without the certificate itself.
pub async fn twins_with_the_same_key_are_named<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("twins");
    append_all(&store, &[register_instance(&id)]).await;
    let mut twins = Vec::new();
    for name in ["a", "b", "c"] {
        twins.push(add(&store, &id, name, "one key").await);
    }
    let single = add(&store, &id, "d", "other key").await;
    let neighbour = instance("twins2");
    append_all(&store, &[register_instance(&neighbour)]).await;
    add(&store, &neighbour, "e", "one key").await;
    twins.sort();
    let view = store.find_certificate(&id, &twins[1]).await.expect("a read").expect("the certificate");
    assert_eq!(view.same_key_sns, [twins[0].clone(), twins[2].clone()]);
    let view = store.find_certificate(&id, &single).await.expect("a read").expect("the certificate");
    assert_eq!(view.same_key_sns, []);
    let page = store.list_certificates(&id, StateFilter::Any, 0, 10).await.expect("a page");
    assert_eq!(page.items.iter().map(|view| view.same_key_sns.len()).collect::<Vec<_>>(), [2, 2, 2, 0]);
}

/// Replies older than asked are forgotten, younger ones stay.
pub async fn old_replies_are_pruned<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("prune");
    let sns = populate(&store, &id, &["a"]).await;
    let old: Vec<_> = (0..3).map(|_| with_request_id(inactivate(&id, &sns[0]), unique_id(), "off")).collect();
    append_all(&store, &old).await;
    fixture.clock().advance(60);
    let limit = fixture.clock().now();
    let young = with_request_id(activate(&id, &sns[0]), unique_id(), "on");
    append_all(&store, std::slice::from_ref(&young)).await;
    assert_eq!(store.prune_replies(limit).await.expect("pruning"), 3);
    assert_eq!(store.prune_replies(limit).await.expect("pruning"), 0);
    assert_eq!(store.find_reply(&key_of(&old[0])).await.expect("a read"), None);
    assert!(store.find_reply(&key_of(&young)).await.expect("a read").is_some());
    assert_clean(&store).await;
}

/// One process at a time holds the lease; the next one gets it when it is dropped.
pub async fn the_publisher_lease_has_one_holder<F: Fixture>(fixture: &F) {
    let (one, other) = (fixture.open().await, fixture.open().await);
    let mut lease = one.try_lease_publisher().await.expect("an answer").expect("the lease");
    assert!(lease.is_held().await);
    assert!(other.try_lease_publisher().await.expect("an answer").is_none());
    assert!(one.try_lease_publisher().await.expect("an answer").is_none());
    drop(lease);
    let mut lease = eventually(PATIENCE, "the lease is free again", async || {
        other.try_lease_publisher().await.expect("an answer").ok_or("somebody has it")
    })
    .await
    .expect("the lease");
    assert!(lease.is_held().await);
    assert!(one.try_lease_publisher().await.expect("an answer").is_none());
}

/// Every connection names the same log.
pub async fn the_log_has_one_identity<F: Fixture>(fixture: &F) {
    let (one, other) = (fixture.open().await, fixture.open().await);
    assert_eq!(one.log_id(), other.log_id());
    assert_eq!(one.log_id().get_version_num(), 4);
    one.ping().await.expect("the database is there");
}

/// Batch by batch, exactly as the log has it, and only on the store that committed it.
pub async fn what_was_just_committed_is_there_without_a_query<F: Fixture>(fixture: &F) {
    let (store, other) = (fixture.open().await, fixture.open().await);
    let id = instance("recent");
    let before = store.head().await.expect("a head").position;
    let sns = populate(&store, &id, &["a", "b"]).await;
    append_all(&store, &[inactivate(&id, &sns[0]), inactivate(&id, &sns[1])]).await;
    let logged = store.read(before, 1_000).await.expect("a read");
    let mut recent = Vec::new();
    while let Some(batch) = store.recent(before + recent.len() as u64) {
        for entry in &*batch {
            assert_eq!(entry.row.decode().expect("a current event"), entry.event);
            recent.push(entry.row.clone());
        }
    }
    assert_eq!(recent, logged);
    assert!(other.recent(before).is_none());
    assert!(store.recent(logged.len() as u64 + before).is_none(), "nothing comes after the last");
}
