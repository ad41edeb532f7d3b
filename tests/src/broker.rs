//! Brokers that enforce trust: the gate in front of one, a Mosquitto with the
//! plugin, and the devices that connect to them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::certificates::{Ca, Leaf};
use crate::deployment::{Deployment, OWNER, Replica};
use crate::mosquitto;
use crate::nats::Role;
use crate::process::{Launcher, Output, Process};
use crate::program::{built, built_library, free_port, repository};

/// How long a broker or an agent may take to come up.
const READY: Duration = Duration::from_secs(30);

/// A broker node with its agent: where devices connect.
#[derive(Debug)]
pub struct Broker {
    /// `HOST:PORT` for devices, mutual TLS.
    pub address: String,
    // The agent before the broker, both before their files.
    agent: Process,
    _broker: Option<Process>,
    files: TempDir,
}

impl Broker {
    /// What its agent has written.
    #[must_use]
    pub fn agent_said(&self) -> String {
        self.agent.output().text()
    }
}

impl Broker {
    /// Starts `catrust-agent gate` in front of a broker that says yes to every CONNECT.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn gate(
        deployment: &Deployment,
        replica: &Replica,
        instance: &str,
        servers: &Ca,
    ) -> anyhow::Result<Self> {
        Self::gate_in(deployment, replica, instance, files(servers)?).await
    }

    /// The gate killed, and started again with what it has on disk; on another port.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restarted_gate(
        self,
        deployment: &Deployment,
        replica: &Replica,
        instance: &str,
    ) -> anyhow::Result<Self> {
        self.agent.kill();
        Self::gate_in(deployment, replica, instance, self.files).await
    }

    async fn gate_in(
        deployment: &Deployment,
        replica: &Replica,
        instance: &str,
        files: TempDir,
    ) -> anyhow::Result<Self> {
        let upstream = agreeable_broker().await?;
        let mut launcher = agent(deployment, replica, instance, "gate", files.path())?;
        let at = |name: &str| files.path().join(name);
        let command = launcher.command();
        command.args(["--broker-id", "gate-1", "--listen", "127.0.0.1:0", "--upstream", &upstream]);
        command.arg("--cert").arg(at("server.pem")).arg("--key").arg(at("server.key"));
        let process = launcher.start()?;
        let line = listening(&process).await?;
        let address = line.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Self { address, agent: process, _broker: None, files })
    }

    /// Starts a Mosquitto with the plugin, and `catrust-agent mosquitto` beside it.
    ///
    /// # Errors
    /// When one of them does not come up.
    pub async fn plugin(
        deployment: &Deployment,
        replica: &Replica,
        instance: &str,
        servers: &Ca,
    ) -> anyhow::Result<Self> {
        let files = files(servers)?;
        let port = free_port()?;
        let path = |name: &str| files.path().join(name).to_string_lossy().into_owned();
        let sample = std::fs::read_to_string(repository().join("deploy/mosquitto/mosquitto.conf"))?;
        let plugin = built_library("libcatrust_mosquitto.so")?.to_string_lossy().into_owned();
        let text = sample
            .replace("persistence true", "persistence false")
            .replace("persistence_location /var/lib/mosquitto/", "")
            .replace("log_dest syslog", "log_dest stderr")
            .replace("/etc/mosquitto/catrust.acl", &path("catrust.acl"))
            .replace("/usr/lib/catrust/libcatrust_mosquitto.so", &plugin)
            .replace("plugin_opt_instance factory", &format!("plugin_opt_instance {instance}"))
            .replace("/run/catrust/mosquitto.sock", &path("control.sock"))
            .replace("\nlistener 8883", &format!("\nlistener {port} 127.0.0.1"))
            .replace("/etc/mosquitto/certs/ca.pem", &path("server.pem"))
            .replace("/etc/mosquitto/certs/server.pem", &path("server.pem"))
            .replace("/etc/mosquitto/certs/server.key", &path("server.key"));
        std::fs::write(path("mosquitto.conf"), format!("{text}\nuser root\n"))?;
        std::fs::copy(repository().join("deploy/mosquitto/catrust.acl"), path("catrust.acl"))?;
        let mosquitto = mosquitto::launcher(path("mosquitto.conf").as_ref()).start()?;
        // An agent that comes first says that nothing is enforced, and is right.
        mosquitto
            .ready(READY, "Mosquitto listens for its agent", async || {
                UnixStream::connect(path("control.sock")).await.map(drop)
            })
            .await?;
        let mut launcher = agent(deployment, replica, instance, "mosquitto", files.path())?;
        launcher.command().args(["--broker-id", "mosquitto-1", "--control-socket", &path("control.sock")]);
        let driver = launcher.start()?;
        listening(&driver).await?;
        let address = format!("127.0.0.1:{port}");
        Ok(Self { address, agent: driver, _broker: Some(mosquitto), files })
    }
}

