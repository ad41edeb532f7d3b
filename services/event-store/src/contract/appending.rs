//! Promises of [`crate::CommandStore::append`].

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use catrust_domain::{CommandEnvelope, InstanceId, RecordedEvent, Rejection, ReplyBody};
use catrust_test_harness::eventually::eventually;
use uuid::Uuid;

use super::commands::{
    activate, add, append_all, delete, facts, inactivate, instance, issue_code, key_of, populate, register,
    register_instance, unique_id, with_request_id,
};
use super::{CommitStep, Fixture, PATIENCE};
use crate::{
    CommandStore as _, EventLog as _, EventStore, MAX_BATCH, Maintenance as _, ReadModelStore as _,
    StoreError,
};

/// Writers of the race, half of them on each connection.
const WRITERS: usize = 8;
/// Appends of each writer.
const APPENDS: usize = 25;

/// A change as its caller saw it: both times are ticks of one counter.
struct Acknowledged {
    sent: u64,
    answered: u64,
    position: u64,
    event_id: Uuid,
}

/// Many writers on two connections make one dense log: every acknowledged event is
/// in it once, and a change that was answered before another was sent comes first.
///
/// 1. Each writer flips its own CA certificate of one instance, again and again.
/// 2. Each notes a tick of a shared counter before it sends and after the answer.
/// 3. The log is read, and positions are compared with the ticks.
pub async fn many_writers_on_two_connections_make_one_dense_log_in_real_time_order<F: Fixture>(fixture: &F) {
    let stores = [Arc::new(fixture.open().await), Arc::new(fixture.open().await)];
    let id = instance("race");
    let names: Vec<String> = (0..WRITERS).map(|writer| format!("ca{writer}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let sns = populate(&*stores[0], &id, &names).await;
    let before = stores[0].head().await.expect("the head").position;
    let ticks = Arc::new(AtomicU64::new(0));
    let writers = sns.into_iter().enumerate().map(|(writer, sn)| {
        let (store, id, ticks) = (Arc::clone(&stores[writer % 2]), id.clone(), Arc::clone(&ticks));
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for turn in 0..APPENDS {
                let command = if turn % 2 == 0 { inactivate(&id, &sn) } else { activate(&id, &sn) };
                let sent = ticks.fetch_add(1, Ordering::SeqCst);
                let results = append_all(&*store, std::slice::from_ref(&command)).await;
                let answered = ticks.fetch_add(1, Ordering::SeqCst);
                let position = results[0].as_ref().expect("accepted").position;
                acknowledged.push(Acknowledged {
                    sent,
                    answered,
                    position,
                    event_id: command.context.event_id,
                });
            }
            acknowledged
        })
    });
    let acknowledged: Vec<Acknowledged> = futures::future::join_all(writers)
        .await
        .into_iter()
        .flat_map(|done| done.expect("a writer"))
        .collect();
    let log = read_all(&*stores[1]).await;
    let positions: Vec<u64> = log.iter().map(|event| event.position).collect();
    assert_eq!(positions, (1..=before + (WRITERS * APPENDS) as u64).collect::<Vec<_>>());
    for change in &acknowledged {
        assert_eq!(log[change.position as usize - 1].event_id, change.event_id);
    }
    assert_eq!(
        acknowledged.iter().map(|change| change.event_id).collect::<HashSet<_>>().len(),
        WRITERS * APPENDS
    );
    for earlier in &acknowledged {
        let overtaken = acknowledged
            .iter()
            .find(|later| earlier.answered < later.sent && earlier.position > later.position);
        assert!(overtaken.is_none(), "position {} was overtaken", earlier.position);
    }
    assert_clean(&*stores[0]).await;
}

