//! The last batches that this process committed, for those who follow the log: what was
//! written a moment ago need neither be read back nor decoded.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use catrust_domain::LogEntry;

/// Events kept: some 10 MB with the largest usual certificates.
const MAX_EVENTS: usize = 4_096;

/// Committed batches, oldest first, each chained to the one before by its hash.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Batches>);

#[derive(Debug, Default)]
struct Batches {
    batches: VecDeque<Arc<[LogEntry]>>,
    events: usize,
}

impl Recent {
    /// Keeps a batch, which MUST be committed. Where it does not follow the one before,
    /// somebody else appended or the log was set back: what was kept is forgotten.
    pub(crate) fn push(&self, batch: Vec<LogEntry>) {
        let Some(first) = batch.first() else { return };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = kept.batches.back().and_then(|batch| batch.last());
        let follows = last.is_none_or(|last| {
            first.row.position == last.row.position + 1
                && first.row.hash == first.row.compute_hash(&last.row.hash)
        });
        if !follows {
            *kept = Batches::default();
        }
        kept.events += batch.len();
        kept.batches.push_back(batch.into());
        while kept.events > MAX_EVENTS
            && let Some(oldest) = kept.batches.pop_front()
        {
            kept.events -= oldest.len();
        }
    }

    /// Forgets all of it: the log may not have it any more.
    pub(crate) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Batches::default();
    }

    /// The batch that begins right after position `after`.
    pub(crate) fn after(&self, after: u64) -> Option<Arc<[LogEntry]>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = |batch: &Arc<[LogEntry]>| batch.first().map_or(0, |entry| entry.row.position);
        let index = kept.batches.binary_search_by_key(&(after + 1), first).ok()?;
        kept.batches.get(index).cloned()
    }
}
