//! The whole log in one file, to be checked without a database: JSON lines.
//!
//! The first line says what it is and of which log, one line per event follows in the order
//! of positions, the last line has the signed checkpoint over all of them.

use std::collections::HashMap;

use catrust_domain::read_model::{EventMeta, ReadModel};
use catrust_domain::{LogHead, RecordedEvent, Sha256};
use catrust_signing::TrustKeys;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::checkpoint::{Checkpoint, CheckpointError, SignedCheckpoint};
use crate::row::EvidenceRow;
use crate::tree::Frontier;

/// Version of the format.
const VERSION: u32 = 1;

/// The first line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportHeader {
    /// Version of the format: 1.
    pub catrust_export: u32,
    /// Identity of the log.
    pub log_id: Uuid,
}

impl ExportHeader {
    /// The header of an export of a log.
    #[must_use]
    pub const fn new(log_id: Uuid) -> Self {
        Self { catrust_export: VERSION, log_id }
    }
}

/// The last line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportFooter {
    /// The checkpoint over all events: a signed note.
    pub checkpoint: String,
}

/// Why an export is not what it says, and where.
#[derive(Debug, thiserror::Error)]
#[error("line {line}{}: {problem}", .position.map(|at| format!(", position {at}")).unwrap_or_default())]
pub struct ExportError {
    /// Line of the file, from 1.
    pub line: u64,
    /// Position in the log, where the line is or should be that of an event.
    pub position: Option<u64>,
    /// What is wrong.
    pub problem: ExportProblem,
}

/// What is wrong with an export.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExportProblem {
    /// Not a line of the format.
    #[error("not a line of an export: {0}")]
    Malformed(String),
    /// Another format.
    #[error("the export has format {0}, this program knows {VERSION}")]
    Version(u32),
    /// A row is missing, or stands in another place.
    #[error("position {found} stands here: a row is missing, or was moved")]
    Order {
        /// Position found.
        found: u64,
    },
    /// The row is not the one that was hashed.
    #[error("the row, or the one before it, is not the one that was hashed")]
    Chain,
    /// The row does not follow from those before it.
    #[error("the row contradicts those before it: {0}")]
    Contradiction(String),
    /// There is no last line.
    #[error("the end is missing: no checkpoint")]
    NoCheckpoint,
    /// Something follows the last line.
    #[error("something follows the checkpoint")]
    AfterCheckpoint,
    /// The checkpoint is not to be trusted.
    #[error("the checkpoint is not to be trusted: {0}")]
    Checkpoint(#[from] CheckpointError),
    /// The checkpoint is of other events.
    #[error("the checkpoint is of {size} events, and {found} stand here")]
    Size {
        /// Events that the checkpoint names.
        size: u64,
        /// Events found.
        found: u64,
    },
    /// The checkpoint has another root.
    #[error("the checkpoint of {size} events has another root: an event up to there was changed")]
    Root {
        /// Events that the checkpoint names.
        size: u64,
    },
}

/// What an export that holds has in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportReport {
    /// Identity of the log.
    pub log_id: Uuid,
    /// The checkpoint over all events.
    pub checkpoint: Checkpoint,
    /// Hash of the last row.
    pub head_hash: Sha256,
    /// Earlier checkpoints that hold as well.
    pub earlier_checkpoints: u64,
}

/// Checks an export line by line; keeps what a fold needs, and no rows.
pub struct ExportVerifier<'a> {
    keys: &'a TrustKeys,
    /// Root that must be there at a size.
    earlier: HashMap<u64, Sha256>,
    earlier_found: u64,
    line: u64,
    header: Option<ExportHeader>,
    head: LogHead,
    streams: HashMap<String, u64>,
    model: ReadModel,
    tree: Frontier,
    checkpoint: Option<Checkpoint>,
}

impl<'a> ExportVerifier<'a> {
    /// Begins. Checkpoints have to be signed by one of `keys`; `earlier` are some that were
    /// kept before, whose signatures hold: the export has to go on from each of them.
    #[must_use]
    pub fn new(keys: &'a TrustKeys, earlier: &[SignedCheckpoint]) -> Self {
        let root = |signed: &SignedCheckpoint| (signed.checkpoint.size, signed.checkpoint.root);
        Self {
            keys,
            earlier: earlier.iter().map(root).collect(),
            earlier_found: 0,
            line: 0,
            header: None,
            head: LogHead::EMPTY,
            streams: HashMap::new(),
            model: ReadModel::new(),
            tree: Frontier::new(),
            checkpoint: None,
        }
    }

