//! Begins a log epoch: the row that says so and everything that is made again, in one
//! transaction under the append lock.

use std::collections::BTreeSet;
use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use async_trait::async_trait;
use catrust_domain::batch::WorkingSet;
use catrust_domain::log_epoch::{
    BeginPlace, EndBefore, LogEpochBegan, LostChange, MADE_AGAIN_BY, MAX_LOST_TOLD,
};
use catrust_domain::read_model::ReadModel;
use catrust_domain::{
    AccountId, CaCertificate, CommandContext, EpochInForce, Event, Instance, InstanceId, LogEpoch,
    LogEvidence, LogHead, Notary, Seal, Sha256, Timestamp,
};
use uuid::Uuid;

use crate::engine::Engine;
use crate::ground::{self, hash_at};
use crate::known::KnownLog;
use crate::rebuild::Repair;
use crate::row::{StoredRow as _, corrupt};
use crate::rows::Rows;
use crate::tables::SpentRegisterCode;
use crate::{EpochStore, StoreError, queries, reads};

/// Events made again by one statement.
const CHUNK: usize = 256;

/// First part of what the identity of an event is made of that a begin writes.
const EVENT_ID_CONTEXT: &str = "catrust/epoch-event/v1";

/// Where a log stood when a begin was decided on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogStand {
    /// The epoch in force.
    pub epoch: EpochInForce,
    /// The end of the log.
    pub end: LogHead,
    /// Stands for the stored evidence that was believed.
    pub evidence: Sha256,
}

/// What was lost, and the rule by which it is made again.
pub trait LostTrust: Send + Sync {
    /// Instances whose restored state the rule asks for.
    fn instances(&self) -> BTreeSet<InstanceId>;

    /// What is to be done on the restored state of those instances: all of their rows, in
    /// the order in which the events are to be appended.
    fn make_again(&self, restored: &ReadModel) -> MadeAgain;
}

/// What becomes of what was lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MadeAgain {
    /// Events to append.
    pub events: Vec<(InstanceId, Event)>,
    /// What was lost, ascending by position, whatever became of it.
    pub lost: Vec<LostChange>,
}

/// Nothing was lost: the new epoch keeps all that the log has.
#[derive(Clone, Copy, Debug, Default)]
pub struct NothingLost;

impl LostTrust for NothingLost {
    fn instances(&self) -> BTreeSet<InstanceId> {
        BTreeSet::new()
    }

    fn make_again(&self, _restored: &ReadModel) -> MadeAgain {
        MadeAgain::default()
    }
}

/// A begin of a log epoch that somebody decided on.
#[derive(Clone)]
pub struct EpochPlan {
    /// What it was decided on. It is refused where the log or the evidence are others by now.
    pub seen: LogStand,
    /// Last position that the epoch keeps of the one before: 0 for none.
    pub fork_position: u64,
    /// Hash of the row there; [`Sha256::ZERO`] for none.
    pub fork_hash: Sha256,
    /// The furthest end of the log that evidence shows. The epoch is above the one of it.
    pub end_before: EndBefore,
    /// The last signed checkpoints known, as notes.
    pub checkpoints: Vec<String>,
    /// What was lost.
    pub lost: Arc<dyn LostTrust>,
    /// Why; for people.
    pub reason: String,
    /// Who begins it.
    pub actor: String,
    /// Account of those who operate the servers.
    pub account_id: AccountId,
    /// Names the request in all of its rows.
    pub request_id: Uuid,
}

/// What became of an [`EpochPlan`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BegunEpoch {
    /// The epoch has begun, durably.
    Begun {
        /// The epoch.
        epoch: EpochInForce,
        /// The end of the log behind what was made again.
        end: LogHead,
        /// Number of events made again.
        made_again: u64,
        /// All that was lost, also what [`LogEpochBegan`] has no place for.
        lost: Vec<LostChange>,
    },
    /// The epoch that was seen has ended: somebody else was first, and nothing is to be done.
    Ended {
        /// The one that is in force now.
        epoch: EpochInForce,
    },
    /// The log or the evidence are no longer as they were seen: look again, and decide anew.
    Moved {
        /// As they are now.
        now: LogStand,
    },
    /// It cannot begin; the text says why, and what to do.
    Refused {
        /// For people.
        reason: String,
    },
}

