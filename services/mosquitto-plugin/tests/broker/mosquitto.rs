//! A Mosquitto of the test's own, with the plugin.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use catrust_test_harness::directory::temporary;
use catrust_test_harness::mosquitto::launcher;
use catrust_test_harness::process::{Process, Signal};
use catrust_test_harness::program::free_port;
use tempfile::TempDir;
use tokio::net::{TcpStream, UnixStream};

use crate::authority::Authority;
use crate::eventually::{LIMIT, eventually};

/// What the tests vary.
#[derive(Default)]
pub struct Settings {
    /// Lines before the listeners.
    pub global: String,
    /// Lines of the plugin's options.
    pub options: String,
    /// Lines of the TLS listener.
    pub listener: String,
    /// Whether TLS 1.3 sessions are kept by the server rather than in the ticket.
    pub stateful_tls13: bool,
    /// The access rules; otherwise everything to everybody, and `$CONTROL` to the agent.
    pub acl: Option<String>,
    /// Whether there are none.
    pub no_acl_file: bool,
}

/// A running broker.
pub struct Broker {
    // Before the directory: the broker must be gone when that is removed.
    process: Process,
    directory: TempDir,
    /// Of the TLS listener.
    pub address: SocketAddr,
    /// Issuer of the server's certificate.
    pub server_ca: Authority,
}

const ACL: &str = "pattern readwrite #\nuser catrust-agent\ntopic readwrite $CONTROL/ca-trust/v1/#\n";

impl Broker {
    /// Starts a broker, and waits until it accepts connections.
    pub async fn start(settings: &Settings) -> Self {
        Self::launch(settings).ready().await
    }

    async fn ready(self) -> Self {
        self.accepts_connections().await;
        self
    }

    async fn accepts_connections(&self) {
        let connected = self.process.ready(LIMIT, "the broker accepts connections", async || {
            UnixStream::connect(&self.admin_socket()).await?;
            TcpStream::connect(self.address).await
        });
        connected.await.unwrap();
    }

    /// Starts a broker that is meant to refuse, and gives its log when it has ended.
    pub async fn start_refused(settings: &Settings) -> String {
        let broker = Self::launch(settings);
        let status = broker.process.ended(LIMIT).await.unwrap();
        assert!(!status.success(), "{}", broker.log());
        broker.log()
    }

    fn launch(settings: &Settings) -> Self {
        Self::launch_with(settings.stateful_tls13, settings.acl.as_deref().unwrap_or(ACL), |path, address| {
            configuration(settings, path, address)
        })
    }

    /// Starts a broker with a configuration of the test's own, which has its files from
    /// the directory that `configuration` gets.
    pub async fn start_with(acl: &str, configuration: impl FnOnce(&Path, SocketAddr) -> String) -> Self {
        Self::launch_with(false, acl, configuration).ready().await
    }

    fn launch_with(
        stateful_tls13: bool,
        acl: &str,
        configuration: impl FnOnce(&Path, SocketAddr) -> String,
    ) -> Self {
        let directory = temporary("catrust-mosquitto-").unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
        let server_ca = Authority::new("server CA");
        let path = directory.path();
        let write = |name: &str, text: &str| std::fs::write(path.join(name), text).unwrap();
        let server = server_ca.server();
        write("ca.pem", &server_ca.pem);
        write("server.pem", &server.pem);
        write("server.key", &server.key_pem);
        write("acl", acl);
        write("openssl.cnf", &openssl_configuration(stateful_tls13));
        write("mosquitto.conf", &configuration(path, address));
        Self { process: run(path), directory, address, server_ca }
    }

    /// Ends the broker as a crash would.
    pub fn kill(&self) {
        self.process.kill();
    }

    /// Starts the broker that was killed once more, as it was.
    pub async fn restart(&mut self) {
        self.process = run(self.directory.path());
        self.accepts_connections().await;
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn admin_socket(&self) -> PathBuf {
        self.path("admin.sock")
    }

    pub fn log(&self) -> String {
        self.process.output().text()
    }

    /// Has the broker read its configuration again, and waits until it has.
    pub async fn reload(&self) {
        let before = self.log().matches("Reloading config").count();
        self.process.signal(Signal::HUP);
        eventually(LIMIT, "the broker reloads", async || {
            let now = self.log().matches("Reloading config").count();
            if now > before { Ok(()) } else { Err(format!("{now} reloads")) }
        })
        .await
        .unwrap();
    }

    pub fn is_running(&self) -> bool {
        self.process.exit_status().is_none()
    }
}

fn run(directory: &Path) -> Process {
    let mut launcher = launcher(&directory.join("mosquitto.conf"));
    launcher.command().env("OPENSSL_CONF", directory.join("openssl.cnf"));
    launcher.start().unwrap()
}

fn configuration(settings: &Settings, path: &Path, address: SocketAddr) -> String {
    let Settings { global, options, listener, .. } = settings;
    let (path, port, plugin) = (path.display(), address.port(), plugin());
    let plugin = plugin.display();
    let acl = if settings.no_acl_file { String::new() } else { format!("acl_file {path}/acl") };
    // `user root` has no effect for anybody else; root would become the user
    // `mosquitto`, who cannot read the test's directory.
    format!(
        "{global}\nuser root\nlog_type error\nlog_type warning\nlog_type notice\nlog_type information\nallow_anonymous false\n{acl}\n\
         plugin {plugin}\n{options}\n\
         listener {port} 127.0.0.1\ncafile {path}/ca.pem\ncertfile {path}/server.pem\nkeyfile \
         {path}/server.key\nrequire_certificate true\n{listener}\n\
         listener 0 {path}/admin.sock\n"
    )
}

fn openssl_configuration(stateful_tls13: bool) -> String {
    let options = if stateful_tls13 { "Options = -SessionTicket\n" } else { "" };
    format!("openssl_conf = init\n[init]\nssl_conf = ssl\n[ssl]\nsystem_default = tls\n[tls]\n{options}")
}

/// The plugin, which Cargo builds along with this test.
pub fn plugin() -> PathBuf {
    let me = std::env::current_exe().unwrap();
    let plugin = me.parent().unwrap().join(catrust_mosquitto_control::PLUGIN_FILE_NAME);
    assert!(plugin.exists(), "{} is missing", plugin.display());
    plugin
}
