//! The NATS feed against a real `nats-server`: `nats-server` on the path, or the one
//! that `NATS_SERVER_BIN` names.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use catrust_test_harness::eventually::eventually;
use catrust_test_harness::nats::NatsServer;
use catrust_trust_feed::contract::{SampleLog, key};
use catrust_trust_feed::{FeedError, NatsFeed, NatsSettings, StreamUse, TrustFeed, feed_contract};

async fn feed_on(server: &NatsServer) -> NatsFeed {
    let feed = NatsFeed::connect(&NatsSettings::new(server.url())).await.expect("usable settings");
    until_available(&feed).await;
    feed
}

/// Waits until the feed answers.
async fn until_available(feed: &NatsFeed) {
    let tail = eventually(Duration::from_secs(20), "the feed answers", async || match feed.tail().await {
        Err(FeedError::Unavailable(error)) => Err(error),
        answer => Ok(answer),
    });
    tail.await.expect("the feed answers").expect("a tail");
}

feed_contract!(async {
    let server = NatsServer::start().await.unwrap();
    let feed = feed_on(&server).await;
    (Arc::new(feed) as Arc<dyn TrustFeed>, server)
});

async fn bare(server: &NatsServer) -> jetstream::Context {
    jetstream::new(async_nats::connect(server.url()).await.expect("a connection"))
}

#[tokio::test]
async fn every_kept_message_is_at_the_sequence_of_its_position() {
    let server = NatsServer::start().await.unwrap();
    let feed = feed_on(&server).await;
    let mut log = SampleLog::new();
    log.grow(500);
    let messages = log.messages(&key());
    feed.publish(&messages).await.unwrap();
    let stream = bare(&server).await.get_stream("CATRUST").await.unwrap();
    let mut kept = 0;
    for message in &messages {
        if let Ok(stored) = stream.get_raw_message(message.position).await {
            assert_eq!(stored.payload, message.json);
            assert_eq!(stored.subject.as_str(), message.subject);
            kept += 1;
        }
    }
    assert_eq!(kept, stream.cached_info().state.messages);
}

#[tokio::test]
async fn the_stream_cannot_be_purged_and_its_messages_cannot_be_deleted() {
    let server = NatsServer::start().await.unwrap();
    let feed = feed_on(&server).await;
    let mut log = SampleLog::new();
    log.grow(10);
    feed.publish(&log.messages(&key())).await.unwrap();
    let stream = bare(&server).await.get_stream("CATRUST").await.unwrap();
    assert!(stream.purge().await.is_err());
    assert!(stream.delete_message(10).await.is_err());
    assert_eq!(feed.tail().await.unwrap().sequence, 10);
}

