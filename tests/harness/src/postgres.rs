//! A Postgres of one's own: a private cluster on a free port, ready in a moment.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::directory::temporary;
use crate::process::{Launcher, Process, rights_dropped};
use crate::program::{free_port, run, target_directory};

/// How long a cluster may take to accept connections, crash recovery included.
const READY: Duration = Duration::from_secs(60);

/// Whether commits reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// `fsync=off`: for tests that kill no database.
    Relaxed,
    /// `fsync=on`: as in production.
    Full,
}

/// The certificates of a cluster with TLS, PEM.
#[derive(Clone, Copy, Debug)]
pub struct Tls<'a> {
    /// Certificate of the server.
    pub certificate: &'a str,
    /// Its key.
    pub key: &'a str,
    /// CA of the clients' certificates.
    pub client_ca: &'a str,
}

/// A private cluster with an empty database `catrust`.
#[derive(Debug)]
pub struct Postgres {
    // Before the directory: the server must be gone when that is removed.
    process: Option<Process>,
    directory: TempDir,
    port: u16,
    durability: Durability,
    /// Settings of the command line, `name=value`, over those of its files.
    settings: Vec<String>,
}

/// The directory of the installed server programs, the newest version.
///
/// # Errors
/// When none is installed; `make tools` does it.
pub fn programs() -> anyhow::Result<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .context("no Postgres server is installed; run `make tools`")?
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("postgres").exists())
        .collect();
    versions.sort();
    Ok(versions.pop().context("no Postgres server is installed; run `make tools`")?.1)
}

impl Postgres {
    /// Starts a fresh cluster.
    ///
    /// # Errors
    /// When Postgres is not installed or does not start.
    pub async fn start(durability: Durability) -> anyhow::Result<Self> {
        Self::start_in(durability, |_| Ok(())).await
    }

    /// Starts a fresh cluster that speaks TLS alone. Everybody but the owner has to show a
    /// certificate in the name of their role.
    ///
    /// # Errors
    /// When Postgres is not installed or does not start.
    pub async fn start_with_tls(tls: &Tls<'_>) -> anyhow::Result<Self> {
        Self::start_in(Durability::Relaxed, |data| tls.require(data)).await
    }

    async fn start_in(
        durability: Durability,
        prepare: impl FnOnce(&Path) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let directory = temporary("catrust-pg-")?;
        open_to_all(directory.path())?;
        let template = template().await?;
        copy(template, &directory.path().join("data"))?;
        prepare(&directory.path().join("data"))?;
        Self::launch_in(directory, durability, Vec::new()).await
    }

    /// Starts what stands in `data` of the directory, on a free port.
    pub(crate) async fn launch_in(
        directory: TempDir,
        durability: Durability,
        settings: Vec<String>,
    ) -> anyhow::Result<Self> {
        let mut postgres = Self { process: None, port: free_port()?, directory, durability, settings };
        postgres.launch().await?;
        Ok(postgres)
    }

    /// Where its files are.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Whether its commits reach the disk.
    pub(crate) const fn durability(&self) -> Durability {
        self.durability
    }

    /// URL of the database, as its owner.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// URL of the database, as another role.
    #[must_use]
    pub fn url_of(&self, role: &str) -> String {
        format!("postgres://{role}@127.0.0.1:{}/catrust", self.port)
    }

    /// Runs a file of SQL with `psql`, as the owner; the first error ends it.
    ///
    /// # Errors
    /// When a statement fails.
    pub async fn psql(&self, file: &Path) -> anyhow::Result<()> {
        let url = self.url();
        let arguments = ["--no-psqlrc", "--quiet", "-v", "ON_ERROR_STOP=1", "--dbname", &url, "--file"];
        let arguments = arguments.into_iter().map(AsRef::<OsStr>::as_ref).chain([file.as_os_str()]);
        run(programs()?.join("psql"), arguments).await?.success().map(drop)
    }

