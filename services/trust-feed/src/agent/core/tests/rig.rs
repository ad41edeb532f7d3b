//! An agent in a test: the core, a log to follow, a disk, an enforcer, and two clocks.

use catrust_domain::{InstanceId, SerialNumber};

use super::*;
use crate::canonical::Signed;
use crate::contract::{SampleLog, key};
use crate::message::{self, TrustPoint};
use crate::signing::{SigningKey, TrustKeys};

/// Time between two ticks.
pub const TICK: Duration = Duration::from_millis(250);
pub const SOFT: Duration = Duration::from_secs(6);
pub const HARD: Duration = Duration::from_secs(600);
/// When the rig's wall clock starts: after everything in a sample log.
const START: i64 = 1_800_000_100;

/// See the module. Everything that the core gives out is carried out at once.
pub struct Rig {
    pub sample: SampleLog,
    pub instance: InstanceId,
    serials: VecDeque<SerialNumber>,
    pub signer: std::sync::Arc<SigningKey>,
    /// What the agent is given beforehand.
    pub given: KeyRing,
    /// The bundle at each revision, and the changes between.
    pub history: Vec<TrustBundle>,
    changes: Vec<proto::TrustChange>,
    /// Number of the log epoch in force.
    pub epoch: u64,
    /// How many servers the agent knows.
    pub servers: usize,
    pub core: Core,
    pub now: Moment,
    pub disk: SavedState,
    pub saved_keys: Option<proto::KeySet>,
    pub enforcer_fails: bool,
    pub disk_fails: bool,
    failed_records: Vec<SavedMessage>,
    /// Outputs that are still carried out; the process dies in front of the next one.
    pub life: usize,
    pub log: Vec<String>,
    pub applied: Vec<AgentTrust>,
    pub statements: Vec<Statement>,
    pub refusals: Vec<Refused>,
    pub discarded: Option<MessageRefusal>,
    pub snapshots: usize,
    /// How often every server was asked.
    pub rounds: usize,
    /// How often another stream was asked for.
    pub streams: usize,
    pub switches: Vec<SourceKind>,
    pub ready: bool,
}

impl Rig {
    /// A log with `length` trust changes, and an agent that was not started.
    pub fn new(length: usize) -> Self {
        let mut sample = SampleLog::new();
        let instance = sample.register_instance("fleet");
        let signer = std::sync::Arc::new(key());
        let now = Moment { monotonic: Duration::ZERO, wall: Timestamp::from_micros(0).plus_seconds(START) };
        let history = vec![sample.bundle(&instance)];
        let given = KeyRing::from(TrustKeys::from(&*signer));
        let core = Core::new(settings(&instance, &given, 1));
        let mut rig = Self {
            sample,
            instance,
            serials: VecDeque::new(),
            signer,
            given,
            history,
            changes: Vec::new(),
            epoch: 0,
            servers: 1,
            core,
            now,
            disk: SavedState::default(),
            saved_keys: None,
            enforcer_fails: false,
            disk_fails: false,
            failed_records: Vec::new(),
            life: usize::MAX,
            log: Vec::new(),
            applied: Vec::new(),
            statements: Vec::new(),
            refusals: Vec::new(),
            discarded: None,
            snapshots: 0,
            rounds: 0,
            streams: 0,
            switches: Vec::new(),
            ready: false,
        };
        rig.grow(length);
        rig
    }

    /// An agent that has taken the bundle at `length`, and a head.
    pub fn live(length: usize) -> Self {
        let mut rig = Self::new(length);
        rig.handle(Input::Loaded(None));
        rig.grpc(rig.bundle_at(length));
        rig.grpc(rig.head_at(length));
        rig
    }

    /// The agent after its process has ended and started again, with what is on disk.
    pub fn restarted(&self) -> Self {
        let mut again = Self::new(0);
        again.instance.clone_from(&self.instance);
        again.signer = std::sync::Arc::clone(&self.signer);
        again.serials.clone_from(&self.serials);
        again.history.clone_from(&self.history);
        again.changes.clone_from(&self.changes);
        again.epoch = self.epoch;
        again.servers = self.servers;
        again.sample = self.sample.copy();
        again.disk = self.disk.clone();
        again.saved_keys.clone_from(&self.saved_keys);
        again.given = self.given.clone();
        again.now = self.now;
        again.restart();
        again
    }

    /// Ends the process and starts it again.
    pub fn restart(&mut self) {
        self.core = Core::new(settings(&self.instance, &self.given, self.servers));
        self.failed_records.clear();
        self.life = usize::MAX;
        self.ready = false;
        if let Some(keys) = self.saved_keys.clone() {
            self.handle(Input::LoadedKeys(Box::new(keys)));
        }
        let saved = (!self.disk.bundle.log_id.is_empty()).then(|| Box::new(self.disk.clone()));
        self.handle(Input::Loaded(saved));
    }

