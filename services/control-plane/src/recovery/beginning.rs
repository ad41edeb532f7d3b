//! Begins an epoch on what witnesses say, after the checks that it can take hold.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use catrust_domain::{LogEpoch, LogHead, Sha256};
use catrust_event_store::{BegunEpoch, Clock, EpochPlan, EventStore};
use catrust_publisher::KnownKeys;
use catrust_trust_feed::{FeedError, NatsFeed};
use tokio::time::timeout;
use uuid::Uuid;

use super::{GatheredLoss, WitnessedLog, answer};
use crate::keys::ServerKeys;

/// How far the clocks of the database and of this machine may differ.
const CLOCK_LIMIT: Duration = Duration::from_secs(60);
/// How long the database may take to acknowledge a commit.
const LEASE_LIMIT: Duration = Duration::from_secs(10);
/// Account of what no account asked for.
const ACCOUNT: &str = "catrust";

/// What a begin works with.
pub(crate) struct RecoveryParts {
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) keys: Arc<ServerKeys>,
    /// The streams; `None` where there are none, or nobody can read them any more.
    pub(crate) streams: Option<Arc<NatsFeed>>,
    /// Last checkpoint known of this log: its epoch, its size, and the note.
    pub(crate) checkpoint: Option<(LogEpoch, u64, String)>,
    /// The clock of this machine.
    pub(crate) clock: Clock,
}

/// A begin that somebody decided on.
pub(crate) struct Beginning {
    /// The last row that is kept.
    pub(crate) fork: LogHead,
    /// Why; for people.
    pub(crate) reason: String,
    /// Who begins it.
    pub(crate) actor: String,
}

impl RecoveryParts {
    /// Hears all witnesses.
    ///
    /// # Errors
    /// As [`WitnessedLog::hear`].
    pub(crate) async fn hear(&self) -> anyhow::Result<WitnessedLog> {
        let keys = KnownKeys::new(self.keys.active(), self.keys.follow().borrow().clone());
        let checkpoint = self.checkpoint.as_ref().map(|(epoch, size, _)| (*epoch, *size));
        WitnessedLog::hear(&*self.store, self.streams.as_deref(), &keys, checkpoint).await
    }

    /// Refuses where an epoch could not take hold: no further stream may be made, or the clocks
    /// differ, so that brokers would refuse its number.
    ///
    /// # Errors
    /// Says what to change first.
    pub(crate) async fn check(&self) -> anyhow::Result<()> {
        if let Some(feed) = &self.streams {
            answer(feed).await.context("the streams cannot be read")?;
            match feed.check_further_stream().await {
                Err(FeedError::NoFurtherStream(reason)) => {
                    bail!("a new epoch needs a new NATS stream, and there may be no further one: {reason}")
                }
                checked => checked.context("the streams cannot be listed")?,
            }
        }
        let mut leases = self.store.freshness();
        let lease = timeout(LEASE_LIMIT, leases.wait_for(Option::is_some)).await;
        let lease = lease.context("the database acknowledges no commit of full durability")??.clone();
        let lease = lease.context("no lease")?;
        let own = (self.clock)().micros();
        let database = lease.issued_at.micros() + micros(lease.taken_at.elapsed());
        let apart = own.abs_diff(database) / 1_000_000;
        ensure!(
            own.abs_diff(database) < CLOCK_LIMIT.as_micros() as u64,
            "the clock of the database and of this machine differ by {apart} s: set the wrong one right first"
        );
        Ok(())
    }

    /// Begins the epoch, on what was heard.
    ///
    /// # Errors
    /// The store's, see [`catrust_event_store::EpochStore::begin_epoch`]; a fork beyond what is agreed.
    pub(crate) async fn begin(
        &self,
        testimony: &WitnessedLog,
        beginning: Beginning,
    ) -> anyhow::Result<BegunEpoch> {
        let Beginning { fork, reason, actor } = beginning;
        ensure!(
            fork.position <= testimony.fork.position,
            "the log and its witnesses agree up to position {} and no further; see `catrust-server epoch status`",
            testimony.fork.position
        );
        let plan = EpochPlan {
            seen: testimony.stand.clone(),
            fork_position: fork.position,
            fork_hash: fork.hash,
            end_before: testimony.end_before.clone(),
            checkpoints: self.checkpoint.iter().map(|(_, _, note)| note.clone()).collect(),
            lost: Arc::new(GatheredLoss(testimony.lost.clone())),
            reason,
            actor,
            account_id: ACCOUNT.parse()?,
            request_id: Uuid::new_v4(),
        };
        Ok(self.store.begin_epoch(&plan).await?)
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// A fork as `POSITION:HASH`.
///
/// # Errors
/// It is not one.
pub(crate) fn as_fork(text: &str) -> Result<LogHead, String> {
    let parse = || {
        let (position, hash) = text.split_once(':')?;
        let hash: Sha256 = hash.parse().ok()?;
        Some(LogHead { position: position.parse().ok()?, hash, ..LogHead::EMPTY })
    };
    parse().ok_or_else(|| "is not POSITION:HASH, as `catrust-server epoch status` prints it".to_owned())
}
