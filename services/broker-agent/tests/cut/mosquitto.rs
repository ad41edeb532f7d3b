//! Debian's Mosquitto, private to one test, and as much MQTT as it takes to talk to it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use catrust_test_harness::directory::temporary;
use catrust_test_harness::mosquitto::launcher;
use catrust_test_harness::process::Process;
use catrust_test_harness::program::free_port;
use tempfile::TempDir;

use crate::harness::PATIENCE;

/// A broker without TLS that lets everybody in.
pub struct Mosquitto {
    pub address: String,
    _process: Process,
    _dir: TempDir,
}

impl Mosquitto {
    pub async fn start() -> Self {
        let (dir, port) = (temporary("catrust-mosquitto-").unwrap(), free_port().unwrap());
        let config = dir.path().join("mosquitto.conf");
        std::fs::write(&config, format!("listener {port} 127.0.0.1\nallow_anonymous true\n")).unwrap();
        let (process, address) = (launcher(&config).start().unwrap(), format!("127.0.0.1:{port}"));
        let answer = async || tokio::net::TcpStream::connect(&address).await;
        process.ready(PATIENCE, "Mosquitto answers", answer).await.unwrap();
        Self { address, _process: process, _dir: dir }
    }
}

/// A packet of up to 127 bytes.
fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    [&[first, u8::try_from(body.len()).unwrap()], body.as_slice()].concat()
}

fn string(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
}

/// CONNECT, MQTT 3.1.1 or 5, with a last will on `topic`.
pub fn connect_with_will(client: &str, topic: &str, level: u8) -> Vec<u8> {
    let none: &[u8] = if level == 5 { &[0] } else { &[] };
    let will = [none, &string(topic), &string("gone")].concat();
    packet(0x10, &[&string("MQTT"), &[level, 0x06, 0, 60], none, &string(client), &will])
}

/// CONNECT, MQTT 3.1.1.
pub fn connect(client: &str) -> Vec<u8> {
    packet(0x10, &[&string("MQTT"), &[4, 0x02, 0, 60], &string(client)])
}

/// PUBLISH with QoS 0.
pub fn publish(topic: &str, payload: &str) -> Vec<u8> {
    packet(0x30, &[&string(topic), payload.as_bytes()])
}

/// Somebody who is subscribed to everything, without TLS.
pub struct Observer(TcpStream);

impl Observer {
    pub fn connect(broker: &Mosquitto) -> Self {
        let mut stream = TcpStream::connect(&broker.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&connect("observer")).unwrap();
        stream.write_all(&packet(0x82, &[&[0, 1], &string("#"), &[0]])).unwrap();
        let mut answers = [0; 9];
        stream.read_exact(&mut answers).unwrap();
        assert_eq!(answers[..4], [0x20, 2, 0, 0]);
        Self(stream)
    }

    /// Publishes through the observer's own connection.
    pub fn say(&mut self, topic: &str) {
        self.0.write_all(&publish(topic, "x")).unwrap();
    }

    /// Waits for the next message and gives its topic.
    pub fn hear(&mut self) -> String {
        let mut head = [0; 4];
        self.0.read_exact(&mut head).unwrap();
        assert_eq!(head[0] & 0xf0, 0x30, "no PUBLISH: {head:?}");
        let mut rest = vec![0; usize::from(head[1]) - 2];
        self.0.read_exact(&mut rest).unwrap();
        String::from_utf8(rest[..usize::from(head[3])].to_vec()).unwrap()
    }
}
