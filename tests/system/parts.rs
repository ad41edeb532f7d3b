//! A replica's parts die together: whichever of its tasks panics or ends, the process says which
//! one it was and leaves.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use catrust_tests::deployment::{Deployment, Plan};
use catrust_tests::process::Signal;
use catrust_tests::server::{Server, launcher};
use futures::{StreamExt as _, TryStreamExt as _};

/// Longer than the server gives the other tasks to leave.
const LEAVING: Duration = Duration::from_secs(20);
/// Replicas at once.
const AT_ONCE: usize = 4;

/// The tasks of a replica with all that it can have.
const PARTS: &[&str] = &[
    "acceptor of connections",
    "admin listener",
    "appender",
    "census of brokers",
    "gRPC listener",
    "gossip of the rate limit",
    "limiter's sweeper",
    "listener for receipts",
    "log follower",
    "pruner of replies",
    "publisher",
    "publisher's metrics",
    "readiness",
    "recorder of receipts",
    "recorder of refusals",
    "signer of checkpoints",
    "store",
    "watcher of expiry",
    "watcher of files",
    "watcher of the ground",
];
/// What runs on behalf of one of them, on a thread of its own.
const INNER: &[&str] = &["thread of the appender"];

async fn start(deployment: &Deployment, name: &str, fault: &str) -> anyhow::Result<Server> {
    let (config, _) = deployment.configuration(&name.replace([' ', '\''], "-"))?;
    let mut launcher = launcher(&format!("catrust-server ({fault})"))?;
    launcher.command().args(["serve", "--config"]).arg(config).env("CATRUST_FAULT", fault);
    Server::start(launcher).await
}

/// The tasks that a server says to have started.
fn started(server: &Server) -> BTreeSet<String> {
    let name = |line: &String| {
        let (_, rest) = line.split_once("started part=\"")?;
        Some(rest.split_once('"')?.0.to_owned())
    };
    server.output().lines().iter().filter_map(name).collect()
}

async fn dies_of(deployment: &Deployment, part: &str, how: &str) -> anyhow::Result<()> {
    let server = start(deployment, &format!("{part}-{how}"), &format!("{part}={how}")).await?;
    ensure!(server.exit_status().is_none(), "it does not run to begin with");
    server.signal(Signal::USR1);
    let status = server.ended(LEAVING).await.with_context(|| format!("{part}, {how}"))?;
    let output = server.output().text();
    ensure!(status.code() == Some(1), "{part}, {how}: {status}\n{output}");
    let named = if INNER.contains(&part) { "appender" } else { part };
    let last =
        output.lines().rev().find(|line| line.starts_with("catrust-server: ")).context("no last word")?;
    ensure!(last.starts_with(&format!("catrust-server: the {named} ")), "{part}, {how}: {last}");
    ensure!(output.contains("a part of the server has died"), "{part}, {how}: not in the log\n{output}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_task_dies_the_process_dies_with_it() -> anyhow::Result<()> {
    let plan = Plan::default().set("telemetry.log_filter", "\"info,catrust_control_plane::lifecycle=debug\"");
    let deployment = plan.deploy().await?;
    let whole = start(&deployment, "whole", "none").await?;
    let expected: BTreeSet<String> = PARTS.iter().map(|part| (*part).to_owned()).collect();
    assert_eq!(started(&whole), expected, "the list above is that of the server");
    drop(whole);

    let faults = PARTS.iter().chain(INNER).flat_map(|part| [(part, "panic"), (part, "end")]);
    let runs = faults.map(|(part, how)| dies_of(&deployment, part, how));
    futures::stream::iter(runs).buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?;
    Ok(())
}
