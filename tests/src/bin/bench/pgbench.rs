//! The floor: `pgbench` running the SQL of one command, one transaction each, on
//! copies of the same tables in the same cluster.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use catrust_tests::instance::TestInstance;
use catrust_tests::postgres::{Postgres, programs};
use catrust_tests::program::{Completion, finish};
use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;

use crate::reading::Latencies;

/// Copies of the tables with their indexes, without the trigger. They have rows and
/// statistics from the start: a plan made for an empty table would scan it when it
/// is full, and the floor would be too low.
const TABLES: &str = "
CREATE SCHEMA floor;
CREATE TABLE floor.events (LIKE public.events INCLUDING ALL);
CREATE TABLE floor.instances (LIKE public.instances INCLUDING ALL);
CREATE TABLE floor.ca_certificates (LIKE public.ca_certificates INCLUDING ALL);
CREATE TABLE floor.replies (LIKE public.replies INCLUDING ALL);
ALTER TABLE floor.events ALTER COLUMN payload SET STORAGE EXTERNAL;
INSERT INTO floor.instances SELECT * FROM public.instances;
INSERT INTO floor.ca_certificates SELECT * FROM public.ca_certificates;
CREATE TABLE floor.sample AS
    SELECT (SELECT payload FROM public.events WHERE event_type = 'CaCertificateInactivated' LIMIT 1) AS payload,
           (SELECT reply FROM public.replies LIMIT 1) AS reply;
INSERT INTO floor.events
    SELECT n, gen_random_uuid(), 'ca-certificate/before', n, 'before', n, decode(repeat('ab', 32), 'hex'), '7A0F',
           'CaCertificateInactivated', 1, s.payload, 'somebody', 'account-a', 'static', '127.0.0.1',
           gen_random_uuid(), '', now(), decode(repeat('cd', 32), 'hex')
      FROM floor.sample s, generate_series(1, 10000) n;
INSERT INTO floor.replies
    SELECT 'account-a', gen_random_uuid(), decode(repeat('ef', 32), 'hex'), s.reply, now()
      FROM floor.sample s, generate_series(1, 10000) n;
CREATE SEQUENCE floor.positions START 1000000 CACHE 100;
VACUUM ANALYZE floor.events, floor.replies, floor.instances, floor.ca_certificates, floor.sample;
";

/// What the server loads under the lock, in one statement. The id is drawn in a
/// sub-select: a volatile function in the condition itself would scan the table.
const LOAD: &str = "
SELECT i.*, c.*, head.*, (SELECT reply FROM floor.replies
                           WHERE account_id = 'account-a' AND request_id = (SELECT gen_random_uuid()))
  FROM floor.instances i JOIN floor.ca_certificates c ON c.instance_id = i.instance_id
  LEFT JOIN (SELECT position, hash, occurred_at FROM floor.events ORDER BY position DESC LIMIT 1) head ON true
 WHERE i.instance_id = 'bench-' || :client_id::text;
";

/// What it writes, in one statement; `POSITION` and `NOTIFY` differ.
const WRITE: &str = "
WITH e AS (
  INSERT INTO floor.events
  SELECT POSITION, gen_random_uuid(), 'ca-certificate/bench-' || :client_id::text, POSITION,
         'bench-' || :client_id::text, POSITION, decode(repeat('ab', 32), 'hex'), '7A0F', 'CaCertificateInactivated',
         1, s.payload, 'principal-of-owner-token', 'account-a', 'static', '127.0.0.1', gen_random_uuid(), '', now(),
         decode(repeat('cd', 32), 'hex')
    FROM floor.sample s RETURNING position),
i AS (
  UPDATE floor.instances
     SET revision = revision + 1, trust_position = e.position, bundle_digest = decode(repeat('ab', 32), 'hex'),
         set_hash = decode(repeat(md5(e.position::text), 128), 'hex')
    FROM e WHERE instance_id = 'bench-' || :client_id::text RETURNING 1),
c AS (
  UPDATE floor.ca_certificates
     SET state = 'INACTIVE', inactivation_scope = 'KEY', state_changed_at = now(), state_reason = 'a test',
         revision = revision + 1, position = e.position, stream_version = stream_version + 1
    FROM e WHERE instance_id = 'bench-' || :client_id::text RETURNING 1),
r AS (
  INSERT INTO floor.replies
  SELECT 'account-a', gen_random_uuid(), decode(repeat('ef', 32), 'hex'), s.reply, now() FROM floor.sample s
  RETURNING 1)
SELECT pg_current_xact_id()::text, (SELECT count(*) FROM i), (SELECT count(*) FROM c), NOTIFY;
";

/// Write-ahead log of a whole run, in pieces of 16 MiB.
const WAL_SEGMENTS: u32 = 112;

