//! The desk where the root key lies, as `catrust keys` works on it; and replicas with keys
//! from there.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use catrust_proto::Timestamp;
use catrust_proto::v1::KeySet;
use catrust_tests::deployment::{Deployment, Plan, Replica};
use catrust_tests::process::Launcher;
use catrust_tests::program::{Completion, built, free_port, run};
use catrust_tests::server::{Server, launcher};
use tempfile::TempDir;

/// A root key, event keys, and key sets.
pub struct Desk(TempDir);

impl Desk {
    /// A desk with a root key.
    pub async fn new() -> anyhow::Result<Self> {
        let desk = Self(tempfile::Builder::new().prefix("catrust-desk-").tempdir()?);
        desk.key("root").await?;
        Ok(desk)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Makes a key; gives its name.
    pub async fn key(&self, name: &str) -> anyhow::Result<String> {
        let file = self.text_path(&format!("{name}.pem"));
        let made = catrust(&["-o", "json", "keys", "generate", "--out", &file]).await?.success()?;
        let made: serde_json::Value = serde_json::from_str(&made.stdout)?;
        Ok(made["key_id"].as_str().context("no key id")?.to_owned())
    }

    /// Puts the next set into `set`. `KEY.pub.pem` in `arguments` are files of the desk.
    pub async fn vouch(&self, set: &str, arguments: &[&str]) -> anyhow::Result<KeySet> {
        let (root, set) = (self.text_path("root.pem"), self.text_path(set));
        let mut all = vec!["-o", "json", "keys", "vouch", "--root-key", &root, "--set", &set];
        let arguments: Vec<String> = arguments
            .iter()
            .map(|text| if text.ends_with(".pem") { self.text_path(text) } else { (*text).to_owned() })
            .collect();
        all.extend(arguments.iter().map(String::as_str));
        Ok(serde_json::from_str(&catrust(&all).await?.success()?.stdout)?)
    }

    /// Keeps a set under another name.
    pub fn keep(&self, set: &str, name: &str) -> anyhow::Result<()> {
        std::fs::copy(self.path(set), self.path(name)).map(drop).context("no such set")
    }

    /// A deployment whose agents know the root key.
    pub async fn deploy(&self) -> anyhow::Result<Deployment> {
        let mut deployment = Plan::default().deploy().await?;
        deployment.root_key = Some(self.path("root.pub.pem"));
        Ok(deployment)
    }

    /// Prepares a replica that signs with `key` and hands out `set`, on `port` for callers.
    pub fn launcher(&self, config: &Path, key: &str, set: &str, port: u16) -> anyhow::Result<Launcher> {
        let mut launcher = launcher(&format!("catrust-server serve ({key})"))?;
        let command = launcher.command();
        command.args(["serve", "--config"]).arg(config);
        command.env("CATRUST_GRPC__LISTEN", format!("127.0.0.1:{port}"));
        command.env("CATRUST_SIGNING__KEY_FILE", self.path(&format!("{key}.pem")));
        command.env("CATRUST_SIGNING__KEY_SET_FILE", self.path(set));
        command.env("CATRUST_SIGNING__ROOT_KEY_FILE", self.path("root.pub.pem"));
        Ok(launcher)
    }

    /// Starts such a replica.
    pub async fn replica_on(
        &self,
        deployment: &Deployment,
        (key, set): (&str, &str),
        port: u16,
    ) -> anyhow::Result<Replica> {
        let (config, admin) = deployment.configuration(&format!("{key}-{port}"))?;
        let server = Server::start(self.launcher(&config, key, set, port)?).await?;
        Ok(Replica { server, admin })
    }

    /// As [`Desk::replica_on`], on a free port.
    pub async fn replica(&self, deployment: &Deployment, key: &str, set: &str) -> anyhow::Result<Replica> {
        self.replica_on(deployment, (key, set), free_port()?).await
    }

    fn text_path(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }
}

async fn catrust(arguments: &[&str]) -> anyhow::Result<Completion> {
    run(built("catrust")?, arguments).await
}

/// A time from now, as `catrust keys` reads it.
pub fn from_now(time: Duration) -> anyhow::Result<String> {
    let at = SystemTime::now().duration_since(UNIX_EPOCH)? + time;
    let time = Timestamp { seconds: i64::try_from(at.as_secs())?, nanos: 0 };
    Ok(serde_json::to_value(time)?.as_str().context("no text")?.to_owned())
}
