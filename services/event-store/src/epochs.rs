//! Which log epochs have begun, as far as this process has read the log.
//!
//! Statements that depend on it carry the hash of the newest row that begins an epoch,
//! believed or not: while it is the one known here, so is every one before it. Another
//! one makes the list be read anew, on the same connection.

use std::sync::{Arc, Mutex, PoisonError};

use catrust_domain::event::{EventType, LogEpochBegan};
use catrust_domain::log_epoch::BeginPlace;
use catrust_domain::{
    EpochInForce, Event, Instance, LogEpoch, Notary, RecordedEvent, Seal, Sha256, Timestamp,
};
use tokio::sync::watch;
use uuid::Uuid;

use crate::row::{Row as _, StoredRow as _, corrupt};
use crate::rows::Rows;
use crate::{StoreError, queries, reads};

/// The epochs of one log.
#[derive(Debug)]
pub(crate) struct Epochs {
    log_id: Uuid,
    /// `None`: no key is known, so that no begin is believed, and none is told.
    notary: Option<Arc<dyn Notary>>,
    begins: Mutex<Begins>,
    in_force: watch::Sender<EpochInForce>,
}

/// The rows that begin an epoch, or claim to, ascending.
#[derive(Debug)]
struct Begins {
    rows: Vec<Begin>,
    /// When they were read, by the clock of the database.
    read_at: Timestamp,
    /// Whether one may be believed later: its number is ahead of that clock.
    unsettled: bool,
}

impl Default for Begins {
    fn default() -> Self {
        Self { rows: Vec::new(), read_at: Timestamp::FIRST, unsettled: false }
    }
}

/// The end of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EpochEnd {
    /// Last position that later epochs keep of it.
    pub(crate) fork_position: u64,
    /// The epoch that kept no more.
    pub(crate) next: LogEpoch,
    /// When that one began.
    pub(crate) next_began_at: Timestamp,
}

/// A row that begins an epoch, or claims to.
#[derive(Clone, Debug)]
struct Begin {
    position: u64,
    hash: Sha256,
    /// Hash of the row before it.
    previous: Sha256,
    actor: String,
    occurred_at: Timestamp,
    /// What it begins; the reason where it begins nothing.
    began: Result<EpochInForce, String>,
    payload: Result<LogEpochBegan, String>,
}

impl Epochs {
    pub(crate) fn new(log_id: Uuid) -> Self {
        let in_force = watch::Sender::new(EpochInForce::FIRST);
        Self { log_id, notary: None, begins: Mutex::default(), in_force }
    }

    /// Says whose signatures are believed from now on.
    pub(crate) fn set_notary(&mut self, notary: Arc<dyn Notary>) {
        self.notary = Some(notary);
        let begins = std::mem::take(&mut *self.begins.lock().unwrap_or_else(PoisonError::into_inner));
        self.replace(begins.rows, begins.read_at);
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<EpochInForce> {
        self.in_force.subscribe()
    }

    /// The epoch in force at the end of the log.
    pub(crate) fn in_force(&self) -> EpochInForce {
        *self.in_force.borrow()
    }

    /// Brings the list up to `newest`, the hash of the newest row of the log that begins an
    /// epoch, as a statement gave it. Gives whether another epoch is in force than before.
    pub(crate) async fn bring_up_to(
        &self,
        db: &mut impl Rows,
        newest: Option<Sha256>,
    ) -> Result<bool, StoreError> {
        {
            let begins = self.begins.lock().unwrap_or_else(PoisonError::into_inner);
            if begins.rows.last().map(|begin| begin.hash) == newest && !begins.unsettled {
                return Ok(false);
            }
        }
        self.load(db).await
    }

    /// Reads the list anew. Gives whether another epoch is in force than before.
    pub(crate) async fn load(&self, db: &mut impl Rows) -> Result<bool, StoreError> {
        let rows = db.rows(&queries::EPOCH_BEGINS, &[]).await?;
        let present = if rows.is_empty() { Timestamp::FIRST } else { reads::present(db).await? };
        let begins = rows.iter().map(|row| {
            let event = RecordedEvent::read(row, 0)?;
            let previous: Option<Sha256> = row
                .get(RecordedEvent::WIDTH)
                .map_err(|reason| corrupt("events", &[Ok(event.position.to_string())], reason))?;
            Ok(Begin::of(&event, previous.unwrap_or(Sha256::ZERO)))
        });
        Ok(self.replace(begins.collect::<Result<_, StoreError>>()?, present))
    }

    /// Whose signatures are believed; `None` where no key is known.
    pub(crate) fn notary(&self) -> Option<&dyn Notary> {
        self.notary.as_deref()
    }

    /// Positions of the rows that claim to begin an epoch and are not believed.
    pub(crate) fn unbelieved(&self) -> Vec<u64> {
        let begins = self.begins.lock().unwrap_or_else(PoisonError::into_inner);
        begins.rows.iter().filter(|begin| begin.began.is_err()).map(|begin| begin.position).collect()
    }

    /// Gives each row the epoch that it belongs to. The list MUST have been brought up to
    /// what the rows were read with.
    pub(crate) fn assign(&self, rows: &mut [RecordedEvent]) {
        let begins = self.begins.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            row.epoch = match row.revision {
                Some(revision) => LogEpoch::of_revision(revision),
                None => in_force_at(&begins.rows, row.position).epoch,
            };
        }
    }

