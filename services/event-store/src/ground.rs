//! Whether the log is the one that was acknowledged: evidence in the memory of this
//! process, and evidence that a server stored for all of them.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use catrust_domain::log_evidence::{MarkedRow, verdict};
use catrust_domain::{
    EpochInForce, InstanceId, LogEpoch, LogEvidence, LogHead, LogMark, LogView, Notary, RecordedEvent, Seal,
    Sha256, Verdict,
};
use uuid::Uuid;

use crate::engine::Engine;
use crate::known::KnownLog;
use crate::queries::queries;
use crate::rebuild::Repair;
use crate::row::{Row, corrupt};
use crate::rows::Rows;
use crate::{Ground, GroundReport, StoreError, reads};

/// Rows of evidence that one look reads, and whose signatures it checks, at most twice: some
/// 30 ms. A login that may add rows must not be able to make every append slow.
const EVIDENCE_PER_LOOK: usize = 256;

/// Who shows what is in memory.
const THIS_PROCESS: &str = "this server";

queries! { LIST_OF_EVIDENCE:
    /// $1 number, $2 limit: rows below it, the newest first.
    EVIDENCE = "SELECT log_epoch, mark, instance_id, position, revision, digest, witness, seen_at, key_id, seal, \
         number FROM log_evidence WHERE number < $1 ORDER BY number DESC LIMIT $2";

    /// Another value than before means that rows were added, or that the database was set back.
    EVIDENCE_STATE = format!("SELECT {}", evidence_state());

    ADD_EVIDENCE = "INSERT INTO log_evidence (log_epoch, mark, instance_id, position, revision, digest, witness, \
         seen_at, key_id, seal) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

    /// $1 position.
    MARKED_ROW = "SELECT hash, instance_id, revision, bundle_digest FROM events WHERE position = $1";
}

/// SQL of what changes with every row of evidence: number, maximum and sum of the newest
/// numbers. Of those alone, since a login that may add rows can add any number of them.
pub(crate) fn evidence_state() -> String {
    "(SELECT CAST(count(*) AS text) || '/' || CAST(coalesce(max(number), 0) AS text) || '/' \
     || CAST(coalesce(sum(number), 0) AS text) \
     FROM (SELECT number FROM log_evidence ORDER BY number DESC LIMIT 256) AS newest)"
        .to_owned()
}

/// What one look under the append lock shows.
#[derive(Debug)]
pub(crate) struct Look {
    /// The end of the log.
    pub(crate) end: LogHead,
    /// Hash of the newest row that begins an epoch.
    pub(crate) newest_begin: Option<Sha256>,
    /// What was in memory when the look was sent.
    pub(crate) memory: Option<LogEvidence>,
    /// Hash of the row at the position of that memory.
    pub(crate) remembered: Option<Sha256>,
    /// See [`evidence_state`].
    pub(crate) evidence_state: String,
}

/// The furthest row that this process acknowledged, or read on from the one before.
#[derive(Debug, Default)]
pub(crate) struct LogMemory(Mutex<Option<LogEvidence>>);

impl LogMemory {
    pub(crate) fn recall(&self) -> Option<LogEvidence> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Remembers the end of an append, which was found to follow what was remembered.
    pub(crate) fn acknowledge(&self, end: &LogHead, epoch: LogEpoch) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = row(end, epoch);
    }

    /// Remembers the end of a log in which `epoch` has begun; not where an append has come
    /// further since.
    pub(crate) fn begun(&self, end: &LogHead, epoch: LogEpoch) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.as_ref().is_none_or(|memory| memory.epoch < epoch) {
            *memory = row(end, epoch);
        }
    }

    /// Forgets what belongs to an epoch before `epoch`.
    fn forget_before(&self, epoch: LogEpoch) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if memory.as_ref().is_some_and(|memory| memory.epoch < epoch) {
            *memory = None;
        }
    }

    /// Remembers rows that were read, ascending without gaps, where they follow what is
    /// remembered. Otherwise it stays: it is what contradicts them.
    pub(crate) fn read(&self, rows: &[RecordedEvent]) {
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return };
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let follows = match memory.as_ref().map(|memory| (memory.epoch, &memory.mark)) {
            Some((epoch, _)) if epoch != last.epoch => epoch < last.epoch,
            Some((_, LogMark::Row { position, hash })) => {
                let follows_next = first.position == position + 1 && first.hash == first.compute_hash(hash);
                let is_among = |row: &RecordedEvent| row.position == *position && row.hash == *hash;
                last.position > *position && (follows_next || rows.iter().any(is_among))
            }
            Some(_) => false,
            None => true,
        };
        if follows {
            *memory = row(&last.head(), last.epoch);
        }
    }
}

