//! Connections that are cut, holders that fall silent, servers that are not fit.

use std::time::{Duration, Instant};

use catrust_domain::{Command, CommandEnvelope};
use catrust_event_store::contract::commands::{
    activate, append_all, inactivate, instance, populate, unique_id, with_request_id,
};
use catrust_event_store::contract::{Fixture as _, PATIENCE};
use catrust_event_store::postgres::PgEventStore;
use catrust_event_store::{CommandStore as _, EventLog as _, Maintenance as _, StoreError};
use catrust_test_harness::eventually::eventually;

use crate::PgFixture;
use crate::proxy::{Fault, Proxy};

/// A store behind a proxy, an instance with one active certificate in it, and a
/// command to inactivate it.
async fn behind_proxy() -> (PgFixture, Proxy, PgEventStore, CommandEnvelope) {
    let fixture = PgFixture::create().await;
    let proxy = Proxy::start(fixture.cluster.port()).await;
    let url = fixture.cluster.url_at(proxy.port(), "postgres", &fixture.database);
    let store = fixture.open_at(&url).await;
    let id = instance("proxied");
    let sns = populate(&store, &id, &["a"]).await;
    let command = with_request_id(inactivate(&id, &sns[0]), unique_id(), "off");
    (fixture, proxy, store, command)
}

