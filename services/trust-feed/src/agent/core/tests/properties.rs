//! The feed and the machine as adversaries: messages are lost, doubled, reordered,
//! replayed, forged and mixed up, clocks step, the process ends at any step; and the
//! agent holds nothing that the log did not have, never goes back, and is right again
//! as soon as messages flow.

use proptest::sample::Index;

use super::rig::{HARD, SOFT};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// The log grows.
    Grow(usize),
    /// Any change of the log, by either source.
    Change(Index, bool),
    /// The change that would be next.
    Next,
    /// Any bundle of the log.
    Bundle(Index),
    /// A head of any revision, made now.
    Head(Index, bool),
    /// A head of the last revision, made a while ago.
    OldHead(u64),
    /// A message of the log with one thing changed under its signature.
    Forged(Index, u8),
    /// A message for another instance, or of another log, or signed by another key.
    Foreign(Index, u8),
    /// Time passes.
    Pass(u64),
    /// The wall clock alone steps.
    TurnClock(i64),
    /// The process ends in front of its n-th next output, and starts again.
    Crash(usize, Index),
    /// The enforcer or the disk fails for a while.
    Fail(bool, bool),
    /// What was asked for does not come.
    SnapshotFailed,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1_usize..4).prop_map(Step::Grow),
        4 => (any::<Index>(), any::<bool>()).prop_map(|(which, nats)| Step::Change(which, nats)),
        6 => Just(Step::Next),
        2 => any::<Index>().prop_map(Step::Bundle),
        2 => (any::<Index>(), any::<bool>()).prop_map(|(which, nats)| Step::Head(which, nats)),
        1 => (0_u64..100).prop_map(Step::OldHead),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(which, how)| Step::Forged(which, how)),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(which, how)| Step::Foreign(which, how)),
        2 => (1_u64..4_000).prop_map(Step::Pass),
        1 => (-4_000_i64..4_000).prop_map(Step::TurnClock),
        2 => (0_usize..5, any::<Index>()).prop_map(|(after, which)| Step::Crash(after, which)),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(enforcer, disk)| Step::Fail(enforcer, disk)),
        1 => Just(Step::SnapshotFailed),
    ]
}

fn by(rig: &mut Rig, nats: bool, message: Message) {
    if nats { rig.nats(message) } else { rig.grpc(message) }
}

fn any_change(rig: &Rig, which: &Index) -> Option<proto::TrustChange> {
    let changes = rig.history.len() - 1;
    if changes == 0 {
        return None;
    }
    let Message::Change(change) = rig.change(which.index(changes) + 1) else { return None };
    Some(*change)
}

fn forged(rig: &Rig, which: &Index, how: u8) -> Option<Message> {
    let mut change = any_change(rig, which)?;
    let next = rig.core.revision().unwrap_or(0) + 1;
    match how % 4 {
        0 => (change.revision, change.previous_revision) = (next, next - 1),
        1 => change.deleted = !change.deleted,
        2 => change.with_will = !change.with_will,
        _ => {
            let mut bundle = rig.raw_bundle(rig.history.len() - 1);
            (bundle.revision, bundle.position) = (bundle.revision + 100, bundle.position + 100);
            return Some(Message::Bundle(bundle));
        }
    }
    Some(Message::Change(Box::new(change)))
}

fn foreign(rig: &Rig, which: &Index, how: u8) -> Option<Message> {
    let bundle = rig.raw_bundle(which.index(rig.history.len()));
    Some(match how % 4 {
        0 => Message::Bundle(rig.signed(proto::TrustBundle { mqtt_instance_id: "other".into(), ..bundle })),
        1 => Message::Bundle(rig.signed_by_stranger(bundle)),
        2 => {
            let change = any_change(rig, which)?;
            let change = proto::TrustChange { mqtt_instance_id: "other".into(), ..change };
            Message::Change(Box::new(rig.signed(change)))
        }
        _ => {
            // Another log is only told from ours by one who knows ours.
            rig.core.log_id()?;
            let log_id = Uuid::from_u128(7).to_string();
            Message::Bundle(rig.signed(proto::TrustBundle { log_id, ..bundle }))
        }
    })
}

