//! The feed on NATS JetStream.
//!
//! One stream in use, of the numbered ones in `streams`, of which catrust owns every setting but placement. Message
//! `p` is published with `Nats-Expected-Last-Sequence: p-1`, so that the server itself
//! refuses whatever would break "sequence == position". Works from NATS 2.9; nothing
//! here needs a newer one.
//!
//! The connection is made in the background and made again for ever: a server that
//! is away shows as [`FeedError::Unavailable`] from each call, never as a failure to
//! start.

mod inspect;
mod live;
mod publish;
mod receipt;
mod receipts_in;
mod settings;
mod spending;
mod stream;
mod streams;
mod subscribe;
mod wire;

use std::mem::{Discriminant, discriminant};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_nats::connection::State;
use async_nats::jetstream::Context;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::{Client, ConnectOptions, Event};
use async_trait::async_trait;
use catrust_domain::{InstanceId, Timestamp};
use catrust_proto::v1::{Head, KeySet};
use tokio::sync::watch;

use crate::feed::{FeedError, FeedStream, FeedTail, KeptMessage, TailMessage, TrustFeed};
use crate::message::{FeedBody, FeedMessage};
use crate::subject;

pub use receipts_in::{IncomingReceipt, NoReceipt, ReceiptStream};
pub use settings::NatsSettings;
pub use spending::{SpendingSender, SpendingStream};
pub use streams::{MAX_STREAMS, StreamOutline, StreamUse, stream_name};

/// Acks in flight at most.
const WINDOW: usize = 256;
/// How long an answer of JetStream may take. An ack that was lost with its connection
/// costs this long, and it is time that a revocation waits.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the connection is proved to be alive; two misses end it.
const PING_INTERVAL: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Where answers to questions come: under a prefix of their own, so that a login may hear
/// these and nobody else's.
const INBOX: &str = "_INBOX.catrust";
/// Shortest time between two lines about the same kind of trouble: a flood must not become
/// one in the log.
const BETWEEN_COMPLAINTS: Duration = Duration::from_secs(10);
/// Longest pause between two attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The feed; clones share the connection.
#[derive(Clone)]
pub struct NatsFeed {
    client: Client,
    jetstream: Context,
    streams: Arc<stream::Streams>,
    /// Server that was found suitable last, so that each is told once.
    known_server: Arc<Mutex<String>>,
    /// Counts what may have cost messages: a renewed connection, a full buffer.
    interruptions: watch::Receiver<u64>,
}

impl NatsFeed {
    /// Starts to connect. Returns at once, whether the server is there or not.
    ///
    /// # Errors
    /// [`FeedError::Unsuitable`] for settings that cannot work: a malformed address, a
    /// file that cannot be read.
    pub async fn connect(settings: &NatsSettings) -> Result<Self, FeedError> {
        let told = Arc::new(Mutex::new(ConnectionLog::default()));
        let (interrupt, interruptions) = watch::channel(0_u64);
        let interrupt = Arc::new(interrupt);
        let options = settings
            .authenticate(ConnectOptions::new())?
            .name("catrust")
            .custom_inbox_prefix(INBOX)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .ping_interval(PING_INTERVAL)
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(ANSWER_TIMEOUT))
            .subscription_capacity(subscribe::SUBSCRIPTION_BUFFER)
            .reconnect_delay_callback(|attempts| {
                let pause = Duration::from_millis(50).saturating_mul(attempts.try_into().unwrap_or(u32::MAX));
                pause.min(LONGEST_PAUSE)
            })
            .event_callback(move |event| {
                told.lock().unwrap_or_else(PoisonError::into_inner).tell(&event);
                if matches!(event, Event::Connected | Event::SlowConsumer(_)) {
                    interrupt.send_modify(|count| *count += 1);
                }
                async {}
            });
        let client = options
            .connect(settings.servers()?)
            .await
            .map_err(|error| FeedError::Unsuitable(format!("NATS settings cannot be used: {error}")))?;
        let jetstream = ContextBuilder::new()
            .timeout(ANSWER_TIMEOUT)
            .ack_timeout(ANSWER_TIMEOUT)
            .max_ack_inflight(WINDOW)
            .backpressure_on_inflight(true)
            .build(client.clone());
        Ok(Self {
            client,
            jetstream,
            streams: Arc::new(stream::Streams::new(settings.replicas, settings.max_streams)),
            known_server: Arc::default(),
            interruptions,
        })
    }

    /// Whether there is a connection. A server that hangs shows after two pings.
    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Fails while there is no connection, instead of queueing for later.
    fn check_connected(&self) -> Result<(), FeedError> {
        if self.is_connected() {
            Ok(())
        } else {
            Err(FeedError::unavailable("there is no connection to NATS"))
        }
    }

    /// Checks the server's version, once for each server.
    fn check_server(&self) -> Result<(), FeedError> {
        self.check_connected()?;
        let info = self.client.server_info();
        let identity = format!("{} {}", info.server_id, info.version);
        let mut known = self.known_server.lock().unwrap_or_else(PoisonError::into_inner);
        if *known != identity {
            stream::check_version(&info.version)?;
            tracing::info!(nats.version = %info.version, nats.server = %info.server_name, "connected to NATS");
            *known = identity;
        }
        Ok(())
    }
}

