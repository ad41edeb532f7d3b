//! The log as somebody sees it who has the database: the superuser of Postgres, the
//! owner of the SQLite file. No trigger holds them.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use catrust_tests::deployment::{Deployment, Plan};
use catrust_tests::instance::TestInstance;
use catrust_tests::program::Completion;
use catrust_tests::server::{Server, run_server};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, Connection as _, Row as _, SqliteConnection};
use tempfile::TempDir;

/// A trust change in the middle of [`Ledger`]'s log.
pub const MIDDLE: i64 = 7;
/// Its last event.
pub const LAST: i64 = 10;

/// A database with ten events, its servers gone, open to whoever wants to change it.
pub enum Ledger {
    /// One Postgres, one NATS.
    Postgres(Box<Deployment>),
    /// One file.
    Sqlite(TempDir),
}

impl Ledger {
    /// Writes ten events through a server on Postgres, and waits until they are on NATS.
    pub async fn postgres() -> anyhow::Result<Self> {
        let deployment = Plan::default().deploy().await?;
        let replica = deployment.replica("a").await?;
        ten_events(&replica.instance().await?).await?;
        deployment.nats().reaches(LAST.try_into()?, std::time::Duration::from_secs(20)).await?;
        drop(replica);
        let ledger = Self::Postgres(Box::new(deployment));
        ledger.execute("CREATE TABLE saved AS SELECT * FROM events").await?;
        Ok(ledger)
    }

    /// Writes ten events through an embedded server.
    pub async fn sqlite() -> anyhow::Result<Self> {
        let data = tempfile::tempdir()?;
        let server = Server::dev(data.path()).await?;
        let caller = server.caller(None)?;
        let instance = TestInstance { caller, id: "demo".to_owned() };
        ten_events(&instance).await?;
        server.signal(catrust_tests::process::Signal::TERM);
        server.ended(std::time::Duration::from_secs(20)).await?;
        let ledger = Self::Sqlite(data);
        ledger.execute("CREATE TABLE saved AS SELECT * FROM events").await?;
        for trigger in ["events_no_update", "events_no_delete"] {
            ledger.execute(&format!("DROP TRIGGER IF EXISTS {trigger}")).await?;
        }
        Ok(ledger)
    }

    /// Runs statements, past every guard.
    pub async fn execute(&self, sql: &str) -> anyhow::Result<()> {
        match self {
            Self::Postgres(deployment) => {
                let mut connection = deployment.database().await?;
                let sql = format!("SET session_replication_role = replica; {sql}");
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
            }
            Self::Sqlite(data) => {
                let mut connection = open(&database(data.path())).await?;
                sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
                connection.close().await?;
            }
        }
        Ok(())
    }

    /// Puts the log back as it was.
    pub async fn restore(&self) -> anyhow::Result<()> {
        self.execute("DELETE FROM events; INSERT INTO events SELECT * FROM saved ORDER BY position").await
    }

    /// Every column of the log with an expression that changes one byte of it.
    pub async fn changes(&self) -> anyhow::Result<Vec<(String, String)>> {
        let columns: Vec<(String, String)> = match self {
            Self::Postgres(deployment) => {
                let sql = "SELECT column_name::text, data_type::text FROM information_schema.columns \
                           WHERE table_name = 'events' AND table_schema = 'public' ORDER BY ordinal_position";
                let mut connection = deployment.database().await?;
                let rows = sqlx::query(sql).fetch_all(&mut connection).await?;
                rows.iter().map(|row| (row.get(0), row.get(1))).collect()
            }
            Self::Sqlite(data) => {
                let mut connection = open(&database(data.path())).await?;
                let rows = sqlx::query("SELECT name, type FROM pragma_table_info('events')");
                let rows = rows.fetch_all(&mut connection).await?;
                rows.iter().map(|row| (row.get(0), row.get(1))).collect()
            }
        };
        columns.into_iter().map(|(name, kind)| Ok((name.clone(), changed(&name, &kind)?))).collect()
    }

    /// Runs `catrust-server verify -o json` with more arguments; gives exit code and report.
    pub async fn verify(&self, more: &[&str]) -> anyhow::Result<(Option<i32>, Value)> {
        let finished = self.command(&[&["verify", "-o", "json"], more].concat()).await?;
        let report = serde_json::from_str(&finished.stdout).with_context(|| format!("{finished:?}"))?;
        Ok((finished.code, report))
    }

