//! The publisher against a real `nats-server` (the one on the path, or that
//! `NATS_SERVER_BIN` names) and a log in memory.

mod memory_store;
mod replica;

use std::path::Path;
use std::sync::Mutex;

use async_trait::async_trait;
use catrust_domain::{InstanceId, LogEpoch, SerialNumber, Timestamp};
use catrust_proto::v1::{Head, KeySet};
use catrust_test_harness::nats::NatsServer;
use catrust_trust_feed::contract::{SampleLog, ask_nats};
use catrust_trust_feed::{
    ChangeOutcome, FeedItem, FeedStream, FeedTail, InProcessFeed, Signed as _, SigningKey, TailMessage,
    TrustError, TrustKeys, TrustState, message,
};
use futures::StreamExt as _;

use super::*;
use memory_store::MemoryLog;
use replica::{
    PATIENCE, Replica, assert_feed_is_the_log, assert_feed_is_the_log_by, delete_stream, feed_on,
    feed_on_ready, grown, raw_message, set_aside_on, shared_key,
};

#[tokio::test]
async fn every_event_is_published_once_and_in_order() {
    let log = grown(2_500);
    let feed = Arc::new(InProcessFeed::new());
    let key = shared_key();
    let replica = Replica::start(log.replica(), feed.clone(), &key);
    let status = replica.until_published(2_500).await;
    assert!(status.leading && status.feed_available, "{status:?}");
    for _ in 0..20 {
        log.toggle_any();
    }
    let status = replica.until_published(2_520).await;
    assert_eq!((status.log_head, status.rebuilds, status.last_error), (2_520, 0, None));
    assert_eq!(*replica.hooks.published.lock().unwrap(), (1..=2_520).collect::<Vec<_>>());
    assert_eq!(feed.tail().await.unwrap().sequence, 2_520);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_publishers_at_once_are_harmless() {
    let server = NatsServer::start().await.unwrap();
    let log = grown(3_000);
    let key = shared_key();
    let replicas = [
        Replica::start(log.replica_that_ignores_the_lease(), feed_on(&server).await, &key),
        Replica::start(log.replica_that_ignores_the_lease(), feed_on(&server).await, &key),
    ];
    for _ in 0..300 {
        log.toggle_any();
        tokio::task::yield_now().await;
    }
    for replica in &replicas {
        let status = replica.until_published(3_300).await;
        assert!(status.leading, "{status:?}");
        assert_eq!(status.rebuilds, 0);
    }
    assert_feed_is_the_log(&server, &log, &key).await;
}

/// What a rolling change of the signing key looks like: replicas with both keys at once,
/// and then the new one alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_changes_in_the_middle_of_the_stream_rebuilds_nothing() {
    let server = NatsServer::start().await.unwrap();
    let log = grown(200);
    let (old, new) = (shared_key(), shared_key());
    let first = Replica::start(log.replica_that_ignores_the_lease(), feed_on(&server).await, &old);
    first.until_published(200).await;
    let second = Replica::start(log.replica_that_ignores_the_lease(), feed_on(&server).await, &new);
    for _ in 0..100 {
        log.toggle_any();
        tokio::task::yield_now().await;
    }
    first.until_published(300).await;
    second.until_published(300).await;
    assert_feed_is_the_log_by(&server, &log, &[&old, &new]).await;
    assert!(first.rebuilds().is_empty());
    drop(first);
    log.toggle_any();
    second.until_published(301).await;
    assert_feed_is_the_log_by(&server, &log, &[&old, &new]).await;
    assert!(second.rebuilds().is_empty());
}

#[tokio::test]
async fn a_standby_publishes_when_the_holder_does_not() {
    let server = NatsServer::start().await.unwrap();
    let log = grown(10);
    let key = shared_key();
    let _held = log.replica().try_lease_publisher().await.unwrap().expect("the lease is free");
    let replica = Replica::start(log.replica(), feed_on(&server).await, &key);
    let status = replica.until_published(10).await;
    assert!(status.covering && !status.leading, "{status:?}");
    log.toggle_any();
    replica.until_published(11).await;
    assert_feed_is_the_log(&server, &log, &key).await;
}