fn row(end: &LogHead, epoch: LogEpoch) -> Option<LogEvidence> {
    let mark = LogMark::Row { position: end.position, hash: end.hash };
    (end.position > 0).then(|| LogEvidence {
        epoch,
        mark,
        witness: THIS_PROCESS.to_owned(),
        seen_at: end.occurred_at,
    })
}

/// Evidence that was stored, as far as its signature is believed.
///
/// Each row is checked once. What a look has no time for, because very many rows were added at
/// once, the next ones check: nothing stays hidden behind rows that nobody signed.
#[derive(Debug, Default)]
pub(crate) struct StoredEvidence(Mutex<CheckedEvidence>);

/// A row by its number and its seal: numbers come again where the database is set back.
type RowKey = (u64, Vec<u8>);

#[derive(Clone, Debug, Default)]
struct CheckedEvidence {
    /// That of the last look.
    state: String,
    /// The newest rows, and those before them that are believed.
    rows: HashMap<RowKey, Option<LogEvidence>>,
    /// Highest number that was seen.
    newest: u64,
    /// Numbers between which no row was checked yet, both exclusive.
    unchecked: Vec<(u64, u64)>,
    /// The evidence that is believed, each piece once.
    believed: Vec<LogEvidence>,
}

impl StoredEvidence {
    /// Forgets what is believed: other keys are.
    pub(crate) fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = CheckedEvidence::default();
    }

    /// The evidence that is believed; looks for more where `state` is not that of the last
    /// time, or where that had not come to an end.
    async fn believed(
        &self,
        db: &mut impl Rows,
        known: &KnownLog,
        state: String,
    ) -> Result<Vec<LogEvidence>, StoreError> {
        let mut checked = {
            let checked = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if checked.state == state && checked.unchecked.is_empty() {
                return Ok(checked.believed.clone());
            }
            checked.clone()
        };
        let mut unbelieved = UnbelievedRows::default();
        if checked.state != state {
            checked.look_at_newest(db, known, &mut unbelieved).await?;
            checked.state = state;
        }
        checked.look_further_back(db, known, &mut unbelieved).await?;
        unbelieved.tell();
        let believed = checked.believed.clone();
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = checked;
        Ok(believed)
    }
}

impl CheckedEvidence {
    async fn look_at_newest(
        &mut self,
        db: &mut impl Rows,
        known: &KnownLog,
        unbelieved: &mut UnbelievedRows,
    ) -> Result<(), StoreError> {
        let rows = evidence_below(db, i64::MAX as u64).await?;
        let newest = rows.first().map_or(0, |(key, _)| key.0);
        if newest < self.newest {
            // Rows are gone: the table was set back with the database.
            *self = Self::default();
        }
        let oldest = rows.last().map_or(0, |(key, _)| key.0);
        let is_whole = rows.len() < EVIDENCE_PER_LOOK;
        if !is_whole && oldest > self.newest + 1 {
            self.unchecked.push((self.newest, oldest));
        }
        let seen: HashSet<RowKey> = rows.iter().map(|(key, _)| key.clone()).collect();
        self.rows.retain(|key, evidence| seen.contains(key) || (!is_whole && evidence.is_some()));
        for (key, row) in rows {
            self.rows.entry(key).or_insert_with(|| unbelieved.check(&row, known));
        }
        self.newest = newest;
        self.count_believed();
        Ok(())
    }

