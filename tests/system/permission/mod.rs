//! Permission by the policies in a folder: what they decide, and how they change while the
//! server runs.

mod brokers;
mod decisions;
mod reload;

use std::time::Duration;

use anyhow::Context as _;
use catrust_tests::deployment::{ACCOUNT, Deployment, Identity, Plan, Replica};
use catrust_tests::eventually::eventually;
use catrust_tests::http;
use catrust_tests::instance::TestInstance;

/// How long a change of the folder may take to be noticed: two looks, on a busy machine.
const NOTICED: Duration = Duration::from_secs(30);

/// One replica whose policies for [`ACCOUNT`] are `policies`, beside the harness's own.
async fn deployed(names: &[&str], policies: &[(&str, &str)]) -> anyhow::Result<(Deployment, Replica)> {
    let mut plan = Plan { nats: None, ..Plan::default() };
    for name in names {
        plan = plan.identity(Identity::with_token(name, ACCOUNT, &[]));
    }
    for (name, text) in policies {
        plan = plan.policy(&format!("{ACCOUNT}/{name}"), text);
    }
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    Ok((deployment, replica))
}

/// The instance, as somebody else sees it.
fn seen_by(replica: &Replica, instance: &TestInstance, token: &str) -> anyhow::Result<TestInstance> {
    Ok(TestInstance { caller: replica.server.caller(Some(token))?, id: instance.id.clone() })
}

/// A policy in Cedar that allows the principal of `token` some actions, on everything.
fn permit(token: &str, actions: &[&str]) -> String {
    let actions: Vec<_> = actions.iter().map(|action| format!("Action::\"{action}\"")).collect();
    format!(
        "permit(principal == Principal::\"principal-of-{token}\", action in [{}], resource);\n",
        actions.join(", ")
    )
}

/// The lines of `/metrics` that begin so.
async fn metrics(replica: &Replica, beginning: &str) -> anyhow::Result<Vec<String>> {
    let (status, text) = http::get(&replica.admin, "/metrics").await?;
    anyhow::ensure!(status == 200, "/metrics answers {status}");
    Ok(text.lines().filter(|line| line.starts_with(beginning)).map(str::to_owned).collect())
}

/// The version in force, as `/metrics` tells it: one, never one of the past beside it.
pub(crate) async fn version(replica: &Replica) -> anyhow::Result<String> {
    let lines = metrics(replica, "catrust_policy_info{").await?;
    let [line] = &lines[..] else { anyhow::bail!("{lines:?}") };
    let (_, rest) = line.split_once("version=\"").context("no version")?;
    Ok(rest.split('"').next().unwrap_or_default().to_owned())
}

/// Waits until another version than `before` is in force; gives it.
pub(crate) async fn another_version(replica: &Replica, before: &str) -> anyhow::Result<String> {
    eventually(NOTICED, "other policies are in force", async || match version(replica).await {
        Ok(now) if now != before => Ok(now),
        other => Err(format!("{other:?}")),
    })
    .await
}
