//! What `make demo` shows is true: devices with live MQTT sessions behind the gate and
//! behind the plugin, a CA that is turned off by the command line, and everything in
//! between real. The script itself fails where a device of an inactive CA gets in, or
//! one of another CA loses its session.

use std::time::Duration;

use anyhow::Context as _;
use catrust_tests::program::{built, repository};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demonstration_runs_to_its_end() -> anyhow::Result<()> {
    let server = built("catrust-server")?;
    let mut script = tokio::process::Command::new(repository().join("tests/bin/demo"));
    // What was built for the tests, instead of a build in between.
    script.env("CATRUST_BIN_DIR", server.parent().context("no directory")?);
    script.kill_on_drop(true).stdin(std::process::Stdio::null());
    let output = tokio::time::timeout(Duration::from_secs(300), script.output()).await??;
    let said = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complaints}");
    for device in ["acme-1", "acme-2"] {
        let cut = said.lines().find(|line| line.contains(&format!("{device} is cut")));
        println!("{}", cut.context("no time line")?.trim());
        for way in ["full handshake: refused", "resumption: refused"] {
            assert!(said.contains(&format!("{device}  {way}")), "{said}");
        }
        assert!(said.contains(&format!("{device} is back")), "{said}");
    }
    assert_eq!(said.matches("still has its first session").count(), 2, "{said}");
    Ok(())
}
