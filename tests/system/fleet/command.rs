//! `catrust fleet` and `catrust ca inactivate --wait`, as a person on call uses them.

use catrust_tests::instance::TestInstance;
use catrust_tests::program::{Completion, built, finish};
use catrust_tests::server::Server;
use serde_json::Value;

use super::broker::{apply_when_there, refused, report, report_applied};

async fn catrust(server: &Server, arguments: &[&str]) -> anyhow::Result<Completion> {
    let mut command = tokio::process::Command::new(built("catrust")?);
    command.env("CATRUST_SERVER", server.address()).args(arguments);
    finish(command).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fleet_is_shown_and_waited_for_on_the_command_line() -> anyhow::Result<()> {
    let data = tempfile::tempdir()?;
    let server = Server::dev(data.path()).await?;
    let caller = server.caller(None)?;
    let instance = TestInstance::register(&caller, &caller, "dev").await?;
    let ca = instance.new_ca().await?;
    for name in ["broker-1", "broker-2"] {
        report_applied(&instance, name, 1).await?;
    }
    let id = instance.id.as_str();
    let table = catrust(&server, &["fleet", "status", id]).await?.success()?.stdout;
    let mut lines = table.lines();
    let header = lines.next().unwrap_or_default();
    for column in ["BROKER", "REVISION", "DIGEST", "ENFORCES AT", "SESSIONS", "LAST CONTACT", "STATE"] {
        assert!(header.contains(column), "{table}");
    }
    assert!(
        lines.next().is_some_and(|row| row.starts_with("broker-1  1") && row.contains("agrees  TLS")),
        "{table}"
    );

    // Time is up: the command says who is missing, and that the change is made.
    let inactivate =
        ["ca", "inactivate", &ca.sn, "--instance", id, "--wait", "all", "--wait-timeout", "200ms"];
    let text = catrust(&server, &inactivate).await?.success()?.stdout;
    assert!(text.contains("pending   2 (broker-1, broker-2)"), "{text}");
    report(&instance, &refused(&instance, "broker-2", 2, "disk full")).await?;
    let table = catrust(&server, &["fleet", "status", id]).await?.success()?.stdout;
    assert!(table.contains("REFUSED") && table.contains("revision 2: disk full"), "{table}");

    let watch = ["fleet", "propagation", id, "--watch", "-o", "json"];
    let (watched, said) =
        tokio::join!(catrust(&server, &watch), apply_when_there(&instance, &["broker-1"], 2));
    said?;
    let watched = watched?.success()?.stdout;
    let last: Value = serde_json::from_str(watched.lines().last().unwrap_or_default())?;
    assert_eq!(last["propagation"]["applied"], 1, "{watched}");
    assert_eq!(last["propagation"]["refusedBrokerIds"][0], "broker-2", "{watched}");

    let propagation = ["fleet", "propagation", id, "--revision", "1"];
    let text = catrust(&server, &propagation).await?.success()?.stdout;
    assert!(text.contains("revision  1\napplied   2\n"), "{text}");
    let beyond = catrust(&server, &["fleet", "propagation", id, "--revision", "9"]).await?;
    assert_eq!(beyond.code, Some(1));
    assert!(beyond.stderr.contains("RevisionNotFound"), "{}", beyond.stderr);
    report_applied(&instance, "broker-2", 2).await?;
    let activate = ["ca", "activate", &ca.sn, "--instance", id, "--wait", "quorum", "--wait-timeout", "30s"];
    let (done, said) =
        tokio::join!(catrust(&server, &activate), apply_when_there(&instance, &["broker-1", "broker-2"], 3));
    said?;
    let done = done?.success()?.stdout;
    assert!(done.contains("revision  3\napplied   2\n"), "{done}");
    Ok(())
}
