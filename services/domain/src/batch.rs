//! One group commit, in memory: commands in, rows to write out.
//!
//! The store takes the append lock, loads what [`Needs`] names into a
//! [`WorkingSet`], calls [`WorkingSet::run`] for each command in turn, and writes
//! what [`WorkingSet::finish`] gives, all in one transaction. Each command sees
//! the effects of those before it; a refused one leaves nothing behind.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::ca_certificate::{self, CaCertificate};
use crate::command::{Command, CommandContext, CommandEnvelope, Reply, ReplyBody, RequestKey, StoredReply};
use crate::digest::Sha256;
use crate::event::Event;
use crate::event_log::{LogEntry, LogHead, RecordedEvent};
use crate::identifiers::InstanceId;
use crate::instance::{self, Instance};
use crate::log_epoch::LogEpoch;
use crate::read_model::{EventMeta, InconsistentEvent, ReadModel};
use crate::rejection::Rejection;
use crate::serial_number::SerialNumber;
use crate::set_hash::SetHash;
use crate::timestamp::Timestamp;

/// The rows that a batch of commands has to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Instances by id.
    pub instances: BTreeSet<InstanceId>,
    /// CA certificates by serial number, each with every other of the same key.
    pub certificates: BTreeSet<(InstanceId, SerialNumber)>,
    /// CA certificates by public key.
    pub keys: BTreeSet<(InstanceId, Sha256)>,
    /// Spent register codes, where they exist.
    pub register_codes: BTreeSet<(InstanceId, String)>,
    /// Last versions of streams whose certificate may have been deleted.
    pub streams: BTreeSet<String>,
    /// Stored replies, where they exist.
    pub replies: HashSet<RequestKey>,
}

impl Needs {
    /// Collects what `commands` have to see.
    pub fn of<'a>(commands: impl IntoIterator<Item = &'a CommandEnvelope>) -> Self {
        let mut needs = Self::default();
        for envelope in commands {
            let instance_id = &envelope.instance_id;
            needs.instances.insert(instance_id.clone());
            needs.replies.extend(envelope.request_key());
            match &envelope.command {
                Command::RegisterInstance(_)
                | Command::UpdateInstance { .. }
                | Command::IssueRegisterCode { .. } => {}
                Command::RegisterCaCertificate { facts, register_code, .. } => {
                    needs.certificates.insert((instance_id.clone(), facts.sn.clone()));
                    needs.keys.insert((instance_id.clone(), facts.spki_sha256));
                    needs.register_codes.insert((instance_id.clone(), register_code.clone()));
                    needs.streams.insert(format!("ca-certificate/{instance_id}/{}", facts.sha256));
                }
                Command::InactivateCaCertificate { sn, .. }
                | Command::ActivateCaCertificate { sn, .. }
                | Command::DeleteCaCertificate { sn, .. } => {
                    needs.certificates.insert((instance_id.clone(), sn.clone()));
                }
            }
        }
        needs
    }

    /// What `model` does not hold. The model MUST hold all CA certificates of a key or none,
    /// as one does that was loaded by [`Needs`] and evolved. A row that does not exist counts
    /// as missing: the model cannot tell it from one that was not loaded.
    #[must_use]
    pub fn missing_from(mut self, model: &ReadModel) -> Self {
        self.instances.retain(|id| model.instance(id).is_none());
        self.certificates.retain(|(id, sn)| model.certificate(id, sn).is_none());
        self
    }

    /// Whether nothing is asked for but stored replies.
    #[must_use]
    pub fn is_replies_alone(&self) -> bool {
        self.instances.is_empty()
            && self.certificates.is_empty()
            && self.keys.is_empty()
            && self.register_codes.is_empty()
            && self.streams.is_empty()
    }
}

/// The rows to write, each table's in one statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    /// New rows of the log, ascending by position.
    pub events: Vec<LogEntry>,
    /// Instances to insert or replace.
    pub instances: Vec<Instance>,
    /// CA certificates to insert or replace.
    pub certificates: Vec<CaCertificate>,
    /// CA certificates to remove.
    pub deleted_certificates: Vec<(InstanceId, SerialNumber)>,
    /// Register codes to mark as spent, with the position that spent them.
    pub spent_register_codes: Vec<(InstanceId, String, u64)>,
    /// Replies to keep for repeats.
    pub replies: Vec<StoredReply>,
}