impl Broker {
    /// What the agent has written so far.
    #[must_use]
    pub const fn agent_output(&self) -> &Output {
        self.agent.output()
    }

    /// Whether the agent still runs.
    #[must_use]
    pub fn agent_runs(&self) -> bool {
        self.agent.exit_status().is_none()
    }

    /// The gate's state directory.
    #[must_use]
    pub fn gate_state(&self) -> PathBuf {
        self.files.path().join("gate-state")
    }
}

fn files(servers: &Ca) -> anyhow::Result<TempDir> {
    let files = tempfile::tempdir()?;
    let leaf = servers.server()?;
    std::fs::write(files.path().join("server.pem"), &leaf.pem)?;
    std::fs::write(files.path().join("server.key"), &leaf.key_pem)?;
    std::fs::write(files.path().join("token"), OWNER)?;
    Ok(files)
}

/// `catrust-agent` with everything that both of its commands need.
fn agent(
    deployment: &Deployment,
    replica: &Replica,
    instance: &str,
    kind: &str,
    files: &Path,
) -> anyhow::Result<Launcher> {
    let mut launcher = Launcher::new(&format!("catrust-agent {kind}"), built("catrust-agent")?);
    let command = launcher.command();
    command.args([kind, "--server", replica.server.address(), "--instance", instance]);
    match &deployment.root_key {
        Some(root) => command.arg("--root-key").arg(root),
        None => command.arg("--trust-key").arg(deployment.trust_key()),
    };
    command.args(&deployment.agent_arguments);
    command.arg("--token-file").arg(files.join("token"));
    command.arg("--state-dir").arg(files.join(format!("{kind}-state")));
    if let Some(nats) = &deployment.nats {
        command.args(["--nats", &nats.url()]);
        if let Some(seed) = nats.seed(Role::Agent) {
            command.arg("--nats-nkey").arg(seed);
        }
        if let Some(ca) = nats.root_ca() {
            command.arg("--nats-root-ca").arg(ca);
        }
    }
    Ok(launcher)
}

async fn listening(process: &Process) -> anyhow::Result<String> {
    let listening = |line: &String| line.split_once("listening on ").map(|(_, address)| address.to_owned());
    process
        .ready(READY, "the agent listens", async || {
            process.output().lines().iter().find_map(listening).ok_or("no address yet")
        })
        .await
}

/// A broker that takes every CONNECT and keeps quiet: what is measured is the gate.
async fn agreeable_broker() -> anyhow::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    tokio::spawn(async move {
        while let Ok((mut device, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 256];
                let mut connected = false;
                while device.read(&mut buffer).await.is_ok_and(|length| length > 0) {
                    if !connected && device.write_all(&[0x20, 2, 0, 0]).await.is_err() {
                        return;
                    }
                    connected = true;
                }
            });
        }
    });
    Ok(address)
}

/// A device with a certificate.
#[derive(Clone)]
pub struct Device {
    name: String,
    connector: TlsConnector,
}

/// A live MQTT session.
pub struct Session(TlsStream<TcpStream>);

impl Device {
    /// A device of `ca` that trusts `servers`.
    ///
    /// # Errors
    /// When its certificate cannot be made.
    pub fn new(name: &str, ca: &Ca, servers: &Ca) -> anyhow::Result<Self> {
        let leaf: Leaf = ca.leaf_with(name, |params| {
            params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        })?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from(servers.der.clone()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from(leaf.der)],
                PrivateKeyDer::from_pem_slice(leaf.key_pem.as_bytes()).context("the key")?,
            )?;
        Ok(Self { name: name.to_owned(), connector: TlsConnector::from(Arc::new(config)) })
    }

    /// Connects: TLS, CONNECT, CONNACK 0.
    ///
    /// # Errors
    /// When it is refused at any of them.
    pub async fn connect(&self, address: &str) -> anyhow::Result<Session> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut tls = self.connector.connect(ServerName::try_from("127.0.0.1")?, stream).await?;
        let name = self.name.as_bytes();
        let mut packet = vec![0x10, u8::try_from(12 + name.len())?];
        packet.extend_from_slice(b"\x00\x04MQTT\x04\x02\x00\x3c");
        packet.extend_from_slice(&u16::try_from(name.len())?.to_be_bytes());
        packet.extend_from_slice(name);
        tls.write_all(&packet).await?;
        let mut answer = [0; 4];
        tls.read_exact(&mut answer).await?;
        anyhow::ensure!(answer[3] == 0, "CONNACK {}", answer[3]);
        Ok(Session(tls))
    }
}

impl Session {
    /// Waits until the other side ends it; gives the time.
    pub async fn closed(mut self) -> Instant {
        let mut buffer = [0; 64];
        while self.0.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
        Instant::now()
    }
}
