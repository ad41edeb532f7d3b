//! Walks the log from its beginning, checks every row against those before it,
//! and folds it into a read model.

use std::collections::{HashMap, HashSet};

use catrust_domain::log_epoch::{revision_count, spell_revision};
use catrust_domain::read_model::{EventMeta, ReadModel};
use catrust_domain::{Event, InstanceId, LogEpoch, LogHead, RecordedEvent, Timestamp};
use tokio::sync::mpsc;

use crate::comparison::Differing;
use crate::report::{Damage, DamageKind};
use crate::row::{Row, StoredRow as _};
use crate::rows::Rows;
use crate::{StoreError, queries};

/// Most pieces of damage that are told.
pub(crate) const MAX_DAMAGE: usize = 100;

/// Rows read at once: about 2 MB of a usual log.
const CHUNK: u32 = 1_000;

/// A row of the log: readable, or its position and what is wrong with it.
type ReadRow = Result<RecordedEvent, (u64, String)>;

/// How far a walk has come.
pub(crate) struct LogWalk {
    pub(crate) events: u64,
    pub(crate) head: LogHead,
    pub(crate) damage: Vec<Damage>,
    /// `None` once an event could not be folded: what follows it cannot be either.
    pub(crate) model: Option<ReadModel>,
    /// Keys of the read model's rows that events touch; collected where a rebuild asks.
    pub(crate) touched: Option<Differing>,
    /// Whether `head.hash` is that of the row before; not after a gap.
    linked: bool,
    stream_versions: HashMap<String, u64>,
    revisions: HashMap<InstanceId, u64>,
    /// Epochs that rows claim to have begun.
    epochs: HashSet<LogEpoch>,
    /// That of the last trust change.
    epoch: LogEpoch,
    /// Whether `stream_versions` and `revisions` know every stream; not after a gap.
    whole: bool,
}

impl LogWalk {
    /// Starts before the first event.
    pub(crate) fn new() -> Self {
        Self {
            events: 0,
            head: LogHead::EMPTY,
            damage: Vec::new(),
            model: Some(ReadModel::new()),
            touched: None,
            linked: true,
            stream_versions: HashMap::new(),
            revisions: HashMap::new(),
            epochs: HashSet::from([LogEpoch::FIRST]),
            epoch: LogEpoch::FIRST,
            whole: true,
        }
    }

    /// Takes the next row of the log.
    pub(crate) fn step(&mut self, row: ReadRow) {
        self.events += 1;
        let position = row.as_ref().map_or_else(|(position, _)| *position, |event| event.position);
        let expected = self.head.position + 1;
        if position != expected {
            let text = match position - expected {
                1 => "the row is missing".to_owned(),
                missing => format!("{missing} rows are missing from here on"),
            };
            self.lose_track(expected, DamageKind::RowMissing, text);
        }
        match row {
            Ok(event) => self.check(&event),
            Err((position, reason)) => {
                let text = format!("the row cannot be read: {reason}");
                self.lose_track(position, DamageKind::RowUnreadable, text);
                self.head.position = position;
            }
        }
    }

    fn check(&mut self, event: &RecordedEvent) {
        let position = event.position;
        if self.linked && event.compute_hash(&self.head.hash) != event.hash {
            let text = "the row, or the one before it, is not the one that was hashed".to_owned();
            self.note(position, DamageKind::ChainBroken, text);
        }
        if event.occurred_at < self.head.occurred_at {
            let text = format!("time runs backwards, to {}", event.occurred_at);
            self.note(position, DamageKind::OutOfOrder, text);
        }
        self.check_stream_version(event);
        self.check_revision(event);
        let occurred_at: Timestamp = event.occurred_at.max(self.head.occurred_at);
        self.head = LogHead { occurred_at, ..event.head() };
        self.linked = true;
        match event.decode() {
            Ok(decoded) => self.fold(event, &decoded),
            Err(error) => self.stop_fold(position, DamageKind::Contradiction, error.to_string()),
        }
    }

    fn check_stream_version(&mut self, event: &RecordedEvent) {
        let version = event.stream_version;
        let Some(last) = self.stream_versions.get_mut(&event.stream_id) else {
            self.stream_versions.insert(event.stream_id.clone(), version);
            if self.whole && version != 1 {
                let text = format!("{} begins at version {version}", event.stream_id);
                self.note(event.position, DamageKind::OutOfOrder, text);
            }
            return;
        };
        let expected = std::mem::replace(last, version) + 1;
        if version != expected {
            let text = format!("{} is at version {version} instead of {expected}", event.stream_id);
            self.note(event.position, DamageKind::OutOfOrder, text);
        }
    }

