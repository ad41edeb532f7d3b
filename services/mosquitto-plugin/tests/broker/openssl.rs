//! `openssl s_client`: a foreign TLS client, and one that a thief would use.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::mosquitto::Broker;
use crate::mqtt::Connect;

/// What came of one run.
pub struct Run {
    pub output: Vec<u8>,
}

impl Run {
    pub fn is_resumed(&self) -> bool {
        self.text().contains("Reused, ")
    }

    /// The return code of the CONNACK, if there was one.
    pub fn connack(&self) -> Option<u8> {
        let at = self.output.windows(3).position(|bytes| bytes == [0x20, 2, 0])?;
        self.output.get(at + 3).copied()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }
}

/// Connects with `arguments`, says CONNECT as `client_id`, and reads until the broker
/// ends the connection, or answers.
pub async fn s_client(broker: &Broker, arguments: &[&str], client_id: &str) -> Run {
    let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
    let (address, connect) = (broker.address.to_string(), Connect::new(client_id).encode());
    tokio::task::spawn_blocking(move || run(&address, &arguments, &connect)).await.unwrap()
}

fn run(address: &str, arguments: &[String], connect: &[u8]) -> Run {
    use std::io::Read as _;
    // `timeout`: the broker keeps an accepted session open for ever.
    let mut child = Command::new("timeout")
        .args(["10", "openssl", "s_client", "-connect", address, "-nocommands", "-ign_eof"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(connect).unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (mut output, mut buffer) = (Vec::new(), [0; 4096]);
    let mut run = Run { output: Vec::new() };
    while let Ok(count @ 1..) = stdout.read(&mut buffer) {
        output.extend_from_slice(&buffer[..count]);
        run.output.clone_from(&output);
        if run.connack() == Some(0) {
            // DISCONNECT; the broker then ends the connection, and s_client with it,
            // after it has written what it was asked to.
            let _ = stdin.write_all(&[0xe0, 0]);
        }
    }
    let _ = child.wait();
    run
}

/// Runs `openssl` to its end.
pub fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A path as an argument.
pub fn argument(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