    /// Takes the next line, without its line break; gives the row where it is one.
    ///
    /// # Errors
    /// The first thing that is wrong. Nothing after it can be said then.
    pub fn line(&mut self, text: &str) -> Result<Option<EvidenceRow>, ExportError> {
        self.line += 1;
        if self.header.is_none() {
            return self.header(text).map(|()| None);
        }
        if self.checkpoint.is_some() {
            return Err(self.error(None, ExportProblem::AfterCheckpoint));
        }
        if let Ok(footer) = serde_json::from_str::<ExportFooter>(text) {
            return self.footer(&footer).map(|()| None);
        }
        let expected = Some(self.head.position + 1);
        let row: EvidenceRow = serde_json::from_str(text)
            .map_err(|error| self.error(expected, ExportProblem::Malformed(error.to_string())))?;
        self.row(row.clone()).map_err(|problem| self.error(expected, problem))?;
        Ok(Some(row))
    }

    /// Ends.
    ///
    /// # Errors
    /// [`ExportProblem::NoCheckpoint`] where the last line was not there.
    pub fn finish(self) -> Result<ExportReport, ExportError> {
        let missing =
            ExportError { line: self.line + 1, position: None, problem: ExportProblem::NoCheckpoint };
        let (Some(header), Some(checkpoint)) = (self.header, self.checkpoint) else { return Err(missing) };
        Ok(ExportReport {
            log_id: header.log_id,
            checkpoint,
            head_hash: self.head.hash,
            earlier_checkpoints: self.earlier_found,
        })
    }

    fn header(&mut self, text: &str) -> Result<(), ExportError> {
        let header: ExportHeader = serde_json::from_str(text)
            .map_err(|error| self.error(None, ExportProblem::Malformed(error.to_string())))?;
        if header.catrust_export != VERSION {
            return Err(self.error(None, ExportProblem::Version(header.catrust_export)));
        }
        self.header = Some(header);
        Ok(())
    }

    fn row(&mut self, row: EvidenceRow) -> Result<(), ExportProblem> {
        let event = RecordedEvent::from(row);
        if event.position != self.head.position + 1 {
            return Err(ExportProblem::Order { found: event.position });
        }
        if event.compute_hash(&self.head.hash) != event.hash {
            return Err(ExportProblem::Chain);
        }
        self.fold(&event).map_err(ExportProblem::Contradiction)?;
        self.head = event.head();
        self.tree.push(&event.hash);
        if let Some(root) = self.earlier.get(&event.position) {
            if *root != self.tree.root() {
                return Err(ExportProblem::Root { size: event.position });
            }
            self.earlier_found += 1;
        }
        Ok(())
    }

    fn fold(&mut self, event: &RecordedEvent) -> Result<(), String> {
        if event.occurred_at < self.head.occurred_at {
            return Err(format!("time runs backwards, to {}", event.occurred_at));
        }
        let version = self.streams.entry(event.stream_id.clone()).or_default();
        *version += 1;
        if event.stream_version != *version {
            return Err(format!(
                "version {} instead of {version} of {}",
                event.stream_version, event.stream_id
            ));
        }
        let decoded = event.decode().map_err(|error| error.to_string())?;
        if decoded.stream_id(&event.instance_id) != event.stream_id {
            return Err(format!("the payload does not belong to {}", event.stream_id));
        }
        let folded =
            self.model.evolve(&EventMeta::from(event), &decoded).map_err(|error| error.to_string())?;
        let folded = (folded.map(|trust| trust.revision), folded.map(|trust| trust.digest));
        if folded != (event.revision, event.bundle_digest) {
            return Err("another revision or digest follows from the payloads".to_owned());
        }
        Ok(())
    }

    fn footer(&mut self, footer: &ExportFooter) -> Result<(), ExportError> {
        let opened = SignedCheckpoint::open(&footer.checkpoint, self.keys);
        let checkpoint = opened.map_err(|error| self.error(None, error.into()))?.checkpoint;
        let found = self.head.position;
        if checkpoint.size != found {
            return Err(self.error(None, ExportProblem::Size { size: checkpoint.size, found }));
        }
        if checkpoint.root != self.tree.root() {
            return Err(self.error(None, ExportProblem::Root { size: checkpoint.size }));
        }
        // What was there once and is not any more: the end was cut off.
        if let Some(size) = self.earlier.keys().filter(|size| **size > found).min() {
            return Err(self.error(Some(found + 1), ExportProblem::Size { size: *size, found }));
        }
        self.checkpoint = Some(checkpoint);
        Ok(())
    }

    const fn error(&self, position: Option<u64>, problem: ExportProblem) -> ExportError {
        ExportError { line: self.line, position, problem }
    }
}
