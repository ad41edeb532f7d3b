//! `WatchTrust`: the feed over gRPC.
//!
//! A watcher subscribes to the in-process feed first and then brings the reader up
//! to date from the store, with the changes that it misses or with a bundle; live
//! changes at or below that revision are passed over. So nothing is lost between
//! the two, and nothing is sent twice. A reader that falls behind the feed's buffer
//! is brought up to date in the same way. The key set goes before all of it.

use std::pin::Pin;
use std::sync::Arc;

use catrust_domain::{InstanceId, Rejection, error_chain};
use catrust_event_store::BundleAt;
use catrust_proto::v1;
use catrust_proto::v1::trust_message::Message;
use catrust_signing::KeySet;
use catrust_trust_feed::{
    FeedItem, FeedMessage, FeedStream, Signed as _, TrustFeed as _, TrustPoint, message,
};
use futures::{Stream, StreamExt as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use uuid::Uuid;

use super::signed_bundle;
use crate::api::standing::Standing;
use crate::api::{Api, Call, Fields};
use crate::error::{ApiError, to_status};
use crate::fleet::Shown;
use crate::ground::ServerInUse;
use crate::per_user::UserShare;
use catrust_access::Action;

/// Messages between the watcher and the connection.
const BUFFER: usize = 16;
/// Longest run of changes that is sent instead of a bundle.
const MAX_CONTINUATION: u32 = 1_000;
/// Longest nonce, in bytes.
const MAX_NONCE: usize = 64;

pub(crate) type WatchStream = Pin<Box<dyn Stream<Item = Result<v1::TrustMessage, Status>> + Send>>;

pub(super) async fn handle(
    api: &Arc<Api>,
    call: &mut Call,
    request: v1::WatchTrustRequest,
) -> Result<WatchStream, ApiError> {
    let mut fields = Fields::default();
    let id = fields.instance_id(&request.mqtt_instance_id);
    let broker = fields.broker_id(&request.broker_id);
    let nonce_fits = request.nonce.len() <= MAX_NONCE;
    if !nonce_fits {
        fields.complain("nonce", format!("is longer than {MAX_NONCE} bytes"));
    }
    let (Some(id), Some(broker), true) = (id, broker, nonce_fits) else { return Err(fields.into_error()) };
    call.broker_id = broker;

    api.admit(call, &id, Action::WatchTrust).await?;
    api.ground.check()?;
    let share = api.take_stream(call)?;
    if let Some(head) = &request.newest_head {
        let broker = call.broker_id.as_ref().map_or("without a name", |id| id.as_str());
        // The bundle is asked for with a receipt.
        api.witness.hear(&id, broker, Shown::Head(head)).await;
    }
    let live = api.feed.subscribe(&id).await.map_err(|error| ApiError::Internal(error_chain(&error)))?;
    let (messages, receiver) = mpsc::channel(BUFFER);
    let (end, ended) = oneshot::channel();
    let request_id = call.request_id;
    let watcher = Watcher {
        api: Arc::clone(api),
        id,
        request_id,
        messages,
        applied: None,
        nonce: request.nonce,
        _share: share,
    };
    let (deadline, standing) = (call.deadline, Standing::new(api, call, &watcher.id, Action::WatchTrust));
    tokio::spawn(async move {
        let watchers = watcher.api.watchers.clone();
        watchers.add(1, &[]);
        let error = watcher.run(live, request.after_revision, deadline, standing).await;
        watchers.add(-1, &[]);
        // A reader that has gone does not hear why.
        let _ = end.send(error);
    });
    let last = futures::stream::once(async move {
        let error = ended.await.unwrap_or_else(|_| ApiError::Internal("a watcher panicked".to_owned()));
        Err(to_status(&error, request_id))
    });
    Ok(ReceiverStream::new(receiver).map(Ok).chain(last).boxed())
}

struct Watcher {
    api: Arc<Api>,
    id: InstanceId,
    request_id: Uuid,
    messages: mpsc::Sender<v1::TrustMessage>,
    /// Last revision that the reader has been sent.
    applied: Option<u64>,
    /// What the first head repeats; empty afterwards.
    nonce: Vec<u8>,
    /// Of the streams that its user may have open.
    _share: UserShare,
}

impl Watcher {
    /// Runs until the stream has to end; tells why.
    async fn run(
        self,
        live: FeedStream,
        after_revision: Option<u64>,
        deadline: Option<Instant>,
        mut standing: Standing,
    ) -> ApiError {
        let (draining, ground) = (self.api.draining.clone(), self.api.ground.clone());
        let expired = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = draining.cancelled() => ApiError::Draining,
            error = ground.lost() => error,
            () = expired => ApiError::DeadlineExceeded,
            error = standing.lost() => error,
            outcome = self.follow(live, after_revision) => outcome.err().unwrap_or(ApiError::Cancelled),
        }
    }

    /// Ends with `Ok` when the reader has gone.
    async fn follow(mut self, mut live: FeedStream, after_revision: Option<u64>) -> Result<(), ApiError> {
        let mut key_set = self.api.keys.follow();
        key_set.mark_changed();
        if !self.send_key_set(&mut key_set).await || !self.catch_up(after_revision).await? {
            return Ok(());
        }
        let mut heads = tokio::time::interval(self.api.rules.head_interval);
        heads.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let goes_on = tokio::select! {
                () = self.messages.closed() => false,
                Ok(()) = key_set.changed() => self.send_key_set(&mut key_set).await,
                item = live.next() => match item {
                    Some(item) => self.take(item).await?,
                    None => return Err(ApiError::Draining),
                },
                _ = heads.tick() => self.send_head().await?,
            };
            if !goes_on {
                return Ok(());
            }
        }
    }

    /// Sends the keys that may sign the rest, where there is a set of them.
    async fn send_key_set(&self, followed: &mut watch::Receiver<Option<Arc<KeySet>>>) -> bool {
        let set = followed.borrow_and_update().as_ref().map(|set| set.message().clone());
        match set {
            Some(set) => self.send(Message::KeySet(set)).await,
            None => true,
        }
    }

    async fn take(&mut self, item: FeedItem) -> Result<bool, ApiError> {
        match item {
            FeedItem::Change(change) => {
                let applied = self.applied.unwrap_or(0);
                if change.revision <= applied {
                    Ok(true)
                } else if change.revision == applied + 1 {
                    self.applied = Some(change.revision);
                    Ok(self.send(Message::Change(Arc::unwrap_or_clone(change))).await)
                } else {
                    self.catch_up(Some(applied)).await
                }
            }
            FeedItem::Gap(_) => self.catch_up(None).await,
            FeedItem::Head(_) | FeedItem::KeySet(_) => Ok(true),
        }
    }

    /// Sends the changes after `from`, or a bundle where that is not possible.
    async fn catch_up(&mut self, from: Option<u64>) -> Result<bool, ApiError> {
        if let Some(from) = from
            && let Some(changes) = self.changes_after(from).await?
        {
            self.applied = Some(from);
            for change in changes {
                self.applied = Some(change.revision);
                if !self.send(Message::Change(change)).await {
                    return Ok(false);
                }
            }
            return Ok(true);
        }
        let bundle =
            signed_bundle(&self.api, &self.id, BundleAt::Now).await?.ok_or(Rejection::InstanceNotFound)?;
        self.applied = Some(bundle.revision);
        Ok(self.send(Message::Bundle(bundle)).await)
    }

    /// Every change after revision `from`, `None` where there are too many or the
    /// instance has not reached `from`.
    async fn changes_after(&self, from: u64) -> Result<Option<Vec<v1::TrustChange>>, ApiError> {
        let store = &self.api.store;
        let server = ServerInUse::of(&**store);
        let Some(instance) = store.find_instance(&self.id).await? else { return Ok(None) };
        if from > instance.revision || instance.revision - from > u64::from(MAX_CONTINUATION) {
            return Ok(None);
        }
        let rows = store.read_trust_changes(&self.id, from, MAX_CONTINUATION + 1).await?;
        server.confirmed().await?;
        let mut changes = Vec::with_capacity(rows.len());
        for row in &rows {
            let feed_message = FeedMessage::new(store.log_id(), row, self.api.keys.active())
                .map_err(|error| ApiError::Internal(error_chain(&error)))?;
            if let catrust_trust_feed::FeedBody::Change(change) = feed_message.body {
                changes.push(Arc::unwrap_or_clone(change));
            }
        }
        Ok(Some(changes))
    }

    /// Sends a head, if the current revision is known to be the one that was sent.
    /// Behind the directory for a whole interval means that a message was missed.
    async fn send_head(&mut self) -> Result<bool, ApiError> {
        // Before the state is looked at: that may be newer, and not older.
        let Some(issued_at) = self.api.directory.current_at() else { return Ok(true) };
        let Some(known) = self.api.directory.find(&self.id) else { return Ok(true) };
        let applied = self.applied.unwrap_or(0);
        if known.revision > applied {
            return self.catch_up(Some(applied)).await;
        }
        if known.revision < applied {
            // The store was asked after the directory: the directory will follow.
            return Ok(true);
        }
        let point = TrustPoint {
            instance_id: known.instance_id,
            revision: known.revision,
            position: known.trust_position,
            digest: known.bundle_digest,
        };
        let mut head = message::head(self.api.store.log_id(), &point, issued_at);
        head.nonce = std::mem::take(&mut self.nonce);
        head.sign(self.api.keys.active()).map_err(|error| ApiError::Internal(error.to_string()))?;
        Ok(self.send(Message::Head(head)).await)
    }

    /// Whether the reader is still there.
    async fn send(&self, message: Message) -> bool {
        let message = v1::TrustMessage { message: Some(message), request_id: self.request_id.to_string() };
        self.messages.send(message).await.is_ok()
    }
}