    async fn look_further_back(
        &mut self,
        db: &mut impl Rows,
        known: &KnownLog,
        unbelieved: &mut UnbelievedRows,
    ) -> Result<(), StoreError> {
        let Some((after, before)) = self.unchecked.pop() else { return Ok(()) };
        let rows = evidence_below(db, before).await?;
        let oldest = rows.last().map_or(0, |(key, _)| key.0);
        if rows.len() == EVIDENCE_PER_LOOK && oldest > after + 1 {
            self.unchecked.push((after, oldest));
        }
        for (key, row) in rows {
            if key.0 > after
                && let Some(evidence) = unbelieved.check(&row, known)
            {
                self.rows.insert(key, Some(evidence));
            }
        }
        self.count_believed();
        Ok(())
    }

    /// The same piece may stand in many rows: anybody who may add rows can copy one.
    fn count_believed(&mut self) {
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_unstable_by_key(|(key, _)| key.0);
        let mut seen = HashSet::new();
        let believed = rows.into_iter().filter_map(|(_, evidence)| evidence.as_ref());
        self.believed =
            believed.filter(|evidence| seen.insert(evidence.statement(Uuid::nil()))).cloned().collect();
    }
}

/// Rows of evidence with numbers below `number`, the newest first.
async fn evidence_below<D: Rows>(db: &mut D, number: u64) -> Result<Vec<(RowKey, D::Row)>, StoreError> {
    let rows = db.rows(&EVIDENCE, &[number.into(), (EVIDENCE_PER_LOOK as u64).into()]).await?;
    let keyed = rows.into_iter().map(|row| {
        let key = || Ok((row.get(10)?, row.bytes(9)?.to_vec()));
        let key = key().map_err(|reason: String| corrupt("log_evidence", &[], reason))?;
        Ok((key, row))
    });
    keyed.collect()
}

/// Rows whose signatures are not believed.
#[derive(Default)]
struct UnbelievedRows {
    rows: usize,
    last: String,
}

impl UnbelievedRows {
    fn check(&mut self, row: &impl Row, known: &KnownLog) -> Option<LogEvidence> {
        let read = read_evidence(row, known);
        read.map_err(|reason| {
            self.rows += 1;
            self.last = reason;
        })
        .ok()
    }

    /// Once for all of a look: anybody who may add rows can add very many.
    fn tell(self) {
        if self.rows > 0 {
            let Self { rows, last: reason } = self;
            tracing::error!(rows, reason, "stored evidence of a set-back is not believed, and ignored");
        }
    }
}

fn read_evidence(row: &impl Row, known: &KnownLog) -> Result<LogEvidence, String> {
    let mark: String = row.get(1)?;
    let (position, digest) = (row.get(3)?, row.get(5)?);
    let mark = match mark.as_str() {
        "ROW" => LogMark::Row { position, hash: digest },
        "TRUST" => LogMark::Trust { instance_id: row.get(2)?, position, revision: row.get(4)?, digest },
        "CHECKPOINT" => LogMark::Checkpoint { size: position, root: digest },
        other => return Err(format!("unknown mark {other:?}")),
    };
    let evidence =
        LogEvidence { epoch: LogEpoch(row.get(0)?), mark, witness: row.get(6)?, seen_at: row.get(7)? };
    let seal = Seal { key_id: row.get(8)?, value: row.bytes(9)?.to_vec() };
    let notary = known.epochs.notary().ok_or("no key is known")?;
    notary.check(&evidence.statement(known.log_id), &seal)?;
    Ok(evidence)
}