impl fmt::Debug for EpochPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seen, fork_position, reason, actor, .. } = self;
        f.debug_struct("EpochPlan")
            .field("seen", seen)
            .field("fork_position", fork_position)
            .field("reason", reason)
            .field("actor", actor)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl<E: Engine> EpochStore for E {
    async fn stand(&self) -> Result<LogStand, StoreError> {
        let (epoch, end, believed) = ground::stand(&mut *self.own_reader().await?, self.known()).await?;
        Ok(LogStand { epoch, end, evidence: digest_of(self.known(), &believed) })
    }

    async fn begin_epoch(&self, plan: &EpochPlan) -> Result<BegunEpoch, StoreError> {
        begin(self, plan).await
    }
}

/// Stands for evidence, in whatever order it comes.
fn digest_of(known: &KnownLog, believed: &[LogEvidence]) -> Sha256 {
    let digests: BTreeSet<[u8; 32]> =
        believed.iter().map(|evidence| Sha256::of(&evidence.statement(known.log_id)).0).collect();
    Sha256::of(&digests.into_iter().flatten().collect::<Vec<u8>>())
}

async fn begin<E: Engine>(engine: &E, plan: &EpochPlan) -> Result<BegunEpoch, StoreError> {
    let known = engine.known();
    let refused = |reason: String| Ok(BegunEpoch::Refused { reason });
    let Some(notary) = known.epochs.notary() else { return refused(NO_KEY.to_owned()) };
    if let Some(rivals) = engine.rivals().await? {
        return refused(format!(
            "several of the configured database servers take writes ({rivals}): stop all but the one that stays"
        ));
    }
    let mut db = engine.repairer().await?;
    // A server that was superseded may answer, but it cannot commit.
    db.confirm().await?;
    // What is not committed in the end is rolled back with the connection.
    db.begin().await?;
    let (epoch, end, believed) = ground::stand(&mut db, known).await?;
    let now = LogStand { epoch, end, evidence: digest_of(known, &believed) };
    if now.epoch != plan.seen.epoch {
        return Ok(BegunEpoch::Ended { epoch });
    }
    if now != plan.seen {
        return Ok(BegunEpoch::Moved { now });
    }
    let fork = match plan.fork_position {
        0 => Some(Sha256::ZERO),
        position => hash_at(&mut db, position).await?,
    };
    if fork != Some(plan.fork_hash) {
        let position = plan.fork_position;
        return refused(format!("the log has no row with that hash at the fork position {position}"));
    }
    let present = reads::present(&mut db).await?;
    let number = match number(plan, &now, known.memory.recall(), &believed, present) {
        Ok(number) => number,
        Err(reason) => return refused(reason),
    };
    let occurred_at = engine.clock().map_or(present, |clock| clock());
    let model = restored(&mut db, &plan.lost.instances()).await?;
    let MadeAgain { events, lost } = plan.lost.make_again(&model);
    let Some(began) = began(plan, number, &now.end, events.len(), &lost, known, notary) else {
        return refused(NO_KEY.to_owned());
    };
    let mut writing = Writing { plan, log_id: known.log_id, epoch: number, end, occurred_at, model };
    writing.append(&mut db, vec![(InstanceId::of_log(), Event::LogEpochBegan(began))]).await?;
    let first = writing.end;
    let made_again = events.len() as u64;
    let mut events = events.into_iter();
    loop {
        let chunk: Vec<_> = events.by_ref().take(CHUNK).collect();
        if chunk.is_empty() {
            break;
        }
        writing.append(&mut db, chunk).await?;
    }
    let end = writing.end;
    // Whether it happened, the next look says.
    db.end().await.map_err(|error| StoreError::Ambiguous(error.into()))?;
    known.epoch(&mut db, Some(first.hash)).await?;
    known.recent.forget();
    known.memory.begun(&end, number);
    engine.raise(end.position);
    let epoch = EpochInForce { epoch: number, position: first.position, hash: first.hash };
    Ok(BegunEpoch::Begun { epoch, end, made_again, lost })
}

const NO_KEY: &str = "no server key is in force here that could sign it";

/// The number of the epoch: above the one in force, and every one that anything shows.
fn number(
    plan: &EpochPlan,
    now: &LogStand,
    memory: Option<LogEvidence>,
    believed: &[LogEvidence],
    present: Timestamp,
) -> Result<LogEpoch, String> {
    let shown = believed.iter().chain(&memory).map(|evidence| evidence.epoch);
    let before = shown.fold(now.epoch.epoch.max(plan.end_before.epoch), LogEpoch::max);
    let number = before.next(present);
    if number > LogEpoch::LAST {
        return Err(format!("epoch {number} would be beyond the last number that can be stored"));
    }
    if number.is_ahead_of(present) {
        return Err(format!(
            "an epoch {before} is known, which is ahead of the clock of the database ({present}): brokers would \
             refuse what follows it; set the clock right"
        ));
    }
    Ok(number)
}