/// An answered change is seen by every read that begins after it, on any connection.
pub async fn a_change_is_read_back_at_once_by_every_connection<F: Fixture>(fixture: &F) {
    let (one, other) = (fixture.open().await, fixture.open().await);
    let id = instance("readback");
    let sns = populate(&one, &id, &["a"]).await;
    for _ in 0..10 {
        append_all(&one, &[inactivate(&id, &sns[0])]).await;
        let seen = other.find_certificate(&id, &sns[0]).await.expect("a read").expect("the certificate");
        assert!(!seen.certificate.state.is_active());
        append_all(&other, &[activate(&id, &sns[0])]).await;
        let seen = one.find_certificate(&id, &sns[0]).await.expect("a read").expect("the certificate");
        assert!(seen.certificate.state.is_active());
        assert_eq!(one.head().await.expect("the head"), other.head().await.expect("the head"));
    }
}

/// A refused command leaves the others of its batch alone.
pub async fn a_refused_command_in_the_middle_of_a_batch_fails_alone<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("middle");
    let sns = populate(&store, &id, &["a", "b"]).await;
    let before = store.head().await.expect("the head").position;
    let unknown = facts("unknown", "unknown").sn.clone();
    let batch = [inactivate(&id, &sns[0]), inactivate(&id, &unknown), inactivate(&id, &sns[1])];
    let results = store.append(&batch).await.expect("the batch");
    assert_eq!(results[0].as_ref().map(|reply| reply.position), Ok(before + 1));
    assert_eq!(results[1], Err(Rejection::CertificateNotFound));
    assert_eq!(results[2].as_ref().map(|reply| reply.position), Ok(before + 2));
    assert_eq!(store.head().await.expect("the head").position, before + 2);
    assert_clean(&store).await;
}

/// A whole life in one batch: each command decides on what those before it made.
pub async fn commands_of_a_batch_see_the_ones_before_them<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("life");
    let first = facts("first", "key");
    let again = facts("second", "key");
    let batch = [
        register_instance(&id),
        issue_code(&id, "c1"),
        issue_code(&id, "c2"),
        register(&id, &first, "c1"),
        inactivate(&id, &first.sn),
        inactivate(&id, &first.sn),
        register(&id, &again, "c1"),
        register(&id, &again, "c2"),
        activate(&id, &first.sn),
        delete(&id, &first.sn),
        inactivate(&id, &first.sn),
    ];
    let results = store.append(&batch).await.expect("the batch");
    assert_eq!(results[5].as_ref().map(|reply| reply.changed), Ok(false));
    assert_eq!(results[6], Err(Rejection::RegisterCodeSpent));
    let ReplyBody::CaCertificate { same_key_sns, .. } = &results[7].as_ref().expect("registered").body else {
        panic!("a registration replies with the certificate");
    };
    assert_eq!(*same_key_sns, std::slice::from_ref(&first.sn));
    assert_eq!(results[9].as_ref().map(|reply| reply.changed), Ok(true));
    assert_eq!(results[10], Err(Rejection::CertificateNotFound));
    let found = store.find_instance(&id).await.expect("a read").expect("the instance");
    assert_eq!((found.revision, found.certificate_count), (5, 1));
    assert_clean(&store).await;
}

/// A batch in which nothing is accepted changes nothing, and the store goes on.
pub async fn a_batch_of_refusals_records_nothing<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("nobody");
    let sn = facts("a", "a").sn.clone();
    let results = store.append(&[inactivate(&id, &sn), activate(&id, &sn)]).await.expect("the batch");
    assert_eq!(results, [Err(Rejection::InstanceNotFound), Err(Rejection::InstanceNotFound)]);
    assert_eq!(store.head().await.expect("the head").position, 0);
    populate(&store, &id, &["a"]).await;
    assert_clean(&store).await;
}

/// The same request id with the same request gives the same reply, byte for byte.
pub async fn a_repeated_request_gives_the_stored_reply_and_records_nothing<F: Fixture>(fixture: &F) {
    let (one, other) = (fixture.open().await, fixture.open().await);
    let id = instance("repeat");
    let sns = populate(&one, &id, &["a"]).await;
    let request_id = unique_id();
    let command = with_request_id(inactivate(&id, &sns[0]), request_id, "off");
    let first = append_all(&one, std::slice::from_ref(&command)).await;
    append_all(&one, &[activate(&id, &sns[0])]).await;
    let head = one.head().await.expect("the head");
    let repeat = with_request_id(inactivate(&id, &sns[0]), request_id, "off");
    assert_eq!(append_all(&other, &[repeat]).await, first);
    assert_eq!(other.head().await.expect("the head"), head);
    let stored = other.find_reply(&key_of(&command)).await.expect("a read");
    assert_eq!(stored.as_ref(), first[0].as_ref().ok());
}