    /// Runs a command of `catrust-server` on the database.
    pub async fn command(&self, arguments: &[&str]) -> anyhow::Result<Completion> {
        match self {
            Self::Postgres(deployment) => deployment.command(arguments).await,
            Self::Sqlite(data) => {
                let data = data.path().to_string_lossy();
                run_server(&[arguments, &["--data-dir", &data]].concat(), &[]).await
            }
        }
    }

    /// Computes the hashes of Postgres' log anew from a position on, as a thorough forger
    /// would: the documented rule, and not a line of catrust's.
    pub async fn chain_anew(&self, from: i64) -> anyhow::Result<()> {
        let Self::Postgres(deployment) = self else { anyhow::bail!("only for Postgres") };
        let mut connection = deployment.database().await?;
        sqlx::raw_sql("SET session_replication_role = replica").execute(&mut connection).await?;
        let columns = "position::text, event_id::text, stream_id, stream_version::text, instance_id, \
                       revision::text, encode(bundle_digest, 'hex'), sn, event_type, schema_version::text, \
                       payload::text, actor, account_id, policy_version, source_address, request_id::text, \
                       traceparent, (extract(epoch FROM occurred_at) * 1000000)::bigint::text, hash";
        let sql = format!("SELECT {columns} FROM events ORDER BY events.position");
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await?;
        let mut previous = vec![0; 32];
        for row in rows {
            let position: i64 = row.get::<String, _>(0).parse()?;
            if position < from {
                previous = row.get(18);
                continue;
            }
            let mut hasher = Sha256::new();
            hasher.update(&previous);
            for column in 0..18 {
                let text = row.get::<Option<String>, _>(column).unwrap_or_default();
                hasher.update(format!("{}:{text},", text.len()));
            }
            previous = hasher.finalize().to_vec();
            let update = sqlx::query("UPDATE events SET hash = $1 WHERE position = $2");
            update.bind(&previous).bind(position).execute(&mut connection).await?;
        }
        Ok(())
    }
}

/// Positions 1 to 10: an instance, two CA certificates with their codes, five changes of
/// state. `demo` is there already.
async fn ten_events(instance: &TestInstance) -> anyhow::Result<()> {
    let ca = instance.new_ca().await?;
    let other = instance.new_ca().await?;
    for sn in [&ca.sn, &other.sn] {
        instance.inactivate(sn).await?;
        instance.activate(sn).await?;
    }
    let last = instance.inactivate(&ca.sn).await?;
    anyhow::ensure!(last.position == u64::try_from(LAST)?, "the last position is {}", last.position);
    Ok(())
}

/// An SQL expression of a value that differs from the column's in one byte.
fn changed(name: &str, kind: &str) -> anyhow::Result<String> {
    Ok(match (name, kind.to_lowercase().as_str()) {
        ("payload", kind) => format!("CAST(replace(CAST(payload AS text), 'a test', 'a tesu') AS {kind})"),
        // Far enough from the other rows, and still one byte.
        (_, "bigint" | "integer") if name == "occurred_at" => format!("{name} + 1"),
        (_, "bigint" | "integer" | "smallint") => format!("{name} + 64"),
        (_, "text") => {
            format!("CASE {name} WHEN '' THEN 'x' ELSE substr({name}, 1, length({name}) - 1) || 'x' END")
        }
        (_, "uuid") => format!("CAST(replace(CAST({name} AS text), '-4', '-5') AS uuid)"),
        (_, "bytea") => format!("set_byte({name}, 3, get_byte({name}, 3) # 1)"),
        (_, "timestamp with time zone") => format!("{name} + interval '1 microsecond'"),
        (_, "blob") => format!(
            "CAST(substr({name}, 1, 3) || CASE substr({name}, 4, 1) WHEN x'00' THEN x'01' ELSE x'00' END \
             || substr({name}, 5) AS BLOB)"
        ),
        other => anyhow::bail!("how is one byte of {other:?} changed?"),
    })
}

fn database(data: &Path) -> PathBuf {
    data.join("catrust.db")
}

async fn open(path: &Path) -> anyhow::Result<SqliteConnection> {
    Ok(SqliteConnection::connect(&format!("sqlite://{}", path.display())).await?)
}
