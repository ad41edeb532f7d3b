//! The reading side without I/O, clock or randomness: what an agent believes, and what
//! follows from it.
//!
//! ```text
//! message ─▶ signature ─▶ instance, log ─▶ order, digest ─▶ state
//!                                                            │
//!    Apply ─▶ Enforced ─▶ Persist ─▶ Persisted ─▶ Receipt ◀──┘
//! ```
//!
//! The driver hands an [`Input`] to [`Core::handle`], and then MUST take each
//! [`Output`] from [`Core::poll`] and carry it out, in order, until there is none: the
//! result of an [`Output::Apply`] and of an [`Output::Persist`] goes back as an input
//! before the next output is taken.
//!
//! Three things the core never does, whatever comes in whatever order: hold a state that
//! the log did not have, go back to an older one, or call it fresh without a head.

mod belief;
mod epochs;
mod gathering;
mod head_clock;
mod held;
mod io;
mod refusal;
mod snapshot;
mod source_choice;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use catrust_domain::{LogEpoch, Sha256, Timestamp, TrustBundle};
use catrust_proto::v1 as proto;
use catrust_signing::KeyRing;
use uuid::Uuid;

use super::enforcer::{AgentTrust, Applied, Freshness, NotApplied};
use crate::bundle::{self, HeadVerdict, TrustError, TrustState};
use crate::canonical::{Signed as _, Verified};
use crate::parse;
use gathering::FirstBundles;
use head_clock::HeadClock;
use held::{CurrentTrust, SavedHead};
use refusal::Throttle;
use snapshot::Snapshot;
use source_choice::SourceChoice;

pub use head_clock::HeadRefusal;
pub use io::{ApplyCause, CoreSettings, Input, Message, Moment, Output, SavedMessage, SavedState, Statement};
pub use refusal::{MAX_REFUSAL_LENGTH, MessageRefusal, Refused};
pub use source_choice::SourceKind;

/// How long a change may come after the head that tells of it, before it is lost.
const BEHIND_GRACE: Duration = Duration::from_secs(1);
/// Pause before an enforcer or a disk that failed is asked again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Changes kept that came before the ones that they follow.
const EARLY_CHANGES: usize = 256;
/// Changes after a saved bundle, after which another bundle is asked for, so that a
/// start does not have to verify ever more of them.
const MAX_SAVED_CHANGES: u64 = 1_000;
/// How long replicas may differ about the key set after it was renewed, before an older one
/// is told. It is refused at once.
const KEY_SET_GRACE: Duration = Duration::from_secs(60);
/// For how long after a server has shown less than the state it is told what there was.
const EVIDENCE_FOR: Duration = Duration::from_secs(60);
/// Shortest time between two streams that are opened because of what heads say.
const REOPEN_PAUSE: Duration = Duration::from_secs(5);
/// Longest time between two saved heads: what a restart without contact may lose of the
/// hard budget.
const HEAD_SAVED_EVERY: Duration = Duration::from_secs(30);

/// How a head came.
#[derive(Clone, Copy, Debug)]
struct ComingHead {
    source: SourceKind,
    /// When it was asked for, by the monotonic clock, where it is an answer.
    asked_at: Option<Duration>,
}

/// See the module.
#[derive(Debug)]
pub struct Core {
    settings: CoreSettings,
    keys: KeyRing,
    /// When the key set in force came.
    keys_came_at: Option<Duration>,
    held: Option<CurrentTrust>,
    clock: HeadClock,
    choice: SourceChoice,
    snapshot: Snapshot,
    /// While several servers are asked for the first state.
    gathering: Option<FirstBundles>,
    /// Revision of the state when a bundle was asked for that has not come yet.
    asked_at: Option<u64>,
    throttle: Throttle,
    /// Verified changes that came before the ones that they follow.
    early: BTreeMap<u64, Verified<proto::TrustChange>>,
    /// Newest head that tells of more than the state has, its source, and since when.
    behind: Option<(ComingHead, Verified<proto::Head>, Duration)>,
    /// As the enforcer was told.
    freshness: Freshness,
    ready: bool,
    head_saved_at: Option<Duration>,
    /// The newest head that agreed with the state, for servers that show less.
    newest_head: Option<proto::Head>,
    /// When a server last showed less than the state.
    shown_less_at: Option<Duration>,
    /// When another stream was asked for.
    reopened_at: Option<Duration>,
    enforce_again_at: Option<Duration>,
    persist_again_at: Option<Duration>,
    outputs: VecDeque<Output>,
}

