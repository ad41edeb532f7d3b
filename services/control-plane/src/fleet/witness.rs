//! What brokers show of the log: a signed head, and where it shows more than the log has,
//! the signed bundle behind it.
//!
//! Whatever a broker *says* is evidence of nothing: its login may be stolen. What it
//! *shows* is believed for the signature of a server, by a key that is not revoked, over
//! this log. So a bare receipt, an unsigned head or one by a stranger's key changes
//! nothing here, whatever revision it names.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use catrust_domain::log_epoch::revision_count;
use catrust_domain::{
    InstanceId, LogEpoch, LogEvidence, LogMark, RecordedEvent, Sha256, Verdict, error_chain,
};
use catrust_event_store::{Clock, EventStore, Ground, StoreError};
use catrust_proto::v1;
use catrust_trust_feed::{Signed as _, TrustError, parse};
use tokio::time::Instant;
use uuid::Uuid;

use crate::keys::ServerKeys;

/// Shortest time between two heads of one instance that are looked at, by name of the broker:
/// each costs a signature and a read, and a whole fleet shows the same one.
const PACE: Duration = Duration::from_secs(1);
/// Brokers of an instance that are looked at in turns of their own, by a hash of their
/// names: one that shows rubbish all the time hides few of the others.
const TURNS: usize = 16;

/// The trust of an instance as a signed message has it.
struct ShownTrust {
    instance_id: InstanceId,
    /// Position of the change that made the revision.
    position: u64,
    revision: u64,
    /// Digest of the bundle at the revision.
    digest: Sha256,
}

/// The rows of the log, one at a time.
#[async_trait]
pub(crate) trait LogRows: Send + Sync + 'static {
    /// Identity of the log.
    fn log_id(&self) -> Uuid;

    /// The row at `position`, from 1.
    async fn row_at(&self, position: u64) -> Result<Option<RecordedEvent>, StoreError>;
}

/// The rows of a store.
pub(crate) struct StoreRows(pub(crate) Arc<dyn EventStore>);

#[async_trait]
impl LogRows for StoreRows {
    fn log_id(&self) -> Uuid {
        self.0.log_id()
    }

    async fn row_at(&self, position: u64) -> Result<Option<RecordedEvent>, StoreError> {
        let rows = self.0.read(position.saturating_sub(1), 1).await?;
        Ok(rows.into_iter().next().filter(|row| row.position == position))
    }
}

/// Hears what brokers show.
pub(crate) struct Witness {
    log: Arc<dyn LogRows>,
    keys: Arc<ServerKeys>,
    ground: Arc<dyn Ground>,
    clock: Clock,
    heard: Mutex<HashMap<InstanceId, HeardInstance>>,
}

#[derive(Default)]
struct HeardInstance {
    looked_at: [Option<Instant>; TURNS],
    /// Highest revision that was shown and is not in the log.
    shown: Option<u64>,
    /// The newest bundle that the log does not have.
    bundle: Option<v1::TrustBundle>,
}

impl Witness {
    pub(crate) fn new(
        log: Arc<dyn LogRows>,
        keys: Arc<ServerKeys>,
        ground: Arc<dyn Ground>,
        clock: Clock,
    ) -> Self {
        Self { log, keys, ground, clock, heard: Mutex::default() }
    }

    /// Looks at what came with a call or receipt for `id`, an instance of this server. Gives
    /// whether the bundle behind it is wanted. Never fails: it is no part of the call.
    pub(crate) async fn hear(&self, id: &InstanceId, broker: &str, message: Shown<'_>) -> bool {
        if !self.is_due(id, broker, &message) {
            return false;
        }
        match self.look(id, &message).await {
            Ok(Some(shown)) => {
                let revision = shown.revision;
                self.accuse(&self.evidence(shown, broker)).await && self.note(id, revision, message)
            }
            Ok(None) => false,
            Err(problem) => {
                tracing::warn!(instance = %id, ?broker, ?problem, "what a broker shows of the log is no evidence");
                false
            }
        }
    }

    /// A head is looked at once in a while; a bundle where one was asked for.
    fn is_due(&self, id: &InstanceId, broker: &str, message: &Shown<'_>) -> bool {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        // Bounded: the caller was admitted to the instance, so that there is one.
        let known = heard.entry(id.clone()).or_default();
        match message {
            Shown::Bundle(_) => known.shown.is_some() && known.bundle.is_none(),
            Shown::Head(_) => {
                let now = Instant::now();
                let Some(turn) = known.looked_at.get_mut(turn_of(broker)) else { return false };
                let due = turn.is_none_or(|at| now.duration_since(at) >= PACE);
                if due {
                    *turn = Some(now);
                }
                due
            }
        }
    }

