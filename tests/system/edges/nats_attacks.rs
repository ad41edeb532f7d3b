//! Somebody has stolen a login to NATS, and does with it what it lets them do. No inactive CA
//! certificate comes back by it, and an inactivation is held up for no longer than the budget
//! after which an agent leans on gRPC.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use async_nats::Client;
use bytes::Bytes;
use catrust_tests::broker::{Broker, Device};
use catrust_tests::certificates::Ca;
use catrust_tests::deployment::{Deployment, Plan, Replica};
use catrust_tests::eventually::eventually;
use catrust_tests::instance::TestInstance;
use catrust_tests::nats::{Role, Version};
use catrust_tests::program::free_port;
use futures::StreamExt as _;

use super::nats_rights::{guarded, guarded_by};

const BOUND: Duration = Duration::from_secs(30);
/// The soft budget of an agent by default, after which it leans on gRPC, with as much again for
/// two busy cores.
const BUDGET: Duration = Duration::from_secs(12);
/// How long an attack lasts beyond the inactivation in its middle.
const ATTACK: Duration = Duration::from_secs(4);

/// A fleet of one gate: one CA certificate is inactive, another has a live session.
struct Fleet {
    deployment: Deployment,
    _replica: Replica,
    instance: TestInstance,
    broker: Broker,
    outcast: Device,
    member: Device,
    member_sn: String,
    /// Every signed message so far, those of the time when the outcast was trusted among them.
    recorded: Vec<(String, Bytes)>,
}

impl Fleet {
    async fn start() -> anyhow::Result<Self> {
        let (deployment, replica, instance) = guarded(Version::Installed).await?;
        let recorder = deployment.nats().client_as(Role::Agent).await?;
        let mut changes = recorder.subscribe("catrust.v1.trust.factory.*").await?;
        let mut heads = recorder.subscribe("catrust.v1.head.factory").await?;
        recorder.flush().await?;
        let servers = Ca::root("the broker's CA")?;
        let (out, member) = (instance.new_ca().await?, instance.new_ca().await?);
        instance.inactivate(&out.sn).await?;
        instance.activate(&out.sn).await?;
        let mut recorded = Vec::new();
        while recorded.len() < 4 {
            let message = tokio::time::timeout(BOUND, changes.next()).await?;
            recorded.extend(message.map(|message| (message.subject.to_string(), message.payload)));
        }
        let head = tokio::time::timeout(BOUND, heads.next()).await?;
        recorded.extend(head.map(|message| (message.subject.to_string(), message.payload)));
        let broker = Broker::gate(&deployment, &replica, "factory", &servers).await?;
        let outcast = Device::new("outcast", &out, &servers)?;
        let device = Device::new("member", &member, &servers)?;
        outcast.connect(&broker.address).await?;
        instance.inactivate(&out.sn).await?;
        let fleet = Self {
            deployment,
            _replica: replica,
            instance,
            broker,
            outcast,
            member: device,
            member_sn: member.sn,
            recorded,
        };
        fleet.leans_on_nats().await?;
        eventually(BOUND, "the outcast is out", async || {
            match fleet.outcast.connect(&fleet.broker.address).await {
                Ok(_) => Err("it is let in"),
                Err(_) => Ok(()),
            }
        })
        .await?;
        Ok(fleet)
    }

    async fn leans_on_nats(&self) -> anyhow::Result<()> {
        eventually(BOUND, "the agent leans on NATS", async || {
            let said = self.broker.agent_said();
            let last = said.lines().rfind(|line| line.contains("leaning on")).unwrap_or_default().to_owned();
            if last.contains("leaning on it") { Ok(()) } else { Err(last) }
        })
        .await
    }