#[tokio::test]
async fn a_standby_follows_the_lease() {
    let server = NatsServer::start().await.unwrap();
    let log = grown(10);
    let key = shared_key();
    let first = Replica::start(log.replica(), feed_on(&server).await, &key);
    first.until("the first leads", |status| status.leading).await;
    let second = Replica::start(log.replica(), feed_on(&server).await, &key);
    second.until("the second sees the feed", |status| status.published_position == 10).await;
    assert!(!second.status.borrow().leading);
    drop(first);
    second.until("the second leads", |status| status.leading).await;
    log.toggle_any();
    second.until_published(11).await;
    assert_feed_is_the_log(&server, &log, &key).await;
}

#[tokio::test]
async fn nats_that_was_killed_is_brought_up_to_date() {
    let mut server = NatsServer::start().await.unwrap();
    let log = grown(50);
    let key = shared_key();
    let replica = Replica::start(log.replica(), feed_on(&server).await, &key);
    replica.until_published(50).await;
    server.kill();
    for _ in 0..2_000 {
        log.toggle_any();
    }
    let status = replica.until("the loss is told", |status| !status.feed_available).await;
    assert!(status.last_error.is_some(), "{status:?}");
    server.restart().await.unwrap();
    let status = replica.until_published(2_050).await;
    assert_eq!((status.last_error, status.rebuilds), (None, 0));
    assert_feed_is_the_log(&server, &log, &key).await;
}

#[tokio::test]
async fn a_deleted_stream_is_filled_again_without_traffic() {
    let server = NatsServer::start().await.unwrap();
    let log = grown(50);
    let key = shared_key();
    let replica = Replica::start(log.replica(), feed_on(&server).await, &key);
    replica.until_published(50).await;
    delete_stream(&server).await;
    assert_feed_is_the_log(&server, &log, &key).await;
    replica.until("it is counted", |status| status.rebuilds == 1).await;
    assert_eq!(replica.rebuilds(), ["the feed was empty"]);
}

#[tokio::test]
async fn a_wiped_store_is_filled_again() {
    let mut server = NatsServer::start().await.unwrap();
    let log = grown(50);
    let key = shared_key();
    let replica = Replica::start(log.replica(), feed_on(&server).await, &key);
    replica.until_published(50).await;
    server.kill();
    std::fs::remove_dir_all(server.store()).unwrap();
    log.toggle_any();
    server.restart().await.unwrap();
    assert_feed_is_the_log(&server, &log, &key).await;
    replica.until("it is counted", |status| status.rebuilds == 1 && status.published_position == 51).await;
}