    /// Runs one statement of SQL as the owner, and gives its rows, a line each, with `|`
    /// between columns.
    ///
    /// # Errors
    /// When it fails.
    pub async fn ask(&self, sql: &str) -> anyhow::Result<String> {
        let url = self.url();
        let arguments = ["--no-psqlrc", "-XAtq", "-v", "ON_ERROR_STOP=1", "--dbname", &url, "-c", sql];
        let answer = run(programs()?.join("psql"), arguments).await?.success()?;
        Ok(answer.stdout.trim_end().to_owned())
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Kills every process of the cluster with -9, as a crash of the machine does.
    pub fn kill(&mut self) {
        if let Some(process) = self.process.take() {
            // Stopped first, so that it starts no new backend meanwhile.
            process.signal(Signal::STOP);
            let backends = children_of(process.pid());
            for backend in &backends {
                let _ = kill_process(*backend, Signal::KILL);
            }
            process.kill();
            // Until the last has ended, the shared memory is in use, and a restart refused.
            for _ in 0..500 {
                if !backends.iter().any(|backend| is_running(*backend)) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    /// Stops every process of the cluster where it is.
    pub fn pause(&self) {
        if let Some(process) = &self.process {
            process.signal(Signal::STOP);
            self.signal_backends(process, Signal::STOP);
        }
    }

    /// Lets a paused cluster go on.
    pub fn resume(&self) {
        if let Some(process) = &self.process {
            self.signal_backends(process, Signal::CONT);
            process.signal(Signal::CONT);
        }
    }

    /// Starts a killed cluster again, in place.
    ///
    /// # Errors
    /// When it does not recover.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        self.launch().await
    }

    async fn launch(&mut self) -> anyhow::Result<()> {
        let programs = programs()?;
        let mut launcher = Launcher::unprivileged("postgres", programs.join("postgres"), "QUIT");
        let data = self.directory.path().join("data");
        let fsync = if self.durability == Durability::Full { "on" } else { "off" };
        launcher
            .command()
            .arg("-D")
            .arg(&data)
            .args(["-p", &self.port.to_string()])
            .arg("-k")
            .arg(&data)
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=300"])
            .args(["-c", "shared_buffers=128MB", "-c", "max_wal_size=2GB"])
            .args(["-c", &format!("fsync={fsync}")])
            .args(self.settings.iter().flat_map(|setting| ["-c", setting]));
        let process = self.process.insert(launcher.start()?);
        let (ask, port) = (programs.join("pg_isready"), self.port.to_string());
        process
            .ready(READY, "Postgres accepts connections", async || {
                run(&ask, ["-h", "127.0.0.1", "-p", &port]).await?.success()
            })
            .await
            .map(drop)
    }

    /// Each backend is the leader of a session of its own, so that a signal to the
    /// group of the postmaster would miss it.
    fn signal_backends(&self, postmaster: &Process, signal: Signal) {
        for pid in children_of(postmaster.pid()) {
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let Some(process) = self.process.take() else { return };
        self.signal_backends(&process, Signal::CONT);
        process.signal(Signal::CONT);
        // Immediate shutdown: unlike -9 it gives its shared memory back.
        process.signal(Signal::QUIT);
        for _ in 0..100 {
            if process.exit_status().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Whether a process has not ended: one that only waits to be reaped has.
fn is_running(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    let state = stat.ok().and_then(|stat| stat.rsplit_once(')')?.1.trim_start().chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

fn children_of(parent: i32) -> Vec<Pid> {
    let parent_of = |pid: i32| -> Option<i32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything: the fields follow the last one.
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| parent_of(*pid) == Some(parent))
        .filter_map(Pid::from_raw)
        .collect()
}

/// A data directory with an empty database `catrust`, made once for all tests.
async fn template() -> anyhow::Result<&'static Path> {
    static TEMPLATE: OnceCell<PathBuf> = OnceCell::const_new();
    let path =
        TEMPLATE.get_or_try_init(|| async { tokio::task::spawn_blocking(make_template).await? }).await?;
    Ok(path)
}

fn make_template() -> anyhow::Result<PathBuf> {
    let programs = programs()?;
    let version = programs.parent().and_then(Path::file_name).context("unexpected place of Postgres")?;
    let keep = target_directory()?.join("tmp");
    let finished = keep.join(format!("postgres-template-{}", version.to_string_lossy()));
    if finished.exists() {
        return Ok(finished);
    }
    let work = temporary("catrust-initdb-")?;
    open_to_all(work.path())?;
    let data = work.path().join("data");
    let data = data.to_string_lossy();
    let initdb = programs.join("initdb");
    let arguments =
        ["-D", &*data, "-U", "postgres", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"];
    as_server_user(&[&[&*initdb.to_string_lossy()], &arguments[..]].concat(), "")?;
    let postgres = programs.join("postgres");
    as_server_user(
        &[&postgres.to_string_lossy(), "--single", "-D", &data, "postgres"],
        "CREATE DATABASE catrust;\n",
    )?;
    // Moved in one step, since other test processes may be making theirs.
    std::fs::create_dir_all(&keep)?;
    let mine = tempfile::Builder::new().prefix("postgres-template-").tempdir_in(&keep)?;
    copy(Path::new(&*data), &mine.path().join("data"))?;
    if let Err(error) = std::fs::rename(mine.path().join("data"), &finished) {
        anyhow::ensure!(finished.exists(), "cannot keep the template: {error}");
    }
    Ok(finished)
}

pub(crate) fn as_server_user(command: &[&str], input: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut setpriv = Command::new("setpriv");
    setpriv.args(rights_dropped()).args(["--no-new-privs", "--"]).args(command);
    setpriv.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = setpriv.stderr(std::process::Stdio::piped()).spawn().context("cannot run setpriv")?;
    child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    anyhow::ensure!(output.status.success() && !said.contains("ERROR"), "{command:?} failed: {said}");
    Ok(())
}

impl Tls<'_> {
    /// Turns TLS on in a data directory, and everything else off.
    fn require(&self, data: &Path) -> anyhow::Result<()> {
        use std::io::Write as _;
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
        let owner = std::fs::metadata(data)?;
        for (name, text) in
            [("server.crt", self.certificate), ("server.key", self.key), ("ca.crt", self.client_ca)]
        {
            let file = data.join(name);
            std::fs::write(&file, text)?;
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
            chown(&file, Some(owner.uid()), Some(owner.gid()))?;
        }
        std::fs::write(
            data.join("pg_hba.conf"),
            "hostssl all postgres 127.0.0.1/32 trust\nhostssl all all 127.0.0.1/32 cert\n",
        )?;
        let mut settings = std::fs::OpenOptions::new().append(true).open(data.join("postgresql.conf"))?;
        Ok(settings.write_all(b"ssl = on\nssl_ca_file = 'ca.crt'\n")?)
    }
}

/// Root hands the files to `nobody`: `cp -a` keeps the owner and is faster than
/// anything portable.
pub(crate) fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let output = Command::new("cp").arg("-a").arg("--reflink=auto").arg(from).arg(to).output()?;
    anyhow::ensure!(output.status.success(), "cp: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A server that runs as `nobody` has to pass through, and `initdb` to write.
pub(crate) fn open_to_all(directory: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    Ok(std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o777))?)
}