impl Writes {
    /// Whether there is nothing to commit.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.events.is_empty() && self.replies.is_empty()
    }
}

/// The state that a batch works on, as loaded under the append lock.
#[derive(Debug)]
pub struct WorkingSet {
    head: LogHead,
    epoch: LogEpoch,
    now: Timestamp,
    model: ReadModel,
    stream_versions: HashMap<String, u64>,
    stored: HashMap<RequestKey, (Sha256, Reply)>,
    dirty_instances: BTreeSet<InstanceId>,
    dirty_certificates: BTreeSet<(InstanceId, SerialNumber)>,
    writes: Writes,
}

impl WorkingSet {
    /// Starts a batch after `head`, where `epoch` is in force. Events get the time `now`, or the head's where
    /// that is later, so that time never runs backwards along the log.
    #[must_use]
    pub fn new(head: LogHead, epoch: LogEpoch, now: Timestamp, model: ReadModel) -> Self {
        Self {
            head,
            epoch,
            now: now.max(head.occurred_at),
            model,
            stream_versions: HashMap::new(),
            stored: HashMap::new(),
            dirty_instances: BTreeSet::new(),
            dirty_certificates: BTreeSet::new(),
            writes: Writes::default(),
        }
    }

    /// Puts the last version of a stream in.
    pub fn insert_stream_version(&mut self, stream_id: String, version: u64) {
        self.stream_versions.insert(stream_id, version);
    }

    /// Puts a stored reply in.
    pub fn insert_reply(&mut self, stored: StoredReply) {
        self.stored.insert(stored.key, (stored.fingerprint, stored.reply));
    }

    /// Runs one command.
    ///
    /// # Errors
    /// The outer error means that log and read model contradict each other: the
    /// batch MUST be rolled back and the store reported as damaged. The inner one
    /// is the rule that refused this command alone.
    pub fn run(&mut self, envelope: &CommandEnvelope) -> Result<Result<Reply, Rejection>, InconsistentEvent> {
        let key = envelope.request_key();
        if let (Some(key), Some(fingerprint)) = (&key, envelope.context.fingerprint)
            && let Some((stored_fingerprint, reply)) = self.stored.get(key)
        {
            return Ok(if *stored_fingerprint == fingerprint {
                Ok(reply.clone())
            } else {
                Err(Rejection::RequestIdReused)
            });
        }
        let event = match self.decide(envelope) {
            Ok(event) => event,
            Err(rejection) => return Ok(Err(rejection)),
        };
        let changed = event.is_some();
        if let Some(event) = event {
            self.record(&envelope.instance_id, &envelope.context, event)?;
        }
        let reply = self.reply(envelope, changed);
        if let (Some(key), Some(fingerprint)) = (key, envelope.context.fingerprint) {
            self.stored.insert(key.clone(), (fingerprint, reply.clone()));
            self.writes.replies.push(StoredReply { key, fingerprint, reply: reply.clone() });
        }
        Ok(Ok(reply))
    }

    /// Ends the batch: the head after it, and the rows to write.
    #[must_use]
    pub fn finish(self) -> (LogHead, Writes) {
        let (head, writes, _) = self.finish_and_keep();
        (head, writes)
    }

    /// As [`WorkingSet::finish`], with the rows as they are once the batch is written.
    #[must_use]
    pub fn finish_and_keep(mut self) -> (LogHead, Writes, ReadModel) {
        for id in &self.dirty_instances {
            self.writes.instances.extend(self.model.instance(id).cloned());
        }
        for (id, sn) in self.dirty_certificates {
            match self.model.certificate(&id, &sn) {
                Some(certificate) => self.writes.certificates.push(certificate.clone()),
                None => self.writes.deleted_certificates.push((id, sn)),
            }
        }
        (self.head, self.writes, self.model)
    }

