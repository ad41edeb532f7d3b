//! Two replicas on one Postgres and one NATS, under load, one killed with -9.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use catrust_proto::v1::CaCertificateState;
use catrust_tests::certificates::request_id;
use catrust_tests::client::Caller;
use catrust_tests::deployment::{Deployment, Plan};
use catrust_tests::instance::TestInstance;
use catrust_tests::postgres::Durability;
use futures::StreamExt as _;
use sqlx::Row as _;
use tonic::{Code, Status};

use crate::feed::nats::agrees_with_log;

/// Concurrent callers, each with a CA certificate of its own.
const CALLERS: usize = 64;

/// How long the load lasts: `CATRUST_TEST_LOAD_SECONDS`, 30 by default.
fn load() -> Duration {
    let asked = std::env::var("CATRUST_TEST_LOAD_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(asked.unwrap_or(30))
}

/// What one caller was told: positions of its acknowledged changes, by request id.
#[derive(Debug, Default)]
struct Acknowledgements {
    changes: BTreeMap<u64, String>,
    failovers: u32,
}

/// A change that is asked for until somebody acknowledges it, at whichever replica.
struct Flipper {
    instances: [TestInstance; 2],
    sn: String,
    state: CaCertificateState,
    at: usize,
}

impl Flipper {
    async fn flip(&mut self, acknowledged: &mut Acknowledgements) -> anyhow::Result<()> {
        let id = request_id();
        let started = Instant::now();
        loop {
            match self.call(&id).await {
                Ok((changed, position)) => {
                    anyhow::ensure!(changed, "{} was in the asked-for state already", self.sn);
                    let before = acknowledged.changes.last_key_value().map_or(0, |(position, _)| *position);
                    anyhow::ensure!(position > before, "position {position} after {before}");
                    acknowledged.changes.insert(position, id);
                    return Ok(());
                }
                Err(status)
                    if matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled) =>
                {
                    anyhow::ensure!(
                        started.elapsed() < Duration::from_secs(30),
                        "no replica answers: {status:?}"
                    );
                    self.at = 1 - self.at;
                    acknowledged.failovers += 1;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(status) => return Err(status).context("a refusal in the middle of the load"),
            }
        }
    }

    async fn call(&self, id: &str) -> Result<(bool, u64), Status> {
        let instance = &self.instances[self.at];
        let mut client = instance.caller.ca.clone();
        if self.state == CaCertificateState::Inactive {
            let mut request = instance.inactivation(&self.sn);
            request.request_id = id.to_owned();
            let reply = client.inactivate_ca_certificate(request).await?.into_inner();
            Ok((reply.changed, reply.position))
        } else {
            let mut request = instance.activation(&self.sn);
            request.request_id = id.to_owned();
            let reply = client.activate_ca_certificate(request).await?.into_inner();
            Ok((reply.changed, reply.position))
        }
    }
}

async fn caller(mut flipper: Flipper, until: Instant) -> anyhow::Result<(Acknowledgements, Flipper)> {
    let mut acknowledged = Acknowledgements::default();
    while Instant::now() < until {
        flipper.state = match flipper.state {
            CaCertificateState::Inactive => CaCertificateState::Active,
            _ => CaCertificateState::Inactive,
        };
        flipper.flip(&mut acknowledged).await?;
    }
    Ok((acknowledged, flipper))
}

/// Watches the stream all the while: every message must be at its position, and
/// must be committed by the time it is seen.
struct StreamWatch {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<anyhow::Result<u64>>,
    looked: tokio::task::JoinHandle<anyhow::Result<u64>>,
}

impl StreamWatch {
    async fn start(deployment: &Deployment) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stream = deployment.nats().stream().await?;
        let config = async_nats::jetstream::consumer::pull::OrderedConfig::default();
        let mut messages = stream.create_consumer(config).await?.messages().await?;
        let stopping = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut seen = 0;
            while !stopping.load(Ordering::Relaxed) {
                let Ok(message) = tokio::time::timeout(Duration::from_millis(200), messages.next()).await
                else {
                    continue;
                };
                let message = message.context("the consumer ended")??;
                let info = message.info().map_err(|error| anyhow::anyhow!("{error}"))?;
                let body: serde_json::Value = serde_json::from_slice(&message.payload)?;
                let position: u64 = body["position"].as_str().context("no position")?.parse()?;
                anyhow::ensure!(position == info.stream_sequence, "{position} at {}", info.stream_sequence);
                seen += 1;
            }
            Ok(seen)
        });
        let looked = tokio::spawn(look(deployment.nats().url(), deployment.database().await?, stop.clone()));
        Ok(Self { stop, task, looked })
    }

    async fn end(self) -> anyhow::Result<(u64, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        Ok((self.task.await??, self.looked.await??))
    }
}