    // The log.

    /// Adds `count` trust changes: registrations, and switches of the first certificate.
    pub fn grow(&mut self, count: usize) {
        for turn in 0..count {
            match self.serials.front() {
                Some(first) if turn % 4 != 0 => drop(self.sample.toggle(&self.instance, &first.clone())),
                _ => self.serials.push_back(self.sample.register_certificate(&self.instance)),
            }
            self.record();
        }
    }

    pub fn delete_first(&mut self) {
        let first = self.serials.pop_front().unwrap();
        self.sample.delete(&self.instance, &first);
        self.record();
    }

    /// Sets the log back to `fork`, a count of changes, and begins a log epoch there.
    pub fn begin_epoch(&mut self, fork: usize, epoch: u64) {
        assert!(epoch > self.epoch);
        let position = self.history[fork].position.max(1);
        self.sample.truncate(position);
        self.history.truncate(fork + 1);
        self.changes.truncate(fork);
        self.epoch = epoch;
        for bundle in &mut self.history {
            bundle.revision = (epoch << 32) | (bundle.revision & 0xffff_ffff);
        }
        let left = self.history[fork].entries.iter().map(|entry| entry.facts.sn.clone());
        self.serials = left.collect();
    }

    fn record(&mut self) {
        let event = self.sample.events().last().unwrap();
        let (_, mut change) = message::trust_change(self.sample.log_id(), event).unwrap().unwrap();
        change.occurred_at = Some(message::timestamp(self.now.wall));
        change.revision |= self.epoch << 32;
        change.previous_revision |= self.epoch << 32;
        self.changes.push(self.signed(change));
        let mut bundle = self.sample.bundle(&self.instance);
        bundle.revision |= self.epoch << 32;
        self.history.push(bundle);
    }

    pub fn signed<M: Signed>(&self, mut message: M) -> M {
        message.sign(&self.signer).unwrap();
        message
    }

    pub fn signed_by_stranger<M: Signed>(&self, mut message: M) -> M {
        message.sign(&key()).unwrap();
        message
    }

    pub fn change(&self, revision: usize) -> Message {
        Message::Change(Box::new(self.changes[revision - 1].clone()))
    }

    pub fn raw_bundle(&self, revision: usize) -> proto::TrustBundle {
        let bundle = &self.history[revision];
        self.signed(message::trust_bundle(self.sample.log_id(), bundle, self.now.wall))
    }

    pub fn bundle_at(&self, revision: usize) -> Message {
        Message::Bundle(self.raw_bundle(revision))
    }

    /// The last bundle with one field changed, under the old signature.
    pub fn forged_bundle(&self) -> Message {
        let mut bundle = self.raw_bundle(self.history.len() - 1);
        bundle.position += 1;
        Message::Bundle(bundle)
    }

    /// A bundle at `revision` that is signed and consistent, and not what the log had.
    pub fn fork_of(rig: &Self, revision: usize) -> proto::TrustBundle {
        let mut bundle = rig.history[revision].clone();
        bundle.entries.pop();
        bundle.digest = TrustBundle::compute_digest(&bundle.entries);
        rig.signed(message::trust_bundle(rig.sample.log_id(), &bundle, rig.now.wall))
    }

    pub fn raw_head(&self, revision: usize) -> proto::Head {
        let bundle = &self.history[revision];
        let point = TrustPoint {
            instance_id: bundle.instance_id.clone(),
            revision: bundle.revision,
            position: bundle.position,
            digest: bundle.digest,
        };
        self.signed(message::head(self.sample.log_id(), &point, self.now.wall))
    }

    pub fn head_at(&self, revision: usize) -> Message {
        Message::Head(self.raw_head(revision))
    }

    /// The answer of a server whose clock shows `wall`, to a question of now.
    pub fn answer_at(&self, revision: usize, wall: Timestamp) -> Message {
        let mut head = self.raw_head(revision);
        head.issued_at = Some(message::timestamp(wall));
        head.valid_until = Some(message::timestamp(wall.plus_seconds(10)));
        head.nonce = b"a nonce of the agent".to_vec();
        Message::Answer { head: self.signed(head), asked_at: self.now.monotonic }
    }

    // The agent.

    pub fn grpc(&mut self, message: Message) {
        self.handle(Input::Message(SourceKind::Grpc, message));
    }

    pub fn nats(&mut self, message: Message) {
        self.handle(Input::Message(SourceKind::Nats, message));
    }

