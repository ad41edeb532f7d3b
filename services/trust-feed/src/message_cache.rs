//! The messages of the latest events, so that whoever sends one in this process need not
//! make and sign it again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use catrust_domain::{LogEntry, Sha256};
use uuid::Uuid;

use crate::message::{FeedMessage, MessageError};
use crate::signing::SigningKey;

/// Messages kept: as many as a batch has events. Some 2 MB with the largest usual
/// certificates.
const MAX_MESSAGES: usize = 256;

/// The message of one event, once somebody has made it.
type Slot = Arc<Mutex<Option<FeedMessage>>>;

/// Makes messages of one log, each once.
pub struct MessageCache {
    log_id: Uuid,
    key: Arc<SigningKey>,
    /// By position and hash of the row: after a set-back of the log another event may have
    /// the position.
    slots: Mutex<BTreeMap<(u64, Sha256), Slot>>,
}

impl MessageCache {
    /// Makes an empty one.
    #[must_use]
    pub fn new(log_id: Uuid, key: Arc<SigningKey>) -> Self {
        Self { log_id, key, slots: Mutex::default() }
    }

    /// The message of an event. Where somebody else is making it, waits for that.
    ///
    /// # Errors
    /// As [`FeedMessage::new`].
    pub fn message(&self, entry: &LogEntry) -> Result<FeedMessage, MessageError> {
        let slot = self.slot((entry.row.position, entry.row.hash));
        let mut made = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(message) = &*made {
            return Ok(message.clone());
        }
        let message = FeedMessage::of_event(self.log_id, &entry.row, &entry.event, &self.key)?;
        *made = Some(message.clone());
        Ok(message)
    }

    /// Forgets all messages: after a set-back of the log, or at the beginning of an epoch, they
    /// may be of events that it has lost.
    pub fn forget(&self) {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn slot(&self, key: (u64, Sha256)) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = Arc::clone(slots.entry(key).or_default());
        while slots.len() > MAX_MESSAGES {
            slots.pop_first();
        }
        slot
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{SampleLog, key};

    fn entries() -> (Uuid, Vec<LogEntry>) {
        let mut log = SampleLog::new();
        log.grow(300);
        let entries = log.events().iter().cloned().map(|row| LogEntry::try_from(row).unwrap()).collect();
        (log.log_id(), entries)
    }

    #[test]
    fn a_message_is_made_once_and_is_that_of_its_row() {
        let (log_id, entries) = entries();
        let key = Arc::new(key());
        let cache = MessageCache::new(log_id, Arc::clone(&key));
        for entry in &entries {
            let (one, two) = (cache.message(entry).unwrap(), cache.message(entry).unwrap());
            assert_eq!(one, FeedMessage::new(log_id, &entry.row, &key).unwrap());
            assert_eq!(one.json.as_ptr(), two.json.as_ptr(), "the same bytes, not equal ones");
        }
        assert_eq!(cache.slots.lock().unwrap().len(), MAX_MESSAGES);
        cache.forget();
        assert_eq!(cache.slots.lock().unwrap().len(), 0);
    }

    #[test]
    fn another_event_at_the_same_position_has_its_own_message() {
        let (log_id, entries) = entries();
        let cache = MessageCache::new(log_id, Arc::new(key()));
        let mut other = entries[3].clone();
        other.row.hash = Sha256::of(b"another past");
        assert_ne!(cache.message(&entries[3]).unwrap(), cache.message(&other).unwrap());
    }
}