#[tokio::test]
async fn a_stream_that_was_set_back_gets_its_end_again() {
    let mut server = NatsServer::start().await.unwrap();
    let log = grown(50);
    let key = shared_key();
    let replica = Replica::start(log.replica(), feed_on(&server).await, &key);
    replica.until_published(50).await;
    server.kill();
    let backup = tempfile::tempdir().unwrap();
    copy(&server.store(), backup.path());
    server.restart().await.unwrap();
    for _ in 0..100 {
        log.toggle_any();
    }
    replica.until_published(150).await;
    server.kill();
    std::fs::remove_dir_all(server.store()).unwrap();
    copy(backup.path(), &server.store());
    server.restart().await.unwrap();
    assert_feed_is_the_log(&server, &log, &key).await;
    let status = replica.until("published again", |status| status.published_position == 150).await;
    assert_eq!(status.rebuilds, 0, "{:?}", replica.rebuilds());
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// A server with the stream of a log that is not ours.
async fn server_of_another_log(key: &Arc<SigningKey>) -> (NatsServer, MemoryLog) {
    let server = NatsServer::start().await.unwrap();
    let theirs = grown(80);
    let other = Replica::start(theirs.replica(), feed_on(&server).await, key);
    other.until_published(80).await;
    (server, theirs)
}

fn complains(of: &str) -> impl Fn(&PublisherStatus) -> bool {
    move |status| status.last_error.as_ref().is_some_and(|error| error.contains(of))
}

#[tokio::test]
async fn a_feed_of_another_log_is_left_alone() {
    let key = shared_key();
    let (server, theirs) = server_of_another_log(&key).await;
    let ours = grown(50);
    let replica = Replica::start(ours.replica(), feed_on(&server).await, &key);
    let status = replica.until("it says what to do", complains("nats.take_over_stream")).await;
    assert!(status.leading && status.rebuilds == 0 && !status.feed_available, "{status:?}");
    ours.toggle_any();
    tokio::time::timeout(Duration::from_secs(4), replica.until_published(51)).await.unwrap_err();
    assert_feed_is_the_log(&server, &theirs, &key).await;
    // An operator makes room.
    delete_stream(&server).await;
    replica.until_published(51).await;
    assert_feed_is_the_log(&server, &ours, &key).await;
}

#[tokio::test]
async fn a_feed_that_is_to_be_taken_over_is_set_aside_by_the_holder_alone() {
    let key = shared_key();
    let (server, _) = server_of_another_log(&key).await;
    let ours = grown(50);
    let held = ours.replica().try_lease_publisher().await.unwrap().expect("the lease is free");
    let replica = Replica::start_taking_over(ours.replica(), feed_on(&server).await, &key);
    for _ in 0..40 {
        ours.toggle_any();
    }
    let waits = complains("waiting for it to be set aside");
    let status = replica.until("the standby says why it waits", waits).await;
    assert!(status.covering && status.rebuilds == 0, "{status:?}");
    assert_eq!(feed_on_ready(&server).await.tail().await.unwrap().sequence, 80);
    drop(held);
    let status = replica.until_published(90).await;
    assert!(status.leading && status.rebuilds == 1, "{status:?}");
    assert!(replica.rebuilds()[0].contains("holds the log"), "{:?}", replica.rebuilds());
    assert_feed_is_the_log(&server, &ours, &key).await;
    assert_eq!(set_aside_on(&server).await, [(1, 80)], "theirs is kept");
}

/// Somebody with a stolen login puts a message of another log at the end, while no server
/// runs: the stream is ours all the same.
#[tokio::test]
async fn a_message_of_another_log_at_the_end_of_our_feed_does_not_stay() {
    let server = NatsServer::start().await.unwrap();
    let (log, key) = (grown(50), shared_key());
    Replica::start(log.replica(), feed_on(&server).await, &key).until_published(50).await;
    let other = grown(51);
    let forged = other.with(|log| log.messages(&key)).pop().unwrap();
    assert_eq!(forged.position, 51);
    let answer = ask_nats(&server.url(), &forged.subject, std::str::from_utf8(&forged.json).unwrap()).await;
    assert!(String::from_utf8_lossy(&answer).contains("\"seq\":51"), "{answer:?}");
    log.toggle_any();
    let replica = Replica::start(log.replica(), feed_on(&server).await, &key);
    let status = replica.until_published(51).await;
    assert_eq!(status.rebuilds, 1, "{:?}", replica.rebuilds());
    assert!(replica.rebuilds()[0].contains("holds the log"), "{:?}", replica.rebuilds());
    assert_feed_is_the_log(&server, &log, &key).await;
}

/// What the log and its feed had: `kept` rows are in the log, and all of them on the feed.
async fn set_back_to(kept: u64) -> (NatsServer, MemoryLog, Arc<SigningKey>, SampleLog) {
    let server = NatsServer::start().await.unwrap();
    let (log, key) = (grown(60), shared_key());
    Replica::start(log.replica(), feed_on(&server).await, &key).until_published(60).await;
    let whole = log.with(|log| log.clone());
    log.with(|log| log.truncate(kept));
    (server, log, key, whole)
}

fn is_set_back(status: &PublisherStatus) -> bool {
    status.set_back.is_some()
}

/// Ground rule 3: a signed message of the stream that the log no longer has is evidence, and rule 6: the
/// verdict lasts while it contradicts the log. Nothing is set aside, published or signed meanwhile.
#[tokio::test]
async fn a_feed_that_shows_what_the_log_lost_is_a_witness_and_stays() {
    let (server, log, key, whole) = set_back_to(40).await;
    let replica = Replica::start(log.replica(), feed_on(&server).await, &key);
    let status = replica.until("it is told", is_set_back).await;
    let reason = status.set_back.as_ref().unwrap();
    assert!(reason.contains("position 60") && reason.contains("ends at position 40"), "{reason}");
    assert!(!status.speaks() && status.rebuilds == 0, "{status:?}");
    // Another history that has got further is no better.
    for _ in 0..40 {
        log.toggle_any();
    }
    let other = |status: &PublisherStatus| {
        status.set_back.as_ref().is_some_and(|reason| reason.contains("something else there"))
    };
    let status = replica.until("it still is", other).await;
    assert!(status.leading, "{status:?}");
    assert_eq!(feed_on_ready(&server).await.tail().await.unwrap().sequence, 60);
    assert_eq!(set_aside_on(&server).await, []);
    // The whole log is back: a better backup, or the old primary.
    log.set_to(whole);
    log.toggle_any();
    let status = replica.until_published(61).await;
    assert_eq!((status.set_back, status.rebuilds), (None, 0));
    assert_feed_is_the_log(&server, &log, &key).await;
}

/// Ground rule 4: evidence of an ended epoch halts nothing; rule 14: the stream that shows it is kept.
#[tokio::test]
async fn a_feed_of_an_epoch_that_has_ended_is_set_aside_and_the_next_one_is_filled() {
    let (server, log, key, _) = set_back_to(40).await;
    log.begin_epoch(LogEpoch(200_000_000));
    log.toggle_any();
    let replica = Replica::start(log.replica(), feed_on(&server).await, &key);
    let status = replica.until_published(41).await;
    assert_eq!((status.set_back, status.rebuilds), (None, 1));
    assert_feed_is_the_log(&server, &log, &key).await;
    assert_eq!(set_aside_on(&server).await, [(1, 60)]);
    assert!(raw_message(&server, "CATRUST", 60).await.is_some(), "the lost end is still there");
}

/// Ground rule 19: another server: rows merely read are dropped; one durable commit before the
/// first signature.
#[tokio::test]
async fn nothing_of_another_server_is_published_before_a_commit_has_confirmed_it() {
    let server = NatsServer::start().await.unwrap();
    let (log, key) = (grown(20), shared_key());
    let replica = Replica::start(log.replica(), feed_on(&server).await, &key);
    replica.until_published(20).await;
    let before = log.with(|log| log.clone());

    log.turn_to_another_server();
    // A superseded server shows a change that the one in charge has not.
    log.toggle_any();
    let mut status = replica.status.clone();
    let published = status.wait_for(|status| status.published_position > 20);
    let early = tokio::time::timeout(Duration::from_secs(1), published).await;
    assert!(early.is_err(), "published from a server that nothing has confirmed");

    log.turn_to_another_server();
    log.set_to(before);
    log.with(|log| log.grow(log.head() + 3));
    log.confirm_server();
    let status = replica.until_published(23).await;
    assert_eq!((status.set_back, status.rebuilds), (None, 0));
    assert_feed_is_the_log(&server, &log, &key).await;
}

#[tokio::test]
async fn what_another_part_of_the_server_knows_of_a_set_back_stops_the_publisher() {
    let server = NatsServer::start().await.unwrap();
    let (log, key) = (grown(20), shared_key());
    let replica = Replica::start(log.replica(), feed_on(&server).await, &key);
    replica.until_published(20).await;
    log.find_set_back(Some("a broker has seen position 99"));
    replica.until("it stops", is_set_back).await;
    log.toggle_any();
    let told =
        |status: &PublisherStatus| status.last_error.as_ref().is_some_and(|e| e.contains("position 99"));
    replica.until("it says why", told).await;
    assert_eq!(feed_on_ready(&server).await.tail().await.unwrap().sequence, 20);
    log.find_set_back(None);
    replica.until_published(21).await;
    assert_feed_is_the_log(&server, &log, &key).await;
}

/// Somebody with the servers' login to NATS and none of their keys.
#[tokio::test]
async fn nobody_fakes_a_set_back_by_writing_into_the_feed() {
    let server = NatsServer::start().await.unwrap();
    let (log, key) = (grown(50), shared_key());
    Replica::start(log.replica(), feed_on(&server).await, &key).until_published(50).await;
    // Of this log, at its sequence, beyond its end, by a key of the thief's own; then a true message, again.
    let mut ahead = log.with(|log| log.clone());
    ahead.grow(51);
    let forged = FeedMessage::new(ahead.log_id(), ahead.events().last().unwrap(), &shared_key()).unwrap();
    let replayed = FeedMessage::new(ahead.log_id(), &ahead.events()[29], &key).unwrap();
    for message in [forged, replayed] {
        ask_nats(&server.url(), &message.subject, std::str::from_utf8(&message.json).unwrap()).await;
    }
    let replica = Replica::start(log.replica(), feed_on(&server).await, &key);
    let status = replica.until("the next one is filled", |status| status.rebuilds == 1).await;
    assert_eq!(status.set_back, None);
    assert_feed_is_the_log(&server, &log, &key).await;
    assert_eq!(set_aside_on(&server).await, [(1, 52)]);
}

/// What a thief writes comes after the witness, and the witness is heard all the same.
#[tokio::test]
async fn nobody_hides_a_set_back_by_writing_into_the_feed() {
    for kept in [40, 60] {
        let (server, log, key, _) = set_back_to(kept).await;
        let junk = |number| format!("catrust.v1.log.fleet.Nonsense{number}");
        let url = server.url();
        let asked: Vec<String> = (0..20).map(junk).collect();
        futures::future::join_all(asked.iter().map(|subject| ask_nats(&url, subject, "{}"))).await;
        let replica = Replica::start(log.replica(), feed_on(&server).await, &key);
        if kept == 40 {
            let status = replica.until("it is told", is_set_back).await;
            assert!(status.set_back.unwrap().contains("position 60"));
            assert_eq!(set_aside_on(&server).await, []);
        } else {
            replica.until("nothing was lost", |status| status.rebuilds == 1).await;
        }
    }
}

/// A stranger who may publish on the feed's subjects takes a sequence.
#[tokio::test]
async fn a_foreign_message_on_the_stream_does_not_stay() {
    let server = NatsServer::start().await.unwrap();
    let log = grown(50);
    let key = shared_key();
    let replica = Replica::start(log.replica(), feed_on(&server).await, &key);
    replica.until_published(50).await;
    let answer = ask_nats(&server.url(), "catrust.v1.log.fleet.Nonsense", "{}").await;
    assert!(String::from_utf8_lossy(&answer).contains("\"seq\":51"), "{answer:?}");
    log.toggle_any();
    assert_feed_is_the_log(&server, &log, &key).await;
    replica.until_published(51).await;
    assert!(replica.rebuilds()[0].contains("missing or foreign"), "{:?}", replica.rebuilds());
}

/// Ground rule 14: servers never delete a stream. A login that writes into it cannot have them
/// make one after the other either: after three new ones in a day heads and new changes go past
/// the stream, and it is told.
#[tokio::test]
async fn a_stream_that_is_written_into_again_and_again_is_kept_each_time_up_to_a_bound() {
    let server = NatsServer::start().await.unwrap();
    let log = grown(20);
    let instance = log.with(|log| log.register_instance("bound"));
    let serial = log.with(|log| log.register_certificate(&instance));
    let key = shared_key();
    let replica = Replica::start(log.replica(), feed_on(&server).await, &key);
    let write = async || {
        replica.until_published(log.with(|log| log.head())).await;
        ask_nats(&server.url(), "catrust.v1.log.fleet.Nonsense", "{}").await;
        log.toggle(&instance, &serial);
    };
    for round in 1..=3 {
        write().await;
        replica.until("another stream is filled", |status| status.rebuilds == round).await;
    }
    let status = replica.until_published(log.with(|log| log.head())).await;
    assert_eq!(status.live_only, None);
    assert_eq!(set_aside_on(&server).await, [(1, 24), (2, 25), (3, 26)]);

    write().await;
    let bounded = |status: &PublisherStatus| status.live_only.is_some();
    let status = replica.until("it is told that there is no further stream", bounded).await;
    assert!(status.live_only.as_ref().unwrap().contains("within a day"), "{status:?}");
    assert!(status.last_error.as_ref().unwrap().contains("no further stream"), "{status:?}");
    let mut reader = live_reader(&server, &instance).await;
    let heard = async |wanted: fn(&FeedItem) -> Option<u64>, position: u64| {
        let mut reader = live_reader(&server, &instance).await;
        let hearing = async { while reader.next().await.as_ref().and_then(wanted) != Some(position) {} };
        tokio::time::timeout(PATIENCE, hearing).await.unwrap();
    };
    log.toggle(&instance, &serial);
    let position = log.with(|log| log.head());
    let change = async {
        loop {
            if let Some(FeedItem::Change(change)) = reader.next().await
                && change.position == position
            {
                break change;
            }
        }
    };
    let change = tokio::time::timeout(PATIENCE, change).await.expect("the new change is sent all the same");
    assert_eq!(change.verify(&TrustKeys::from(&*key)), Ok(()));
    let head = |item: &FeedItem| if let FeedItem::Head(head) = item { Some(head.position) } else { None };
    heard(head, position).await;
    assert_eq!(feed_on_ready(&server).await.outlines().await.unwrap().len(), 4, "all of them are there");
}

/// Follows as an agent does. The server knows of it by the time.
async fn live_reader(server: &NatsServer, instance: &InstanceId) -> FeedStream {
    let feed = feed_on_ready(server).await;
    let reader = feed.follow_live(instance).await.unwrap();
    // Comes after the subscriptions, on the same connection.
    feed.tail().await.unwrap();
    reader
}

/// A server that died after it had set the stream aside, and before it made the next one.
#[tokio::test]
async fn a_set_aside_that_was_cut_off_is_taken_up_again() {
    let server = NatsServer::start().await.unwrap();
    let (log, key) = (grown(50), shared_key());
    Replica::start(log.replica(), feed_on(&server).await, &key).until_published(50).await;
    let info = ask_nats(&server.url(), "$JS.API.STREAM.INFO.CATRUST", "").await;
    let mut config = serde_json::from_slice::<serde_json::Value>(&info).unwrap()["config"].take();
    config["subjects"] = serde_json::json!(["catrust.v1.archive.1.>"]);
    let answer = ask_nats(&server.url(), "$JS.API.STREAM.UPDATE.CATRUST", &config.to_string()).await;
    assert!(!String::from_utf8_lossy(&answer).contains("error"), "{}", String::from_utf8_lossy(&answer));
    let replica = Replica::start(log.replica(), feed_on(&server).await, &key);
    replica.until_published(50).await;
    assert_feed_is_the_log(&server, &log, &key).await;
    assert_eq!(set_aside_on(&server).await, [(1, 50)]);
    assert!(raw_message(&server, "CATRUST", 50).await.is_some(), "it is readable as before");
}

/// Ground rule 15: new changes reach agents over NATS at once while a stream is filled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_change_does_not_wait_for_the_stream_that_is_being_filled() {
    let server = NatsServer::start().await.unwrap();
    let log = MemoryLog::new();
    log.with(|log| log.grow(60_000));
    let instance = log.with(|log| log.register_instance("urgent"));
    let serial = log.with(|log| log.register_certificate(&instance));
    let key = shared_key();
    let mut reader = live_reader(&server, &instance).await;
    let replica = Replica::start(log.replica(), feed_on(&server).await, &key);
    let begun = |status: &PublisherStatus| status.filling && status.published_position >= 2_000;
    replica.until("the stream is being filled", begun).await;
    for _ in 0..5 {
        log.toggle(&instance, &serial);
        let position = log.with(|log| log.head());
        let change = async {
            loop {
                if let Some(FeedItem::Change(change)) = reader.next().await
                    && change.position == position
                {
                    break change;
                }
            }
        };
        let change = tokio::time::timeout(PATIENCE, change).await.expect("the change");
        assert_eq!(change.verify(&TrustKeys::from(&*key)), Ok(()));
        let published = replica.status.borrow().published_position;
        assert!(published < 60_000, "it came with the stream, which is at {published}");
    }
    replica.until_published(log.with(|log| log.head())).await;
    assert_feed_is_the_log(&server, &log, &key).await;
}

