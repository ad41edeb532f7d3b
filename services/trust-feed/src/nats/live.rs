//! Following an instance without JetStream: what passes on its subjects from now on.
//!
//! This is how agents follow. A login that may hear three subjects and nothing else is
//! worth little to a thief: JetStream's rights would give more, since a consumer can be
//! told to deliver to any subject, and a stream read holds every instance. What an agent
//! has missed shows at the next change or head, and comes over gRPC.

use std::sync::Arc;

use async_nats::{Client, Message, Subscriber};
use catrust_domain::InstanceId;
use futures::StreamExt as _;
use futures::stream;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::NatsFeed;
use crate::feed::{FeedError, FeedItem, FeedStream, GapReason};
use crate::subject;

impl NatsFeed {
    /// Follows an instance: every change, head and key set as it comes, nothing from before.
    ///
    /// Needs the right to subscribe to `catrust.v1.trust.<instance>.*`, `catrust.v1.live.<instance>`
    /// (changes that the stream will only come to later), `catrust.v1.head.<instance>` and
    /// `catrust.v1.keys`, and no other. Messages may be missing around a
    /// [`FeedItem::Gap`]; none of them comes again.
    ///
    /// # Errors
    /// [`FeedError::Unavailable`] while there is no connection, [`FeedError::Unsuitable`];
    /// later interruptions are items, after which the stream goes on by itself.
    pub async fn follow_live(&self, instance_id: &InstanceId) -> Result<FeedStream, FeedError> {
        self.check_server()?;
        let mut interruptions = self.interruptions.clone();
        interruptions.mark_unchanged();
        let live = LiveFeed {
            changes: listen(&self.client, subject::trust_of_instance(instance_id)).await?,
            early: listen(&self.client, subject::live(instance_id)).await?,
            keys: listen(&self.client, subject::KEYS.to_owned()).await?,
            heads: listen(&self.client, subject::head(instance_id)).await?,
            interruptions,
        };
        Ok(stream::unfold(live, |mut live| async move { Some((live.next().await?, live)) }).boxed())
    }
}

async fn listen(client: &Client, subject: String) -> Result<Subscriber, FeedError> {
    client.subscribe(subject).await.map_err(FeedError::unavailable)
}

struct LiveFeed {
    changes: Subscriber,
    /// Changes that come by the stream later, too.
    early: Subscriber,
    keys: Subscriber,
    heads: Subscriber,
    interruptions: watch::Receiver<u64>,
}

impl LiveFeed {
    /// The next item; `None` when the feed was dropped.
    async fn next(&mut self) -> Option<FeedItem> {
        // Keys first: what follows may be signed with them. Then changes: a head is weighed
        // after the changes that came before it.
        Some(tokio::select! {
            biased;
            Ok(()) = self.interruptions.changed() => FeedItem::Gap(GapReason::Interrupted),
            keys = self.keys.next() => read(&keys?, FeedItem::KeySet),
            change = self.changes.next() => read(&change?, FeedItem::Change),
            change = self.early.next() => read(&change?, FeedItem::Change),
            head = self.heads.next() => read(&head?, FeedItem::Head),
        })
    }
}

/// What a message says. One that cannot be read is told, whatever it was.
fn read<M: DeserializeOwned>(message: &Message, item: impl FnOnce(Arc<M>) -> FeedItem) -> FeedItem {
    match serde_json::from_slice(&message.payload) {
        Ok(body) => item(Arc::new(body)),
        Err(_) => FeedItem::Gap(GapReason::Unreadable),
    }
}
