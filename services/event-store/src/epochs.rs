//! Which log epochs have begun, as far as this process has read the log.
//!
//! Statements that depend on it carry the hash of the newest row that begins an epoch,
//! believed or not: while it is the one known here, so is every one before it. Another
//! one makes the list be read anew, on the same connection.

use std::sync::{Arc, Mutex, PoisonError};

use catrust_domain::event::{EventType, LogEpochBegan};
use catrust_domain::{EpochInForce, Event, Instance, LogEpoch, Notary, RecordedEvent, Seal, Sha256};
use tokio::sync::watch;
use uuid::Uuid;

use crate::rows::Rows;
use crate::{StoreError, queries, reads};

/// The epochs of one log.
#[derive(Debug)]
pub(crate) struct Epochs {
    log_id: Uuid,
    /// `None`: no key is known, so that no begin is believed, and none is told.
    notary: Option<Arc<dyn Notary>>,
    begins: Mutex<Vec<Begin>>,
    in_force: watch::Sender<EpochInForce>,
}

/// A row that begins an epoch, or claims to.
#[derive(Clone, Debug)]
struct Begin {
    position: u64,
    hash: Sha256,
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
        self.replace(begins);
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
        if self.newest() == newest {
            return Ok(false);
        }
        self.load(db).await
    }

    /// Reads the list anew. Gives whether another epoch is in force than before.
    pub(crate) async fn load(&self, db: &mut impl Rows) -> Result<bool, StoreError> {
        let rows = reads::events(db, &queries::EPOCH_BEGINS, &[]).await?;
        Ok(self.replace(rows.iter().map(Begin::of).collect()))
    }

    /// Whose signatures are believed; `None` where no key is known.
    pub(crate) fn notary(&self) -> Option<&dyn Notary> {
        self.notary.as_deref()
    }

    /// Positions of the rows that claim to begin an epoch and are not believed.
    pub(crate) fn unbelieved(&self) -> Vec<u64> {
        let begins = self.begins.lock().unwrap_or_else(PoisonError::into_inner);
        begins.iter().filter(|begin| begin.began.is_err()).map(|begin| begin.position).collect()
    }

    /// Gives each row the epoch that it belongs to. The list MUST have been brought up to
    /// what the rows were read with.
    pub(crate) fn assign(&self, rows: &mut [RecordedEvent]) {
        let begins = self.begins.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            row.epoch = match row.revision {
                Some(revision) => LogEpoch::of_revision(revision),
                None => in_force_at(&begins, row.position).epoch,
            };
        }
    }

    fn newest(&self) -> Option<Sha256> {
        self.begins.lock().unwrap_or_else(PoisonError::into_inner).last().map(|begin| begin.hash)
    }

    fn replace(&self, mut begins: Vec<Begin>) -> bool {
        let mut before = EpochInForce::FIRST;
        for begin in &mut begins {
            begin.began = self.judge(begin, before);
            before = *begin.began.as_ref().unwrap_or(&before);
        }
        let mut known = self.begins.lock().unwrap_or_else(PoisonError::into_inner);
        if self.notary.is_some() {
            tell_unbelieved(&begins, &known);
        }
        *known = begins;
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
        notary.check(&began.statement(self.log_id, begin.position), &seal)?;
        Ok(EpochInForce { epoch: began.epoch, position: begin.position, hash: begin.hash })
    }
}

impl Begin {
    fn of(row: &RecordedEvent) -> Self {
        let payload = match row.decode() {
            Ok(Event::LogEpochBegan(began)) if row.instance_id.is_reserved() => Ok(began),
            Ok(_) => Err("it is not of the log itself".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let (position, hash) = (row.position, row.hash);
        Self { position, hash, began: Err("it has not been looked at".to_owned()), payload }
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
