//! What this process knows of its log without asking, the same for both engines.

use std::sync::Arc;

use catrust_domain::{EpochInForce, Notary, Sha256};
use uuid::Uuid;

use crate::StoreError;
use crate::damage::ToldDamage;
use crate::epochs::Epochs;
use crate::ground::{LogMemory, StoredEvidence};
use crate::recent::Recent;
use crate::rows::Rows;

/// Identity, epochs, last batches and evidence of a log.
#[derive(Debug)]
pub(crate) struct KnownLog {
    pub(crate) log_id: Uuid,
    pub(crate) epochs: Epochs,
    pub(crate) recent: Recent,
    pub(crate) memory: LogMemory,
    pub(crate) stored: StoredEvidence,
    pub(crate) damage: ToldDamage,
}

impl KnownLog {
    /// Reads which epochs the log has.
    pub(crate) async fn load(log_id: Uuid, db: &mut impl Rows) -> Result<Self, StoreError> {
        let epochs = Epochs::new(log_id);
        epochs.load(db).await?;
        Ok(Self {
            log_id,
            epochs,
            recent: Recent::default(),
            memory: LogMemory::default(),
            stored: StoredEvidence::default(),
            damage: ToldDamage::default(),
        })
    }

    pub(crate) fn set_notary(&mut self, notary: Arc<dyn Notary>) {
        self.epochs.set_notary(notary);
        self.stored.forget();
    }

    /// The epoch in force at the end of the log, whose newest row that begins an epoch has
    /// the hash `newest`.
    pub(crate) async fn epoch(
        &self,
        db: &mut impl Rows,
        newest: Option<Sha256>,
    ) -> Result<EpochInForce, StoreError> {
        if self.epochs.bring_up_to(db, newest).await? {
            self.recent.forget();
        }
        Ok(self.epochs.in_force())
    }
}