/// The same request id with another request is refused, and nothing is recorded.
pub async fn a_request_id_with_another_request_is_refused<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("reused");
    let sns = populate(&store, &id, &["a", "b"]).await;
    let request_id = unique_id();
    append_all(&store, &[with_request_id(inactivate(&id, &sns[0]), request_id, "off a")]).await;
    let head = store.head().await.expect("the head");
    let other = with_request_id(inactivate(&id, &sns[1]), request_id, "off b");
    let results = store.append(&[other]).await.expect("the batch");
    assert_eq!(results, [Err(Rejection::RequestIdReused)]);
    assert_eq!(store.head().await.expect("the head"), head);
}

/// Two copies of a request that meet in one batch have one effect and one reply.
pub async fn a_repeat_within_one_batch_has_one_effect<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("doubled");
    let sns = populate(&store, &id, &["a"]).await;
    let before = store.head().await.expect("the head").position;
    let request_id = unique_id();
    let batch = [
        with_request_id(inactivate(&id, &sns[0]), request_id, "off"),
        with_request_id(inactivate(&id, &sns[0]), request_id, "off"),
        with_request_id(activate(&id, &sns[0]), request_id, "on"),
    ];
    let results = store.append(&batch).await.expect("the batch");
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0].as_ref().map(|reply| reply.changed), Ok(true));
    assert_eq!(results[2], Err(Rejection::RequestIdReused));
    assert_eq!(store.head().await.expect("the head").position, before + 1);
}

/// ColumnValue replies outlive the process, also of requests that changed nothing.
pub async fn a_repeat_after_a_restart_gives_the_stored_reply<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("restart");
    let sns = populate(&store, &id, &["a"]).await;
    let idle = with_request_id(activate(&id, &sns[0]), unique_id(), "on");
    let off = with_request_id(inactivate(&id, &sns[0]), unique_id(), "off");
    let batch = [idle, off];
    let first = append_all(&store, &batch).await;
    assert_eq!(first[0].as_ref().map(|reply| reply.changed), Ok(false));
    let head = store.head().await.expect("the head");
    drop(store);
    let store = fixture.open().await;
    assert_eq!(append_all(&store, &batch).await, first);
    assert_eq!(store.head().await.expect("the head"), head);
}

/// Whatever the step, a commit that did not happen left nothing: no event, no reply,
/// no row of the read model.
pub async fn a_crash_before_the_commit_leaves_nothing<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("crash");
    let sns = populate(&store, &id, &["a", "b"]).await;
    let head = store.head().await.expect("the head");
    for step in CommitStep::ALL.into_iter().filter(|step| *step != CommitStep::Committed) {
        let batch = crash_batch(&id, &sns);
        F::crash_at(&store, step);
        let crashed = store.append(&batch).await;
        assert!(matches!(crashed, Err(StoreError::Unavailable(_))), "{step:?}: {crashed:?}");
        let witness = fixture.open().await;
        assert_eq!(witness.head().await.expect("the head"), head, "{step:?}");
        assert_eq!(witness.find_reply(&key_of(&batch[0])).await.expect("a read"), None, "{step:?}");
        assert_clean(&witness).await;
    }
    append_all(&store, &crash_batch(&id, &sns)).await;
    assert_eq!(store.head().await.expect("the head").position, head.position + 2);
}

