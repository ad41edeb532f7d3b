//! A real `nats-server` of a test's own: a free port on 127.0.0.1, a directory of its
//! own, and an end with the test.

use std::ffi::OsString;
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Environment variable that names another binary than the one on the path.
const BINARY: &str = "NATS_SERVER_BIN";
const PATIENCE: Duration = Duration::from_secs(20);

/// The server. Killed when dropped, and by the kernel should the test die first.
#[derive(Debug)]
pub struct NatsServer {
    port: u16,
    directory: TempDir,
    jetstream: bool,
    arguments: Vec<String>,
    process: Option<Child>,
}

impl NatsServer {
    /// Starts a server with JetStream and waits until it answers.
    ///
    /// # Panics
    /// Where there is no binary, or it does not answer in time.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with more arguments.
    ///
    /// # Panics
    /// As [`NatsServer::start`].
    #[must_use]
    pub fn start_with(arguments: &[&str]) -> Self {
        let mut server = Self::prepared(arguments);
        server.restart();
        server
    }

    /// Starts a server that has JetStream turned off.
    ///
    /// # Panics
    /// As [`NatsServer::start`].
    #[must_use]
    pub fn start_without_jetstream() -> Self {
        let mut server = Self::prepared(&[]);
        server.jetstream = false;
        server.restart();
        server
    }

    /// Takes a port without starting anything on it.
    ///
    /// # Panics
    /// Where there is no free port or no temporary directory.
    #[must_use]
    pub fn prepared(arguments: &[&str]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        Self {
            port: listener.local_addr().expect("a bound port").port(),
            directory: tempfile::tempdir().expect("a temporary directory"),
            jetstream: true,
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            process: None,
        }
    }

    /// Address for clients.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Directory that JetStream stores in.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    /// Asks the server or a service on it, as a client of its own; gives the answer.
    ///
    /// # Panics
    /// Where there is no answer.
    pub async fn request(&self, subject: &str, payload: &str) -> Vec<u8> {
        let client = async_nats::connect(self.url()).await.expect("a connection");
        let answer = client
            .request(subject.to_owned(), payload.to_owned().into())
            .await
            .unwrap_or_else(|error| panic!("no answer on {subject}: {error}"));
        answer.payload.to_vec()
    }

    /// Kills the server as `kill -9` does; its files stay.
    ///
    /// # Panics
    /// Where it cannot be killed.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("the server can be killed");
            process.wait().expect("the server ends");
        }
    }

    /// Starts the server, killed before if it runs, on the same port and files.
    ///
    /// # Panics
    /// As [`NatsServer::start`].
    pub fn restart(&mut self) {
        self.kill();
        let binary = std::env::var(BINARY).unwrap_or_else(|_| "nats-server".to_owned());
        let storage: [OsString; 3] = ["-js".into(), "-sd".into(), self.store().into_os_string()];
        let log = self.directory.path().join("log");
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&binary)
            .args(["-a", "127.0.0.1", "-p", &self.port.to_string()])
            .args(self.jetstream.then_some(storage).into_iter().flatten())
            .arg("-l")
            .arg(&log)
            .args(&self.arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {binary} (set {BINARY} to name another): {error}"));
        self.process = Some(process);
        let started = Instant::now();
        while !self.answers() {
            let state = self.process.as_mut().map(Child::try_wait);
            assert!(
                started.elapsed() < PATIENCE && matches!(state, Some(Ok(None))),
                "{binary} does not answer ({state:?}): {}",
                std::fs::read_to_string(&log).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn answers(&self) -> bool {
        let Ok(mut connection) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) else { return false };
        let mut greeting = [0; 4];
        connection.set_read_timeout(Some(Duration::from_secs(1))).is_ok()
            && connection.read_exact(&mut greeting).is_ok()
            && &greeting == b"INFO"
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // Both fail only where it has ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
