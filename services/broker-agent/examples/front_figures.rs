//! The gate next to HAProxy: handshakes and messages per second of the same mutual TLS,
//! in turns, from the same devices to the same broker on this machine.
//!
//! `cargo run --release -p catrust-broker-agent --example front_figures HAPROXY_BINARY [ROUNDS]`

#[expect(dead_code, clippy::unwrap_used, reason = "the tests use more of it, and may fail")]
#[path = "../tests/cut/fixtures.rs"]
mod fixtures;
#[expect(dead_code, clippy::unwrap_used, reason = "the tests use more of it, and may fail")]
#[path = "../tests/cut/harness.rs"]
mod harness;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use catrust_trust_feed::agent::Enforcer as _;
use fixtures::{ACTIVE, Ca, Device, trust};
use harness::{CONNACK, CONNECT, Client, Gate};
use rustls::client::Tls12Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

const DEVICES: usize = 64;
const HANDSHAKES: usize = 2_000;
const SPAN: Duration = Duration::from_secs(3);
/// PUBLISH, QoS 0, 100 bytes in all.
const MESSAGE: [u8; 100] = {
    let mut message = [7; 100];
    (message[0], message[1], message[2], message[3], message[4]) = (0x30, 98, 0, 1, b't');
    message
};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "gate", upstream] => runtime.block_on(gate(upstream)),
        [_, haproxy] => runtime.block_on(compare(haproxy, 3)),
        [_, haproxy, rounds] => runtime.block_on(compare(haproxy, rounds.parse()?)),
        _ => anyhow::bail!("usage: front_figures HAPROXY_BINARY [ROUNDS]"),
    }
}

/// The gate's process. Lays the files for both fronts down and serves until killed.
async fn gate(upstream: &str) -> anyhow::Result<()> {
    let a = Ca::new("A");
    let gate = Gate::start(upstream, &["--resumption", "off"]).await;
    let (dir, mut devices) = (gate.dir.path(), String::new());
    for index in 0..HANDSHAKES {
        let device = a.device(&format!("device {index}"));
        devices += &fixtures::pem("CERTIFICATE", &device.chain[0]);
        devices += &fixtures::pem("PRIVATE KEY", &device.key);
    }
    std::fs::write(dir.join("device-ca.pem"), &a.pem)?;
    std::fs::write(dir.join("devices.pem"), devices)?;
    let both = [std::fs::read(dir.join("gate.pem"))?, std::fs::read(dir.join("gate.key"))?].concat();
    std::fs::write(dir.join("both.pem"), both)?;
    gate.trust.apply(&trust(1, &[(&a, ACTIVE)])).await.context("applied")?;
    println!("{} {}", gate.address, dir.display());
    let _ = std::io::stdin().lock().lines().next();
    Ok(())
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A broker that answers CONNECT and says everything else again.
async fn echo() -> anyhow::Result<SocketAddr> {
    let socket = TcpListener::bind("127.0.0.1:0").await?;
    let address = socket.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            tokio::spawn(async move {
                stream.set_nodelay(true)?;
                stream.read_exact(&mut [0; CONNECT.len()]).await?;
                stream.write_all(&CONNACK).await?;
                let mut buffer = vec![0; 16 * 1024];
                loop {
                    match stream.read(&mut buffer).await? {
                        0 => return Ok::<(), std::io::Error>(()),
                        count => stream.write_all(&buffer[..count]).await?,
                    }
                }
            });
        }
    });
    Ok(address)
}

fn start_haproxy(binary: &str, dir: &Path, upstream: SocketAddr) -> anyhow::Result<(Killed, SocketAddr)> {
    let address = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let config = format!(
        "global\n nbthread 2\n tune.ssl.default-dh-param 2048\n\
         defaults\n mode tcp\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n\
         listen front\n bind {address} ssl crt {dir}/both.pem ca-file {dir}/device-ca.pem verify required \
         no-tls-tickets\n server broker {upstream}\n",
        dir = dir.display()
    );
    let file = dir.join("haproxy.cfg");
    std::fs::write(&file, config)?;
    let child = Command::new(binary).arg("-f").arg(&file).stdin(Stdio::null()).spawn()?;
    Ok((Killed(child), address))
}