/// A commit whose answer was lost: everything is there, once, and who repeats the
/// requests is told what the first try came to.
pub async fn a_crash_after_the_commit_leaves_everything_and_the_repeat_is_answered<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("answer");
    let sns = populate(&store, &id, &["a", "b"]).await;
    let before = store.head().await.expect("the head").position;
    let batch = crash_batch(&id, &sns);
    F::crash_at(&store, CommitStep::Committed);
    let crashed = store.append(&batch).await;
    assert!(matches!(crashed, Err(StoreError::Ambiguous(_))), "{crashed:?}");
    let other = fixture.open().await;
    let head = other.head().await.expect("the head");
    assert_eq!(head.position, before + 2);
    for repeated in [append_all(&other, &batch).await, append_all(&store, &batch).await] {
        let positions: Vec<_> =
            repeated.iter().flatten().map(|reply| (reply.changed, reply.position)).collect();
        assert_eq!(positions, [(true, before + 1), (true, before + 2)]);
    }
    assert_eq!(other.head().await.expect("the head"), head);
    assert_clean(&other).await;
}

/// A caller that goes away in the middle of an append neither blocks nor breaks the
/// ones after it.
pub async fn an_abandoned_append_harms_nobody<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("abandoned");
    let sns = populate(&store, &id, &["a"]).await;
    for turns in 0..12 {
        let batch = [inactivate(&id, &sns[0]), activate(&id, &sns[0])];
        let mut append = store.append(&batch);
        for _ in 0..turns {
            if futures::poll!(&mut append).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(append);
        append_all(&store, &[inactivate(&id, &sns[0]), activate(&id, &sns[0])]).await;
    }
    assert_clean(&store).await;
}

/// More than [`MAX_BATCH`] commands are refused before anything is done.
pub async fn too_many_commands_are_refused_whole<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("many");
    let sns = populate(&store, &id, &["a"]).await;
    let head = store.head().await.expect("the head");
    let batch: Vec<CommandEnvelope> = (0..=MAX_BATCH).map(|_| inactivate(&id, &sns[0])).collect();
    assert!(matches!(store.append(&batch).await, Err(StoreError::Internal(_))));
    assert_eq!(store.head().await.expect("the head"), head);
    append_all(&store, &batch[..MAX_BATCH]).await;
    assert_eq!(store.append(&[]).await.expect("nothing to do"), []);
}

/// The database itself refuses to change or remove an event.
pub async fn events_cannot_be_changed_or_removed<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    populate(&store, &instance("guarded"), &["a"]).await;
    let log = read_all(&store).await;
    for sql in [
        "UPDATE events SET actor = 'nobody' WHERE position = 2",
        "UPDATE events SET hash = hash",
        "DELETE FROM events WHERE position = 3",
        "DELETE FROM events",
    ] {
        let refused = fixture.execute(sql).await;
        assert!(refused.as_ref().is_err_and(|text| text.contains("append-only")), "{sql}: {refused:?}");
    }
    assert_eq!(read_all(&store).await, log);
}

/// A clock that is set back does not set the log back.
pub async fn time_never_runs_backwards_along_the_log<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("clock");
    let sns = populate(&store, &id, &["a"]).await;
    let before = store.head().await.expect("the head").occurred_at;
    fixture.clock().advance(-3_600);
    append_all(&store, &[inactivate(&id, &sns[0])]).await;
    assert_eq!(store.head().await.expect("the head").occurred_at, before);
    fixture.clock().advance(7_200);
    append_all(&store, &[activate(&id, &sns[0])]).await;
    assert!(store.head().await.expect("the head").occurred_at > before);
    assert_clean(&store).await;
}

/// A CA certificate that comes back goes on in its old stream.
pub async fn a_deleted_certificate_can_be_registered_anew<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("again");
    let sn = populate(&store, &id, &["a"]).await.remove(0);
    append_all(&store, &[delete(&id, &sn)]).await;
    assert_eq!(store.find_certificate(&id, &sn).await.expect("a read"), None);
    assert_eq!(add(&store, &id, "a", "a").await, sn);
    let found = store.find_certificate(&id, &sn).await.expect("a read").expect("the certificate");
    assert_eq!(found.certificate.stream_version, 3);
    // Within one batch too, where the old row is still there.
    let facts = facts("again/a", "a");
    let batch = [issue_code(&id, "code"), delete(&id, &sn), register(&id, &facts, "code")];
    append_all(&store, &batch).await;
    let found = store.find_certificate(&id, &sn).await.expect("a read").expect("the certificate");
    assert_eq!(found.certificate.stream_version, 5);
    assert_clean(&store).await;
}

