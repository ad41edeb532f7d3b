//! A verdict on evidence by reading the log alone.

use std::sync::Arc;

use async_trait::async_trait;
use catrust_domain::log_evidence::{MarkedRow, verdict};
use catrust_domain::{LogEvidence, LogView, Verdict};
use catrust_event_store::{EventLog, Ground, GroundReport, StoreError};

/// Reads what the evidence is about, and says what it comes to. It stores nothing and tells no
/// other replica: each of them reads the same feed.
pub struct ReadGround(pub Arc<dyn EventLog>);

#[async_trait]
impl Ground for ReadGround {
    async fn accuse(&self, evidence: &LogEvidence) -> Result<Verdict, StoreError> {
        let log = &self.0;
        let position = evidence.mark.position();
        // The row first: it is in the log whose end is read after it.
        let row = match position {
            0 => None,
            _ => log.read(position - 1, 1).await?.into_iter().find(|row| row.position == position),
        };
        let end = log.head().await?;
        let epoch = *log.epoch().borrow();
        let row = row.map(|row| MarkedRow {
            hash: row.hash,
            instance_id: row.instance_id,
            revision: row.revision,
            digest: row.bundle_digest,
        });
        Ok(verdict(evidence, &LogView { epoch, end, row, root: None }))
    }

    async fn ground(&self) -> Result<GroundReport, StoreError> {
        let end = self.0.head().await?;
        let epoch = *self.0.epoch().borrow();
        Ok(GroundReport { epoch, end, evidence: Vec::new(), unbelieved_begins: Vec::new() })
    }
}