    fn note(&self, id: &InstanceId, revision: u64, message: Shown<'_>) -> bool {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let known = heard.entry(id.clone()).or_default();
        known.shown = known.shown.max(Some(revision));
        if let Shown::Bundle(bundle) = message {
            known.bundle = Some(bundle.clone());
        }
        known.bundle.is_none()
    }

    /// Gives what the log does not have.
    async fn look(&self, id: &InstanceId, message: &Shown<'_>) -> Result<Option<ShownTrust>, String> {
        let shown = self.verified(id, message)?;
        // The first state of every instance, made by no change.
        if shown.position == 0 {
            return Ok(None);
        }
        match self.has(&shown).await {
            Ok(true) => Ok(None),
            Ok(false) => Ok(Some(shown)),
            // The store is away: the broker shows it again.
            Err(error) => {
                tracing::debug!(error = error_chain(&error), "what a broker shows cannot be looked up now");
                Ok(None)
            }
        }
    }

    fn verified(&self, id: &InstanceId, message: &Shown<'_>) -> Result<ShownTrust, String> {
        let ring = self.keys.ring();
        let keys = ring.on_record();
        let (log_id, instance, revision, position, digest) = match message {
            Shown::Head(head) => {
                head.verify(&keys).map_err(|error| error_chain(&error))?;
                (&head.log_id, &head.mqtt_instance_id, head.revision, head.position, &head.bundle_digest)
            }
            Shown::Bundle(bundle) => {
                bundle.verify(&keys).map_err(|error| error_chain(&error))?;
                parse::trust_bundle(bundle).map_err(|error| error_chain(&TrustError::from(error)))?;
                (
                    &bundle.log_id,
                    &bundle.mqtt_instance_id,
                    bundle.revision,
                    bundle.position,
                    &bundle.bundle_digest,
                )
            }
        };
        if *log_id != self.log.log_id().to_string() {
            return Err(format!("it is of another log, {log_id:?}"));
        }
        if *instance != id.to_string() {
            return Err("it is of another instance".to_owned());
        }
        let digest = parse::sha256("bundle_digest", digest).map_err(|error| error.to_string())?;
        Ok(ShownTrust { instance_id: id.clone(), position, revision, digest })
    }

    /// Holds evidence against the log; gives whether it contradicts it.
    async fn accuse(&self, evidence: &LogEvidence) -> bool {
        let (mark, witness) = (&evidence.mark, &evidence.witness);
        match self.ground.accuse(evidence).await {
            Ok(verdict) if verdict.halts() => {
                tracing::error!(
                    ?verdict,
                    ?mark,
                    witness,
                    "a broker shows signed trust that the log does not have: the database was set back"
                );
                true
            }
            // The read that found it was of a server that was behind, or of an ended epoch.
            Ok(verdict) => {
                tracing::info!(?verdict, ?mark, witness, "what a broker shows contradicts nothing");
                verdict == Verdict::Ended
            }
            // The broker shows it again.
            Err(error) => {
                tracing::warn!(
                    error = error_chain(&error),
                    ?mark,
                    witness,
                    "evidence cannot be confirmed now"
                );
                false
            }
        }
    }

    fn evidence(&self, shown: ShownTrust, broker: &str) -> LogEvidence {
        let ShownTrust { instance_id, position, revision, digest } = shown;
        LogEvidence {
            epoch: LogEpoch::of_revision(revision),
            mark: LogMark::Trust { instance_id, position, revision, digest },
            witness: format!("broker {broker}"),
            seen_at: (self.clock)(),
        }
    }

    /// Whether the log has the change that made the revision. Counts are compared: a later
    /// epoch keeps the rows of before, and calls their revisions its own.
    async fn has(&self, shown: &ShownTrust) -> Result<bool, StoreError> {
        Ok(self.log.row_at(shown.position).await?.is_some_and(|row| {
            row.instance_id == shown.instance_id
                && row.revision.map(revision_count) == Some(revision_count(shown.revision))
                && row.bundle_digest == Some(shown.digest)
        }))
    }
}

fn turn_of(broker: &str) -> usize {
    let Sha256(digest) = Sha256::of(broker.as_bytes());
    usize::from(digest[0]) % TURNS
}

/// A signed message that a broker shows.
#[derive(Clone, Copy)]
pub(crate) enum Shown<'a> {
    Head(&'a v1::Head),
    Bundle(&'a v1::TrustBundle),
}

#[cfg(test)]
mod tests;