/// By this machine's clock: how many streams were made within a day needs no better one.
fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_micros(i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX))
}

/// Tells what happens to the connection: each change once, and trouble now and then.
#[derive(Default)]
struct ConnectionLog {
    connected: Option<bool>,
    /// When each kind of trouble was told last.
    troubles: Vec<(Discriminant<Event>, Instant)>,
}

impl ConnectionLog {
    fn tell(&mut self, event: &Event) {
        match event {
            Event::Connected => self.tell_connection(true),
            Event::Disconnected => self.tell_connection(false),
            trouble => {
                if self.is_due(discriminant(trouble)) {
                    tracing::warn!(nats.event = %trouble, "NATS connection");
                }
            }
        }
    }

    fn tell_connection(&mut self, connected: bool) {
        if self.connected.replace(connected) == Some(connected) {
            return;
        }
        if connected {
            tracing::info!("NATS connection is up");
        } else {
            tracing::warn!("NATS connection is lost");
        }
    }

    fn is_due(&mut self, kind: Discriminant<Event>) -> bool {
        self.troubles.retain(|(_, at)| at.elapsed() < BETWEEN_COMPLAINTS);
        let known = self.troubles.iter().any(|(told, _)| *told == kind);
        if !known {
            self.troubles.push((kind, Instant::now()));
        }
        !known
    }
}

#[async_trait]
impl TrustFeed for NatsFeed {
    async fn tail(&self) -> Result<FeedTail, FeedError> {
        self.check_server()?;
        let info = self.streams.ensure(&self.jetstream, now()).await?;
        stream::tail(&self.jetstream, &info).await
    }

    async fn oldest(&self) -> Result<Option<TailMessage>, FeedError> {
        self.check_connected()?;
        Ok(self.kept_after(0).await?.and_then(|kept| kept.row))
    }

    async fn kept_after(&self, sequence: u64) -> Result<Option<KeptMessage>, FeedError> {
        self.check_connected()?;
        self.kept_in_named(&self.streams.name(), sequence).await
    }

    async fn streams(&self) -> Result<u64, FeedError> {
        Ok(self.outlines().await?.len() as u64)
    }

    async fn publish(&self, messages: &[FeedMessage]) -> Result<(), FeedError> {
        self.check_connected()?;
        publish::publish(self, messages).await
    }

    async fn publish_head(&self, head: &Head) -> Result<(), FeedError> {
        self.check_connected()?;
        let instance_id: InstanceId = head.mqtt_instance_id.parse().map_err(FeedError::unavailable)?;
        let json = serde_json::to_vec(head).map_err(FeedError::unavailable)?;
        self.client.publish(subject::head(&instance_id), json.into()).await.map_err(FeedError::unavailable)
    }

    async fn publish_key_set(&self, set: &KeySet) -> Result<(), FeedError> {
        self.check_connected()?;
        let json = serde_json::to_vec(set).map_err(FeedError::unavailable)?;
        self.client.publish(subject::KEYS, json.into()).await.map_err(FeedError::unavailable)
    }

    async fn publish_checkpoint(&self, note: &str) -> Result<(), FeedError> {
        self.check_connected()?;
        let note = note.as_bytes().to_vec();
        self.client.publish(subject::CHECKPOINT, note.into()).await.map_err(FeedError::unavailable)
    }

    async fn publish_live(&self, message: &FeedMessage) -> Result<(), FeedError> {
        self.check_connected()?;
        let FeedBody::Change(_) = &message.body else { return Ok(()) };
        let subject = subject::live(&message.instance_id);
        self.client.publish(subject, message.json.clone()).await.map_err(FeedError::unavailable)
    }

    async fn set_aside(&self, made_at: Timestamp) -> Result<(), FeedError> {
        self.check_server()?;
        self.streams.set_aside(&self.jetstream, made_at, now()).await
    }

    async fn subscribe(&self, instance_id: &InstanceId) -> Result<FeedStream, FeedError> {
        self.check_server()?;
        let streams = Arc::clone(&self.streams);
        let interruptions = self.interruptions.clone();
        subscribe::subscribe(&self.client, &self.jetstream, streams, instance_id, interruptions).await
    }
}
