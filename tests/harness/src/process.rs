//! Child processes that end with their parent and keep what they said.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt::Display;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use anyhow::Context as _;
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

use crate::eventually::eventually;

/// Lines kept of each process.
const KEPT_LINES: usize = 10_000;
/// Lines printed when a process is dropped.
const PRINTED_LINES: usize = 60;
/// How long the output of a process that has ended may take to arrive.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Whether the last lines are printed at all.
static TALKATIVE: AtomicBool = AtomicBool::new(true);

/// From now on processes end without printing their last lines: for a benchmark,
/// whose output is its result.
pub fn be_quiet() {
    TALKATIVE.store(false, Ordering::Relaxed);
}

type Launch = Box<dyn FnOnce() + Send>;

/// A thread that lives as long as the test process and starts every child.
///
/// The parent death signal follows the *thread* that forked: a child started on a
/// worker of some runtime would die with that worker.
static LAUNCHER: LazyLock<mpsc::Sender<Launch>> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::channel::<Launch>();
    std::thread::spawn(move || receiver.into_iter().for_each(|launch| launch()));
    sender
});

/// What to start: program, arguments, and under which rights.
#[derive(Debug)]
pub struct Launcher {
    name: String,
    wrapper: Command,
}

impl Launcher {
    /// Prepares `program`, which is killed when this process dies.
    #[must_use]
    pub fn new(name: &str, program: impl AsRef<OsStr>) -> Self {
        Self::wrapped(name, &["--pdeathsig", "KILL"], program.as_ref())
    }

    /// Prepares `program` to run as the user `nobody` where this process is root; it gets
    /// `death_signal` when this process dies.
    #[must_use]
    pub fn unprivileged(name: &str, program: impl AsRef<OsStr>, death_signal: &str) -> Self {
        Self::wrapped(name, &[rights_dropped(), &["--pdeathsig", death_signal]].concat(), program.as_ref())
    }

    // setpriv (util-linux) rather than `pre_exec`: that would need `unsafe`.
    fn wrapped(name: &str, arguments: &[&str], program: &OsStr) -> Self {
        let mut wrapper = Command::new("setpriv");
        wrapper.args(arguments).arg("--").arg(program);
        Self { name: name.to_owned(), wrapper }
    }

    /// The command, for arguments, environment and directory.
    pub fn command(&mut self) -> &mut Command {
        &mut self.wrapper
    }

    /// Starts it, in a process group of its own, so that a terminal's Ctrl-C does
    /// not reach it before the test does.
    ///
    /// # Errors
    /// When the program cannot be started at all.
    pub fn start(mut self) -> anyhow::Result<Process> {
        self.wrapper.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let (sender, receiver) = mpsc::sync_channel(1);
        let mut wrapper = self.wrapper;
        LAUNCHER
            .send(Box::new(move || {
                // The receiver is waiting: the answer cannot fail to arrive.
                let _ = sender.send(wrapper.spawn());
            }))
            .map_err(|_| anyhow::anyhow!("the launcher thread is gone"))?;
        let mut child = receiver.recv()?.with_context(|| format!("cannot start {}", self.name))?;
        let output = Output::default();
        for stream in [child.stdout.take().map(boxed), child.stderr.take().map(boxed)].into_iter().flatten() {
            output.follow(stream);
        }
        let pid = Pid::from_child(&child);
        Ok(Process { name: self.name, pid, child: Mutex::new(child), output })
    }
}

/// What `setpriv` is told so that a program runs as `nobody` where this process is root.
pub(crate) fn rights_dropped() -> &'static [&'static str] {
    if rustix::process::geteuid().is_root() {
        &["--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    } else {
        &[]
    }
}

fn boxed(stream: impl Read + Send + 'static) -> Box<dyn Read + Send> {
    Box::new(stream)
}

/// The last lines that a process wrote, on either stream.
#[derive(Clone, Debug, Default)]
pub struct Output(Arc<Mutex<VecDeque<String>>>);

impl Output {
    fn follow(&self, stream: Box<dyn Read + Send>) {
        let output = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let mut lines = lock(&output.0);
                if lines.len() == KEPT_LINES {
                    lines.pop_front();
                }
                lines.push_back(line);
            }
        });
    }

    /// Whether both streams have ended: then their readers are gone.
    fn is_whole(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    /// The kept lines.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        lock(&self.0).iter().cloned().collect()
    }

    /// The kept lines as one text.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines().join("\n")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running child. Dropping it kills it and prints its last lines, which the
/// test runner shows where the test failed.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    child: Mutex<Child>,
    output: Output,
}

impl Process {
    /// What it wrote.
    #[must_use]
    pub const fn output(&self) -> &Output {
        &self.output
    }

    /// Its process id.
    #[must_use]
    pub const fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends a signal; one to a process that has ended is lost.
    pub fn signal(&self, signal: Signal) {
        let mut child = lock(&self.child);
        // A reaped child's number may belong to a stranger by now.
        if matches!(child.try_wait(), Ok(None)) {
            let _ = kill_process(self.pid, signal);
        }
    }

    /// How it ended; `None` while it runs.
    #[must_use]
    pub fn exit_status(&self) -> Option<ExitStatus> {
        lock(&self.child).try_wait().ok().flatten()
    }

    /// Waits until `condition` gives a value, for `within` at most.
    ///
    /// # Errors
    /// When the time is up, or at once when the process has ended; the error has its output.
    pub async fn ready<T, E: Display>(
        &self,
        within: Duration,
        what: &str,
        mut condition: impl AsyncFnMut() -> Result<T, E>,
    ) -> anyhow::Result<T> {
        let outcome = eventually(within, what, async || match condition().await {
            Ok(value) => Ok(Ok(value)),
            Err(state) => match self.exit_status() {
                Some(status) => Ok(Err(status)),
                None => Err(format!("{state}; its output:\n{}", self.output.text())),
            },
        })
        .await?;
        match outcome {
            Ok(value) => Ok(value),
            Err(status) => {
                self.said_everything().await;
                anyhow::bail!("{} ended with {status}:\n{}", self.name, self.output.text())
            }
        }
    }

    /// Waits for it to end, and for its last words.
    ///
    /// # Errors
    /// When it still runs after `within`; the error has its output.
    pub async fn ended(&self, within: Duration) -> anyhow::Result<ExitStatus> {
        let status = eventually(within, &format!("{} ends", self.name), async || {
            self.exit_status().ok_or_else(|| format!("it runs; its output:\n{}", self.output.text()))
        })
        .await?;
        self.said_everything().await;
        Ok(status)
    }

    /// Bounded: a child of the process may hold its streams open.
    async fn said_everything(&self) {
        let _ = eventually(LAST_WORDS, "the output is whole", async || {
            if self.output.is_whole() { Ok(()) } else { Err("somebody holds it open") }
        })
        .await;
    }

    /// Ends it at once, as `kill -9` does, and waits until it is gone.
    pub fn kill(&self) {
        let mut child = lock(&self.child);
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if !TALKATIVE.load(Ordering::Relaxed) {
            return;
        }
        let lines = self.output.lines();
        let skipped = lines.len().saturating_sub(PRINTED_LINES);
        println!("--- {} (process {}), last lines:", self.name, self.pid());
        lines.iter().skip(skipped).for_each(|line| println!("{line}"));
    }
}