async fn compare(haproxy: &str, rounds: usize) -> anyhow::Result<()> {
    let upstream = echo().await?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["gate", &upstream.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut greeting = String::new();
    BufReader::new(child.stdout.take().context("stdout")?).read_line(&mut greeting)?;
    let _gate = Killed(child);
    let (gate, dir) = greeting.trim().split_once(' ').context("an address and a directory")?;
    let (_haproxy, haproxy) = start_haproxy(haproxy, dir.as_ref(), upstream)?;
    let ca = CertificateDer::from_pem_file(format!("{dir}/ca.pem"))?;
    let file = format!("{dir}/devices.pem");
    let certificates = CertificateDer::pem_file_iter(&file)?.collect::<Result<Vec<_>, _>>()?;
    let keys = PrivateKeyDer::pem_file_iter(&file)?.collect::<Result<Vec<_>, _>>()?;
    let devices = certificates.into_iter().zip(keys);
    let devices: Vec<Device> =
        devices.map(|(der, key)| Device { chain: vec![der], key: key.secret_der().to_vec() }).collect();
    let clients = |address| -> Vec<Client> {
        let client =
            |device| Client::with(address, &ca, device, &TLS13, Tls12Resumption::Disabled).forgetful();
        devices.iter().map(client).collect()
    };
    let fronts = [("gate", clients(gate.parse()?)), ("haproxy", clients(haproxy))];
    for (_, clients) in &fronts {
        let ready = Instant::now();
        while clients[0].connect().await.is_err() {
            anyhow::ensure!(ready.elapsed() < Duration::from_secs(10), "a front does not answer");
        }
    }
    println!("round  front    full handshakes/s  messages/s, 1 at a time  messages/s, 32 at a time");
    for round in 1..=rounds {
        for (name, clients) in &fronts {
            let handshakes = handshakes(clients).await;
            let (single, many) = (messages(clients, 1).await, messages(clients, 32).await);
            println!("{round:5}  {name:8} {handshakes:17.0}  {single:23.0}  {many:24.0}");
            std::io::stdout().flush()?;
        }
    }
    Ok(())
}

/// Full handshakes with CONNECT and CONNACK per second, 32 at a time, each with another
/// certificate: the first round meets devices that neither front has seen.
async fn handshakes(clients: &[Client]) -> f64 {
    let (mut tasks, start) = (JoinSet::new(), Instant::now());
    for part in clients.chunks(clients.len().div_ceil(32)) {
        let part = part.to_vec();
        tasks.spawn(async move {
            for client in part {
                client.must_connect().await;
            }
        });
    }
    tasks.join_all().await;
    clients.len() as f64 / start.elapsed().as_secs_f64()
}

/// Messages per second to the broker and back, with `window` on the way per device.
async fn messages(clients: &[Client], window: usize) -> f64 {
    let mut devices = Vec::with_capacity(DEVICES);
    for client in &clients[..DEVICES] {
        devices.push(client.must_connect().await);
    }
    let (count, mut tasks, start) = (Arc::new(AtomicU64::new(0)), JoinSet::new(), Instant::now());
    for mut device in devices {
        let count = Arc::clone(&count);
        tasks.spawn(async move {
            let batch = MESSAGE.repeat(window);
            let mut read = vec![0; batch.len()];
            while start.elapsed() < SPAN {
                // Each message is a record of its own, as devices send them.
                for message in batch.chunks(MESSAGE.len()) {
                    device.tls.write_all(message).await?;
                }
                device.tls.read_exact(&mut read).await?;
                count.fetch_add(window as u64, Ordering::Relaxed);
            }
            Ok::<(), std::io::Error>(())
        });
    }
    let failed = tasks.join_all().await.into_iter().filter(Result::is_err).count();
    assert_eq!(failed, 0, "devices lost their connection");
    count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64()
}
