//! The sample configuration under `deploy/`.

use std::path::{Path, PathBuf};

use catrust_mosquitto_control::configuration::Configuration;

use crate::agent::Agent;
use crate::authority::Authority;
use crate::device::Device;
use crate::mosquitto::{Broker, plugin};
use crate::mqtt;
use crate::trust::{ACTIVE, INACTIVE, bundle};

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/mosquitto").join(name)
}

fn replace_once(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the sample has no {from:?} any more");
    text.replace(from, to)
}

#[test]
fn the_sample_has_nothing_to_change() {
    let configuration = Configuration::read(&sample("mosquitto.conf")).unwrap();
    assert_eq!(configuration.findings(), []);
    assert!(configuration.loads_the_plugin());
    let socket = configuration.option("control_socket").map(PathBuf::from);
    assert_eq!(configuration.unix_listeners(), socket.into_iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn the_sample_runs_with_other_paths() {
    let text = std::fs::read_to_string(sample("mosquitto.conf")).unwrap();
    let acl = std::fs::read_to_string(sample("catrust.acl")).unwrap();
    let broker = Broker::start_with(&acl, |path, address| {
        let here = |name: &str| path.join(name).display().to_string();
        let mut text = format!("user root\n{text}");
        for (from, to) in [
            ("/etc/mosquitto/certs/ca.pem", here("ca.pem")),
            ("/etc/mosquitto/certs/server.pem", here("server.pem")),
            ("/etc/mosquitto/certs/server.key", here("server.key")),
            ("/etc/mosquitto/catrust.acl", here("acl")),
            ("/run/catrust/mosquitto.sock", here("admin.sock")),
            ("/usr/lib/catrust/libcatrust_mosquitto.so", plugin().display().to_string()),
            ("/var/lib/mosquitto/", format!("{}/", path.display())),
            ("listener 8883", format!("listener {} 127.0.0.1", address.port())),
            ("log_dest syslog", "log_dest stderr".to_owned()),
        ] {
            text = replace_once(&text, from, &to);
        }
        text
    })
    .await;
    let ca = Authority::new("CA");
    let mut agent = Agent::connect(&broker).await;
    agent.apply(bundle(1, &[(&ca, ACTIVE)])).await;
    let device = Device::new(&broker, &ca, "d1");
    let mut session = device.connect(&broker).await;
    session.subscribe("#").await;
    session.subscribe("$CONTROL/#").await;
    for topic in ["devices/d2/in", "$CONTROL/ca-trust/v1", "devices/d1/in"] {
        session.send(&mqtt::publish(topic, b"hello", 2)).await;
    }
    let heard = loop {
        let packet = session.next().await.unwrap();
        if packet.kind == mqtt::PUBLISH {
            break mqtt::published(&packet).0;
        }
    };
    assert_eq!(heard, "devices/d1/in");
    assert_eq!(agent.apply(bundle(2, &[(&ca, INACTIVE)])).await.kicked, 1);
    session.closed().await;
}