    /// Inactivates the member's CA certificate during `attack`, and gives how long the member's
    /// session lived on. The outcast tries to get in all the time.
    async fn under(&self, attack: impl Future<Output = ()> + Send + 'static) -> anyhow::Result<Duration> {
        let attacking = tokio::spawn(attack);
        let (stop, tries) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let trying = {
            let (stop, tries) = (Arc::clone(&stop), Arc::clone(&tries));
            let (outcast, address) = (self.outcast.clone(), self.broker.address.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    anyhow::ensure!(outcast.connect(&address).await.is_err(), "the outcast was let in");
                    tries.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Ok(())
            })
        };
        let session = self.member.connect(&self.broker.address).await?;
        tokio::time::sleep(ATTACK / 2).await;
        let started = Instant::now();
        self.instance.inactivate(&self.member_sn).await?;
        let closed = tokio::time::timeout(BOUND, session.closed()).await;
        let took = started.elapsed();
        tokio::time::sleep(ATTACK / 2).await;
        anyhow::ensure!(!attacking.is_finished(), "the attack ended before its time");
        attacking.abort();
        stop.store(true, Ordering::Relaxed);
        trying.await??;
        closed.map_err(|_| anyhow::anyhow!("the session lives: {}", self.broker.agent_said()))?;
        anyhow::ensure!(tries.load(Ordering::Relaxed) > 20, "the outcast hardly tried");
        anyhow::ensure!(
            self.member.connect(&self.broker.address).await.is_err(),
            "the member is let in again"
        );
        Ok(took)
    }

    /// After the attack, once an operator has made room, a stream holds the log again.
    async fn recovers(&self) -> anyhow::Result<()> {
        let seed = self.deployment.nats().seed(Role::Operator).context("a seed")?;
        let seed = seed.to_string_lossy().into_owned();
        let listed = self.deployment.command(&["stream", "list"]).await?.success()?.stdout;
        println!("after the attack:\n{listed}");
        for line in listed.lines().filter(|line| line.contains("set aside")) {
            let name = line.split(' ').next().unwrap_or_default();
            let number = name.strip_prefix("CATRUST_").unwrap_or("1");
            let remove = ["stream", "remove", number, "--nats-nkey", &seed];
            self.deployment.command(&remove).await?.success()?;
        }
        let last = self.instance.activate(&self.member_sn).await?.position;
        self.deployment.nats().reaches(last, Duration::from_secs(90)).await?;
        eventually(BOUND, "the member is let in", async || {
            self.member.connect(&self.broker.address).await.map(drop)
        })
        .await?;
        assert!(self.outcast.connect(&self.broker.address).await.is_err());
        Ok(())
    }
}

/// The body with every state and revision changed, its signature as it was.
fn forged(body: &Bytes) -> Bytes {
    let text = String::from_utf8_lossy(body);
    text.replace("STATE_INACTIVE", "STATE_ACTIVE").replace("\"revision\":\"", "\"revision\":\"9").into()
}