impl Core {
    /// An agent that knows nothing yet.
    #[must_use]
    pub fn new(settings: CoreSettings) -> Self {
        let CoreSettings { soft_budget, hard_budget, clock_skew, .. } = settings;
        Self {
            keys: settings.keys.clone(),
            settings,
            keys_came_at: None,
            held: None,
            clock: HeadClock::new(clock_skew, soft_budget, hard_budget),
            choice: SourceChoice::new(soft_budget),
            snapshot: Snapshot::default(),
            gathering: None,
            asked_at: None,
            throttle: Throttle::default(),
            early: BTreeMap::new(),
            behind: None,
            freshness: Freshness::HardStale,
            ready: false,
            head_saved_at: None,
            newest_head: None,
            shown_less_at: None,
            reopened_at: None,
            enforce_again_at: None,
            persist_again_at: None,
            outputs: VecDeque::new(),
        }
    }

    /// Revision of the state; `None` before the first bundle.
    #[must_use]
    pub fn revision(&self) -> Option<u64> {
        self.held.as_ref().map(|held| held.state.revision())
    }

    /// The state as a bundle; `None` before the first one.
    #[must_use]
    pub fn bundle(&self) -> Option<&Arc<TrustBundle>> {
        self.held.as_ref().map(|held| &held.bundle)
    }

    /// Log that the state comes from, pinned by the first bundle.
    #[must_use]
    pub fn log_id(&self) -> Option<Uuid> {
        self.held.as_ref().map(|held| held.state.log_id())
    }

    /// How well the state is known to be current, as the enforcer was told.
    #[must_use]
    pub const fn freshness(&self) -> Freshness {
        self.freshness
    }

    /// How long ago the state was proved to be current; `None` for never.
    #[must_use]
    pub fn age(&self, now: Moment) -> Option<Duration> {
        self.held.as_ref().and_then(|_| self.clock.age(now))
    }

