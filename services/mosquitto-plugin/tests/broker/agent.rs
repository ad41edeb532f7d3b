//! The agent's side of the control topic.

use std::path::Path;

use catrust_mosquitto_control::{
    Bundle, DEFAULT_AGENT_USER, REQUEST_TOPIC, RESPONSE_TOPIC, Renewal, Request, RequestBody, RequestOutcome,
    Response,
};
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;

use crate::eventually::within;
use crate::mosquitto::Broker;
use crate::mqtt::{self, Connect};

pub struct Agent {
    stream: UnixStream,
    next_id: u64,
}

impl Agent {
    pub async fn connect(broker: &Broker) -> Self {
        Self::connect_to(&broker.admin_socket()).await
    }

    pub async fn connect_to(socket: &Path) -> Self {
        let mut stream = UnixStream::connect(socket).await.unwrap();
        let connect =
            Connect { user_name: Some(DEFAULT_AGENT_USER.to_owned()), ..Connect::new("catrust-agent-1") };
        stream.write_all(&connect.encode()).await.unwrap();
        let connack = within("the agent connects", mqtt::read(&mut stream)).await.unwrap().unwrap();
        assert_eq!((connack.kind, connack.body[1]), (mqtt::CONNACK, 0));
        Self { stream, next_id: 1 }
    }

    pub async fn send(&mut self, body: RequestBody) -> Response {
        let request = Request { id: self.next_id, body };
        self.next_id += 1;
        let response = self.send_raw(&serde_json::to_vec(&request).unwrap()).await;
        if response.reason.is_empty() {
            assert_eq!(response.id, request.id);
        }
        response
    }

    /// Publishes any bytes, and waits for the response.
    pub async fn send_raw(&mut self, payload: &[u8]) -> Response {
        self.stream.write_all(&mqtt::publish(REQUEST_TOPIC, payload, 1)).await.unwrap();
        loop {
            let packet = within("the plugin answers", mqtt::read(&mut self.stream)).await.unwrap();
            let packet = packet.expect("the broker keeps the agent's connection");
            if packet.kind == mqtt::PUBLISH {
                let (topic, payload) = mqtt::published(&packet);
                assert_eq!(topic, RESPONSE_TOPIC);
                let id = mqtt::packet_id(&packet);
                self.stream.write_all(&mqtt::packet(0x40, id.to_be_bytes().to_vec())).await.unwrap();
                return serde_json::from_slice(&payload).unwrap();
            }
            assert_eq!(packet.kind, mqtt::PUBACK);
        }
    }

    pub async fn bundle(&mut self, bundle: Bundle) -> Response {
        self.send(RequestBody::Bundle(bundle)).await
    }

    /// Sends a bundle that must be applied.
    pub async fn apply(&mut self, bundle: Bundle) -> Response {
        let (revision, digest) = (bundle.revision, bundle.digest);
        let response = self.bundle(bundle).await;
        assert_eq!((response.outcome, response.reason.as_str()), (RequestOutcome::Applied, ""));
        assert_eq!((response.revision, response.digest), (revision, Some(digest)));
        response
    }

    /// Sends a bundle that must be refused; gives the reason.
    pub async fn refused(&mut self, bundle: Bundle) -> String {
        let response = self.bundle(bundle).await;
        assert_eq!(response.outcome, RequestOutcome::Refused);
        response.reason
    }

    pub async fn renew(&mut self, renewal: Renewal) -> Response {
        self.send(RequestBody::Renewal(renewal)).await
    }
}
