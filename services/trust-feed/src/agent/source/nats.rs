//! The NATS feed, all the time: also while gRPC is leaned on, to notice when NATS is
//! well again.

use std::sync::Arc;
use std::time::Duration;

use catrust_domain::InstanceId;
use futures::StreamExt as _;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::{AgentGone, OutageLog, pause, send};
use crate::agent::core::{Input, Message, SourceKind};
use crate::feed::{FeedError, FeedItem, FeedStream, GapReason};
use crate::nats::NatsFeed;

/// How often the connection is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Follows an instance on NATS.
pub struct NatsSource {
    /// The feed.
    pub feed: NatsFeed,
    /// Instance to follow.
    pub instance_id: InstanceId,
    /// Where messages go.
    pub inputs: mpsc::Sender<Input>,
}

impl NatsSource {
    /// Runs until the agent has gone.
    pub async fn run(self) {
        // The only way out.
        let _ = self.follow_for_ever().await;
    }

    async fn follow_for_ever(&self) -> Result<(), AgentGone> {
        let mut failures = 0;
        let mut outage_log = OutageLog::default();
        loop {
            match self.feed.follow_live(&self.instance_id).await {
                Ok(stream) => {
                    outage_log.forget();
                    failures = 0;
                    send(&self.inputs, Input::SourceUp(SourceKind::Nats)).await?;
                    self.follow(stream).await?;
                }
                Err(error) => outage_log.tell("nats", text(&error)),
            }
            send(&self.inputs, Input::SourceLost(SourceKind::Nats)).await?;
            tokio::time::sleep(pause(failures)).await;
            failures += 1;
        }
    }

    /// Passes on what comes. The stream mends itself; it ends with the feed alone.
    async fn follow(&self, mut stream: FeedStream) -> Result<(), AgentGone> {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut connected = true;
        loop {
            tokio::select! {
                item = stream.next() => match item {
                    Some(item) => self.pass(item).await?,
                    None => return Ok(()),
                },
                _ = look.tick() => {
                    if self.feed.is_connected() != connected {
                        connected = !connected;
                        let input = if connected { Input::SourceUp } else { Input::SourceLost };
                        send(&self.inputs, input(SourceKind::Nats)).await?;
                    }
                }
            }
        }
    }

    async fn pass(&self, item: FeedItem) -> Result<(), AgentGone> {
        let message = match item {
            FeedItem::Change(change) => Message::Change(Box::new(Arc::unwrap_or_clone(change))),
            FeedItem::Head(head) => Message::Head(Arc::unwrap_or_clone(head)),
            FeedItem::KeySet(set) => Message::KeySet(Box::new(Arc::unwrap_or_clone(set))),
            FeedItem::Gap(GapReason::Unreadable) => {
                return send(&self.inputs, Input::Unreadable(SourceKind::Nats)).await;
            }
            // What is missing shows at the next change or head.
            FeedItem::Gap(GapReason::Lagged | GapReason::Interrupted) => return Ok(()),
        };
        send(&self.inputs, Input::Message(SourceKind::Nats, message)).await
    }
}

fn text(error: &FeedError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
