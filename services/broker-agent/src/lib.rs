//! catrust for MQTT brokers: who is trusted now, and how to stop trusting at once.
//!
//! ```text
//! trust-feed's agent ─ AgentTrust ─▶ BrokerTrust ─ trust ─▶ DeviceVerifier (full handshakes)
//!                                        │   └─ epoch ─▶ TlsFront (resumption)
//!                                        └─ registry ─▶ Session::cut (live sessions)
//! ```
//!
//! A broker in Rust gives its listener a [`TlsFront`], holds the [`Session`] of each
//! connection, and ends the connection when the session is cut. [`BrokerTrust`] is the
//! [`Enforcer`](catrust_trust_feed::agent::Enforcer) that an agent drives. Brokers in
//! other languages stand behind the [`gate`], which is built of the same parts.
//!
//! # A broker
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use catrust_broker_agent::gate::identity::FileIdentity;
//! use catrust_broker_agent::{BrokerTrust, Cause, Resumption, TlsFront};
//! use catrust_trust_feed::TrustKeys;
//! use catrust_trust_feed::agent::{Agent, AgentSettings, GrpcSettings};
//! use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
//! use tokio::net::{TcpListener, TcpStream};
//! use tokio_util::sync::CancellationToken;
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // Refuses everybody until the agent has brought the first trust.
//!     let trust = Arc::new(BrokerTrust::default());
//!     // Or a `KeyRing` with a root key, where the servers' keys may change.
//!     let mut settings = AgentSettings::new(
//!         "fleet-1".parse()?,
//!         "broker-7".parse()?,
//!         TrustKeys::load(["trust.pub.pem"])?,
//!         GrpcSettings::new("http://127.0.0.1:50051"),
//!     );
//!     settings.state_directory = Some("state".into());
//!     let agent = Agent::start(settings, trust.clone()).await?;
//!
//!     let stop = CancellationToken::new();
//!     tokio::spawn({
//!         let (trust, stop) = (trust.clone(), stop.clone());
//!         async move { trust.watch_expiry(stop).await }
//!     });
//!
//!     let identity = Arc::new(FileIdentity::load("broker.pem".as_ref(), "broker.key".as_ref())?);
//!     let front = Arc::new(TlsFront::new(trust, identity, Resumption::Tickets)?);
//!     let listener = TcpListener::bind("0.0.0.0:8883").await?;
//!     loop {
//!         tokio::select! {
//!             // Nobody would say any more whom to distrust.
//!             ended = agent.ended() => return Err(ended.into()),
//!             accepted = listener.accept() => {
//!                 let (socket, _) = accepted?;
//!                 tokio::spawn(serve(front.clone(), socket));
//!             }
//!         }
//!     }
//! }
//!
//! async fn serve(front: Arc<TlsFront>, socket: TcpStream) {
//!     // Full or resumed: what comes out is trusted now, and registered.
//!     let accepted = tokio::time::timeout(Duration::from_secs(10), front.accept(socket)).await;
//!     let Ok(Ok((mut device, mut session))) = accepted else { return };
//!     let publish_will = tokio::select! {
//!         biased;
//!         cut = session.cut() => cut.cause == Cause::Distrusted { with_will: true },
//!         properly = speak_mqtt(&mut device) => !properly,
//!     };
//!     if publish_will {
//!         // ... to the subscribers.
//!     }
//!     let _ = device.shutdown().await;
//!     // The session ends here: it was open as long as the connection was.
//! }
//!
//! /// The broker's own work; gives whether the device said DISCONNECT.
//! async fn speak_mqtt(device: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> bool {
//!     // ...
//! #   let _ = device;
//!     true
//! }
//! ```

mod broker_trust;
pub mod gate;
pub mod mosquitto;
mod registry;
mod revision_trust;
mod session;
mod tls_front;
mod verifier;

pub use broker_trust::BrokerTrust;
pub use catrust_device_trust::{Refusal, TrustPath, TrustSet, UnusableCertificate};
pub use registry::{SessionId, SessionRegistry};
pub use revision_trust::RevisionTrust;
pub use session::{Cause, Cut, Session};
pub use tls_front::{AcceptError, Resumption, TlsFront};
pub use verifier::DeviceVerifier;