/// Old messages, forged ones and garbage, a few thousand a second, until it is aborted.
async fn flood(client: Client, recorded: Vec<(String, Bytes)>) {
    loop {
        for (subject, body) in &recorded {
            for body in [body.clone(), forged(body), Bytes::from_static(b"{}"), Bytes::from_static(b"\xff")] {
                for _ in 0..10 {
                    // NATS refuses what the login has no right to.
                    let _ = client.publish(subject.clone(), body.clone()).await;
                }
            }
        }
        let _ = client.flush().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The stream CATRUST as the servers make it, on other subjects.
const MOVED: &str = r#"{"name":"CATRUST","subjects":["catrust.v1.archive.1.>"],"retention":"limits",
    "storage":"file","num_replicas":1,"max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"max_msg_size":-1,
    "max_msgs_per_subject":1,"max_age":0,"discard":"old","duplicate_window":5000000000,"deny_delete":true,
    "deny_purge":true,"allow_direct":true}"#;

/// Moves the stream from its subjects, and would delete it, purge it and make one of other settings, again
/// and again.
async fn wreck(client: Client) {
    let requests = [
        ("$JS.API.STREAM.PURGE.CATRUST", ""),
        ("$JS.API.STREAM.DELETE.CATRUST", ""),
        ("$JS.API.STREAM.UPDATE.CATRUST", MOVED),
        (
            "$JS.API.STREAM.CREATE.CATRUST",
            r#"{"name":"CATRUST","subjects":["catrust.v1.trust.>"],"max_msgs":1}"#,
        ),
    ];
    loop {
        for (subject, body) in requests {
            let request = client.request(subject, body.into());
            let _ = tokio::time::timeout(Duration::from_millis(500), request).await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_agents_login_changes_nobodys_trust() -> anyhow::Result<()> {
    let fleet = Fleet::start().await?;
    let thief = fleet.deployment.nats().client_as(Role::Agent).await?;
    let mut spoils = fleet.recorded.clone();
    // What it may do: speak for its broker.
    let lie = r#"{"mqttInstanceId":"factory","brokerId":"gate-1","revision":"999","outcome":1}"#;
    spoils.push(("catrust.v1.receipt.factory.gate-1".to_owned(), lie.into()));
    let took =
        fleet.under(async move { futures::join!(flood(thief.clone(), spoils), wreck(thief)).0 }).await?;
    println!("under a stolen agent's login: {took:?}");
    assert!(took < BUDGET, "{took:?}");
    let said = fleet.deployment.nats().said();
    assert!(said.contains("Publish Violation"), "NATS refused nothing:\n{said}");
    fleet.recovers().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stolen_servers_login_brings_no_ca_back_and_holds_up_no_inactivation() -> anyhow::Result<()> {
    let fleet = Fleet::start().await?;
    let thief = fleet.deployment.nats().client_as(Role::Server).await?;
    let spoils = fleet.recorded.clone();
    let took =
        fleet.under(async move { futures::join!(flood(thief.clone(), spoils), wreck(thief)).0 }).await?;
    println!("under a stolen server's login: {took:?}");
    assert!(took < BUDGET, "{took:?}");
    let said = fleet.broker.agent_said();
    assert!(said.contains("signature") && said.contains("refused"), "nothing came of it:\n{said}");
    fleet.recovers().await
}

/// The worst that the servers' login can do to the wire: no server runs, and by the time one does
/// the stream is another log's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_a_thief_replaced_is_left_alone_and_agents_work_over_grpc() -> anyhow::Result<()> {
    let listen = format!("\"127.0.0.1:{}\"", free_port()?);
    let (deployment, replica, instance) = guarded_by(Plan::default().set("grpc.listen", &listen)).await?;
    let servers = Ca::root("the broker's CA")?;
    let ca = instance.new_ca().await?;
    let broker = Broker::gate(&deployment, &replica, "factory", &servers).await?;
    let device = Device::new("device", &ca, &servers)?;
    device.connect(&broker.address).await?;
    replica.server.kill();

    let thief = deployment.nats().client_as(Role::Server).await?;
    let moved = thief.request("$JS.API.STREAM.UPDATE.CATRUST", MOVED.into()).await?;
    assert!(!String::from_utf8_lossy(&moved.payload).contains("error"), "{moved:?}");
    let stream = r#"{"name":"CATRUST_2","subjects":["catrust.v1.trust.>","catrust.v1.log.>"],
        "retention":"limits","storage":"file","num_replicas":1}"#;
    thief.request("$JS.API.STREAM.CREATE.CATRUST_2", stream.into()).await?;
    let (log_id, hash) = (uuid::Builder::from_random_bytes(rand::random()).into_uuid(), "00".repeat(32));
    let theirs = format!(r#"{{"logId":"{log_id}","position":"1","eventHash":"{hash}"}}"#);
    thief.request("catrust.v1.log.other.InstanceRegistered", theirs.into()).await?;
    assert_eq!(deployment.nats().last_sequence().await?, 1);

    let replica = deployment.replica("b").await?;
    let instance = TestInstance { caller: replica.owner()?, id: instance.id };
    let session = device.connect(&broker.address).await?;
    eventually(BOUND, "the server says what to do", async || {
        let said = replica.server.output().text();
        if said.contains("nats.take_over_stream") { Ok(()) } else { Err(said) }
    })
    .await?;
    let started = Instant::now();
    let position = instance.inactivate(&ca.sn).await?.position;
    tokio::time::timeout(BOUND, session.closed()).await?;
    let took = started.elapsed();
    println!("without a wire: {took:?}");
    assert!(took < BUDGET, "{took:?}");
    assert_eq!(deployment.nats().last_sequence().await?, 1, "it is left alone");

    // An operator takes it away.
    let operator = deployment.nats().client_as(Role::Operator).await?;
    operator.request("$JS.API.STREAM.DELETE.CATRUST_2", "".into()).await?;
    deployment.nats().reaches(position, BOUND).await
}