    /// Whether the log has this epoch.
    pub(crate) fn has(&self, epoch: LogEpoch) -> bool {
        epoch == LogEpoch::FIRST || self.believed().iter().any(|(began, _, _)| began.epoch == epoch)
    }

    /// The epochs of the log from `epoch` back to the first.
    pub(crate) fn up_to(&self, epoch: LogEpoch) -> Vec<LogEpoch> {
        let begun = self.believed().into_iter().rev().map(|(began, _, _)| began.epoch);
        begun.filter(|begun| *begun <= epoch).chain([LogEpoch::FIRST]).collect()
    }

    /// Where an epoch ended; `None` for the one in force.
    pub(crate) fn end_of(&self, epoch: LogEpoch) -> Option<EpochEnd> {
        let later = self.believed().into_iter().filter(|(began, _, _)| began.epoch > epoch);
        later.map(|(_, end, _)| end).min_by_key(|end| end.fork_position)
    }

    /// The epoch that was in force at a time.
    pub(crate) fn at_time(&self, time: Timestamp) -> LogEpoch {
        let begun = self.believed().into_iter().rev().find(|(_, end, _)| end.next_began_at <= time);
        begun.map_or(LogEpoch::FIRST, |(began, _, _)| began.epoch)
    }

    /// The ends of epochs, that were not yet ended at a time, beyond which something was lost.
    pub(crate) fn losses_after(&self, time: Timestamp) -> Vec<EpochEnd> {
        let losses = self.believed().into_iter().filter(|(_, end, lossy)| *lossy && end.next_began_at > time);
        losses.map(|(_, end, _)| end).collect()
    }

    /// The epochs that have begun, each with the end of the one before, and whether something of
    /// that was lost.
    fn believed(&self) -> Vec<(EpochInForce, EpochEnd, bool)> {
        let begins = self.begins.lock().unwrap_or_else(PoisonError::into_inner);
        let believed = begins.rows.iter().filter_map(|begin| {
            let (began, payload) = (*begin.began.as_ref().ok()?, begin.payload.as_ref().ok()?);
            let fork_position = payload.fork_position;
            let end = EpochEnd { fork_position, next: began.epoch, next_began_at: begin.occurred_at };
            let lossy = !payload.lost.is_empty()
                || payload.end_before.position > fork_position
                || began.position > fork_position + 1;
            Some((began, end, lossy))
        });
        believed.collect()
    }

