//! TLS connections that the broker itself makes are not the plugin's business.

use crate::eventually::{LIMIT, eventually};
use crate::mosquitto::{Broker, Settings};
use crate::mqtt;
use crate::stage::Stage;
use crate::trust::ACTIVE;

#[tokio::test]
async fn a_bridge_to_another_broker_verifies_that_broker_as_before() {
    let mut far = Stage::new().await;
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let bridge = far.a.device("bridge");
    let settings = Settings {
        listener: format!(
            "connection far\naddress {}\ntopic # out 0\nrestart_timeout 1\nbridge_cafile {}\n\
             bridge_certfile {}\nbridge_keyfile {}",
            far.broker.address,
            write("far.pem", &far.broker.server_ca.pem),
            write("bridge.pem", &bridge.pem),
            write("bridge.key", &bridge.key_pem),
        ),
        ..Settings::default()
    };
    // The near broker trusts nobody yet: with the hook on its client side, the far
    // broker's certificate would be refused too.
    let near = Broker::start(&settings).await;
    eventually(LIMIT, "the bridge is up", async || {
        let open = far.set_a(ACTIVE).await.open;
        if open == 1 { Ok(()) } else { Err(format!("{open} sessions\n{}", near.log())) }
    })
    .await
    .unwrap();
    let mut listener = far.device_b("b1").connect(&far.broker).await;
    listener.subscribe("hello").await;
    let mut agent = crate::agent::Agent::connect(&near).await;
    agent.apply(crate::trust::bundle(1, &[(&far.b, ACTIVE)])).await;
    let mut speaker = crate::device::Device::new(&near, &far.b, "b2").connect(&near).await;
    speaker.send(&mqtt::publish("hello", b"far", 1)).await;
    assert_eq!(mqtt::published(&listener.next().await.unwrap()).1, b"far");
}
