//! The last batches that this process committed, for those who follow the log: what was
//! written a moment ago need neither be read back nor decoded.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use catrust_domain::LogEntry;

/// Events kept: some 10 MB with the largest usual certificates.
const MAX_EVENTS: usize = 4_096;

/// Committed batches, oldest first, without gaps between those that follow each other.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<Batches>);

#[derive(Debug, Default)]
struct Batches {
    batches: VecDeque<Arc<[LogEntry]>>,
    events: usize,
}

impl Recent {
    /// Keeps a batch. It MUST be committed: the log never loses what is in here.
    pub(crate) fn push(&self, batch: Vec<LogEntry>) {
        if batch.is_empty() {
            return;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.events += batch.len();
        kept.batches.push_back(batch.into());
        while kept.events > MAX_EVENTS
            && let Some(oldest) = kept.batches.pop_front()
        {
            kept.events -= oldest.len();
        }
    }

    /// The batch that begins right after position `after`.
    pub(crate) fn after(&self, after: u64) -> Option<Arc<[LogEntry]>> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = |batch: &Arc<[LogEntry]>| batch.first().map_or(0, |entry| entry.row.position);
        let index = kept.batches.binary_search_by_key(&(after + 1), first).ok()?;
        kept.batches.get(index).cloned()
    }
}