    /// Whether trust that admits somebody has been enforced since the start.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        self.ready
    }

    /// The newest head that agreed with the state, exactly as it was signed.
    #[must_use]
    pub const fn newest_head(&self) -> Option<&proto::Head> {
        self.newest_head.as_ref()
    }

    /// That head, where a server has just shown less than the state: evidence for it that
    /// its log was set back.
    #[must_use]
    pub fn evidence(&self, now: Moment) -> Option<&proto::Head> {
        let lately = |at: Duration| now.monotonic.saturating_sub(at) <= EVIDENCE_FOR;
        self.newest_head.as_ref().filter(|_| self.shown_less_at.is_some_and(lately))
    }

    /// Source that is leaned on.
    #[must_use]
    pub const fn active_source(&self) -> SourceKind {
        self.choice.active()
    }

    /// Takes what happened.
    pub fn handle(&mut self, now: Moment, input: Input) {
        match input {
            Input::LoadedKeys(set) => self.load_keys(*set),
            Input::Loaded(saved) => self.load(now, saved),
            Input::Message(source, message) => self.message(now, source, message),
            Input::Unreadable(_) => {
                self.refuse(now, 0, MessageRefusal::Unreadable);
                self.want_snapshot(now);
            }
            Input::SourceUp(SourceKind::Nats) => self.choice.nats_up(),
            Input::SourceLost(SourceKind::Nats) => self.choice.nats_lost(now.monotonic),
            // The gRPC source connects again by itself.
            Input::SourceUp(SourceKind::Grpc) | Input::SourceLost(SourceKind::Grpc) => {}
            Input::SnapshotFailed => self.snapshot.failed(now.monotonic),
            Input::EveryServerAsked => self.end_gathering(now),
            Input::Enforced { revision, result } => self.enforced(now, revision, result),
            Input::Persisted { revision, result } => self.persisted(now, revision, result),
            Input::Tick => self.tick(now),
        }
        self.refresh(now);
        self.choose(now);
    }

    /// Takes the next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    // What comes.

    fn message(&mut self, now: Moment, source: SourceKind, message: Message) {
        let keys = self.keys.at(self.clock.present(now));
        let (revision, refusal) = match message {
            Message::KeySet(set) => return self.take_key_set(now, *set),
            Message::Bundle(bundle) => {
                let revision = bundle.revision;
                match bundle.verified(&keys) {
                    Ok(bundle) => match self.gather_or_check(now, bundle) {
                        Some(bundle) => return self.take_bundle(now, bundle),
                        None => return,
                    },
                    Err(error) => {
                        self.snapshot.failed(now.monotonic);
                        (revision, error)
                    }
                }
            }
            Message::Change(change) => {
                let revision = change.revision;
                match change.verified(&keys) {
                    Ok(change) => match self.check_epoch(now, revision) {
                        Ok(()) => return self.take_change(now, change),
                        Err(refusal) => return self.refuse(now, revision, refusal),
                    },
                    Err(error) if self.is_history(revision, &error) => return,
                    Err(error) => (revision, error),
                }
            }
            Message::Head(head) => {
                return self.message_head(now, ComingHead { source, asked_at: None }, head);
            }
            Message::Answer { head, asked_at } => {
                return self.message_head(now, ComingHead { source, asked_at: Some(asked_at) }, head);
            }
        };
        self.refuse(now, revision, refusal.into());
    }

    fn message_head(&mut self, now: Moment, coming: ComingHead, head: proto::Head) {
        let revision = head.revision;
        let answers = coming.asked_at.is_some() && self.clock.is_in_doubt(now);
        // An answer is judged by the wall clock, and so is who signed it.
        let present = if answers { self.clock.by_wall(now) } else { self.clock.present(now) };
        match head.verified(&self.keys.at(present)) {
            Ok(head) => match self.check_epoch(now, revision) {
                Ok(()) => self.take_head(now, coming, head),
                Err(refusal) => self.refuse(now, revision, refusal),
            },
            Err(error) => self.refuse(now, revision, error.into()),
        }
    }

    /// Gives a bundle that is to be taken now, if it is.
    fn gather_or_check(
        &mut self,
        now: Moment,
        bundle: Verified<proto::TrustBundle>,
    ) -> Option<Verified<proto::TrustBundle>> {
        let revision = bundle.revision;
        if let Err(refusal) = self.check_epoch(now, revision) {
            self.snapshot.failed(now.monotonic);
            self.refuse(now, revision, refusal);
            return None;
        }
        self.gather(now, bundle)
    }

    fn take_bundle(&mut self, now: Moment, bundle: Verified<proto::TrustBundle>) {
        let revision = bundle.revision;
        let disowned = self.is_disowned();
        let before = self.revision();
        let taken = match &mut self.held {
            Some(held) if !disowned => held.state.replace(&bundle),
            // A state that may never have been the log's is no floor, and nor are its heads.
            _ => TrustState::new(&self.settings.instance_id, &bundle).map(|state| {
                let mut held = CurrentTrust::new(state, Timestamp::default());
                held.takes_back = disowned;
                self.held = Some(held);
                self.clock.forget();
                true
            }),
        };
        let moved = match taken {
            Ok(moved) => moved,
            Err(error) => {
                // A server that answers with this one may have a better one later.
                self.snapshot.failed(now.monotonic);
                // Overtaken by changes: it is as new as it could be when it was asked for.
                let is_late = matches!(error, TrustError::Rollback { .. })
                    && self.asked_at.is_some_and(|at| at <= revision);
                if !is_late {
                    if matches!(error, TrustError::Rollback { .. }) {
                        self.shown_less_at = Some(now.monotonic);
                    }
                    self.refuse(now, revision, error.into());
                }
                return;
            }
        };
        self.snapshot.came(now.monotonic);
        self.asked_at = None;
        self.leave_epoch(before);
        let badly_saved = self.is_badly_saved(now);
        let Some(held) = &mut self.held else { return };
        held.signers.begin(&*bundle);
        if moved {
            held.moved_at = now.monotonic;
            // Signed, so that it has a time.
            held.moved_by_bundle(parse::time("issued_at", bundle.issued_at.as_ref()).unwrap_or_default());
            self.apply(ApplyCause::Bundle);
        }
        if moved || badly_saved || self.held.as_ref().is_some_and(|held| held.saved_changes > 0) {
            self.persist(SavedMessage::Bundle(Box::new(bundle.into_inner())));
        }
        self.take_early(now);
    }

    fn take_change(&mut self, now: Moment, change: Verified<proto::TrustChange>) {
        self.take_one_change(now, change);
        self.take_early(now);
    }

    fn take_one_change(&mut self, now: Moment, change: Verified<proto::TrustChange>) {
        let revision = change.revision;
        let Some(held) = &mut self.held else {
            self.keep_early(change);
            return self.want_snapshot(now);
        };
        match held.state.apply(&change) {
            Ok(bundle::ChangeOutcome::Known) => {}
            Ok(bundle::ChangeOutcome::Changed(parsed)) => {
                held.moved_by(&parsed);
                held.moved_at = now.monotonic;
                held.signers.add(&*change);
                self.apply(ApplyCause::Change);
                self.persist(SavedMessage::Change(Box::new(change.into_inner())));
                if self.held.as_ref().is_some_and(|held| held.saved_changes > MAX_SAVED_CHANGES) {
                    self.want_snapshot(now);
                }
            }
            Err(TrustError::Gap { .. }) => {
                self.keep_early(change);
                self.want_snapshot(now);
            }
            Err(error) => {
                if matches!(error, TrustError::DigestMismatch { .. }) {
                    self.want_snapshot(now);
                }
                self.refuse(now, revision, error.into());
            }
        }
    }

    /// Keeps a change for later. Only verified ones get here, and the farthest go first,
    /// so that memory has a bound.
    fn keep_early(&mut self, change: Verified<proto::TrustChange>) {
        self.early.insert(change.revision, change);
        if self.early.len() > EARLY_CHANGES {
            self.early.pop_last();
        }
    }

    /// Applies what was kept, as far as it follows now; and looks again at a head that was
    /// ahead.
    fn take_early(&mut self, now: Moment) {
        while let Some(revision) = self.revision() {
            self.early = self.early.split_off(&(revision + 1));
            let Some(next) = self.early.remove(&(revision + 1)) else { break };
            self.take_one_change(now, next);
            if self.revision() == Some(revision) {
                break;
            }
        }
        let reached = self.behind.take_if(|(_, head, _)| {
            self.held.as_ref().is_some_and(|held| head.revision <= held.state.revision())
        });
        if let Some((coming, head, _)) = reached {
            self.take_head(now, coming, head);
        }
    }

    fn take_head(&mut self, now: Moment, coming: ComingHead, head: Verified<proto::Head>) {
        let Some(held) = &self.held else {
            if self.gathering.is_some() {
                return self.keep_first_head(now, coming, head);
            }
            return self.want_snapshot(now);
        };
        let revision = head.revision;
        let verdict = match held.state.compare(&head) {
            Ok(verdict) => verdict,
            Err(error) => {
                if matches!(error, TrustError::DigestMismatch { .. }) {
                    self.want_snapshot(now);
                }
                return self.refuse(now, revision, error.into());
            }
        };
        if matches!(verdict, HeadVerdict::Current) {
            self.newest_head = Some((*head).clone());
        }
        match verdict {
            HeadVerdict::Behind { .. } => {
                // No change leads into another epoch.
                let other_epoch =
                    LogEpoch::of_revision(held.state.revision()) != LogEpoch::of_revision(revision);
                // True whenever it was said, so that its time does not matter here.
                let since = self.behind.as_ref().map_or(now.monotonic, |(_, _, since)| *since);
                self.behind = Some((coming, head, since));
                if other_epoch {
                    self.want_snapshot(now);
                }
                return;
            }
            HeadVerdict::Ended => return self.take_head_of_ended_epoch(now, coming, &head),
            HeadVerdict::Current | HeadVerdict::Older => {}
        }
        if let Err(refusal) = self.prove(now, coming, &head) {
            self.refuse_head(now, coming, revision, refusal);
        }
    }

    /// Refuses a head, and looks for another server or an answer where that may help.
    fn refuse_head(&mut self, now: Moment, coming: ComingHead, revision: u64, refusal: MessageRefusal) {
        let other_server = matches!(refusal, MessageRefusal::LogRolledBack { .. });
        if other_server {
            self.shown_less_at = Some(now.monotonic);
        }
        let answer = matches!(refusal, MessageRefusal::Head(_)) && self.clock.is_in_doubt(now);
        self.refuse(now, revision, refusal);
        if coming.source == SourceKind::Grpc && (other_server || answer) {
            self.want_another_stream(now);
        }
    }

    fn want_another_stream(&mut self, now: Moment) {
        if self.reopened_at.is_none_or(|at| now.monotonic.saturating_sub(at) >= REOPEN_PAUSE) {
            self.reopened_at = Some(now.monotonic);
            self.outputs.push_back(Output::OpenAnotherStream);
        }
    }

    /// Takes a head at or below the state's revision as proof that nothing that was
    /// committed before its issue is missing.
    fn prove(
        &mut self,
        now: Moment,
        coming: ComingHead,
        head: &Verified<proto::Head>,
    ) -> Result<(), MessageRefusal> {
        let Some(held) = &mut self.held else { return Ok(()) };
        let issued_at = parse::time("issued_at", head.issued_at.as_ref())?;
        let valid_until = parse::time("valid_until", head.valid_until.as_ref())?;
        let overtaken = self.clock.is_overtaken(issued_at, now);
        let answer_to = coming.asked_at.filter(|_| overtaken || self.clock.is_in_doubt(now));
        match answer_to {
            Some(asked_at) => self.clock.check_answer(issued_at, asked_at, now)?,
            None => self.clock.check(issued_at, valid_until, now)?,
        }
        // A head may have been made just before the change that the state has already; one
        // that was made long after it tells that the log has lost it.
        let enforced = held.state.revision();
        if head.revision < enforced && held.is_older_than(issued_at, now, self.settings.clock_skew) {
            return Err(MessageRefusal::LogRolledBack { revision: head.revision, enforced });
        }
        if head.revision == enforced {
            held.signers.begin(&**head);
        }
        let counts = match answer_to {
            Some(asked_at) => {
                self.clock.set_by_answer(issued_at, asked_at, now);
                // The saved one is from a time that never was.
                self.head_saved_at = None;
                self.choice.forget_heads();
                true
            }
            None => self.clock.prove(issued_at, now),
        };
        if counts {
            self.save_head(now, head);
        } else if overtaken && coming.source == SourceKind::Grpc {
            self.want_another_stream(now);
        }
        if coming.source == SourceKind::Nats {
            self.choice.nats_head(issued_at, now.monotonic);
        }
        Ok(())
    }

    fn save_head(&mut self, now: Moment, head: &Verified<proto::Head>) {
        let every = HEAD_SAVED_EVERY.min(self.settings.hard_budget / 20);
        if self.head_saved_at.is_none_or(|at| now.monotonic.saturating_sub(at) >= every) {
            self.head_saved_at = Some(now.monotonic);
            self.persist(SavedMessage::Head(Box::new((**head).clone())));
        }
    }

    // What was on disk.

    fn load(&mut self, now: Moment, saved: Option<Box<SavedState>>) {
        let Some(saved) = saved else { return self.begin_gathering(now) };
        let (mut held, head) = match CurrentTrust::from_saved(*saved, &self.settings, &self.keys) {
            Ok(verified) => verified,
            Err(refusal) => return self.discard(now, refusal),
        };
        if let Some(SavedHead { head, issued_at }) = head {
            match held.state.compare(&head) {
                Ok(HeadVerdict::Older) => self.clock.restore(issued_at, now),
                Ok(HeadVerdict::Current) => {
                    held.signers.begin(&*head);
                    self.newest_head = Some((*head).clone());
                    self.clock.restore(issued_at, now);
                }
                // What is there is sound, and less than what there was: it stays the floor,
                // and proves nothing.
                Ok(HeadVerdict::Behind { revision }) => {
                    self.refuse_as(
                        now,
                        revision,
                        held.state.digest(),
                        MessageRefusal::SavedStateTruncated { revision },
                    );
                }
                // From before the epoch: it proves nothing.
                Ok(HeadVerdict::Ended) => {}
                Err(error) => return self.discard(now, error.into()),
            }
        }
        held.moved_at = now.monotonic;
        let (revision, digest) = (held.state.revision(), held.state.digest());
        self.held = Some(held);
        if let Err(refusal) = self.check_epoch(now, revision) {
            self.refuse_as(now, revision, digest, refusal);
        }
        self.freshness = self.freshness_at(now);
        self.apply(ApplyCause::Saved);
    }

    fn discard(&mut self, now: Moment, refusal: MessageRefusal) {
        self.outputs.push_back(Output::Discard(refusal));
        self.begin_gathering(now);
    }

    // What follows.

    fn apply(&mut self, cause: ApplyCause) {
        let Some(held) = &mut self.held else { return };
        held.asked = Some(held.state.revision());
        let trust = AgentTrust {
            bundle: Arc::clone(&held.bundle),
            freshness: self.freshness,
            takes_back: held.takes_back,
            with_will: held.with_will,
            reason: held.reason.clone(),
        };
        self.enforce_again_at = None;
        self.outputs.push_back(Output::Apply { trust, cause });
    }

    fn enforced(&mut self, now: Moment, revision: u64, result: Result<Applied, NotApplied>) {
        let Some(held) = &mut self.held else { return };
        match result {
            Ok(applied) => {
                held.enforced = Some((revision, applied));
                held.takes_back = false;
                if !self.ready && self.freshness.admits() {
                    self.ready = true;
                    self.outputs.push_back(Output::Ready);
                }
                self.state_if_done();
            }
            Err(NotApplied { reason }) => {
                held.asked = None;
                self.enforce_again_at = Some(now.monotonic + RETRY_PAUSE);
                self.refuse(now, revision, MessageRefusal::NotApplied { reason });
            }
        }
    }

    fn persist(&mut self, record: SavedMessage) {
        let Some(held) = &mut self.held else { return };
        match &record {
            SavedMessage::Bundle(bundle) => {
                held.saved_changes = 0;
                held.saved_signers.begin(&**bundle);
            }
            SavedMessage::Change(change) => {
                held.saved_changes += 1;
                held.saved_signers.add(&**change);
            }
            SavedMessage::Head(_) | SavedMessage::KeySet(_) => {}
        }
        self.outputs.push_back(Output::Persist { revision: held.state.revision(), record });
    }

    fn persisted(&mut self, now: Moment, revision: u64, result: Result<(), String>) {
        let Some(held) = &mut self.held else { return };
        match result {
            Ok(()) => {
                held.persisted = Some(revision);
                self.persist_again_at = None;
                self.state_if_done();
            }
            Err(reason) => {
                self.persist_again_at = Some(now.monotonic + RETRY_PAUSE);
                self.refuse(now, revision, MessageRefusal::NotPersisted { reason });
            }
        }
    }

    /// States a revision once, when it is both enforced and on disk.
    fn state_if_done(&mut self) {
        let Some(held) = &mut self.held else { return };
        let Some((revision, applied)) = held.enforced else { return };
        let current = revision == held.state.revision() && held.persisted == Some(revision);
        if !current || held.stated == Some(revision) {
            return;
        }
        held.stated = Some(revision);
        self.outputs.push_back(Output::Receipt(Statement {
            revision,
            digest: held.state.digest(),
            outcome: Ok(applied),
            traceparent: held.traceparent.clone(),
        }));
    }

    fn refuse(&mut self, now: Moment, revision: u64, refusal: MessageRefusal) {
        let digest =
            self.held.as_ref().map_or_else(|| TrustBundle::compute_digest(&[]), |held| held.state.digest());
        self.refuse_as(now, revision, digest, refusal);
    }

    fn refuse_as(&mut self, now: Moment, revision: u64, digest: Sha256, refusal: MessageRefusal) {
        if let Some(untold) = self.throttle.pass(refusal.kind(), now.monotonic) {
            self.outputs.push_back(Output::Refused(Refused { refusal, revision, digest, untold }));
        }
    }

    fn want_snapshot(&mut self, now: Moment) {
        if self.gathering.is_none() && self.snapshot.want(now.monotonic) {
            self.ask_for_snapshot();
        }
    }

    fn ask_for_snapshot(&mut self) {
        self.asked_at = self.revision();
        self.outputs.push_back(Output::NeedSnapshot);
    }

    fn tick(&mut self, now: Moment) {
        self.tick_gathering(now);
        let due = |at: Option<Duration>| at.is_some_and(|at| at <= now.monotonic);
        if due(self.enforce_again_at) {
            self.apply(ApplyCause::Retry);
        }
        if due(self.persist_again_at)
            && let Some(revision) = self.revision()
        {
            self.persist_again_at = None;
            self.outputs.push_back(Output::PersistAgain { revision });
        }
        let lost = |(_, _, since): &(_, _, Duration)| now.monotonic.saturating_sub(*since) >= BEHIND_GRACE;
        if self.behind.as_ref().is_some_and(lost) {
            self.want_snapshot(now);
        }
        if self.snapshot.due(now.monotonic) {
            self.ask_for_snapshot();
        }
    }

    /// Tells the enforcer when the bundle becomes fresh, or stale.
    fn refresh(&mut self, now: Moment) {
        if self.held.is_none() {
            return;
        }
        let freshness = self.freshness_at(now);
        if freshness == self.freshness {
            return;
        }
        self.freshness = freshness;
        self.apply(ApplyCause::Freshness);
    }

    fn choose(&mut self, now: Moment) {
        if let Some(source) = self.choice.decide(self.freshness == Freshness::Fresh, now.monotonic) {
            self.outputs.push_back(Output::SwitchTo(source));
        }
    }
}

#[cfg(test)]
mod tests;