/// The one effect is there, and the log is whole.
async fn assert_one_effect(fixture: &PgFixture, before: u64) {
    let witness = fixture.open().await;
    assert_eq!(witness.head().await.unwrap().position, before + 1);
    let report = witness.verify().await.unwrap();
    assert!(report.is_clean(), "{report:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_was_lost_is_settled_as_committed() {
    let (fixture, proxy, store, command) = behind_proxy().await;
    let before = store.head().await.unwrap().position;
    proxy.plant(Fault::LoseCommitAnswer);
    let results = append_all(&store, std::slice::from_ref(&command)).await;
    assert!(!proxy.is_planted());
    let reply = results[0].as_ref().unwrap();
    assert!(reply.changed && reply.position == before + 1, "{reply:?}");
    assert_one_effect(&fixture, before).await;
    assert_eq!(append_all(&store, &[command]).await, results);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_never_arrived_is_settled_as_aborted_and_repeated() {
    let (fixture, proxy, store, command) = behind_proxy().await;
    let before = store.head().await.unwrap().position;
    proxy.plant(Fault::LoseCommit);
    let results = append_all(&store, &[command]).await;
    assert!(!proxy.is_planted());
    assert_eq!(results[0].as_ref().unwrap().position, before + 1);
    assert_one_effect(&fixture, before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_cannot_be_settled_is_told_as_ambiguous_within_bounds() {
    let (fixture, proxy, store, command) = behind_proxy().await;
    let before = store.head().await.unwrap().position;
    proxy.plant(Fault::LoseCommitAnswerAndServer);
    let started = Instant::now();
    let appended = store.append(std::slice::from_ref(&command)).await;
    assert!(matches!(appended, Err(StoreError::Ambiguous(_))), "{appended:?}");
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    // It had been committed; the repeat, over a way that works, is told so.
    let direct = fixture.open().await;
    let reply = append_all(&direct, &[command]).await.remove(0).unwrap();
    assert!(reply.changed && reply.position == before + 1, "{reply:?}");
    assert_one_effect(&fixture, before).await;
}

/// Four messages make a batch: lock, load, write, commit; three where nobody else has
/// appended since the last one. Whichever is lost, the caller gets its answer, if only by
/// repeating (a busy machine may notice a cut connection, which still has the lock, later
/// than the next one gives up).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_message_is_cut_a_batch_has_one_effect() {
    let (fixture, proxy, store, command) = behind_proxy().await;
    let Command::InactivateCaCertificate { sn, .. } = &command.command else { panic!("{command:?}") };
    let id = &command.instance_id;
    let witness = fixture.open().await;
    for (last, messages) in [(&witness, 4), (&store, 3)] {
        for message in 0..messages {
            append_all(last, &[inactivate(id, sn), activate(id, sn)]).await;
            let before = witness.head().await.unwrap().position;
            proxy.plant(Fault::CutAfter(message));
            let off = with_request_id(inactivate(id, sn), unique_id(), "off");
            let batch = [off, with_request_id(activate(id, sn), unique_id(), "on")];
            let results =
                eventually(PATIENCE, "an answer", async || store.append(&batch).await).await.unwrap();
            assert!(!proxy.is_planted(), "message {message} of {messages}");
            let positions: Vec<_> = results.iter().flatten().map(|reply| reply.position).collect();
            assert_eq!(positions, [before + 1, before + 2], "message {message} of {messages}");
            assert_eq!(witness.head().await.unwrap().position, before + 2, "message {message} of {messages}");
        }
    }
    assert!(witness.verify().await.unwrap().is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_falls_silent_loses_the_lock_and_the_others_go_on() {
    let (fixture, _proxy, store, command) = behind_proxy().await;
    let mut silent = fixture.connect().await;
    sqlx::raw_sql("SET idle_in_transaction_session_timeout = '5s'").execute(&mut silent).await.unwrap();
    let lock = "BEGIN; SELECT pg_advisory_xact_lock(7161132917441393729)";
    sqlx::raw_sql(lock).execute(&mut silent).await.unwrap();
    let started = Instant::now();
    let refused = store.append(std::slice::from_ref(&command)).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    eventually(PATIENCE, "the lock is free", async || store.append(std::slice::from_ref(&command)).await)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_without_the_lock_cannot_take_a_position_twice() {
    let fixture = PgFixture::create().await;
    let store = fixture.open().await;
    populate(&store, &instance("taken"), &["a"]).await;
    let columns = "stream_version + 10, instance_id, NULL, NULL, NULL, 'InstanceUpdated', 1, payload, actor, \
                   account_id, policy_version, source_address, request_id, traceparent, occurred_at, hash";
    let copy =
        format!("INSERT INTO events SELECT position, gen_random_uuid(), stream_id, {columns} FROM events");
    let refused = fixture.execute(&copy).await;
    assert!(refused.as_ref().is_err_and(|text| text.contains("events_pkey")), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncating_the_log_is_refused() {
    let fixture = PgFixture::create().await;
    let refused = fixture.execute("TRUNCATE events").await;
    assert!(refused.as_ref().is_err_and(|text| text.contains("append-only")), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn appends_of_another_replica_are_hinted_at() {
    let fixture = PgFixture::create().await;
    let (one, other) = (fixture.open().await, fixture.open().await);
    let hint = other.appended();
    // Listening begins in the background: until then, only what follows is heard.
    let id = instance("hint");
    let sn = populate(&one, &id, &["a"]).await.remove(0);
    eventually(PATIENCE, "the other replica hears of the head", async || {
        append_all(&one, &[inactivate(&id, &sn), activate(&id, &sn)]).await;
        if *hint.borrow() > 0 { Ok(()) } else { Err("it has heard nothing") }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfit_servers_and_databases_are_refused_with_the_reason() {
    let fixture = PgFixture::create().await;
    let connect = async |url: String| PgEventStore::connect(&url, fixture.clock.reader()).await;
    let port = fixture.cluster.port();
    let refused = connect(fixture.cluster.url("no_such_database")).await;
    assert!(
        matches!(&refused, Err(StoreError::Unsuitable(text)) if text.contains("no_such_database")),
        "{refused:?}"
    );
    let refused = connect(fixture.cluster.url_at(port, "nobody_here", &fixture.database)).await;
    assert!(
        matches!(&refused, Err(StoreError::Unsuitable(text)) if text.contains("nobody_here")),
        "{refused:?}"
    );
    let refused = connect("nonsense".into()).await;
    assert!(matches!(refused, Err(StoreError::Unsuitable(_))), "{refused:?}");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = connect(fixture.cluster.url_at(closed, "postgres", &fixture.database)).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
}