    fn check_revision(&mut self, event: &RecordedEvent) {
        let Some(revision) = event.revision else { return };
        let epoch = LogEpoch::of_revision(revision);
        if epoch < self.epoch || (self.whole && !self.epochs.contains(&epoch)) {
            let found = spell_revision(revision);
            let text = format!("{} is at {found}, of an epoch that is not in force there", event.instance_id);
            self.note(event.position, DamageKind::OutOfOrder, text);
        }
        self.epoch = epoch.max(self.epoch);
        let last = self.revisions.get_mut(&event.instance_id);
        let known = self.whole || last.is_some();
        let expected = match last {
            Some(last) => epoch.revision(revision_count(std::mem::replace(last, revision)) + 1),
            None => {
                self.revisions.insert(event.instance_id.clone(), revision);
                epoch.revision(1)
            }
        };
        if known && revision != expected {
            let (found, expected) = (spell_revision(revision), spell_revision(expected));
            let text = format!("{} is at {found} instead of {expected}", event.instance_id);
            self.note(event.position, DamageKind::OutOfOrder, text);
        }
    }

    fn fold(&mut self, row: &RecordedEvent, event: &Event) {
        let effect = event.trust_effect();
        if event.stream_id(&row.instance_id) != row.stream_id {
            let text = format!("the payload does not belong to {}", row.stream_id);
            self.note(row.position, DamageKind::Contradiction, text);
        }
        if effect.map(|effect| &effect.certificate.sn) != row.sn.as_ref() {
            let text = "the payload has another serial number than the row".to_owned();
            self.note(row.position, DamageKind::Contradiction, text);
        }
        if let Event::LogEpochBegan(began) = event {
            self.epochs.insert(began.epoch);
        }
        if let Some(touched) = &mut self.touched {
            touched.add(row, event);
        }
        let Some(model) = &mut self.model else { return };
        match model.evolve(&EventMeta::from(row), event) {
            Ok(trust) => {
                let folded = (trust.map(|trust| trust.revision), trust.map(|trust| trust.digest));
                if folded != (row.revision, row.bundle_digest) {
                    let text = format!("{} folds to another revision or digest", row.instance_id);
                    self.note(row.position, DamageKind::Contradiction, text);
                }
            }
            Err(error) => self.stop_fold(row.position, DamageKind::Contradiction, error.reason.to_owned()),
        }
    }

    /// Notes damage after which neither the chain nor versions nor the fold can be followed.
    fn lose_track(&mut self, position: u64, kind: DamageKind, text: String) {
        self.stop_fold(position, kind, text);
        self.linked = false;
        self.whole = false;
        self.stream_versions.clear();
        self.revisions.clear();
    }

    fn stop_fold(&mut self, position: u64, kind: DamageKind, text: String) {
        let stopped = self.model.take().is_some();
        let note = if stopped { "; the fold stops here, and the read model is not compared" } else { "" };
        self.note(position, kind, format!("{text}{note}"));
    }

    fn note(&mut self, position: u64, kind: DamageKind, description: String) {
        if self.damage.len() < MAX_DAMAGE {
            self.damage.push(Damage { kind, position: Some(position), description });
        }
    }
}

/// Walks on to the end of what `db` sees.
///
/// Reading and folding run beside each other, because each takes about as long as
/// the other.
pub(crate) async fn walk_on(db: &mut impl Rows, walk: LogWalk) -> Result<LogWalk, StoreError> {
    let mut after = walk.head.position;
    let (sender, mut receiver) = mpsc::channel::<Vec<ReadRow>>(2);
    let folding = tokio::task::spawn_blocking(move || {
        let mut walk = walk;
        while let Some(chunk) = receiver.blocking_recv() {
            chunk.into_iter().for_each(|row| walk.step(row));
        }
        walk
    });
    loop {
        let chunk = read_chunk(db, after).await?;
        let last = chunk.len() < CHUNK as usize;
        after = chunk.last().map_or(after, |row| match row {
            Ok(event) => event.position,
            Err((position, _)) => *position,
        });
        // The other end only closes by a panic, which the join below tells.
        if sender.send(chunk).await.is_err() || last {
            break;
        }
    }
    drop(sender);
    folding.await.map_err(|error| StoreError::Internal(error.into()))
}

async fn read_chunk(db: &mut impl Rows, after: u64) -> Result<Vec<ReadRow>, StoreError> {
    let rows = db.rows(&queries::EVENTS_AFTER, &[after.into(), CHUNK.into()]).await?;
    Ok(rows.iter().map(readable).collect())
}

fn readable(row: &impl Row) -> ReadRow {
    RecordedEvent::parse(row, 0).map_err(|reason| (row.get(0).unwrap_or(0), reason))
}