    fn replace(&self, mut rows: Vec<Begin>, read_at: Timestamp) -> bool {
        let mut before = EpochInForce::FIRST;
        let mut unsettled = false;
        for begin in &mut rows {
            begin.began = self.judge(begin, before);
            if begin.is_ahead_of(read_at) {
                unsettled |= begin.began.is_ok();
                begin.began =
                    begin.began.clone().and(Err("its number is ahead of the clock of the database".into()));
            }
            before = *begin.began.as_ref().unwrap_or(&before);
        }
        let mut known = self.begins.lock().unwrap_or_else(PoisonError::into_inner);
        if self.notary.is_some() {
            tell_unbelieved(&rows, &known.rows);
        }
        *known = Begins { rows, read_at, unsettled };
        self.in_force.send_if_modified(|in_force| std::mem::replace(in_force, before) != before)
    }

    /// What a row begins, after `before`; the reason where it begins nothing.
    fn judge(&self, begin: &Begin, before: EpochInForce) -> Result<EpochInForce, String> {
        let began = begin.payload.as_ref().map_err(Clone::clone)?;
        if began.epoch <= before.epoch {
            return Err(format!("epoch {} is not above epoch {}", began.epoch, before.epoch));
        }
        if began.fork_position >= begin.position {
            return Err(format!("it forks at position {}, not before itself", began.fork_position));
        }
        let value = decode_hex(&began.signature).ok_or("its signature is not hexadecimal")?;
        let seal = Seal { key_id: began.key_id.clone(), value };
        let notary = self.notary.as_ref().ok_or("no key is known")?;
        let Begin { position, previous, actor, .. } = begin;
        let place = BeginPlace { position: *position, previous, actor };
        notary.check_past(&began.statement(self.log_id, &place), &seal)?;
        Ok(EpochInForce { epoch: began.epoch, position: begin.position, hash: begin.hash })
    }
}

impl Begin {
    fn of(row: &RecordedEvent, previous: Sha256) -> Self {
        let payload = match row.decode() {
            Ok(Event::LogEpochBegan(began)) if row.instance_id.is_reserved() => Ok(began),
            Ok(_) => Err("it is not of the log itself".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        Self {
            position: row.position,
            hash: row.hash,
            previous,
            actor: row.actor.clone(),
            occurred_at: row.occurred_at,
            began: Err("it has not been looked at".to_owned()),
            payload,
        }
    }

    fn is_ahead_of(&self, present: Timestamp) -> bool {
        self.payload.as_ref().is_ok_and(|began| began.epoch.is_ahead_of(present))
    }
}

/// The epoch in force at a position.
fn in_force_at(begins: &[Begin], position: u64) -> EpochInForce {
    let mut before = begins.iter().rev().skip_while(|begin| begin.position > position);
    before.find_map(|begin| begin.began.as_ref().ok().copied()).unwrap_or(EpochInForce::FIRST)
}

/// Tells of each row that begins nothing, once.
fn tell_unbelieved(begins: &[Begin], known: &[Begin]) {
    for begin in begins {
        let Err(reason) = &begin.began else { continue };
        let told = known.iter().any(|known| known.hash == begin.hash && known.began == begin.began);
        if !told {
            tracing::error!(
                position = begin.position,
                reason,
                "a row claims to begin a log epoch and is not believed: it begins nothing"
            );
        }
    }
}

fn decode_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pair = |pair: &[u8]| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    };
    text.as_bytes().chunks(2).map(pair).collect()
}

/// SQL of the rows that claim to begin an epoch.
pub(crate) fn begins() -> String {
    format!("event_type = '{}'", EventType::LogEpochBegan.name())
}

/// SQL of the hash of the newest one; NULL where there is none.
pub(crate) fn newest_begin() -> String {
    format!("(SELECT hash FROM events WHERE {} ORDER BY position DESC LIMIT 1)", begins())
}

/// Puts the revision of an instance into the epoch in force.
pub(crate) fn lift(instance: &mut Instance, in_force: EpochInForce) {
    instance.revision = current(instance.revision, in_force);
}

/// A stored revision as it is called in the epoch in force; never a lower one, also where
/// a begin is not believed here.
pub(crate) const fn current(revision: u64, in_force: EpochInForce) -> u64 {
    if LogEpoch::of_revision(revision).0 < in_force.epoch.0 {
        in_force.epoch.lift(revision)
    } else {
        revision
    }
}
