//! The current state as a fold over the log.
//!
//! The same [`ReadModel::evolve`] runs inside the appender's transaction (over the
//! rows that a batch touches), in a rebuild (over the whole log) and in
//! verification, so that "read model = folded log" holds by construction.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::ca_certificate::{CaCertificate, CaState, CertificateFacts};
use crate::digest::Sha256;
use crate::event::Event;
use crate::event_log::RecordedEvent;
use crate::identifiers::InstanceId;
use crate::instance::{Instance, MAX_UNSPENT_REGISTER_CODES};
use crate::log_epoch::{LogEpoch, revision_count};
use crate::serial_number::SerialNumber;
use crate::set_hash::SetHash;
use crate::timestamp::Timestamp;
use crate::trust_bundle::canonical_entry;

/// What an event's row adds to its payload.
#[derive(Clone, Copy, Debug)]
pub struct EventMeta<'a> {
    /// Global position.
    pub position: u64,
    /// Number in its stream.
    pub stream_version: u64,
    /// Instance that it belongs to.
    pub instance_id: &'a InstanceId,
    /// Principal that asked for it.
    pub actor: &'a str,
    /// When it was committed.
    pub occurred_at: Timestamp,
    /// Epoch that it belongs to.
    pub epoch: LogEpoch,
}

impl<'a> From<&'a RecordedEvent> for EventMeta<'a> {
    fn from(event: &'a RecordedEvent) -> Self {
        Self {
            position: event.position,
            stream_version: event.stream_version,
            instance_id: &event.instance_id,
            actor: &event.actor,
            occurred_at: event.occurred_at,
            epoch: event.epoch,
        }
    }
}

/// The revision and digest that a trust change makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustRevision {
    /// Instance revision after the change.
    pub revision: u64,
    /// Digest of the bundle after the change.
    pub digest: Sha256,
}

/// An event that cannot follow the state before it: the log or the read model is
/// damaged. The reader MUST stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event at position {position} does not follow: {reason}")]
pub struct InconsistentEvent {
    /// Position of the event.
    pub position: u64,
    /// What it contradicts.
    pub reason: &'static str,
}

/// Instances, CA certificates and spent register codes; all of them after a fold
/// from the beginning, or those that a batch loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadModel {
    instances: HashMap<InstanceId, Instance>,
    certificates: HashMap<InstanceId, BTreeMap<SerialNumber, CaCertificate>>,
    spent_register_codes: HashMap<InstanceId, BTreeMap<String, u64>>,
}

impl ReadModel {
    /// The state before the first event.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a loaded instance in.
    pub fn insert_instance(&mut self, instance: Instance) {
        self.instances.insert(instance.instance_id.clone(), instance);
    }

    /// Puts a loaded CA certificate in.
    pub fn insert_certificate(&mut self, certificate: CaCertificate) {
        self.certificates
            .entry(certificate.instance_id.clone())
            .or_default()
            .insert(certificate.facts.sn.clone(), certificate);
    }

    /// Puts a spent register code in, with the position of the event that spent it.
    pub fn insert_spent_register_code(&mut self, instance_id: InstanceId, code: String, position: u64) {
        self.spent_register_codes.entry(instance_id).or_default().insert(code, position);
    }

    /// Finds an instance.
    #[must_use]
    pub fn instance(&self, id: &InstanceId) -> Option<&Instance> {
        self.instances.get(id)
    }

    /// Finds a CA certificate.
    #[must_use]
    pub fn certificate(&self, id: &InstanceId, sn: &SerialNumber) -> Option<&CaCertificate> {
        self.certificates.get(id)?.get(sn)
    }

    /// Whether a register code is spent.
    #[must_use]
    pub fn is_spent(&self, id: &InstanceId, code: &str) -> bool {
        self.spent_register_codes.get(id).is_some_and(|codes| codes.contains_key(code))
    }

    /// Serial numbers of the other CA certificates with the same public key, ascending
    /// by the bytes of their spelling.
    #[must_use]
    pub fn same_key_sns(&self, id: &InstanceId, facts: &CertificateFacts) -> Vec<SerialNumber> {
        self.certificates
            .get(id)
            .into_iter()
            .flat_map(BTreeMap::values)
            .filter(|other| other.facts.spki_sha256 == facts.spki_sha256 && other.facts.sn != facts.sn)
            .map(|other| other.facts.sn.clone())
            .collect()
    }

