//! A log in memory, grown by the rules of the domain.

use std::sync::Arc;

use catrust_domain::batch::WorkingSet;
use catrust_domain::event::InstanceRegistered;
use catrust_domain::read_model::{EventMeta, ReadModel};
use catrust_domain::{
    CertificateFacts, Command, CommandContext, CommandEnvelope, Edition, InactivationScope, Instance,
    InstanceId, LogEntry, LogEpoch, LogHead, RecordedEvent, Rejection, Reply, SerialNumber, Sha256,
    Timestamp, TrustBundle, TrustEntry,
};
use uuid::Uuid;

use super::certificate;
use crate::message::FeedMessage;
use crate::pem;
use crate::signing::SigningKey;

/// Account that owns everything in a sample log.
const ACCOUNT: &str = "sample";

/// A whole log with its read model.
#[derive(Clone, Debug)]
pub struct SampleLog {
    log_id: Uuid,
    events: Vec<RecordedEvent>,
    model: ReadModel,
    drawn: u64,
    /// Position up to which [`SampleLog::messages`] has given messages.
    given: usize,
}

impl Default for SampleLog {
    fn default() -> Self {
        Self::new()
    }
}

impl SampleLog {
    /// Makes an empty log with an identity of its own.
    ///
    /// # Panics
    /// Where the system gives no randomness.
    #[must_use]
    pub fn new() -> Self {
        let mut identity = [0; 16];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut identity)
            .expect("the system gives randomness");
        Self {
            log_id: uuid::Builder::from_random_bytes(identity).into_uuid(),
            events: Vec::new(),
            model: ReadModel::new(),
            drawn: 0,
            given: 0,
        }
    }

    /// The same log once more: both may grow apart.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            log_id: self.log_id,
            events: self.events.clone(),
            model: self.model.clone(),
            drawn: self.drawn,
            given: self.given,
        }
    }

    /// Identity of the log.
    #[must_use]
    pub const fn log_id(&self) -> Uuid {
        self.log_id
    }

    /// Last position.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.events.len() as u64
    }

    /// The end of the log.
    #[must_use]
    pub fn log_head(&self) -> LogHead {
        self.events.last().map_or(LogHead::EMPTY, RecordedEvent::head)
    }

    /// All rows, ascending.
    #[must_use]
    pub fn events(&self) -> &[RecordedEvent] {
        &self.events
    }

    /// All instances, in no order.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.model.instances()
    }

    /// Runs commands as one batch at the time `now`.
    ///
    /// # Panics
    /// Where log and read model contradict each other.
    pub fn append(&mut self, commands: &[CommandEnvelope], now: Timestamp) -> Vec<Result<Reply, Rejection>> {
        let mut batch = WorkingSet::new(self.log_head(), LogEpoch::FIRST, now, self.model.clone());
        let results =
            commands.iter().map(|command| batch.run(command).expect("log and read model agree")).collect();
        for LogEntry { row, event } in batch.finish().1.events {
            self.model.evolve(&EventMeta::from(&row), &event).expect("the event follows");
            self.events.push(row);
        }
        results
    }

    /// Forgets the rows after `position`, as a database restored from a backup does.
    ///
    /// # Panics
    /// Where the remaining rows do not fold.
    pub fn truncate(&mut self, position: u64) {
        self.events.truncate(usize::try_from(position).unwrap_or(usize::MAX));
        self.given = self.given.min(self.events.len());
        self.model = ReadModel::new();
        for event in &self.events {
            self.model
                .evolve(&EventMeta::from(event), &event.decode().expect("a current event"))
                .expect("the event follows");
        }
    }

    /// Registers a Platinum instance.
    ///
    /// # Panics
    /// Where the name is no identifier, or taken.
    pub fn register_instance(&mut self, name: &str) -> InstanceId {
        let id: InstanceId = name.parse().expect("an identifier");
        let wanted = InstanceRegistered {
            region_id: "region".parse().expect("an identifier"),
            owner_account_id: ACCOUNT.parse().expect("an identifier"),
            edition: Edition::Platinum,
        };
        self.run(&id, Command::RegisterInstance(wanted));
        id
    }

    /// Registers a CA certificate, active; two events. Nobody signed it.
    ///
    /// # Panics
    /// Where the rules refuse it.
    pub fn register_certificate(&mut self, instance: &InstanceId) -> SerialNumber {
        let number = self.draw();
        let key = Sha256::of(format!("key {number} of {instance} in {}", self.log_id).as_bytes());
        let (der, spki) =
            certificate::made_up(&number.to_be_bytes(), &format!("CA {number}"), key.as_bytes());
        let sn = SerialNumber::from_bytes(&number.to_be_bytes()).expect("a serial number");
        let facts = CertificateFacts {
            sn: sn.clone(),
            sha256: Sha256::of(&der),
            spki_sha256: Sha256::of(&spki),
            subject: format!("CN=CA {number}"),
            subject_key_id: format!("{number:040x}"),
            issuer: format!("CN=CA {number}"),
            not_before: Timestamp::from_micros(1_700_000_000_000_000),
            not_after: Timestamp::from_micros(2_000_000_000_000_000),
            ca_content: pem::encode("CERTIFICATE", &der),
        };
        let register_code = format!("code-{number}");
        self.run(instance, Command::IssueRegisterCode { register_code: register_code.clone() });
        self.run(
            instance,
            Command::RegisterCaCertificate {
                facts: Arc::new(facts),
                ca_name: format!("CA {number}"),
                register_code,
                certificate_limit: u32::MAX,
            },
        );
        sn
    }

    /// Turns trust off where it is on, and on where it is off; gives the position.
    ///
    /// # Panics
    /// Where there is no such certificate.
    pub fn toggle(&mut self, instance: &InstanceId, sn: &SerialNumber) -> u64 {
        let command = self.toggling(instance, sn);
        self.run(instance, command)
    }

    /// Deletes a CA certificate; gives the position.
    ///
    /// # Panics
    /// Where there is no such certificate.
    pub fn delete(&mut self, instance: &InstanceId, sn: &SerialNumber) -> u64 {
        self.run(
            instance,
            Command::DeleteCaCertificate { sn: sn.clone(), with_will: true, reason: "gone".into() },
        )
    }

    /// Grows an empty log to `length` events: an instance, some certificates, and
    /// their switching. Does nothing to a log of that length.
    ///
    /// # Panics
    /// Where `length` is not enough for an instance and a certificate.
    pub fn grow(&mut self, length: u64) {
        assert!(length >= 3, "an instance and a certificate take 3 events");
        let name = "grown";
        let instance: InstanceId = name.parse().expect("an identifier");
        if self.model.instance(&instance).is_none() {
            self.register_instance(name);
        }
        let mut serials: Vec<SerialNumber> =
            self.model.certificates().map(|certificate| certificate.facts.sn.clone()).collect();
        while self.head() < length {
            let room = length - self.head();
            if serials.is_empty() || (room >= 2 && serials.len() < 10) {
                serials.push(self.register_certificate(&instance));
                continue;
            }
            let turn = usize::try_from(self.head()).unwrap_or(0) % serials.len();
            self.toggle(&instance, &serials[turn].clone());
        }
    }

    /// Signed messages of the rows since the last call.
    ///
    /// # Panics
    /// Where a row has no message.
    pub fn messages(&mut self, key: &SigningKey) -> Vec<FeedMessage> {
        let new = &self.events[self.given..];
        self.given = self.events.len();
        new.iter()
            .map(|event| FeedMessage::new(self.log_id, event, key).expect("every row has a message"))
            .collect()
    }

    /// The bundle of an instance now.
    ///
    /// # Panics
    /// Where there is no such instance.
    #[must_use]
    pub fn bundle(&self, instance_id: &InstanceId) -> TrustBundle {
        let instance = self.model.instance(instance_id).expect("a registered instance");
        let mut entries: Vec<TrustEntry> = self
            .model
            .certificates()
            .filter(|certificate| certificate.instance_id == *instance_id)
            .map(TrustEntry::from)
            .collect();
        entries.sort_by_key(|entry| entry.facts.sha256);
        TrustBundle {
            instance_id: instance_id.clone(),
            revision: instance.revision,
            position: instance.trust_position,
            digest: instance.bundle_digest,
            entries,
        }
    }

    /// A command as the owner of everything sends it, under identities of its own.
    ///
    /// # Panics
    /// Never: the account is an identifier.
    pub fn envelope(&mut self, instance: &InstanceId, command: Command) -> CommandEnvelope {
        let number = u128::from(self.draw());
        CommandEnvelope {
            instance_id: instance.clone(),
            command,
            context: CommandContext {
                event_id: Uuid::from_u128(self.log_id.as_u128() ^ number),
                request_id: Uuid::from_u128(number),
                fingerprint: None,
                actor: "tester".to_owned(),
                account_id: ACCOUNT.parse().expect("an identifier"),
                policy_version: "1".to_owned(),
                source_address: String::new(),
                traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
            },
        }
    }

    /// The command that turns a certificate's trust off or on.
    ///
    /// # Panics
    /// Where there is no such certificate.
    #[must_use]
    pub fn toggling(&self, instance: &InstanceId, sn: &SerialNumber) -> Command {
        let certificate = self.model.certificate(instance, sn).expect("a registered certificate");
        let (sn, reason) = (sn.clone(), "a test".to_owned());
        if certificate.state.is_active() {
            let scope = InactivationScope::Key;
            Command::InactivateCaCertificate { sn, scope, with_will: false, reason }
        } else {
            Command::ActivateCaCertificate { sn, expected_revision: None, reason }
        }
    }

    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        self.drawn
    }

    fn run(&mut self, instance: &InstanceId, command: Command) -> u64 {
        let envelope = self.envelope(instance, command);
        let now = Timestamp::from_micros(1_800_000_000_000_000 + i64::try_from(self.drawn).unwrap_or(0));
        let results = self.append(std::slice::from_ref(&envelope), now);
        assert!(results.iter().all(Result::is_ok), "refused: {results:?}");
        self.head()
    }
}