#[tokio::test]
async fn a_stream_of_the_same_name_that_is_somebody_elses_is_left_alone() {
    let server = NatsServer::start().await.unwrap();
    let context = bare(&server).await;
    let theirs = jetstream::stream::Config {
        name: "CATRUST".to_owned(),
        subjects: vec!["orders.>".to_owned()],
        ..Default::default()
    };
    context.create_stream(theirs).await.unwrap();
    context.publish("orders.1", "{}".into()).await.unwrap().await.unwrap();
    let feed = NatsFeed::connect(&NatsSettings::new(server.url())).await.unwrap();
    let refusal = loop {
        match feed.tail().await {
            Err(FeedError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
            other => break other,
        }
    };
    let refused = matches!(&refusal, Err(FeedError::Unsuitable(text)) if text.contains("orders.>"));
    assert!(refused, "{refusal:?}");
    let found = context.get_stream("CATRUST").await.unwrap();
    assert_eq!(found.cached_info().config.subjects, ["orders.>"]);
    assert_eq!(found.cached_info().state.messages, 1);
}

#[tokio::test]
async fn settings_that_somebody_changed_are_mended() {
    let server = NatsServer::start().await.unwrap();
    let context = bare(&server).await;
    let loose = jetstream::stream::Config {
        name: "CATRUST".to_owned(),
        subjects: vec!["catrust.v1.trust.>".to_owned()],
        max_messages: 5,
        max_age: Duration::from_secs(3_600),
        ..jetstream::stream::Config::default()
    };
    context.create_stream(loose).await.unwrap();
    let feed = feed_on(&server).await;
    let mut log = SampleLog::new();
    log.grow(20);
    feed.publish(&log.messages(&key())).await.unwrap();
    let config = context.get_stream("CATRUST").await.unwrap().cached_info().config.clone();
    assert_eq!(config.subjects, ["catrust.v1.trust.>", "catrust.v1.log.>"]);
    assert_eq!((config.max_messages, config.max_messages_per_subject), (-1, 1));
    assert_eq!(config.max_age, Duration::ZERO);
    assert!(config.deny_delete && config.deny_purge && config.allow_direct);
}

/// A subject belongs to one stream: one that another of ours has got is taken back, and that one kept.
#[tokio::test]
async fn a_live_subject_that_another_stream_got_is_taken_back() {
    let server = NatsServer::start().await.unwrap();
    let context = bare(&server).await;
    for (name, subject) in [("CATRUST", "catrust.v1.trust.>"), ("CATRUST_3", "catrust.v1.log.>")] {
        let config = jetstream::stream::Config {
            name: name.to_owned(),
            subjects: vec![subject.to_owned()],
            ..jetstream::stream::Config::default()
        };
        context.create_stream(config).await.unwrap();
    }
    context.publish("catrust.v1.log.x.y", "{}".into()).await.unwrap().await.unwrap();
    let feed = feed_on(&server).await;
    let mut log = SampleLog::new();
    log.grow(20);
    feed.publish(&log.messages(&key())).await.unwrap();
    let streams = feed.outlines().await.unwrap();
    let roles: Vec<_> = streams.iter().map(|stream| (stream.number, stream.role.clone())).collect();
    assert_eq!(roles, [(1, StreamUse::InUse), (3, StreamUse::SetAside)]);
    assert_eq!((streams[0].last_sequence, streams[1].messages), (20, 1));
}

/// Ground rule 14: what was set aside stays readable, message by message, and is the one thing that can be
/// removed.
#[tokio::test]
async fn what_was_set_aside_is_kept_until_it_is_removed() {
    let server = NatsServer::start().await.unwrap();
    let feed = feed_on(&server).await;
    let mut log = SampleLog::new();
    log.grow(30);
    let messages = log.messages(&key());
    feed.publish(&messages).await.unwrap();
    let kept = async |number| {
        let (mut bodies, mut after) = (Vec::new(), 0);
        while let Some(message) = feed.kept_in(number, after).await.unwrap() {
            after = message.sequence;
            bodies.push(message.body);
        }
        bodies
    };
    let before = kept(1).await;
    feed.set_aside(feed.tail().await.unwrap().created_at).await.unwrap();
    assert_eq!(kept(1).await, before);
    assert_eq!(before.last(), Some(&messages[29].json));
    assert_eq!(feed.kept_after(0).await.unwrap(), None, "the one in use is empty");
    let refused = feed.remove_stream(2).await.unwrap_err().to_string();
    assert!(refused.contains("CATRUST_2 is in use"), "{refused}");
    let refused = feed.remove_stream(4).await.unwrap_err().to_string();
    assert!(refused.contains("CATRUST_4 does not exist"), "{refused}");
    assert_eq!(feed.remove_stream(1).await.unwrap().last_sequence, 30);
    assert_eq!(feed.outlines().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_stream_that_cannot_be_mended_is_told_with_what_to_do() {
    let server = NatsServer::start().await.unwrap();
    let context = bare(&server).await;
    let other = jetstream::stream::Config {
        name: "OTHER".to_owned(),
        subjects: vec!["catrust.>".to_owned()],
        ..jetstream::stream::Config::default()
    };
    context.create_stream(other).await.unwrap();
    let feed = NatsFeed::connect(&NatsSettings::new(server.url())).await.unwrap();
    let refusal = loop {
        match feed.tail().await {
            Err(FeedError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
            other => break other,
        }
    };
    let Err(FeedError::Unsuitable(text)) = refusal else { panic!("{refusal:?}") };
    assert!(text.contains("overlap"), "{text}");
}

#[tokio::test]
async fn a_server_without_jetstream_is_told() {
    let mut server = NatsServer::prepare().unwrap();
    server.arguments.clear();
    server.restart().await.unwrap();
    let feed = NatsFeed::connect(&NatsSettings::new(server.url())).await.unwrap();
    let mut last = String::new();
    for _ in 0..500 {
        match feed.tail().await {
            Err(FeedError::Unavailable(error)) => last = error.to_string(),
            other => panic!("{other:?}"),
        }
        if last.contains("is it on for this NATS server") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never told: {last}");
}

#[tokio::test]
async fn a_server_that_comes_late_is_reached() {
    let mut server = NatsServer::prepare().unwrap();
    let feed = NatsFeed::connect(&NatsSettings::new(server.url())).await.unwrap();
    assert!(matches!(feed.tail().await, Err(FeedError::Unavailable(_))));
    let mut log = SampleLog::new();
    log.grow(10);
    let messages = log.messages(&key());
    assert!(matches!(feed.publish(&messages).await, Err(FeedError::Unavailable(_))));
    server.restart().await.unwrap();
    until_available(&feed).await;
    feed.publish(&messages).await.unwrap();
    assert_eq!(feed.tail().await.unwrap().sequence, 10);
}

/// A second publisher's messages, and a server that dies under a window of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_cut_off_by_a_crash_is_finished_after_it() {
    let mut server = NatsServer::start().await.unwrap();
    let feed = feed_on(&server).await;
    let mut log = SampleLog::new();
    log.grow(20_000);
    let messages = Arc::new(log.messages(&key()));
    let publishing = {
        let (feed, messages) = (feed.clone(), Arc::clone(&messages));
        tokio::spawn(async move { feed.publish(&messages).await })
    };
    let started = tokio::time::Instant::now();
    while feed.tail().await.is_ok_and(|tail| tail.sequence < 500) {
        assert!(started.elapsed() < Duration::from_secs(20), "publishing does not begin");
    }
    server.kill();
    let cut = publishing.await.unwrap();
    assert!(matches!(cut, Err(FeedError::Unavailable(_))), "{cut:?}");
    server.restart().await.unwrap();
    until_available(&feed).await;
    let stored = usize::try_from(feed.tail().await.unwrap().sequence).unwrap();
    assert!((1..20_000).contains(&stored), "{stored}");
    feed.publish(&messages[stored..]).await.unwrap();
    let tail = feed.tail().await.unwrap();
    assert_eq!(tail.last.unwrap().event_hash, messages.last().unwrap().event_hash);
}

#[tokio::test]
async fn a_user_with_a_password_file_is_let_in_and_others_are_not() {
    let server = NatsServer::start_with(&["--user", "catrust", "--pass", "hunter2"]).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "hunter2\n").unwrap();
    let settings = NatsSettings {
        user: Some("catrust".to_owned()),
        password_file: Some(file),
        ..NatsSettings::new(server.url())
    };
    let feed = NatsFeed::connect(&settings).await.unwrap();
    until_available(&feed).await;
    let stranger = NatsFeed::connect(&NatsSettings::new(server.url())).await.unwrap();
    for _ in 0..20 {
        assert!(matches!(stranger.tail().await, Err(FeedError::Unavailable(_))));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_a_server_says_of_spending_comes_to_all_of_them_and_to_itself() {
    use futures::StreamExt as _;
    let mut server = NatsServer::start().await.unwrap();
    let (one, two) = (feed_on(&server).await, feed_on(&server).await);
    let (sender, mut own) = one.spending().await.unwrap();
    let (_, mut other) = two.spending().await.unwrap();
    // Two connections: what the second one asked for may come after what the first one says.
    two.tail().await.unwrap();
    sender.send(b"spent".to_vec()).await.unwrap();
    sender.flush().await.unwrap();
    for stream in [&mut own, &mut other] {
        let heard = tokio::time::timeout(Duration::from_secs(10), stream.next()).await.unwrap();
        assert_eq!(heard.unwrap(), "spent");
    }
    server.kill();
    for _ in 0..1_000 {
        if !sender.is_connected() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(matches!(sender.send(b"lost".to_vec()).await, Err(FeedError::Unavailable(_))));
}