/// A feed that says it has fewer messages than it has.
struct Lossy {
    feed: InProcessFeed,
    lost: Mutex<u64>,
    /// Counts how often its end was read.
    looked: watch::Sender<u64>,
}

#[async_trait]
impl TrustFeed for Lossy {
    async fn tail(&self) -> Result<FeedTail, FeedError> {
        let tail = self.feed.tail().await?;
        let lost = *self.lost.lock().unwrap();
        self.looked.send_modify(|times| *times += 1);
        Ok(FeedTail { messages: tail.messages.saturating_sub(lost), ..tail })
    }

    async fn oldest(&self) -> Result<Option<TailMessage>, FeedError> {
        self.feed.oldest().await
    }

    async fn publish(&self, messages: &[FeedMessage]) -> Result<(), FeedError> {
        self.feed.publish(messages).await
    }

    async fn publish_head(&self, head: &Head) -> Result<(), FeedError> {
        self.feed.publish_head(head).await
    }

    async fn publish_key_set(&self, set: &KeySet) -> Result<(), FeedError> {
        self.feed.publish_key_set(set).await
    }

    async fn publish_live(&self, message: &FeedMessage) -> Result<(), FeedError> {
        self.feed.publish_live(message).await
    }

    async fn set_aside(&self, made_at: Timestamp) -> Result<(), FeedError> {
        *self.lost.lock().unwrap() = 0;
        self.feed.set_aside(made_at).await
    }