/// Compares the end of the stream with the head of the log, again and again: the
/// stream may be behind, never ahead.
async fn look(nats: String, mut log: sqlx::PgConnection, stop: Arc<AtomicBool>) -> anyhow::Result<u64> {
    let context = async_nats::jetstream::new(async_nats::connect(nats).await?);
    let stream = context.get_stream_no_info(catrust_tests::nats::STREAM).await?;
    let mut looks = 0;
    while !stop.load(Ordering::Relaxed) {
        let published = stream.get_info().await?.state.last_sequence;
        let row =
            sqlx::query("SELECT coalesce(max(position), 0) AS head FROM events").fetch_one(&mut log).await?;
        let head = u64::try_from(row.try_get::<i64, _>("head")?)?;
        anyhow::ensure!(published <= head, "the stream is at {published}, the log at {head}");
        looks += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(looks)
}

async fn flippers(replicas: [&Caller; 2], instance: &TestInstance) -> anyhow::Result<Vec<Flipper>> {
    let mut flippers = Vec::new();
    for index in 0..CALLERS {
        let ca = instance.new_ca().await?;
        let on = |caller: &Caller| TestInstance { caller: caller.clone(), id: instance.id.clone() };
        flippers.push(Flipper {
            instances: [on(replicas[0]), on(replicas[1])],
            sn: ca.sn,
            state: CaCertificateState::Active,
            at: index % 2,
        });
    }
    Ok(flippers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_change_is_lost_when_a_replica_is_killed_under_load() -> anyhow::Result<()> {
    let deployment = Plan { durability: Durability::Full, ..Plan::default() }.deploy().await?;
    let (a, b) = (deployment.replica("a").await?, deployment.replica("b").await?);
    let instance = a.instance().await?;
    let flippers = flippers([&a.owner()?, &b.owner()?], &instance).await?;
    let watch = StreamWatch::start(&deployment).await?;

    let duration = load();
    let until = Instant::now() + duration;
    let callers: Vec<_> = flippers.into_iter().map(|flipper| tokio::spawn(caller(flipper, until))).collect();
    tokio::time::sleep(duration / 2).await;
    a.server.kill();
    let (mut acknowledged, mut finals) = (BTreeMap::new(), Vec::new());
    let mut failovers = 0;
    for outcome in futures::future::join_all(callers).await {
        let (told, flipper) = outcome??;
        failovers += told.failovers;
        for (position, id) in told.changes {
            anyhow::ensure!(acknowledged.insert(position, id).is_none(), "position {position} told twice");
        }
        finals.push(flipper);
    }
    assert!(failovers as usize >= CALLERS / 4, "the kill was not noticed: {failovers} failovers");

    // Every acknowledged change is in the log, once, under its request id.
    let mut log = deployment.database().await?;
    let rows =
        sqlx::query("SELECT position, request_id FROM events ORDER BY position").fetch_all(&mut log).await?;
    let mut in_log = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        let position = u64::try_from(row.try_get::<i64, _>("position")?)?;
        assert_eq!(position, index as u64 + 1, "positions are dense");
        in_log.insert(position, row.try_get::<uuid::Uuid, _>("request_id")?.to_string());
    }
    for (position, id) in &acknowledged {
        assert_eq!(in_log.get(position), Some(id), "position {position}");
    }
    let mut ids: Vec<_> = in_log.values().collect();
    let events = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), events, "one request id has one effect");
    for flipper in &finals {
        let survivor = TestInstance { caller: b.owner()?, id: instance.id.clone() };
        assert_eq!(survivor.get(&flipper.sn).await?.state(), flipper.state);
    }
    agrees_with_log(deployment.nats(), &deployment.postgres).await?;
    let (messages, looks) = watch.end().await?;
    let verified = deployment.command(&["verify"]).await?.success()?;
    println!(
        "{} changes acknowledged in {duration:?}, {failovers} failovers, {events} events, \
         {messages} messages and {looks} looks at the stream; verify: {}",
        acknowledged.len(),
        verified.stdout.trim()
    );
    assert!(messages > 0 && looks > 0);
    Ok(())
}

