//! Holds evidence against the log, and says so to whom it concerns.

use std::sync::Arc;

use async_trait::async_trait;
use catrust_domain::log_evidence::Contradiction;
use catrust_domain::{LogEvidence, Verdict};
use catrust_event_store::{EventStore, Ground, GroundReport, StoreError};

use super::LogGround;

/// What the store finds of the ground goes to this replica's state: the one way by which evidence
/// comes to the store, whoever has it.
pub(crate) struct GroundJudge {
    store: Arc<dyn EventStore>,
    ground: LogGround,
}

impl GroundJudge {
    /// Asks `store`; what it finds goes to `ground`.
    pub(crate) const fn new(store: Arc<dyn EventStore>, ground: LogGround) -> Self {
        Self { store, ground }
    }

    /// Looks at all that is held against the log, by whichever replica, and says so.
    ///
    /// # Errors
    /// Those of the store: nothing is known, and what was known stays.
    pub(crate) async fn look(&self) -> Result<(), StoreError> {
        let report = self.ground().await?;
        match report.evidence.iter().find(|(_, verdict)| verdict.halts()) {
            Some((evidence, verdict)) => self.ground.lose(&spelled(evidence, verdict)),
            None => self.ground.regain_lost(),
        }
        Ok(())
    }
}

#[async_trait]
impl Ground for GroundJudge {
    async fn accuse(&self, evidence: &LogEvidence) -> Result<Verdict, StoreError> {
        let verdict = self.store.accuse(evidence).await?;
        if verdict.halts() {
            self.ground.lose(&spelled(evidence, &verdict));
        }
        Ok(verdict)
    }

    async fn ground(&self) -> Result<GroundReport, StoreError> {
        self.store.ground().await
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
