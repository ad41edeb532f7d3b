//! What was seen from outside, with the time of each question and answer.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;

/// Microseconds since the start of the run.
pub type Micros = u64;

/// What a caller asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Question {
    /// Turn the CA off.
    Inactivate,
    /// Turn it on.
    Activate,
    /// Look at it.
    Get,
}

/// What a caller heard in the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Answer {
    /// The change is acknowledged; `changed` says whether there was anything to do.
    Acknowledged {
        /// Its position in the log.
        position: u64,
        /// Whether an event was made.
        changed: bool,
    },
    /// The CA was in this state, since this revision.
    State {
        /// Revision of the CA's last change.
        revision: u64,
        /// Whether it is trusted.
        active: bool,
    },
    /// Refused for good: it MUST have had no effect.
    Refused(String),
    /// Nobody knows whether it happened.
    Unknown(String),
}

/// One question of one caller. Repeats with one request id are one question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// Serial number of the CA.
    pub sn: String,
    /// The question.
    pub question: Question,
    /// Request id; empty for reads.
    pub request_id: String,
    /// When it was asked first.
    pub asked: Micros,
    /// When the answer was there.
    pub answered: Micros,
    /// The answer.
    pub answer: Answer,
}

/// One device at the gate's door.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// Serial number of its CA.
    pub sn: String,
    /// When it came.
    pub asked: Micros,
    /// When it knew.
    pub answered: Micros,
    /// Whether it was let in.
    pub admitted: bool,
}

/// A receipt of the gate, seen by an operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SeenReceipt {
    /// Revision that the gate says it enforces.
    pub revision: u64,
    /// When the operator had the answer that says so.
    pub seen: Micros,
}

/// Everything that was seen.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Events {
    /// Calls.
    pub calls: Vec<Asked>,
    /// Devices.
    pub probes: Vec<Probe>,
    /// Receipts.
    pub receipts: Vec<SeenReceipt>,
    /// Faults, for people.
    pub faults: Vec<(Micros, String)>,
}

/// A history in the making, shared by all who see something.
#[derive(Clone, Debug)]
pub struct History {
    started: Instant,
    events: Arc<Mutex<Events>>,
}

impl Default for History {
    fn default() -> Self {
        Self { started: Instant::now(), events: Arc::default() }
    }
}

impl History {
    /// The time now.
    #[must_use]
    pub fn now(&self) -> Micros {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Adds to it.
    pub fn note(&self, add: impl FnOnce(&mut Events)) {
        add(&mut self.events.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What is in it.
    #[must_use]
    pub fn events(&self) -> Events {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Events {
    /// Writes it down as JSON lines, one file for each kind.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        fn lines<T: Serialize>(folder: &Path, name: &str, items: &[T]) -> anyhow::Result<()> {
            let lines = items.iter().map(|item| serde_json::to_string(item).map(|line| line + "\n"));
            std::fs::write(folder.join(name), lines.collect::<Result<String, _>>()?)?;
            Ok(())
        }
        std::fs::create_dir_all(folder)?;
        lines(folder, "calls.jsonl", &self.calls)?;
        lines(folder, "probes.jsonl", &self.probes)?;
        lines(folder, "receipts.jsonl", &self.receipts)?;
        lines(folder, "faults.jsonl", &self.faults)
    }
}