    /// Lets time pass, by both clocks.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now.monotonic + time;
        while self.now.monotonic < end {
            self.step(TICK.min(end - self.now.monotonic));
        }
    }

    /// Lets time pass with a head every 2 s.
    pub fn pass_quietly(&mut self, time: Duration) {
        let end = self.now.monotonic + time;
        let current =
            self.core.revision().map_or(0, |revision| usize::try_from(revision & 0xffff_ffff).unwrap());
        while self.now.monotonic < end {
            self.pass(Duration::from_secs(2).min(end - self.now.monotonic));
            self.grpc(self.head_at(current));
        }
    }

    /// Lets time pass with a server that sends a head every 2 s, and answers where another
    /// stream is asked for.
    pub fn be_served(&mut self, time: Duration) {
        let end = self.now.monotonic + time;
        while self.now.monotonic < end {
            let asked = self.streams;
            self.pass(Duration::from_secs(2).min(end - self.now.monotonic));
            let last = self.history.len() - 1;
            self.grpc(self.head_at(last));
            if self.streams > asked {
                self.grpc(self.answer_at(last, self.now.wall));
            }
        }
    }

    /// Moves both clocks, and ticks.
    pub fn step(&mut self, time: Duration) {
        self.now.monotonic += time;
        let wall = self.now.wall.micros() + i64::try_from(time.as_micros()).unwrap();
        self.now.wall = Timestamp::from_micros(wall);
        self.handle(Input::Tick);
    }

    pub fn step_wall(&mut self, seconds: i64) {
        self.now.wall = self.now.wall.plus_seconds(seconds);
    }

    /// Hands an input in, and carries everything out that follows, for as long as the
    /// process lives.
    pub fn handle(&mut self, input: Input) {
        if self.life == 0 {
            return;
        }
        self.core.handle(self.now, input);
        while let Some(output) = self.core.poll() {
            if self.life == 0 {
                return;
            }
            self.life -= 1;
            self.carry_out(output);
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Apply { trust, cause } => {
                let revision = trust.bundle.revision;
                self.log.push(format!("apply {revision} {cause:?}"));
                self.applied.push(trust);
                let result = if self.enforcer_fails {
                    Err(NotApplied { reason: "the broker is away".into() })
                } else {
                    Ok(Applied::default())
                };
                self.core.handle(self.now, Input::Enforced { revision, result });
            }
            Output::Persist { revision, record } => {
                self.log.push(format!("persist {} {revision}", name(&record)));
                self.failed_records.push(record);
                self.write(revision);
            }
            Output::PersistAgain { revision } => self.write(revision),
            Output::Receipt(statement) => {
                self.log.push(format!("receipt {}", statement.revision));
                self.statements.push(statement);
            }
            Output::Refused(refused) => self.refusals.push(refused),
            Output::Discard(refusal) | Output::DiscardKeys(refusal) => self.discarded = Some(refusal),
            Output::NeedSnapshot => self.snapshots += 1,
            Output::AskEveryServer => self.rounds += 1,
            Output::OpenAnotherStream => self.streams += 1,
            Output::SwitchTo(source) => self.switches.push(source),
            Output::Ready => {
                self.log.push("ready".into());
                self.ready = true;
            }
        }
    }

    fn write(&mut self, revision: u64) {
        if self.disk_fails {
            let result = Err("no space left".into());
            return self.core.handle(self.now, Input::Persisted { revision, result });
        }
        for record in self.failed_records.drain(..) {
            match record {
                SavedMessage::Bundle(bundle) => {
                    self.disk =
                        SavedState { bundle: *bundle, changes: Vec::new(), head: self.disk.head.take() };
                }
                SavedMessage::Change(change) => self.disk.changes.push(*change),
                SavedMessage::Head(head) => self.disk.head = Some(*head),
                SavedMessage::KeySet(set) => self.saved_keys = Some(*set),
            }
        }
        self.core.handle(self.now, Input::Persisted { revision, result: Ok(()) });
    }

    // What happened.

    pub fn last_applied(&self) -> &AgentTrust {
        self.applied.last().expect("something was applied")
    }

    pub fn applied_revisions(&self) -> Vec<u64> {
        self.applied.iter().map(|trust| trust.bundle.revision).collect()
    }

    /// Each revision that was stated, and whether it was applied.
    pub fn receipts(&self) -> Vec<(u64, bool)> {
        self.statements.iter().map(|statement| (statement.revision, statement.outcome.is_ok())).collect()
    }

    pub fn refused_kinds(&self) -> Vec<&'static str> {
        self.refusals.iter().map(|refused| refused.refusal.kind()).collect()
    }
}

fn name(record: &SavedMessage) -> &'static str {
    match record {
        SavedMessage::Bundle(_) => "bundle",
        SavedMessage::Change(_) => "change",
        SavedMessage::Head(_) => "head",
        SavedMessage::KeySet(_) => "key set",
    }
}

fn settings(instance: &InstanceId, keys: &KeyRing, servers: usize) -> CoreSettings {
    CoreSettings {
        instance_id: instance.clone(),
        keys: keys.clone(),
        servers,
        soft_budget: SOFT,
        hard_budget: HARD,
        clock_skew: Duration::from_secs(30),
    }
}