/// Brings the cluster to where it is after some minutes of work: the pieces of its
/// write-ahead log are there, to be used again. A new one is made by writing 16 MiB of
/// zeros, for which every commit waits; that would be measured instead of the commits.
pub async fn fill_wal(postgres: &Postgres) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(&postgres.url()).await?;
    sqlx::query("ALTER SYSTEM SET min_wal_size = '2GB'").execute(&mut connection).await?;
    sqlx::query("SELECT pg_reload_conf()").execute(&mut connection).await?;
    let piece = "SELECT pg_logical_emit_message(false, '', repeat('x', 16000000))";
    for _ in 0..WAL_SEGMENTS {
        sqlx::query(piece).execute(&mut connection).await?;
    }
    sqlx::query("SELECT pg_switch_wal()").execute(&mut connection).await?;
    sqlx::query("CHECKPOINT").execute(&mut connection).await?;
    Ok(())
}

/// Tables and scripts of the floor.
pub struct Floor {
    url: String,
    scripts: TempDir,
}

impl Floor {
    /// Copies the tables and writes the scripts. `instance` is switched once, so that
    /// there is an event and a reply to copy.
    pub async fn prepare(postgres: &Postgres, instance: &TestInstance) -> anyhow::Result<Self> {
        let request = catrust_proto::v1::ListCaCertificatesRequest {
            mqtt_instance_id: instance.id.clone(),
            ..Default::default()
        };
        let page = instance.caller.ca.clone().list_ca_certificates(request).await?.into_inner();
        let mut off = instance.inactivation(&page.ca_certificates[0].sn);
        off.request_id = catrust_tests::certificates::request_id();
        instance.caller.ca.clone().inactivate_ca_certificate(off).await?;

        let scripts = tempfile::tempdir()?;
        // One set each: positions of the one would be in the way of the other.
        let tables = scripts.path().join("tables.sql");
        std::fs::write(&tables, TABLES.replace("floor", "unordered") + &TABLES.replace("floor", "ordered"))?;
        postgres.psql(&tables).await?;
        let script = |lock: &str, position: &str, notify: &str| {
            let write = WRITE.replace("POSITION", position).replace("NOTIFY", notify);
            let mut text = String::new();
            // One round trip to begin, as the server does.
            let _ = write!(text, "\\startpipeline\nBEGIN;\n{lock}\\endpipeline\n{LOAD}{write}COMMIT;\n");
            text
        };
        // A sequence, and no notification: its lock at commit would be an order, too.
        let unordered = script("", "nextval('floor.positions')", "NULL");
        // `nextval` is called three times there; unique is all that it must be.
        let ordered = script(
            "SELECT pg_advisory_xact_lock(42);\n",
            "(SELECT coalesce(max(position), 0) + 1 FROM floor.events)",
            "pg_notify('floor', (SELECT position::text FROM e))",
        );
        std::fs::write(scripts.path().join("unordered.sql"), unordered.replace("floor", "unordered"))?;
        std::fs::write(scripts.path().join("ordered.sql"), ordered.replace("floor", "ordered"))?;
        Ok(Self { url: postgres.url(), scripts })
    }

    /// Transactions per second of `clients` without any ordering among them.
    pub async fn transactions_per_second(&self, clients: u32, length: Duration) -> anyhow::Result<f64> {
        let clients = clients.to_string();
        let output = self.run("unordered.sql", length, &["-c", &clients, "-j", "2"]).await?.stdout;
        let line = output.lines().find_map(|line| line.strip_prefix("tps = ")).context("no tps")?;
        Ok(line.split_whitespace().next().context("no number")?.parse()?)
    }

    /// Latencies of one client with the append lock: the same SQL.
    pub async fn latencies_of_one_client(&self, length: Duration) -> anyhow::Result<Latencies> {
        self.run("ordered.sql", length, &["-c", "1", "-l", "--log-prefix=one"]).await?;
        let mut micros = Vec::new();
        for entry in std::fs::read_dir(self.scripts.path())?.flatten() {
            if !entry.file_name().to_string_lossy().starts_with("one.") {
                continue;
            }
            let log = std::fs::read_to_string(entry.path())?;
            // The next round logs under another name, and must not count this one again.
            std::fs::remove_file(entry.path())?;
            for line in log.lines() {
                micros.push(line.split_whitespace().nth(2).context("no latency")?.parse::<f64>()? / 1e3);
            }
        }
        micros.sort_by(f64::total_cmp);
        anyhow::ensure!(!micros.is_empty(), "pgbench logged nothing");
        Ok(Latencies::sorted(micros))
    }

    async fn run(&self, script: &str, length: Duration, arguments: &[&str]) -> anyhow::Result<Completion> {
        let mut command = tokio::process::Command::new(programs()?.join("pgbench"));
        command.current_dir(self.scripts.path());
        command.args(["--no-vacuum", "--protocol=prepared", "-T", &length.as_secs().to_string()]);
        command.args(["--file", script]).args(arguments).arg(&self.url);
        finish(command).await?.success()
    }
}