fn take(rig: &mut Rig, step: &Step) {
    let length = rig.history.len();
    match step {
        Step::Grow(count) => rig.grow(*count),
        Step::Change(which, nats) => {
            if let Some(change) = any_change(rig, which) {
                by(rig, *nats, Message::Change(Box::new(change)));
            }
        }
        Step::Next => {
            let next = usize::try_from(rig.core.revision().unwrap_or(0)).unwrap() + 1;
            if next < length {
                rig.nats(rig.change(next));
            }
        }
        Step::Bundle(which) => rig.grpc(rig.bundle_at(which.index(length))),
        Step::Head(which, nats) => by(rig, *nats, rig.head_at(which.index(length))),
        Step::OldHead(age) => {
            let wall = rig.now.wall;
            rig.step_wall(-i64::try_from(*age).unwrap());
            let head = rig.head_at(length - 1);
            rig.now.wall = wall;
            rig.grpc(head);
        }
        Step::Forged(which, how) => {
            if let Some(message) = forged(rig, which, *how) {
                rig.nats(message);
            }
        }
        Step::Foreign(which, how) => {
            if let Some(message) = foreign(rig, which, *how) {
                rig.grpc(message);
            }
        }
        Step::Pass(milliseconds) => rig.pass(Duration::from_millis(*milliseconds)),
        Step::TurnClock(seconds) => rig.step_wall(*seconds),
        Step::Crash(after, which) => {
            rig.life = *after;
            rig.grpc(rig.bundle_at(which.index(length)));
            let next = usize::try_from(rig.core.revision().unwrap_or(0)).unwrap() + 1;
            if next < length {
                rig.nats(rig.change(next));
            }
            rig.restart();
        }
        Step::Fail(enforcer, disk) => (rig.enforcer_fails, rig.disk_fails) = (*enforcer, *disk),
        Step::SnapshotFailed => rig.handle(Input::SnapshotFailed),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_an_agent_holds_what_the_log_had_and_never_goes_back(
        start in 0_usize..6,
        steps in proptest::collection::vec(step(), 0..60),
    ) {
        let mut rig = Rig::new(start);
        rig.handle(Input::Loaded(None));
        let mut stated = 0;
        let mut saved = 0;
        for step in &steps {
            let crash = matches!(step, Step::Crash(..));
            let seen = rig.applied.len();
            let floor = if crash { saved } else { rig.core.revision().unwrap_or(0) };
            take(&mut rig, step);
            prop_assert_eq!(rig.discarded.as_ref(), None, "what an agent has saved itself is sound");
            for trust in &rig.applied[seen..] {
                let revision = usize::try_from(trust.bundle.revision).unwrap();
                prop_assert_eq!(&*trust.bundle, &rig.history[revision], "not what the log had");
                prop_assert!(trust.bundle.revision >= floor, "back to {} from {}", revision, floor);
            }
            if let Some(bundle) = rig.core.bundle() {
                prop_assert!(bundle.revision >= floor.max(stated), "the state went back");
            }
            for statement in &rig.statements {
                let revision = usize::try_from(statement.revision).unwrap();
                prop_assert_eq!(statement.digest, rig.history[revision].digest, "stated of {}", revision);
                stated = stated.max(statement.revision);
            }
            saved = rig.disk.changes.last().map_or(0, |change| change.revision).max(rig.disk.bundle.revision);
            prop_assert!(saved >= stated, "revision {} was stated, and {} is on disk", stated, saved);
        }
        // And when messages flow again, it is right again.
        (rig.enforcer_fails, rig.disk_fails) = (false, false);
        // Ground rule 23: also where the clocks jumped, it recovers within 30 s by fresh heads.
        rig.pass(Duration::from_secs(2));
        let last = rig.history.len() - 1;
        rig.grpc(rig.bundle_at(last));
        rig.be_served(Duration::from_secs(30));
        prop_assert_eq!(&**rig.core.bundle().unwrap(), &rig.history[last]);
        prop_assert_eq!(rig.core.freshness(), Freshness::Fresh);
        let receipts = rig.receipts();
        prop_assert_eq!(receipts.last(), Some(&(last as u64, true)));
    }

    /// Whatever the heads, the clocks and the restarts do: nobody new is admitted longer
    /// after the last true head than the hard budget and what a head may be late.
    #[test]
    fn no_play_with_heads_clocks_and_restarts_extends_trust(
        steps in proptest::collection::vec((0_u8..5, 1_u64..60, -2_000_i64..2_000), 1..80),
    ) {
        let mut rig = Rig::live(3);
        let captured: Vec<Message> = (0..5).map(|_| {
            rig.pass(Duration::from_secs(2));
            let head = rig.head_at(3);
            rig.grpc(head.clone());
            head
        }).collect();
        let start = rig.now.monotonic;
        // Answers to questions of then, held back.
        let answers: Vec<Message> =
            [-30, 0, 30].map(|ahead| rig.answer_at(3, rig.now.wall.plus_seconds(ahead))).into();
        for (what, seconds, jump) in steps {
            match what {
                0 => rig.pass(Duration::from_secs(seconds)),
                1 => rig.grpc(captured[usize::try_from(seconds).unwrap() % captured.len()].clone()),
                2 => rig.step_wall(jump),
                3 => rig.grpc(answers[usize::try_from(seconds).unwrap() % answers.len()].clone()),
                // A restart with a false wall clock is another matter: see below.
                _ => rig.grpc(rig.bundle_at(3)),
            }
            rig.handle(Input::Tick);
            let elapsed = rig.now.monotonic - start;
            if elapsed > HARD + SOFT + Duration::from_secs(40) {
                prop_assert!(!rig.core.freshness().admits(), "still admitting after {elapsed:?}");
            }
        }
    }
}
