//! The tests' own tools: what they promise about servers that are killed.

use std::time::Duration;

use catrust_tests::eventually::eventually;
use catrust_tests::nats::{Nats, Version};
use catrust_tests::postgres::{Durability, Postgres};
use catrust_tests::process::{Launcher, Signal};
use catrust_tests::proxy::{Direction, Passage, Proxy};
use sqlx::{Connection as _, PgConnection, Row as _};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_postgres_keeps_what_was_committed() -> anyhow::Result<()> {
    let mut postgres = Postgres::start(Durability::Full).await?;
    let mut connection = PgConnection::connect(&postgres.url()).await?;
    sqlx::raw_sql("CREATE TABLE t (n int); INSERT INTO t VALUES (7)").execute(&mut connection).await?;
    postgres.kill();
    assert!(connection.ping().await.is_err(), "the backends are killed, too");
    postgres.restart().await?;
    let row =
        sqlx::query("SELECT n FROM t").fetch_one(&mut PgConnection::connect(&postgres.url()).await?).await?;
    assert_eq!(row.try_get::<i32, _>("n")?, 7);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_postgres_answers_nobody_until_it_goes_on() -> anyhow::Result<()> {
    let postgres = Postgres::start(Durability::Relaxed).await?;
    let mut connection = PgConnection::connect(&postgres.url()).await?;
    postgres.pause();
    let silent = tokio::time::timeout(Duration::from_millis(500), connection.ping()).await;
    assert!(silent.is_err());
    postgres.resume();
    tokio::time::timeout(Duration::from_secs(10), PgConnection::connect(&postgres.url())).await??;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_waits_for_a_synchronous_standby_which_has_it_when_promoted() -> anyhow::Result<()> {
    let primary = Postgres::start(Durability::Relaxed).await?;
    let standby = primary.standby("one").await?;
    primary.wait_for_standbys("one").await?;
    primary.ask("CREATE TABLE t (n int)").await?;
    standby.pause();
    let mut connection = PgConnection::connect(&primary.url()).await?;
    let mut insert = Box::pin(sqlx::raw_sql("INSERT INTO t VALUES (7)").execute(&mut connection));
    assert!(tokio::time::timeout(Duration::from_millis(500), &mut insert).await.is_err(), "it waits");
    standby.resume();
    tokio::time::timeout(Duration::from_secs(30), insert).await??;
    drop(primary);
    standby.promote().await?;
    assert_eq!(standby.ask("SELECT n, pg_is_in_recovery() FROM t").await?, "7|f");
    standby.ask("INSERT INTO t VALUES (8)").await?;
    Ok(())
}

/// What is lost in a black hole arrives once it is open; what is cut ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_breaks_the_way_in_one_direction() -> anyhow::Result<()> {
    let postgres = Postgres::start(Durability::Relaxed).await?;
    let proxy = Proxy::start(postgres.port()).await?;
    let url = format!("postgres://postgres@127.0.0.1:{}/catrust", proxy.port());
    let mut connection = PgConnection::connect(&url).await?;
    sqlx::raw_sql("CREATE TABLE t (n int)").execute(&mut connection).await?;
    proxy.set(Direction::ToClient, Passage::BlackHole);
    let mut insert = Box::pin(sqlx::raw_sql("INSERT INTO t VALUES (7)").execute(&mut connection));
    let answer = tokio::time::timeout(Duration::from_millis(500), &mut insert).await;
    assert!(answer.is_err(), "the answer is lost");
    eventually(Duration::from_secs(10), "the other direction is open", async || {
        match postgres.ask("SELECT count(*) FROM t").await {
            Ok(count) if count == "1" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    proxy.set(Direction::ToClient, Passage::Open);
    tokio::time::timeout(Duration::from_secs(10), insert).await??;
    proxy.cut();
    assert!(connection.ping().await.is_err());
    assert!(PgConnection::connect(&url).await.is_err());
    proxy.mend();
    PgConnection::connect(&url).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nats_keeps_its_port_and_forgets_when_wiped() -> anyhow::Result<()> {
    let mut nats = Nats::start(Version::Installed).await?;
    let url = nats.url();
    let context = async_nats::jetstream::new(nats.client().await?);
    context
        .create_stream(async_nats::jetstream::stream::Config {
            name: "CATRUST".to_owned(),
            subjects: vec!["catrust.v1.trust.>".to_owned()],
            ..Default::default()
        })
        .await?;
    assert_eq!(nats.last_sequence().await?, 0);
    nats.restart().await?;
    assert_eq!((nats.url(), nats.last_sequence().await?), (url, 0));
    nats.wipe().await?;
    assert!(nats.last_sequence().await.is_err(), "no stream any more");
    Ok(())
}

/// A child of a child: when the one between is killed with -9, so is the last.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn children_end_with_their_parent() -> anyhow::Result<()> {
    let mut launcher = Launcher::new("parent", "sh");
    launcher.command().args(["-c", "setpriv --pdeathsig KILL -- sleep 600 & echo child $!; wait"]);
    let parent = launcher.start()?;
    let child = eventually(Duration::from_secs(10), "the child is started", async || {
        let text = parent.output().text();
        text.strip_prefix("child ").and_then(|pid| pid.parse::<i32>().ok()).ok_or(text)
    })
    .await?;
    let is_sleep =
        || std::fs::read_to_string(format!("/proc/{child}/cmdline")).is_ok_and(|line| line.contains("sleep"));
    eventually(
        Duration::from_secs(10),
        "the child runs",
        async || if is_sleep() { Ok(()) } else { Err("no") },
    )
    .await?;
    parent.signal(Signal::KILL);
    eventually(
        Duration::from_secs(10),
        "the child is gone",
        async || if is_sleep() { Err("it runs") } else { Ok(()) },
    )
    .await
}
