//! A store in memory that does what a database does: it keeps rows, loads those
//! that are needed, and writes those that it is given. It knows no rules.

use std::collections::{BTreeMap, HashMap};

use catrust_domain::batch::{Needs, WorkingSet, Writes};
use catrust_domain::command::StoredReply;
use catrust_domain::read_model::{EventMeta, ReadModel};
use catrust_domain::{
    CaCertificate, CommandEnvelope, Event, Instance, InstanceId, LogEpoch, LogHead, RecordedEvent, Rejection,
    Reply, RequestKey, SerialNumber, Sha256, Timestamp,
};
use uuid::Uuid;

#[derive(Clone, Debug)]
pub struct MemoryStore {
    pub head: LogHead,
    pub epoch: LogEpoch,
    pub events: Vec<RecordedEvent>,
    pub instances: BTreeMap<InstanceId, Instance>,
    pub certificates: BTreeMap<(InstanceId, SerialNumber), CaCertificate>,
    pub spent_register_codes: BTreeMap<(InstanceId, String), u64>,
    pub replies: HashMap<RequestKey, StoredReply>,
}

impl MemoryStore {
    pub fn new() -> Self {
        Self {
            head: LogHead::EMPTY,
            epoch: LogEpoch::FIRST,
            events: Vec::new(),
            instances: BTreeMap::new(),
            certificates: BTreeMap::new(),
            spent_register_codes: BTreeMap::new(),
            replies: HashMap::new(),
        }
    }

    /// Runs and commits one batch.
    pub fn append(&mut self, now: Timestamp, commands: &[CommandEnvelope]) -> Vec<Result<Reply, Rejection>> {
        let mut working_set = self.load(now, &Needs::of(commands));
        let results = commands.iter().map(|command| working_set.run(command).expect("consistent")).collect();
        let (head, writes) = working_set.finish();
        self.commit(head, writes);
        results
    }

    /// Starts a batch with the rows that `needs` names, and no others.
    pub fn load(&self, now: Timestamp, needs: &Needs) -> WorkingSet {
        let mut model = ReadModel::new();
        for id in &needs.instances {
            self.instances.get(id).cloned().into_iter().for_each(|instance| model.insert_instance(instance));
        }
        let mut keys = needs.keys.clone();
        for (id, sn) in &needs.certificates {
            if let Some(certificate) = self.certificates.get(&(id.clone(), sn.clone())) {
                keys.insert((id.clone(), certificate.facts.spki_sha256));
            }
        }
        for ((id, _), certificate) in &self.certificates {
            if keys.contains(&(id.clone(), certificate.facts.spki_sha256)) {
                model.insert_certificate(certificate.clone());
            }
        }
        for code in &needs.register_codes {
            if let Some(position) = self.spent_register_codes.get(code) {
                model.insert_spent_register_code(code.0.clone(), code.1.clone(), *position);
            }
        }
        let mut working_set = WorkingSet::new(self.head, self.epoch, now, model);
        for stream_id in &needs.streams {
            if let version @ 1.. = self.stream_version(stream_id) {
                working_set.insert_stream_version(stream_id.clone(), version);
            }
        }
        for key in &needs.replies {
            self.replies.get(key).cloned().into_iter().for_each(|reply| working_set.insert_reply(reply));
        }
        working_set
    }

    /// Starts a batch with every row there is.
    pub fn load_all(&self, now: Timestamp) -> WorkingSet {
        let mut working_set = WorkingSet::new(self.head, self.epoch, now, self.read_model());
        for event in &self.events {
            working_set.insert_stream_version(event.stream_id.clone(), event.stream_version);
        }
        self.replies.values().cloned().for_each(|reply| working_set.insert_reply(reply));
        working_set
    }

