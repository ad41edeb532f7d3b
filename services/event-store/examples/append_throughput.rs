//! Measures how fast commands are appended, and how fast the log is verified:
//!
//! ```text
//! cargo run --release --example append_throughput --features contract -- postgres://…/empty_database
//! cargo run --release --example append_throughput --features contract -- file.db
//! ```
//!
//! The database is migrated first. Each command is an inactivation or an
//! activation, spread over 64 CA certificates of 8 instances; with a request id,
//! so that its reply is stored, where a second argument says `replies`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use catrust_domain::{CommandEnvelope, InstanceId, SerialNumber, Timestamp};
use catrust_event_store::contract::commands::{
    activate, append_all, inactivate, instance, populate, unique_id, with_request_id,
};
use catrust_event_store::postgres::{self, PgEventStore};
use catrust_event_store::sqlite::{self, SqliteEventStore};
use catrust_event_store::{Clock, EventStore};

const INSTANCES: usize = 8;
const CERTIFICATES: usize = 8;
const SECONDS: u64 = 5;

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let target = std::env::args().nth(1).ok_or("give the address of an empty database, or a file")?;
    let clock: Clock = Arc::new(|| {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    });
    if target.starts_with("postgres") {
        postgres::migrate(&target).await?;
        measure(&PgEventStore::connect(&target, clock).await?).await
    } else {
        let path = Path::new(&target);
        sqlite::migrate(path).await?;
        measure(&SqliteEventStore::open(path, clock).await?).await
    }
}

async fn measure(store: &impl EventStore) -> Result<(), Error> {
    let mut certificates = Vec::new();
    let names: Vec<String> = (0..CERTIFICATES).map(|number| format!("ca{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for number in 0..INSTANCES {
        let id = instance(&format!("bench-{}-{number}", unique_id()));
        certificates.extend(populate(store, &id, &names).await.into_iter().map(|sn| (id.clone(), sn)));
    }
    let replies = std::env::args().nth(2).as_deref() == Some("replies");
    for size in [1, 16, 256] {
        measure_batches(store, &certificates, size, replies).await;
    }
    let started = Instant::now();
    let report = store.verify().await?;
    let rate = report.events as f64 / started.elapsed().as_secs_f64();
    println!("verify: {} events, {rate:.0}/s, damage: {:?}", report.events, report.damage);
    let started = Instant::now();
    let report = store.rebuild().await?;
    println!("rebuild: {:.0} events/s", report.events as f64 / started.elapsed().as_secs_f64());
    Ok(())
}

async fn measure_batches(
    store: &impl EventStore,
    certificates: &[(InstanceId, SerialNumber)],
    size: usize,
    replies: bool,
) {
    let mut turn = 0;
    let mut latencies = Vec::new();
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(SECONDS) {
        let batch: Vec<CommandEnvelope> =
            (turn..turn + size).map(|turn| command(certificates, turn, replies)).collect();
        turn += size;
        let sent = Instant::now();
        append_all(store, &batch).await;
        latencies.push(sent.elapsed());
    }
    let rate = turn as f64 / started.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |share: usize| latencies[latencies.len() * share / 100];
    println!("batches of {size}: {rate:.0} commands/s, p50 {:?}, p99 {:?}", at(50), at(99));
}

fn command(certificates: &[(InstanceId, SerialNumber)], turn: usize, replies: bool) -> CommandEnvelope {
    let (id, sn) = &certificates[turn % certificates.len()];
    let off = (turn / certificates.len()).is_multiple_of(2);
    let command = if off { inactivate(id, sn) } else { activate(id, sn) };
    if replies { with_request_id(command, unique_id(), "bench") } else { command }
}
