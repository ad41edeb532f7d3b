//! First readings: throughput, latency, reads and rebuild, each beside its floor
//! in the same run on the same machine, ratios first.

mod cut;
mod load;
mod machine;
mod pgbench;
mod reading;

use std::time::{Duration, Instant};

use anyhow::Context as _;
use catrust_proto::v1::{Edition, RegisterCaCertificateRequest, RegisterInstanceRequest};
use catrust_tests::certificates::Ca;
use catrust_tests::deployment::{ACCOUNT, Deployment, Plan, Replica};
use catrust_tests::instance::TestInstance;
use catrust_tests::postgres::Durability;

use crate::load::Flipper;
use crate::pgbench::Floor;
use crate::reading::{Latencies, Pairs, Report};

/// Concurrent callers, each with an instance and a CA certificate of its own.
const CALLERS: usize = 64;
/// Rounds, in each of which everything is measured next to its floor: on a machine
/// that others use, too, only neighbours in time can be compared.
const ROUNDS: usize = 5;
/// Length of each measurement of a round.
const LENGTH: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    catrust_tests::process::be_quiet();
    let plan = Plan { durability: Durability::Full, ..Plan::default() }
        .set("grpc.max_concurrent_requests", "100000")
        .set("telemetry.log_filter", "\"warn\"");
    let deployment = plan.deploy().await?;
    let replica = deployment.replica("a").await?;
    println!("registering {CALLERS} instances with one CA certificate each ...");
    let instances = instances(&replica).await?;
    let sync = machine::fdatasync(deployment.files.path())?;
    let round_trip = machine::loopback_round_trip().await?;
    let floor = Floor::prepare(&deployment.postgres, &instances[0]).await?;

    println!("filling the write-ahead log ...");
    pgbench::fill_wal(&deployment.postgres).await?;
    println!("cutting sessions ...");
    let [gate, plugin] = cut::call_to_closed(&deployment, &replica).await?;
    let mut rounds = Rounds::default();
    for round in 1..=ROUNDS {
        println!("round {round} of {ROUNDS} ...");
        measure(&mut rounds, &floor, &replica, &instances).await?;
    }
    let resident = replica.server.resident_bytes()?;
    replica.server.kill();
    let (events, rebuilding) = rebuild(&deployment).await?;

    let mut report = Report::default();
    report.at_least(
        "commands/s, 64 callers, durable",
        &rounds.together,
        "pgbench, 32 clients, no ordering",
        2.0,
        3.0,
    );
    report.at_most("one caller, p50 (ms)", &rounds.alone, "pgbench, 1 client, same SQL", 3.0, 2.0);
    report.at_least("GetCaCertificate/s", &rounds.reads, "Health.Check/s on the same server", 0.0, 0.5);
    let rebuilt = Pairs::of(events as f64 / rebuilding.as_secs_f64(), 100_000.0);
    report.at_least("events/s of rebuild", &rebuilt, "target", 0.0, 1.0);
    for (name, cut) in [("gate", gate), ("Mosquitto plugin", plugin)] {
        report.line(format!(
            "call to the device's session closed, {name}: p50 {:.2} ms, p99 {:.2} ms (targets: 3 and 10 ms)",
            cut.p50(),
            cut.p99()
        ));
    }
    report.line(format!(
        "one caller: p99 {:.2} ms, beside pgbench's {:.2} ms",
        rounds.tail.median().0,
        rounds.tail.median().1
    ));
    report.line(format!(
        "64 callers: p50 {:.2} ms, p99 {:.2} ms",
        rounds.waiting.median().0,
        rounds.waiting.median().1
    ));
    report.line(format!(
        "rebuild of {events} events: {:.2} s, the start of the program included",
        rebuilding.as_secs_f64()
    ));
    report.line(format!("server after the load: {} MiB resident", resident >> 20));
    report.line(format!("fdatasync of 4 KiB: p50 {:.3} ms, p99 {:.3} ms", sync.p50(), sync.p99()));
    report.line(format!(
        "loopback round trip: p50 {:.3} ms, p99 {:.3} ms",
        round_trip.p50(),
        round_trip.p99()
    ));
    report.print();
    Ok(())
}

/// A value and its floor for each round.
#[derive(Default)]
struct Rounds {
    together: Pairs,
    alone: Pairs,
    reads: Pairs,
    /// p99 of one caller and of pgbench.
    tail: Pairs,
    /// p50 and p99 of 64 callers.
    waiting: Pairs,
}

async fn measure(
    rounds: &mut Rounds,
    floor: &Floor,
    replica: &Replica,
    instances: &[TestInstance],
) -> anyhow::Result<()> {
    let single = floor.latencies_of_one_client(LENGTH).await?;
    let one = load::one_caller(&instances[0], LENGTH).await?;
    rounds.alone.push(one.p50(), single.p50());
    rounds.tail.push(one.p99(), single.p99());
    let unordered = floor.transactions_per_second(32, LENGTH).await?;
    let flippers: Vec<Flipper> = instances.iter().map(Flipper::new).collect();
    let (commands, waiting) = load::all_callers(flippers, LENGTH).await?;
    rounds.together.push(commands, unordered);
    rounds.waiting.push(waiting.p50(), waiting.p99());
    let checks = load::health_checks(replica, CALLERS, LENGTH / 2).await?;
    rounds.reads.push(load::reads(instances, LENGTH / 2).await?, checks);
    Ok(())
}

async fn instances(replica: &Replica) -> anyhow::Result<Vec<TestInstance>> {
    let operator = replica.operator()?;
    let owners = (0..load::CONNECTIONS).map(|_| replica.owner()).collect::<Result<Vec<_>, _>>()?;
    let mut instances = Vec::new();
    for number in 0..CALLERS {
        let owner = &owners[number % owners.len()];
        let request = RegisterInstanceRequest {
            mqtt_instance_id: format!("bench-{number}"),
            region_id: "bench".to_owned(),
            owner_account_id: ACCOUNT.to_owned(),
            edition: Edition::Platinum.into(),
            request_id: String::new(),
        };
        operator.instances.clone().register_instance(request).await?;
        let instance = TestInstance { caller: owner.clone(), id: format!("bench-{number}") };
        let ca = Ca::root(&format!("CA {number}"))?;
        let request: RegisterCaCertificateRequest = instance.registration(&ca, &instance.code().await?)?;
        owner.ca.clone().register_ca_certificate(request).await?;
        instances.push(instance);
    }
    Ok(instances)
}

/// Rebuilds the read model from the whole log; gives the number of events and the
/// time of the command.
async fn rebuild(deployment: &Deployment) -> anyhow::Result<(u64, Duration)> {
    use sqlx::Row as _;
    let mut connection = deployment.database().await?;
    let row = sqlx::query("SELECT max(position) AS head FROM events").fetch_one(&mut connection).await?;
    let events = u64::try_from(row.try_get::<i64, _>("head")?)?;
    let started = Instant::now();
    deployment.command(&["rebuild"]).await?.success().context("rebuild")?;
    Ok((events, started.elapsed()))
}

/// Milliseconds of each measurement, sorted at the end.
fn latencies(mut durations: Vec<Duration>) -> Latencies {
    durations.sort_unstable();
    Latencies::sorted(durations.iter().map(|duration| duration.as_secs_f64() * 1e3).collect())
}