    fn decide(&self, envelope: &CommandEnvelope) -> Result<Option<Event>, Rejection> {
        let id = &envelope.instance_id;
        let instance = self.model.instance(id);
        match &envelope.command {
            Command::RegisterInstance(wanted) => instance::decide_register(instance, wanted.clone()),
            Command::UpdateInstance { owner_account_id, edition } => {
                instance::decide_update(instance, owner_account_id.clone(), *edition)
            }
            Command::IssueRegisterCode { register_code } => {
                owned_instance(instance, envelope)?;
                let register_code = register_code.clone();
                Ok(Some(Event::RegisterCodeIssued(crate::event::RegisterCodeIssued { register_code })))
            }
            Command::RegisterCaCertificate { facts, ca_name, register_code, certificate_limit } => {
                let instance = owned_instance(instance, envelope)?;
                self.check_registration(instance, &facts.sn, register_code, *certificate_limit)?;
                Ok(Some(ca_certificate::decide_register(
                    Arc::clone(facts),
                    ca_name.clone(),
                    register_code.clone(),
                )))
            }
            Command::InactivateCaCertificate { sn, scope, with_will, reason } => {
                switchable_instance(instance, envelope)?;
                let certificate = self.model.certificate(id, sn);
                ca_certificate::decide_inactivate(certificate, *scope, *with_will, reason.clone())
            }
            Command::ActivateCaCertificate { sn, expected_revision, reason } => {
                switchable_instance(instance, envelope)?;
                let certificate = self.model.certificate(id, sn);
                ca_certificate::decide_activate(certificate, *expected_revision, reason.clone())
            }
            Command::DeleteCaCertificate { sn, with_will, reason } => {
                owned_instance(instance, envelope)?;
                let certificate = self.model.certificate(id, sn);
                let active_twins = certificate.map(|ca| self.active_twins(ca)).unwrap_or_default();
                ca_certificate::decide_delete(certificate, active_twins, *with_will, reason.clone())
            }
        }
    }

    fn active_twins(&self, certificate: &CaCertificate) -> Vec<SerialNumber> {
        let id = &certificate.instance_id;
        let mut twins = self.model.same_key_sns(id, &certificate.facts);
        twins.retain(|sn| self.model.certificate(id, sn).is_some_and(|twin| twin.state.is_active()));
        twins
    }

    /// Checks the code before the serial number: whoever repeats a whole registration gets
    /// `RegisterCodeUsed`, and learns by it that the first one went through.
    fn check_registration(
        &self,
        instance: &Instance,
        sn: &SerialNumber,
        register_code: &str,
        certificate_limit: u32,
    ) -> Result<(), Rejection> {
        let id = &instance.instance_id;
        if self.model.is_spent(id, register_code) {
            return Err(Rejection::RegisterCodeSpent);
        }
        if !instance.unspent_register_codes.iter().any(|code| code == register_code) {
            return Err(Rejection::RegisterCodeUnknown);
        }
        if self.model.certificate(id, sn).is_some() {
            return Err(Rejection::SerialNumberTaken(sn.clone()));
        }
        if instance.certificate_count >= certificate_limit {
            return Err(Rejection::TooManyCertificates(certificate_limit));
        }
        Ok(())
    }

    /// Records an event that no command asked for.
    ///
    /// # Errors
    /// The event cannot follow the state: the batch MUST be rolled back.
    pub fn record(
        &mut self,
        id: &InstanceId,
        context: &CommandContext,
        event: Event,
    ) -> Result<(), InconsistentEvent> {
        let stream_id = event.stream_id(id);
        let stream_version = self.stream_version(id, &event, &stream_id) + 1;
        let position = self.head.position + 1;
        let meta = EventMeta {
            position,
            stream_version,
            instance_id: id,
            actor: &context.actor,
            occurred_at: self.now,
            epoch: self.epoch,
        };
        let trust = self.model.evolve(&meta, &event)?;
        self.dirty_instances.insert(id.clone());
        if let Some(effect) = event.trust_effect() {
            self.dirty_certificates.insert((id.clone(), effect.certificate.sn.clone()));
        }
        self.stream_versions.insert(stream_id.clone(), stream_version);
        if let Event::CaCertificateRegistered(payload) = &event {
            self.writes.spent_register_codes.push((id.clone(), payload.register_code.clone(), position));
        }
        let mut recorded = RecordedEvent {
            position,
            event_id: context.event_id,
            stream_id,
            stream_version,
            instance_id: id.clone(),
            revision: trust.map(|trust| trust.revision),
            bundle_digest: trust.map(|trust| trust.digest),
            sn: event.trust_effect().map(|effect| effect.certificate.sn.clone()),
            event_type: event.event_type().to_owned(),
            schema_version: event.schema_version(),
            payload: event.encode(),
            actor: context.actor.clone(),
            account_id: context.account_id.clone(),
            policy_version: context.policy_version.clone(),
            source_address: context.source_address.clone(),
            request_id: context.request_id,
            traceparent: context.traceparent.clone(),
            occurred_at: self.now,
            hash: Sha256::ZERO,
            epoch: self.epoch,
        };
        recorded.hash = recorded.compute_hash(&self.head.hash);
        self.head = recorded.head();
        self.writes.events.push(LogEntry { row: recorded, event });
        Ok(())
    }