    async fn subscribe(&self, instance_id: &InstanceId) -> Result<FeedStream, FeedError> {
        self.feed.subscribe(instance_id).await
    }
}

#[tokio::test]
async fn messages_lost_from_the_middle_are_noticed_without_traffic() {
    let log = grown(50);
    let (looked, mut looks) = watch::channel(0);
    let feed = Arc::new(Lossy { feed: InProcessFeed::new(), lost: Mutex::new(0), looked });
    let key = shared_key();
    let replica = Replica::start(log.replica(), feed.clone(), &key);
    replica.until_published(50).await;
    // The count that a loss is told by is taken when the full feed is looked at.
    let before = *looks.borrow();
    let looked = tokio::time::timeout(PATIENCE, looks.wait_for(|times| *times > before)).await.is_ok();
    assert!(looked, "the feed is not looked at again");
    *feed.lost.lock().unwrap() = 1;
    replica
        .until("it is filled again", |status| status.rebuilds == 1 && status.published_position == 50)
        .await;
    assert!(replica.rebuilds()[0].contains("messages"), "{:?}", replica.rebuilds());
}

#[tokio::test]
async fn an_event_of_a_newer_version_stops_the_publisher_before_it() {
    let log = grown(30);
    let feed = Arc::new(InProcessFeed::new());
    let key = shared_key();
    let store = log.replica().with_unreadable(21);
    let replica = Replica::start(store, feed.clone(), &key);
    let stopped = |status: &PublisherStatus| status.last_error.is_some();
    let status = replica.until("it says why it stops", stopped).await;
    assert!(status.last_error.unwrap().contains("position 21"));
    assert_eq!(feed.tail().await.unwrap().sequence, 20);
}