/// The hint follows the process's own appends without a delay.
pub async fn own_appends_are_hinted_at<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let hint = store.appended();
    populate(&store, &instance("hint"), &["a"]).await;
    let head = store.head().await.expect("the head").position;
    assert_eq!(*hint.borrow(), head);
    let later = fixture.open().await;
    eventually(PATIENCE, "a store that opens later knows the head", async || {
        let seen = *later.appended().borrow();
        if seen == head { Ok(()) } else { Err(format!("{seen}, not {head}")) }
    })
    .await
    .expect("the head");
}

fn crash_batch(id: &InstanceId, sns: &[catrust_domain::SerialNumber]) -> [CommandEnvelope; 2] {
    [
        with_request_id(inactivate(id, &sns[0]), unique_id(), "off a"),
        with_request_id(inactivate(id, &sns[1]), unique_id(), "off b"),
    ]
}

/// Reads the whole log, in pages of an odd size.
pub(super) async fn read_all(store: &impl EventStore) -> Vec<RecordedEvent> {
    let mut log: Vec<RecordedEvent> = Vec::new();
    loop {
        let after = log.last().map_or(0, |event| event.position);
        let page = store.read(after, 37).await.expect("a page of the log");
        if page.is_empty() {
            return log;
        }
        log.extend(page);
    }
}

/// Verifies, and wants nothing found.
pub(super) async fn assert_clean(store: &impl EventStore) {
    let report = store.verify().await.expect("verification runs");
    assert!(report.is_clean(), "{:#?}", report.damage);
    assert_eq!(report.events, store.head().await.expect("the head").position);
}

/// A row that does not fit fails the commands that need it, and none that came in the same
/// batch; reads of other instances go on.
pub async fn a_damaged_row_fails_its_own_command_alone<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let names = ["before", "damaged", "behind", "after"];
    let mut sns = Vec::new();
    for name in names {
        let id = instance(name);
        let of_instance = populate(&store, &id, &["a", "b"]).await;
        append_all(&store, &[inactivate(&id, &of_instance[0])]).await;
        sns.push(of_instance);
    }
    fixture
        .execute("UPDATE instances SET region_id = 'no region!' WHERE instance_id = 'damaged'")
        .await
        .expect("an update");
    // The next version of this certificate is taken.
    let behind =
        "UPDATE ca_certificates SET stream_version = 1 WHERE instance_id = 'behind' AND state = 'INACTIVE'";
    fixture.execute(behind).await.expect("an update");
    let store = fixture.open().await;
    let batch: Vec<_> = names
        .iter()
        .zip(&sns)
        .flat_map(|(name, sns)| [activate(&instance(name), &sns[0]), inactivate(&instance(name), &sns[1])])
        .collect();
    let results = store.append(&batch).await.expect("the batch");
    let refused: Vec<_> = results.iter().map(|result| result.as_ref().err().cloned()).collect();
    let damaged = Some(Rejection::StoredRowDamaged);
    let expected = [None, None, damaged.clone(), damaged.clone(), damaged.clone(), None, None, None];
    assert_eq!(refused, expected);
    let again = store.append(&batch[2..3]).await.expect("the batch");
    assert_eq!(again, [Err(Rejection::StoredRowDamaged)]);

    for (name, found) in [("before", true), ("damaged", false), ("behind", true), ("after", true)] {
        assert_eq!(store.find_instance(&instance(name)).await.is_ok(), found, "{name}");
        store.load_bundle(&instance(name), crate::BundleAt::Now).await.expect("the bundle");
    }
    let listed = store.list_instances(0, 2).await.expect("a page").items;
    let listed: Vec<_> = listed.iter().map(|instance| instance.instance_id.as_str()).collect();
    assert_eq!(listed, ["before", "behind"]);

    store.rebuild().await.expect("the rebuild");
    let mended = store.append(&batch[2..5]).await.expect("the batch");
    assert!(mended.iter().all(Result::is_ok), "{mended:?}");
    assert_clean(&store).await;
}