    /// Version of the stream before `event`: of the aggregate where it lives, of
    /// the log where its certificate was deleted, or where it is of the log itself.
    fn stream_version(&self, id: &InstanceId, event: &Event, stream_id: &str) -> u64 {
        let living = match event.trust_effect() {
            None => self.model.instance(id).map(|instance| instance.stream_version),
            Some(effect) => {
                self.model.certificate(id, &effect.certificate.sn).map(|living| living.stream_version)
            }
        };
        living.or_else(|| self.stream_versions.get(stream_id).copied()).unwrap_or(0)
    }

    fn reply(&self, envelope: &CommandEnvelope, changed: bool) -> Reply {
        let id = &envelope.instance_id;
        let instance = self.model.instance(id);
        let revision = instance.map_or(0, |instance| instance.revision);
        let of_instance = || {
            let mut instance = instance.cloned().expect("a decided command has its instance");
            // A stored reply does not keep these, and a repeat must get the same reply.
            instance.set_hash = SetHash::empty();
            instance.unspent_register_codes.clear();
            let position = instance.updated_position;
            Reply { changed, position, revision, body: ReplyBody::Instance(Box::new(instance)) }
        };
        let of_certificate = |sn: &SerialNumber| {
            let certificate = self.model.certificate(id, sn).expect("a decided command has its certificate");
            Reply {
                changed,
                position: certificate.position,
                revision: certificate.revision,
                body: ReplyBody::CaCertificate {
                    same_key_sns: self.model.same_key_sns(id, &certificate.facts),
                    certificate: Box::new(certificate.clone()),
                },
            }
        };
        match &envelope.command {
            Command::RegisterInstance(_) | Command::UpdateInstance { .. } => of_instance(),
            Command::IssueRegisterCode { register_code } => Reply {
                changed,
                position: self.head.position,
                revision,
                body: ReplyBody::RegisterCode(register_code.clone()),
            },
            Command::RegisterCaCertificate { facts, .. } => of_certificate(&facts.sn),
            Command::InactivateCaCertificate { sn, .. } | Command::ActivateCaCertificate { sn, .. } => {
                of_certificate(sn)
            }
            Command::DeleteCaCertificate { sn, .. } => Reply {
                changed,
                position: self.head.position,
                revision,
                body: ReplyBody::Deleted { sn: sn.clone() },
            },
        }
    }
}

/// The instance, when the caller's account owns it. The service has checked this
/// before; it is checked again here because the owner may have changed since.
fn owned_instance<'a>(
    instance: Option<&'a Instance>,
    envelope: &CommandEnvelope,
) -> Result<&'a Instance, Rejection> {
    let instance = instance.ok_or(Rejection::InstanceNotFound)?;
    if instance.owner_account_id != envelope.context.account_id {
        return Err(Rejection::NotOwner);
    }
    Ok(instance)
}

/// The instance, when the caller owns it and its edition may change states.
fn switchable_instance<'a>(
    instance: Option<&'a Instance>,
    envelope: &CommandEnvelope,
) -> Result<&'a Instance, Rejection> {
    let instance = owned_instance(instance, envelope)?;
    if !instance.edition.may_change_states() {
        return Err(Rejection::EditionNotSupported);
    }
    Ok(instance)
}