#[tokio::test]
async fn a_log_that_cannot_be_read_is_waited_for() {
    let log = grown(30);
    let feed = Arc::new(InProcessFeed::new());
    let store = log.replica();
    let away = store.away();
    away.store(true, std::sync::atomic::Ordering::Relaxed);
    let replica = Replica::start(store, feed.clone(), &shared_key());
    replica.until("it says so", |status| status.last_error.is_some()).await;
    away.store(false, std::sync::atomic::Ordering::Relaxed);
    let status = replica.until_published(30).await;
    assert_eq!(status.last_error, None);
}

#[tokio::test]
async fn heads_are_sent_while_publishing_and_only_when_the_log_is_known() {
    let server = NatsServer::start().await.unwrap();
    let log = MemoryLog::new();
    let instance = log.with(|log| log.register_instance("fleet"));
    log.with(|log| log.register_certificate(&instance));
    let key = shared_key();
    let keys = TrustKeys::from(&*key);
    let replica = Replica::start(log.replica(), feed_on(&server).await, &key);
    *replica.heads.fresh.lock().unwrap() = false;
    replica.until_published(3).await;
    let mut reader = feed_on_ready(&server).await.subscribe(&instance).await.unwrap();
    let listened = tokio::time::timeout(Duration::from_millis(4_500), async {
        loop {
            if let Some(FeedItem::Head(head)) = reader.next().await {
                break head;
            }
        }
    });
    // At most one that was sent before "fresh" was taken back.
    let early = listened.await.is_ok();
    *replica.heads.fresh.lock().unwrap() = true;
    let head = tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(FeedItem::Head(head)) = reader.next().await {
                break head;
            }
        }
    });
    let head = head.await.expect("a head within the interval");
    assert!(!early, "a head was sent although the log was not known");
    assert_eq!(head.verify(&keys), Ok(()));
    assert_eq!((head.revision, head.position), (1, 3));
}

