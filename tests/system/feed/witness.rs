//! A stream that shows what the database lost: it stays as it is, and nothing is published.

use std::time::Duration;

use catrust_tests::deployment::Plan;
use catrust_tests::eventually::eventually;
use catrust_tests::instance::TestInstance;

use super::nats::change_a_little;

const BOUND: Duration = Duration::from_secs(30);

/// Ground rules 3 and 14: a signed message of the stream that the log no longer has is evidence, and no
/// server deletes it. The same end of the log, put back, and all goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_shows_what_the_database_lost_is_kept_and_nothing_is_published() -> anyhow::Result<()> {
    let deployment = Plan::default().deploy().await?;
    let replica = deployment.replica("a").await?;
    let instance = replica.instance().await?;
    change_a_little(&instance).await?;
    let ca = instance.new_ca().await?;
    let last = instance.inactivate(&ca.sn).await?.position;
    deployment.nats().reaches(last, BOUND).await?;
    let id = instance.id.clone();
    drop(replica);
    let mut owner = deployment.database().await?;
    let cut = format!(
        "CREATE TABLE saved AS SELECT * FROM events; SET session_replication_role = replica; \
         DELETE FROM events WHERE position > {}",
        last - 2
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(cut)).execute(&mut owner).await?;
    deployment.command(&["rebuild"]).await?.success()?;

    let replica = deployment.replica("b").await?;
    eventually(BOUND, "the server says what the stream shows", async || {
        let said = replica.server.output().text();
        let told = said.contains("set back") && said.contains(&format!("position {last}"));
        if told { Ok(()) } else { Err(said) }
    })
    .await?;
    assert_eq!(deployment.nats().last_sequence().await?, last, "the stream stays");
    let listed = deployment.command(&["stream", "list"]).await?.success()?.stdout;
    assert!(listed.lines().count() == 1 && listed.contains("in use"), "{listed}");
    let verified = deployment.command(&["verify", "--stream"]).await?;
    assert!(verified.code == Some(1) && verified.stdout.contains("DAMAGE"), "{}", verified.stdout);

    let back = "DELETE FROM events; INSERT INTO events SELECT * FROM saved ORDER BY position";
    sqlx::raw_sql(back).execute(&mut owner).await?;
    deployment.command(&["rebuild"]).await?.success()?;
    let instance = TestInstance { caller: replica.owner()?, id };
    let position =
        eventually(BOUND, "changes are taken", async || instance.activate(&ca.sn).await).await?.position;
    assert_eq!(position, last + 1);
    deployment.nats().reaches(position, BOUND).await?;
    let listed = deployment.command(&["stream", "list"]).await?.success()?.stdout;
    assert_eq!(listed.lines().count(), 1, "{listed}");
    Ok(())
}
