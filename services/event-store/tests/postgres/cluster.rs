//! A private Postgres for the tests of this process, one database a test.

use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use catrust_event_store::postgres::migrate;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::{Instant, sleep};

/// Makes the cluster, runs the server, and ends it when the tests' process ends, in
/// whatever way: its standard input then comes to an end. `$1` directory, `$2` port,
/// `$3` programs, then what runs a program as another user.
///
/// `fsync=off`: these tests end connections and processes, never the machine.
const SUPERVISOR: &str = r#"
set -e
directory=$1; port=$2; programs=$3; shift 3
trap 'rm -rf "$directory"' EXIT
"$@" "$programs/initdb" -D "$directory/data" -U catrust -A trust -E UTF8 --no-locale --no-sync >"$directory/initdb.log" 2>&1
"$@" "$programs/postgres" -D "$directory/data" -p "$port" -k "$directory" -h 127.0.0.1 \
    -c fsync=off -c max_connections=300 -c shared_buffers=64MB >"$directory/postgres.log" 2>&1 &
server=$!
cat >/dev/null
kill -QUIT "$server"
wait "$server" || true
"#;

/// How long the server may take to come up.
const START_TIMEOUT: Duration = Duration::from_secs(60);

static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();

/// A running server.
pub struct Cluster {
    port: u16,
    directory: PathBuf,
    /// Creating a database copies the template, which nobody may do at the same time.
    creating: Mutex<u32>,
    _supervisor: Child,
    _until_the_end: ChildStdin,
}

impl Cluster {
    /// The server of this process, with a migrated database `template`.
    pub async fn shared() -> &'static Self {
        CLUSTER.get_or_init(Self::start).await
    }

    /// Makes a database; a copy of `template`, or an empty one.
    pub async fn create_database(&self, template: &str) -> String {
        let mut number = self.creating.lock().await;
        *number += 1;
        let name = format!("test{number}");
        self.administer(&format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        name
    }

    /// The address of a database.
    pub fn url(&self, database: &str) -> String {
        self.url_at(self.port, "catrust", database)
    }

    /// The address of a database behind another port, or for another role.
    pub fn url_at(&self, port: u16, role: &str, database: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{port}/{database}?sslmode=disable")
    }

    /// The server's port.
    pub fn port(&self) -> u16 {
        self.port
    }

    async fn start() -> Self {
        let directory = tempfile::Builder::new().prefix("catrust-pg").tempdir().unwrap().keep();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut supervisor = Command::new("sh");
        supervisor.args(["-c", SUPERVISOR, "supervisor"]).arg(&directory);
        supervisor.arg(port.to_string()).arg(programs()).args(other_user(&directory));
        let mut supervisor = supervisor.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let stdin = supervisor.stdin.take().unwrap();
        let cluster =
            Self { port, directory, creating: Mutex::new(0), _supervisor: supervisor, _until_the_end: stdin };
        cluster.wait_until_ready().await;
        cluster.administer("CREATE DATABASE template").await;
        migrate(&cluster.url("template")).await.unwrap();
        cluster
    }

    async fn wait_until_ready(&self) {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            match PgConnection::connect(&self.url("postgres")).await {
                Ok(connection) => return connection.close().await.unwrap(),
                Err(error) if Instant::now() > deadline => {
                    let log = |name| std::fs::read_to_string(self.directory.join(name)).unwrap_or_default();
                    panic!(
                        "no server after {START_TIMEOUT:?}: {error}\n{}{}",
                        log("initdb.log"),
                        log("postgres.log")
                    );
                }
                Err(_) => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn administer(&self, sql: &str) {
        let mut connection = PgConnection::connect(&self.url("postgres")).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }
}

/// Where the newest installed server's programs are.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("Postgres is installed");
    let mut found: Vec<(u32, PathBuf)> = versions
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    found.sort();
    found.pop().expect("a version of Postgres").1
}

/// Postgres refuses to run as root: then another user owns the directory and runs it.
fn other_user(directory: &Path) -> Vec<String> {
    if std::fs::metadata("/proc/self").map(|me| std::os::unix::fs::MetadataExt::uid(&me)).unwrap() != 0 {
        return Vec::new();
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let ids = |name: &str| {
        let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse::<u32>().ok()?, fields.next()?.parse::<u32>().ok()?))
    };
    let (uid, gid) = ids("postgres").or_else(|| ids("nobody")).expect("a user for the server");
    chown(directory, Some(uid), Some(gid)).unwrap();
    let (uid, gid) = (format!("--reuid={uid}"), format!("--regid={gid}"));
    ["setpriv", &uid, &gid, "--clear-groups"].map(str::to_owned).to_vec()
}