/// The whole way: a reader that folds what comes, and takes a bundle after a gap, ends
/// with the log's own bundle, whatever happened to NATS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_converges_through_crashes_of_nats() {
    let mut server = NatsServer::start().await.unwrap();
    let log = MemoryLog::new();
    let instance = log.with(|log| log.register_instance("fleet"));
    let serials: Vec<SerialNumber> =
        (0..5).map(|_| log.with(|log| log.register_certificate(&instance))).collect();
    let key = shared_key();
    let replica = Replica::start(log.replica(), feed_on(&server).await, &key);
    replica.until_published(11).await;
    let mut reader = feed_on_ready(&server).await.subscribe(&instance).await.unwrap();
    let (state, seen) = watch::channel(0);
    let reading = tokio::spawn({
        let (log, instance, key) = (log.clone(), instance.clone(), Arc::clone(&key));
        async move {
            let mut fold = state_from(&log, &instance, &key);
            while let Some(item) = reader.next().await {
                if let FeedItem::Change(change) = item {
                    let change = Arc::unwrap_or_clone(change).verified(&TrustKeys::from(&*key)).unwrap();
                    match fold.apply(&change) {
                        Ok(ChangeOutcome::Changed(_) | ChangeOutcome::Known) => {}
                        Err(TrustError::Gap { .. }) => fold = state_from(&log, &instance, &key),
                        Err(error) => panic!("{error}"),
                    }
                }
                let history = log
                    .with(|log| log.events().iter().find(|e| e.revision == Some(fold.revision())).cloned());
                assert_eq!(history.and_then(|event| event.bundle_digest), Some(fold.digest()));
                state.send_replace(fold.revision());
            }
        }
    });
    for round in 0..3 {
        for turn in 0..200 {
            log.toggle(&instance, &serials[turn % serials.len()]);
            if turn % 10 == 0 {
                tokio::task::yield_now().await;
            }
            if turn == 100 && round < 2 {
                server.kill();
                server.restart().await.unwrap();
            }
        }
    }
    let revision = log.with(|log| log.bundle(&instance).revision);
    let mut arriving = seen.clone();
    let converged = tokio::time::timeout(PATIENCE, arriving.wait_for(|at| *at == revision)).await.is_ok();
    assert!(converged, "the reader is at {} of {revision}", *seen.borrow());
    reading.abort();
    assert_feed_is_the_log(&server, &log, &key).await;
}

fn state_from(log: &MemoryLog, instance: &InstanceId, key: &SigningKey) -> TrustState {
    let (log_id, bundle) = log.with(|log: &mut SampleLog| (log.log_id(), log.bundle(instance)));
    let mut bundle = message::trust_bundle(log_id, &bundle, Timestamp::from_micros(0));
    bundle.sign(key).unwrap();
    TrustState::new(instance, &bundle.verified(&TrustKeys::from(key)).unwrap()).unwrap()
}
