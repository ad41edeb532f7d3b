//! The tests' own tools: what they promise about servers that are killed.

use std::time::Duration;

use catrust_tests::eventually::eventually;
use catrust_tests::nats::{Nats, Version};
use catrust_tests::postgres::{Durability, Postgres};
use catrust_tests::process::{Launcher, Signal};
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
async fn nats_keeps_its_port_and_forgets_when_wiped() -> anyhow::Result<()> {
    let mut nats = Nats::start(Version::Installed).await?;
    let url = nats.url();
    let context = async_nats::jetstream::new(nats.client().await?);
    context
        .create_stream(async_nats::jetstream::stream::Config {
            name: "CATRUST".to_owned(),
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