    pub fn commit(&mut self, head: LogHead, writes: Writes) {
        self.head = head;
        self.events.extend(writes.events.into_iter().map(|entry| entry.row));
        for instance in writes.instances {
            self.instances.insert(instance.instance_id.clone(), instance);
        }
        for key in writes.deleted_certificates {
            self.certificates.remove(&key);
        }
        for certificate in writes.certificates {
            self.certificates
                .insert((certificate.instance_id.clone(), certificate.facts.sn.clone()), certificate);
        }
        for (id, code, position) in writes.spent_register_codes {
            assert_eq!(self.spent_register_codes.insert((id, code), position), None, "spent twice");
        }
        for reply in writes.replies {
            let stored = StoredReply { reply: through_json(&reply.reply), ..reply };
            assert_eq!(
                self.replies.insert(stored.key.clone(), stored),
                None,
                "two replies to one request id"
            );
        }
    }

    /// Puts a fact into the log without asking the rules.
    pub fn remember(&mut self, instance_id: &InstanceId, event: &Event) {
        self.remember_of("history", instance_id, event);
    }

    /// The same of another actor.
    pub fn remember_of(&mut self, actor: &str, instance_id: &InstanceId, event: &Event) {
        let stream_id = event.stream_id(instance_id);
        let position = self.head.position + 1;
        let occurred_at = self.head.occurred_at.plus_seconds(1);
        let stream_version = self.stream_version(&stream_id) + 1;
        let actor = actor.to_owned();
        let meta = EventMeta {
            position,
            stream_version,
            instance_id,
            actor: &actor,
            occurred_at,
            epoch: self.epoch,
        };
        let mut model = self.read_model();
        let trust = model.evolve(&meta, event).expect("a history that follows");
        let mut recorded = RecordedEvent {
            position,
            event_id: Uuid::from_u128(u128::from(position) << 32),
            stream_id,
            stream_version,
            instance_id: instance_id.clone(),
            revision: trust.map(|trust| trust.revision),
            bundle_digest: trust.map(|trust| trust.digest),
            sn: event.trust_effect().map(|effect| effect.certificate.sn.clone()),
            event_type: event.event_type().to_owned(),
            schema_version: event.schema_version(),
            payload: event.encode(),
            actor,
            account_id: crate::fixtures::account("history"),
            policy_version: String::new(),
            source_address: String::new(),
            request_id: Uuid::nil(),
            traceparent: String::new(),
            occurred_at,
            hash: Sha256::ZERO,
            epoch: self.epoch,
        };
        recorded.hash = recorded.compute_hash(&self.head.hash);
        self.head = recorded.head();
        self.events.push(recorded);
        self.replace_read_model(&model);
    }

    /// The read model as its tables hold it.
    pub fn read_model(&self) -> ReadModel {
        let mut model = ReadModel::new();
        self.instances.values().cloned().for_each(|instance| model.insert_instance(instance));
        self.certificates.values().cloned().for_each(|certificate| model.insert_certificate(certificate));
        for ((id, code), position) in &self.spent_register_codes {
            model.insert_spent_register_code(id.clone(), code.clone(), *position);
        }
        model
    }

    /// The read model as the log makes it.
    pub fn fold(&self) -> ReadModel {
        let mut model = ReadModel::new();
        for recorded in &self.events {
            let event = recorded.decode().expect("a readable event");
            model.evolve(&EventMeta::from(recorded), &event).expect("an event that follows");
        }
        model
    }

    fn replace_read_model(&mut self, model: &ReadModel) {
        self.instances = model.instances().map(|row| (row.instance_id.clone(), row.clone())).collect();
        self.certificates = model
            .certificates()
            .map(|row| ((row.instance_id.clone(), row.facts.sn.clone()), row.clone()))
            .collect();
        self.spent_register_codes = model
            .spent_register_codes()
            .map(|(id, code, position)| ((id.clone(), code.to_owned()), position))
            .collect();
    }

    fn stream_version(&self, stream_id: &str) -> u64 {
        let of_stream = self.events.iter().filter(|event| event.stream_id == stream_id);
        of_stream.map(|event| event.stream_version).max().unwrap_or(0)
    }
}

/// A reply as the database gives it back.
fn through_json(reply: &Reply) -> Reply {
    let json = serde_json::to_string(reply).expect("a reply that serialises");
    serde_json::from_str(&json).expect("a reply that reads back")
}