/// Two publishers at once, and then the one that led is paused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_replica_holds_up_neither_calls_nor_the_stream() -> anyhow::Result<()> {
    use catrust_tests::process::Signal;
    let deployment = Plan::default().deploy().await?;
    let (a, b) = (deployment.replica("a").await?, deployment.replica("b").await?);
    let instance = b.instance().await?;
    let ca = instance.new_ca().await?;
    for paused in [&a, &b] {
        paused.server.signal(Signal::STOP);
        let other = if std::ptr::eq(paused, &a) { &b } else { &a };
        let instance = TestInstance { caller: other.owner()?, id: instance.id.clone() };
        let mut slowest = Duration::ZERO;
        for _ in 0..10 {
            let started = Instant::now();
            instance.inactivate(&ca.sn).await?;
            instance.activate(&ca.sn).await?;
            slowest = slowest.max(started.elapsed());
        }
        assert!(slowest < Duration::from_secs(15), "a call took {slowest:?}");
        agrees_with_log(deployment.nats(), &deployment.postgres).await?;
        paused.server.signal(Signal::CONT);
    }
    let last = instance.inactivate(&ca.sn).await?.position;
    assert_eq!(agrees_with_log(deployment.nats(), &deployment.postgres).await?, last);
    Ok(())
}

/// Each replica publishes what the other one wrote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_left_publishes() -> anyhow::Result<()> {
    let deployment = Plan::default().deploy().await?;
    let (a, b) = (deployment.replica("a").await?, deployment.replica("b").await?);
    let instance = a.instance().await?;
    let ca = instance.new_ca().await?;
    a.server.kill();
    let survivor = TestInstance { caller: b.owner()?, id: instance.id.clone() };
    let last = survivor.inactivate(&ca.sn).await?.position;
    assert_eq!(agrees_with_log(deployment.nats(), &deployment.postgres).await?, last);
    let again = deployment.replica("a").await?;
    b.server.kill();
    let back = TestInstance { caller: again.owner()?, id: instance.id };
    let last = back.activate(&ca.sn).await?.position;
    assert_eq!(agrees_with_log(deployment.nats(), &deployment.postgres).await?, last);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_of_one_certificate_leave_a_dense_stream_of_versions() -> anyhow::Result<()> {
    let deployment = Plan::default().deploy().await?;
    let (a, b) = (deployment.replica("a").await?, deployment.replica("b").await?);
    let instance = a.instance().await?;
    let ca = instance.new_ca().await?;
    let changed = AtomicU64::new(0);
    let calls = (0..32_usize).map(|index| {
        let caller = if index % 2 == 0 { a.owner() } else { b.owner() };
        let (instance, changed, sn) = (&instance, &changed, &ca.sn);
        async move {
            let instance = TestInstance { caller: caller?, id: instance.id.clone() };
            for round in 0..20_usize {
                let told = if (index + round) % 3 == 0 {
                    instance.activate(sn).await?.changed
                } else {
                    instance.inactivate(sn).await?.changed
                };
                changed.fetch_add(u64::from(told), Ordering::Relaxed);
            }
            anyhow::Ok(())
        }
    });
    futures::future::try_join_all(calls).await?;
    let changes = changed.into_inner();
    assert_eq!(instance.bundle().await?.revision, 1 + changes, "each acknowledged change is one revision");
    deployment.command(&["verify"]).await?.success()?;
    agrees_with_log(deployment.nats(), &deployment.postgres).await?;
    Ok(())
}