/// All rows of the read model of some instances.
async fn restored(db: &mut impl Rows, instances: &BTreeSet<InstanceId>) -> Result<ReadModel, StoreError> {
    let mut model = ReadModel::new();
    for id in instances {
        let Some(row) = db.row(&queries::INSTANCE, &[id.into()]).await? else { continue };
        model.insert_instance(Instance::read(&row, 0)?);
        for row in db.rows(&queries::CERTIFICATES_OF_INSTANCE, &[id.into()]).await? {
            model.insert_certificate(CaCertificate::read(&row, 0)?);
        }
        for row in db.rows(&queries::SPENT_CODES_OF_INSTANCE, &[id.into()]).await? {
            let code = SpentRegisterCode::read(&row, 0)?;
            model.insert_spent_register_code(code.instance_id, code.register_code, code.position);
        }
    }
    Ok(model)
}

/// The payload of the row that begins the epoch, signed; `None` where no key is in force.
fn began(
    plan: &EpochPlan,
    epoch: LogEpoch,
    end: &LogHead,
    made_again: usize,
    lost: &[LostChange],
    known: &KnownLog,
    notary: &dyn Notary,
) -> Option<LogEpochBegan> {
    let told = lost.len().min(MAX_LOST_TOLD);
    let mut began = LogEpochBegan {
        epoch,
        fork_position: plan.fork_position,
        fork_hash: plan.fork_hash,
        end_before: plan.end_before.clone(),
        checkpoints: plan.checkpoints.clone(),
        lost: lost[..told].to_vec(),
        lost_untold: (lost.len() - told) as u64,
        made_again: made_again as u64,
        reason: plan.reason.clone(),
        key_id: notary.key_id()?,
        signature: String::new(),
    };
    let place = BeginPlace { position: end.position + 1, previous: &end.hash, actor: &plan.actor };
    let Seal { key_id, value } = notary.seal(&began.statement(known.log_id, &place))?;
    if key_id != began.key_id {
        return None;
    }
    for byte in value {
        // Writing to a String cannot fail.
        let _ = write!(began.signature, "{byte:02x}");
    }
    Some(began)
}

/// The rows of a begin on their way.
struct Writing<'a> {
    plan: &'a EpochPlan,
    log_id: Uuid,
    epoch: LogEpoch,
    /// The end of the log so far.
    end: LogHead,
    occurred_at: Timestamp,
    model: ReadModel,
}

impl Writing<'_> {
    async fn append(
        &mut self,
        db: &mut impl Repair,
        events: Vec<(InstanceId, Event)>,
    ) -> Result<(), StoreError> {
        let before = self.end;
        let mut set = WorkingSet::new(before, self.epoch, self.occurred_at, std::mem::take(&mut self.model));
        for stream in events.iter().map(|(id, event)| event.stream_id(id)).collect::<BTreeSet<_>>() {
            let version = reads::number(db, &queries::STREAM_END, &[(&stream).into()]).await?;
            set.insert_stream_version(stream, version.unwrap_or(0));
        }
        let mut position = before.position;
        for (id, event) in events {
            position += 1;
            let context = self.context(position, &before, matches!(event, Event::LogEpochBegan(_)));
            let recorded = set.record(&id, &context, event);
            recorded.map_err(|error| corrupt("instances", &[Ok(id.to_string())], error.to_string()))?;
        }
        let (end, writes, model) = set.finish_and_keep();
        db.write(&writes, &before, &end, self.occurred_at).await?;
        self.end = end;
        self.model = model;
        Ok(())
    }

    fn context(&self, position: u64, before: &LogHead, begins: bool) -> CommandContext {
        let EpochPlan { actor, account_id, request_id, .. } = self.plan;
        CommandContext {
            event_id: self.event_id(position, &before.hash),
            request_id: *request_id,
            fingerprint: None,
            actor: if begins { actor.clone() } else { MADE_AGAIN_BY.to_owned() },
            account_id: account_id.clone(),
            policy_version: String::new(),
            source_address: String::new(),
            traceparent: String::new(),
        }
    }

    /// Made of the place, which has one event for ever.
    fn event_id(&self, position: u64, before: &Sha256) -> Uuid {
        let place = format!("{EVENT_ID_CONTEXT}/{}/{}/{position}/{before}", self.log_id, self.epoch);
        let digest = Sha256::of(place.as_bytes());
        let [half, _] = digest.as_bytes().as_chunks::<16>().0 else { return Uuid::nil() };
        uuid::Builder::from_custom_bytes(*half).into_uuid()
    }
}