impl KnownLog {
    /// Refuses a log that is not the one that was acknowledged, and gives the epoch in force.
    /// MUST be called under the append lock, with a look that was taken under it.
    ///
    /// # Errors
    /// [`StoreError::SetBack`].
    pub(crate) async fn admit(&self, db: &mut impl Rows, look: Look) -> Result<EpochInForce, StoreError> {
        let epoch = self.epoch(db, look.newest_begin).await?;
        if let Some(memory) = &look.memory {
            let row = look.remembered.map(|hash| MarkedRow {
                hash,
                instance_id: InstanceId::of_log(),
                revision: None,
                digest: None,
            });
            let view = LogView { epoch, end: look.end, row, root: None };
            refuse_halting(memory, &verdict(memory, &view))?;
            self.memory.forget_before(epoch.epoch);
        }
        for evidence in self.stored.believed(db, self, look.evidence_state).await? {
            refuse_halting(&evidence, &judge_at(db, &evidence, epoch, look.end).await?)?;
        }
        Ok(epoch)
    }
}

fn refuse_halting(evidence: &LogEvidence, verdict: &Verdict) -> Result<(), StoreError> {
    let reason = match verdict {
        Verdict::Agrees | Verdict::Ended => return Ok(()),
        Verdict::SetBack(contradiction) => format!("{evidence}, and {contradiction}"),
        Verdict::Superseded => format!("{evidence}: this log knows no such epoch"),
    };
    Err(StoreError::SetBack { reason })
}

/// Holds evidence against a log that ends at `end`.
async fn judge_at(
    db: &mut impl Rows,
    evidence: &LogEvidence,
    epoch: EpochInForce,
    end: LogHead,
) -> Result<Verdict, StoreError> {
    if evidence.epoch < epoch.epoch {
        return Ok(Verdict::Ended);
    }
    let position = evidence.mark.position();
    let row = db.row(&MARKED_ROW, &[position.into()]).await?;
    let row = row.map(|row| marked(&row)).transpose();
    let row = row.map_err(|reason| corrupt("events", &[Ok(position.to_string())], reason))?;
    Ok(verdict(evidence, &LogView { epoch, end, row, root: None }))
}

fn marked(row: &impl Row) -> Result<MarkedRow, String> {
    Ok(MarkedRow { hash: row.get(0)?, instance_id: row.get(1)?, revision: row.get(2)?, digest: row.get(3)? })
}

/// Where the log stands, and which stored evidence is believed.
///
/// In this order, so that without the append lock a log that grows meanwhile contradicts
/// nothing: the evidence before the end that it is held against, and the epoch last.
pub(crate) async fn stand(
    db: &mut impl Rows,
    known: &KnownLog,
) -> Result<(EpochInForce, LogHead, Vec<LogEvidence>), StoreError> {
    let state = evidence_state_of(db).await?;
    let believed = known.stored.believed(db, known, state).await?;
    let end = reads::head(db).await?;
    let newest = reads::newest_begin_of_log(db).await?;
    let epoch = known.epoch(db, newest).await?;
    Ok((epoch, end, believed))
}

pub(crate) async fn evidence_state_of(db: &mut impl Rows) -> Result<String, StoreError> {
    let missing = || corrupt("log_evidence", &[], "it cannot be counted".into());
    let row = db.row(&EVIDENCE_STATE, &[]).await?.ok_or_else(missing)?;
    row.get(0).map_err(|reason| corrupt("log_evidence", &[], reason))
}

/// Hash of the row at `position`, where there is one.
pub(crate) async fn hash_at(db: &mut impl Rows, position: u64) -> Result<Option<Sha256>, StoreError> {
    let row = db.row(&MARKED_ROW, &[position.into()]).await?;
    row.map(|row| row.get(0).map_err(|reason| corrupt("events", &[Ok(position.to_string())], reason)))
        .transpose()
}

/// Holds evidence against the log on a connection of its own, and stores it where the log
/// contradicts it.
pub(crate) async fn accuse<E: Engine>(engine: &E, evidence: &LogEvidence) -> Result<Verdict, StoreError> {
    let known = engine.known();
    let mut db = engine.repairer().await?;
    // A server that was superseded may answer, but it cannot commit.
    db.confirm().await?;
    db.begin().await?;
    let (epoch, end, believed) = stand(&mut db, known).await?;
    let verdict = judge_at(&mut db, evidence, epoch, end).await?;
    if verdict.halts() {
        known.recent.forget();
        if !is_shown(&mut db, &believed, evidence, epoch, end).await? {
            store(&mut db, known.log_id, known.epochs.notary(), evidence).await?;
        }
    }
    db.end().await?;
    Ok(verdict)
}