    /// Number of rows: instances, CA certificates and spent register codes.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.instances.len()
            + self.certificates.values().map(BTreeMap::len).sum::<usize>()
            + self.spent_register_codes.values().map(BTreeMap::len).sum::<usize>()
    }

    /// All instances, in no order.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.instances.values()
    }

    /// All CA certificates, in no order.
    pub fn certificates(&self) -> impl Iterator<Item = &CaCertificate> {
        self.certificates.values().flat_map(BTreeMap::values)
    }

    /// All spent register codes with the position that spent each, in no order.
    pub fn spent_register_codes(&self) -> impl Iterator<Item = (&InstanceId, &str, u64)> {
        self.spent_register_codes
            .iter()
            .flat_map(|(id, codes)| codes.iter().map(move |(code, position)| (id, code.as_str(), *position)))
    }

    /// Applies one event; gives the revision and digest that a trust change makes.
    ///
    /// # Errors
    /// [`InconsistentEvent`] when the event cannot follow the state. The state is
    /// then undefined and MUST be thrown away.
    pub fn evolve(
        &mut self,
        meta: &EventMeta<'_>,
        event: &Event,
    ) -> Result<Option<TrustRevision>, InconsistentEvent> {
        let broken = |reason| InconsistentEvent { position: meta.position, reason };
        match event {
            Event::InstanceRegistered(payload) => {
                if self.instances.contains_key(meta.instance_id) {
                    return Err(broken("the instance is registered already"));
                }
                if meta.stream_version != 1 {
                    return Err(broken("the stream of the instance does not begin with its registration"));
                }
                self.insert_instance(Instance {
                    instance_id: meta.instance_id.clone(),
                    region_id: payload.region_id.clone(),
                    owner_account_id: payload.owner_account_id.clone(),
                    edition: payload.edition,
                    revision: 0,
                    trust_position: 0,
                    bundle_digest: SetHash::empty().digest(),
                    set_hash: SetHash::empty(),
                    certificate_count: 0,
                    unspent_register_codes: Vec::new(),
                    registered_at: meta.occurred_at,
                    registered_position: meta.position,
                    updated_at: meta.occurred_at,
                    updated_position: meta.position,
                    stream_version: 1,
                });
                Ok(None)
            }
            Event::InstanceUpdated(payload) => {
                let instance = self.next_instance_event(meta)?;
                instance.owner_account_id = payload.owner_account_id.clone();
                instance.edition = payload.edition;
                instance.updated_at = meta.occurred_at;
                instance.updated_position = meta.position;
                Ok(None)
            }
            Event::RegisterCodeIssued(payload) => {
                let instance = self.next_instance_event(meta)?;
                instance.unspent_register_codes.push(payload.register_code.clone());
                let surplus =
                    instance.unspent_register_codes.len().saturating_sub(MAX_UNSPENT_REGISTER_CODES);
                instance.unspent_register_codes.drain(..surplus);
                Ok(None)
            }
            Event::CaCertificateRegistered(payload) => {
                let facts = &payload.certificate;
                if self.certificate(meta.instance_id, &facts.sn).is_some() {
                    return Err(broken("the serial number is registered already"));
                }
                let trust = self.change_trust(meta, facts, None, Some(CaState::Active))?;
                if let Some(instance) = self.instances.get_mut(meta.instance_id) {
                    instance.certificate_count += 1;
                    instance.unspent_register_codes.retain(|code| *code != payload.register_code);
                }
                self.insert_spent_register_code(
                    meta.instance_id.clone(),
                    payload.register_code.clone(),
                    meta.position,
                );
                self.insert_certificate(CaCertificate {
                    instance_id: meta.instance_id.clone(),
                    facts: Arc::clone(facts),
                    ca_name: payload.ca_name.clone(),
                    register_code: payload.register_code.clone(),
                    state: CaState::Active,
                    registered_at: meta.occurred_at,
                    registered_position: meta.position,
                    state_changed_at: meta.occurred_at,
                    state_changed_by: meta.actor.to_owned(),
                    state_reason: String::new(),
                    revision: trust.revision,
                    position: meta.position,
                    stream_version: meta.stream_version,
                });
                Ok(Some(trust))
            }
            Event::CaCertificateInactivated(payload) => self
                .set_state(meta, &payload.certificate, CaState::Inactive(payload.scope), &payload.reason)
                .map(Some),
            Event::CaCertificateActivated(payload) => {
                self.set_state(meta, &payload.certificate, CaState::Active, &payload.reason).map(Some)
            }
            Event::CaCertificateDeleted(payload) => {
                let facts = &payload.certificate;
                let before = self.next_certificate_event(meta, facts)?.state;
                let trust = self.change_trust(meta, facts, Some(before), None)?;
                if let Some(instance) = self.instances.get_mut(meta.instance_id) {
                    instance.certificate_count = instance
                        .certificate_count
                        .checked_sub(1)
                        .ok_or_else(|| broken("the instance has no CA certificate to lose"))?;
                }
                if let Some(certificates) = self.certificates.get_mut(meta.instance_id) {
                    certificates.remove(&facts.sn);
                    // An empty map would make this model differ from the same one loaded.
                    if certificates.is_empty() {
                        self.certificates.remove(meta.instance_id);
                    }
                }
                Ok(Some(trust))
            }
            // It changes no row: revisions say by themselves which epoch they are of.
            Event::LogEpochBegan(_) => Ok(None),
        }
    }

    fn set_state(
        &mut self,
        meta: &EventMeta<'_>,
        facts: &CertificateFacts,
        state: CaState,
        reason: &str,
    ) -> Result<TrustRevision, InconsistentEvent> {
        let before = self.next_certificate_event(meta, facts)?.state;
        let trust = self.change_trust(meta, facts, Some(before), Some(state))?;
        let certificate = self.next_certificate_event(meta, facts)?;
        certificate.state = state;
        certificate.state_changed_at = meta.occurred_at;
        certificate.state_changed_by = meta.actor.to_owned();
        certificate.state_reason = reason.to_owned();
        certificate.revision = trust.revision;
        certificate.position = meta.position;
        certificate.stream_version = meta.stream_version;
        Ok(trust)
    }

    /// Moves the instance to its next revision: one entry out of the set hash, one in.
    fn change_trust(
        &mut self,
        meta: &EventMeta<'_>,
        facts: &CertificateFacts,
        before: Option<CaState>,
        after: Option<CaState>,
    ) -> Result<TrustRevision, InconsistentEvent> {
        let broken = |reason| InconsistentEvent { position: meta.position, reason };
        let instance = self
            .instances
            .get_mut(meta.instance_id)
            .ok_or_else(|| broken("the instance is not registered"))?;
        // A begin that is not believed any more must not lead back to revisions that
        // brokers take for old.
        if LogEpoch::of_revision(instance.revision) > meta.epoch {
            return Err(broken("the instance has a revision of a later epoch"));
        }
        let count = revision_count(instance.revision) + 1;
        if revision_count(count) != count {
            return Err(broken("the instance has as many revisions as an epoch can count"));
        }
        if let Some(state) = before {
            instance.set_hash.subtract(&canonical_entry(&facts.sha256, &facts.spki_sha256, state));
        }
        if let Some(state) = after {
            instance.set_hash.add(&canonical_entry(&facts.sha256, &facts.spki_sha256, state));
        }
        instance.revision = meta.epoch.revision(count);
        instance.trust_position = meta.position;
        instance.bundle_digest = instance.set_hash.digest();
        Ok(TrustRevision { revision: instance.revision, digest: instance.bundle_digest })
    }

    /// The instance that an event of its own stream changes, its version advanced.
    fn next_instance_event(&mut self, meta: &EventMeta<'_>) -> Result<&mut Instance, InconsistentEvent> {
        let broken = |reason| InconsistentEvent { position: meta.position, reason };
        let instance = self
            .instances
            .get_mut(meta.instance_id)
            .ok_or_else(|| broken("the instance is not registered"))?;
        if instance.stream_version + 1 != meta.stream_version {
            return Err(broken("the stream version of the instance has a gap"));
        }
        instance.stream_version = meta.stream_version;
        Ok(instance)
    }

    /// The certificate that an event changes, its version checked but not advanced.
    fn next_certificate_event(
        &mut self,
        meta: &EventMeta<'_>,
        facts: &CertificateFacts,
    ) -> Result<&mut CaCertificate, InconsistentEvent> {
        let broken = |reason| InconsistentEvent { position: meta.position, reason };
        let certificate = self
            .certificates
            .get_mut(meta.instance_id)
            .and_then(|certificates| certificates.get_mut(&facts.sn))
            .ok_or_else(|| broken("the CA certificate is not registered"))?;
        if certificate.facts.sha256 != facts.sha256 {
            return Err(broken("the serial number belongs to another CA certificate"));
        }
        if certificate.stream_version + 1 != meta.stream_version {
            return Err(broken("the stream version of the CA certificate has a gap"));
        }
        Ok(certificate)
    }
}
