//! Figures of the cut, on this machine: a gate in one process, its devices and their
//! broker in another.
//!
//! `cargo run --release -p catrust-broker-agent --example cut_figures [SESSIONS]`
//!
//! Each device has a certificate of its own. Latency is from the order (a line on the
//! gate's standard input) to the end of the connection as the device sees it.

#[expect(dead_code, clippy::unwrap_used, reason = "the tests use more of it, and may fail")]
#[path = "../tests/cut/broker.rs"]
mod broker;
#[expect(dead_code, clippy::unwrap_used, reason = "the tests use more of it, and may fail")]
#[path = "../tests/cut/fixtures.rs"]
mod fixtures;
#[expect(dead_code, clippy::unwrap_used, reason = "the tests use more of it, and may fail")]
#[path = "../tests/cut/harness.rs"]
mod harness;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use catrust_trust_feed::agent::Enforcer as _;
use fixtures::{ACTIVE, Ca, Device, INACTIVE, trust};
use harness::{Client, Connection, Gate};
use rustls::client::Tls12Resumption;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use rustls::version::TLS13;
use tokio::io::AsyncReadExt as _;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "gate", upstream, sessions] => runtime.block_on(gate(upstream, sessions.parse()?)),
        [_] => runtime.block_on(devices(3_000)),
        [_, sessions] => runtime.block_on(devices(sessions.parse()?)),
        _ => anyhow::bail!("usage: cut_figures [SESSIONS]"),
    }
}

/// The gate's process: takes `on`, `off` and `rss` lines, answers a line each.
async fn gate(upstream: &str, sessions: usize) -> anyhow::Result<()> {
    let (a, b) = (Ca::new("A"), Ca::new("B"));
    let gate = Gate::start(upstream, &[]).await;
    let devices = |ca: &Ca, name: &str| {
        let mut text = String::new();
        for index in 0..sessions / 2 {
            let device = ca.device(&format!("{name}{index}"));
            text += &fixtures::pem("CERTIFICATE", &device.chain[0]);
            text += &fixtures::pem("PRIVATE KEY", &device.key);
        }
        std::fs::write(gate.dir.path().join(name), text)
    };
    devices(&a, "a")?;
    devices(&b, "b")?;
    println!("{} {}", gate.address, gate.dir.path().display());
    let mut revision = 0;
    for line in std::io::stdin().lock().lines() {
        let state = match line?.as_str() {
            "on" => ACTIVE,
            "off" => INACTIVE,
            _ => {
                println!("{}", resident()?);
                continue;
            }
        };
        revision += 1;
        let next = trust(revision, &[(&a, state), (&b, ACTIVE)]);
        let start = Instant::now();
        let applied = gate.trust.apply(&next).await.context("applied")?;
        println!("{} {}", start.elapsed().as_micros(), applied.sessions_cut);
    }
    Ok(())
}

/// Resident memory of this process, in bytes.
fn resident() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("VmRSS")?;
    let kilobytes: u64 = line.split_whitespace().nth(1).context("a number")?.parse()?;
    Ok(kilobytes * 1024)
}

struct GateProcess {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl GateProcess {
    fn ask(&mut self, line: &str) -> anyhow::Result<Vec<u64>> {
        writeln!(self.input, "{line}")?;
        self.read()?.split_whitespace().map(|word| word.parse().context("a number")).collect()
    }

    fn read(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for GateProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn devices(sessions: usize) -> anyhow::Result<()> {
    let broker = broker::FakeBroker::tcp().await;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["gate", &broker.address, &sessions.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (input, output) = (child.stdin.take().context("stdin")?, child.stdout.take().context("stdout")?);
    let mut gate = GateProcess { child, input, output: BufReader::new(output) };
    let greeting = gate.read()?;
    let (address, dir) = greeting.trim().split_once(' ').context("an address and a directory")?;
    let address: SocketAddr = address.parse()?;
    let ca = CertificateDer::from_pem_file(format!("{dir}/ca.pem"))?;
    let clients = |name: &str| -> anyhow::Result<Vec<Client>> {
        let file = format!("{dir}/{name}");
        let certificates = CertificateDer::pem_file_iter(&file)?.collect::<Result<Vec<_>, _>>()?;
        let keys = PrivateKeyDer::pem_file_iter(&file)?.collect::<Result<Vec<_>, _>>()?;
        let devices = certificates.into_iter().zip(keys);
        let devices = devices.map(|(der, key)| Device { chain: vec![der], key: key.secret_der().to_vec() });
        Ok(devices
            .map(|device| Client::with(address, &ca, &device, &TLS13, Tls12Resumption::Disabled))
            .collect())
    };
    let (a, b) = (clients("a")?, clients("b")?);
    gate.ask("on")?;

    one_session(&mut gate, &a[0]).await?;
    many_sessions(&mut gate, &a, &b).await
}

async fn one_session(gate: &mut GateProcess, client: &Client) -> anyhow::Result<()> {
    const ROUNDS: usize = 200;
    let mut latencies = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let mut device = client.must_connect().await;
        let ended = tokio::spawn(async move {
            let _ = device.tls.read(&mut [0]).await;
            Instant::now()
        });
        let start = Instant::now();
        let applied = tokio::task::block_in_place(|| gate.ask("off"))?;
        anyhow::ensure!(applied[1] == 1, "{} sessions were cut", applied[1]);
        latencies.push(ended.await? - start);
        gate.ask("on")?;
    }
    latencies.sort_unstable();
    let at = |part: usize| latencies[ROUNDS * part / 100];
    println!(
        "cut of one session, n={ROUNDS}: p50 {:?}, p99 {:?}, max {:?}",
        at(50),
        at(99),
        latencies[ROUNDS - 1]
    );
    Ok(())
}

async fn connect_all(clients: &[Client]) -> Vec<Connection> {
    let mut tasks = tokio::task::JoinSet::new();
    let mut connections = Vec::with_capacity(clients.len());
    for client in clients {
        let client = client.clone();
        tasks.spawn(async move { client.must_connect().await });
        if tasks.len() >= 64
            && let Some(Ok(connection)) = tasks.join_next().await
        {
            connections.push(connection);
        }
    }
    connections.extend(tasks.join_all().await);
    connections
}

async fn many_sessions(gate: &mut GateProcess, a: &[Client], b: &[Client]) -> anyhow::Result<()> {
    let before = gate.ask("rss")?[0];
    let start = Instant::now();
    let (a, mut b) = (connect_all(a).await, connect_all(b).await);
    let count = a.len() + b.len();
    println!("{count} full handshakes with CONNECT and CONNACK: {:?}", start.elapsed());
    // Buffers that were full during the storm are given back.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = gate.ask("rss")?[0].saturating_sub(before);
    println!("resident memory of the gate: {} bytes per idle session", used / count as u64);

    let half = a.len();
    let mut watchers = tokio::task::JoinSet::new();
    for mut device in a {
        watchers.spawn(async move {
            let _ = device.tls.read(&mut [0]).await;
            Instant::now()
        });
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let start = Instant::now();
    let applied = tokio::task::block_in_place(|| gate.ask("off"))?;
    let ends = watchers.join_all().await;
    let (first, last) = (ends.iter().min().context("none")?, ends.iter().max().context("none")?);
    println!(
        "{} of {count} sessions cut: applied after {} µs; the first device sees it after {:?}, the last after {:?}",
        applied[1],
        applied[0],
        *first - start,
        *last - start
    );
    anyhow::ensure!(applied[1] == half as u64, "{half} sessions should have been cut");
    for device in &mut b {
        device.must_live().await;
    }
    println!("the other {} sessions live", b.len());
    Ok(())
}
