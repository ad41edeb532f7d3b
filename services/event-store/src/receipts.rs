//! What both engines do with receipts alike.

use std::collections::HashMap;

use catrust_domain::{BrokerId, InstanceId, Receipt};
use tokio::sync::broadcast;

use crate::{MAX_RECEIPTS, StoreError};

/// Changes of the fleet that a slow reader may be behind.
const CHANGES_KEPT: usize = 1_024;

/// Sends the hints of [`crate::FleetStore::fleet_changes`].
#[derive(Clone, Debug)]
pub(crate) struct FleetChanges(broadcast::Sender<InstanceId>);

impl FleetChanges {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(CHANGES_KEPT))
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<InstanceId> {
        self.0.subscribe()
    }

    /// Tells whoever listens; nobody has to.
    pub(crate) fn tell(&self, id: InstanceId) {
        drop(self.0.send(id));
    }
}

/// Takes a batch apart into rounds in which each broker speaks at most once, so that
/// a round is one statement. Each round is in the order of the keys: two replicas that
/// write the same rows then take their locks in the same order.
pub(crate) fn rounds(receipts: &[Receipt]) -> Result<Vec<Vec<&Receipt>>, StoreError> {
    if receipts.len() > MAX_RECEIPTS {
        let text = format!("a batch of {} receipts, at most {MAX_RECEIPTS} are taken", receipts.len());
        return Err(StoreError::Internal(text.into()));
    }
    let mut spoken: HashMap<(&InstanceId, &BrokerId), usize> = HashMap::new();
    let mut rounds: Vec<Vec<&Receipt>> = Vec::new();
    for receipt in receipts {
        let round = spoken.entry((&receipt.instance_id, &receipt.broker_id)).or_default();
        if rounds.len() == *round {
            rounds.push(Vec::new());
        }
        rounds[*round].push(receipt);
        *round += 1;
    }
    for round in &mut rounds {
        round.sort_unstable_by_key(|receipt| (&receipt.instance_id, &receipt.broker_id));
    }
    Ok(rounds)
}
