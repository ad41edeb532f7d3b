//! Holds evidence against the log.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use catrust_domain::log_evidence::{Contradiction, MarkedRow, verdict};
use catrust_domain::{LogEvidence, LogMark, LogView, Verdict};
use catrust_event_store::{BootTime, EventStore, Ground, GroundReport, StoreError};
use tokio::time::timeout;

use super::LogGround;

/// How long a commit may take to be acknowledged before nothing is known.
const CONFIRMATION: Duration = Duration::from_secs(4);

/// What this replica holds against the log, and what that comes to now.
pub(crate) struct GroundJudge {
    store: Arc<dyn EventStore>,
    ground: LogGround,
    /// What contradicted the log when it was last looked at: the furthest of each kind.
    held: Mutex<Vec<LogEvidence>>,
}

impl GroundJudge {
    /// Holds nothing against the log of `store` yet; what it finds goes to `ground`.
    pub(crate) const fn new(store: Arc<dyn EventStore>, ground: LogGround) -> Self {
        Self { store, ground, held: Mutex::new(Vec::new()) }
    }

    /// Looks at all that is held against the log, and says so; forgets what contradicts nothing any
    /// more.
    ///
    /// # Errors
    /// Those of the store: nothing is known, and what was known stays.
    pub(crate) async fn look(&self) -> Result<(), StoreError> {
        let report = self.ground().await?;
        let halting = report.evidence.iter().find(|(_, verdict)| verdict.halts());
        match halting {
            Some((evidence, verdict)) => self.ground.lose(&spelled(evidence, verdict)),
            None => self.ground.regain_lost(),
        }
        let over = |kept: &LogEvidence| {
            report.evidence.iter().any(|(evidence, verdict)| evidence == kept && !verdict.halts())
        };
        self.held.lock().unwrap_or_else(PoisonError::into_inner).retain(|kept| !over(kept));
        Ok(())
    }

    fn hold(&self, evidence: &LogEvidence) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let same_kind =
            |kept: &LogEvidence| kept.epoch == evidence.epoch && kept.mark.kind() == evidence.mark.kind();
        let furthest = held.iter().filter(|kept| same_kind(kept)).map(|kept| kept.mark.position()).max();
        if furthest.is_none_or(|furthest| furthest < evidence.mark.position()) {
            held.retain(|kept| !same_kind(kept));
            held.push(evidence.clone());
        }
    }

    /// Waits until a commit of this replica is acknowledged that was sent after now.
    async fn commit_acknowledged(&self) -> Result<(), StoreError> {
        let doubted = BootTime::now();
        let mut leases = self.store.freshness();
        let acknowledged =
            leases.wait_for(|lease| lease.as_ref().is_some_and(|lease| lease.taken_at >= doubted));
        match timeout(CONFIRMATION, acknowledged).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(closed)) => Err(StoreError::Internal(closed.into())),
            Err(late) => Err(StoreError::Unavailable(late.into())),
        }
    }

    /// What the log says of a mark. The end before the row: the log may grow in between, and a row
    /// that is there at its end is there from then on.
    async fn view(&self, mark: &LogMark) -> Result<LogView, StoreError> {
        let end = self.store.head().await?;
        let row = match mark {
            LogMark::Row { position, .. } | LogMark::Trust { position, .. }
                if (1..=end.position).contains(position) =>
            {
                self.store.read(position - 1, 1).await?.pop()
            }
            _ => None,
        };
        let row = row.map(|row| MarkedRow {
            hash: row.hash,
            instance_id: row.instance_id,
            revision: row.revision,
            digest: row.bundle_digest,
        });
        // Of a checkpoint the size alone is held against the log here: the nodes that its root
        // would be computed from are nothing that a stolen login to the database cannot write.
        Ok(LogView { epoch: *self.store.epoch().borrow(), end, row, root: None })
    }
}

#[async_trait]
impl Ground for GroundJudge {
    /// Evidence counts once a commit of this replica was acknowledged after the doubt arose: by a
    /// server that takes writes, and that is not a superseded one.
    async fn accuse(&self, evidence: &LogEvidence) -> Result<Verdict, StoreError> {
        self.commit_acknowledged().await?;
        let verdict = verdict(evidence, &self.view(&evidence.mark).await?);
        if verdict.halts() {
            self.hold(evidence);
            self.ground.lose(&spelled(evidence, &verdict));
        }
        Ok(verdict)
    }

    async fn ground(&self) -> Result<GroundReport, StoreError> {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut evidence = Vec::new();
        for held in held {
            let verdict = verdict(&held, &self.view(&held.mark).await?);
            evidence.push((held, verdict));
        }
        let end = self.store.head().await?;
        let epoch = *self.store.epoch().borrow();
        Ok(GroundReport { epoch, end, evidence, unbelieved_begins: Vec::new() })
    }
}

/// Why the log halts, for people.
fn spelled(evidence: &LogEvidence, verdict: &Verdict) -> String {
    match verdict {
        Verdict::SetBack(Contradiction::Shorter { end }) => {
            format!("{evidence}; the log ends at position {end}")
        }
        Verdict::SetBack(Contradiction::Other) => format!("{evidence}; the log has another row there"),
        Verdict::Superseded => format!("{evidence}, which is later than the log's own epoch"),
        Verdict::Agrees | Verdict::Ended => evidence.to_string(),
    }
}