/// Whether stored evidence of the same kind halts already that reaches as far.
async fn is_shown(
    db: &mut impl Rows,
    believed: &[LogEvidence],
    evidence: &LogEvidence,
    epoch: EpochInForce,
    end: LogHead,
) -> Result<bool, StoreError> {
    for stored in believed {
        let reaches =
            key_of(stored) == key_of(evidence) && stored.mark.position() >= evidence.mark.position();
        if reaches && judge_at(db, stored, epoch, end).await?.halts() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Of the evidence with one key only that which reaches furthest says anything new.
fn key_of(evidence: &LogEvidence) -> (LogEpoch, &'static str, &str) {
    (evidence.epoch, evidence.mark.kind(), instance_of(&evidence.mark))
}

async fn store(
    db: &mut impl Rows,
    log_id: Uuid,
    notary: Option<&dyn Notary>,
    evidence: &LogEvidence,
) -> Result<(), StoreError> {
    // Evidence of a later epoch about nothing has no place in the table.
    if evidence.mark.position() == 0 {
        return Ok(());
    }
    let Some(seal) = notary.and_then(|notary| notary.seal(&evidence.statement(log_id))) else {
        tracing::warn!(%evidence, "no key is in force: evidence of a set-back is not stored for other servers");
        return Ok(());
    };
    let (revision, digest) = match &evidence.mark {
        LogMark::Row { hash, .. } => (0, hash),
        LogMark::Trust { revision, digest, .. } => (*revision, digest),
        LogMark::Checkpoint { root, .. } => (0, root),
    };
    let instance = instance_of(&evidence.mark);
    let binds = [
        evidence.epoch.0.into(),
        evidence.mark.kind().into(),
        instance.into(),
        evidence.mark.position().into(),
        revision.into(),
        digest.into(),
        (&evidence.witness).into(),
        evidence.seen_at.into(),
        (&seal.key_id).into(),
        crate::value::Value::Bytes(seal.value.as_slice().into()),
    ];
    db.execute(&ADD_EVIDENCE, &binds).await.map(drop)
}

fn instance_of(mark: &LogMark) -> &str {
    match mark {
        LogMark::Trust { instance_id, .. } => instance_id.as_str(),
        LogMark::Row { .. } | LogMark::Checkpoint { .. } => "",
    }
}

/// Stores what this process remembers, after the log was found to contradict it, so that no
/// other server goes on either.
pub(crate) async fn accuse_from_memory<E: Engine>(engine: &E) {
    engine.known().recent.forget();
    let Some(memory) = engine.known().memory.recall() else { return };
    if let Err(error) = accuse(engine, &memory).await {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "evidence that the log was set back could not be stored for other servers"
        );
    }
}

#[async_trait]
impl<E: Engine> Ground for E {
    async fn accuse(&self, evidence: &LogEvidence) -> Result<Verdict, StoreError> {
        accuse(self, evidence).await
    }

    async fn ground(&self) -> Result<GroundReport, StoreError> {
        let known = self.known();
        // Before the end of the log is read: an append of this process may come between.
        let memory = known.memory.recall();
        let mut db = self.own_reader().await?;
        let (epoch, end, mut believed) = stand(&mut *db, known).await?;
        believed.extend(memory);
        let mut evidence = Vec::with_capacity(believed.len());
        for piece in believed {
            let verdict = judge_at(&mut *db, &piece, epoch, end).await?;
            evidence.push((piece, verdict));
        }
        Ok(GroundReport { epoch, end, evidence, unbelieved_begins: known.epochs.unbelieved() })
    }
}
