//! The headers of the rate limit, read by a client that shares no code with the server.

use catrust_tests::deployment::{ACCOUNT, Identity, Plan};
use catrust_tests::foreign::script;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_client_reads_where_it_stands() -> anyhow::Result<()> {
    let plan = Plan { nats: None, ..Plan::default() }
        .identity(Identity::with_token("user", ACCOUNT, &["mq:*"]))
        .set("rate_limit.per_user_per_second", "2")
        .set("rate_limit.burst", "5");
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    script("rate_limit.py", &[replica.server.authority(), "user", "2", "5"]).await?.success()?;
    Ok(())
}
