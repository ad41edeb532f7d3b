//! Log epochs: the log was set back and goes on as another history.

use proptest::sample::Index;

use super::rig::{HARD, SOFT};
use super::*;

const SECOND: Duration = Duration::from_secs(1);
/// Seconds from 2020 to the start of the rig's wall clock.
const NOW: u64 = 222_163_300;
/// The skew that the rig's agent bears.
const SKEW: u64 = 30;

fn of(epoch: u64, count: u64) -> u64 {
    (epoch << 32) | count
}

/// An agent that is fresh at revision 5 of epoch 0; the log forked at 2, and has had one
/// change since.
fn forked(epoch: u64) -> (Rig, Rig) {
    let mut rig = Rig::live(5);
    let old = rig.restarted();
    rig.begin_epoch(2, epoch);
    rig.grow(1);
    rig.refusals.clear();
    (rig, old)
}

/// Ground rule 16: a bundle of a higher epoch replaces the state, although its count is lower.
#[test]
fn a_bundle_of_a_later_epoch_replaces_the_state_although_its_count_is_lower() {
    for epoch in [1, NOW - 5] {
        let (mut rig, old) = forked(epoch);
        rig.log.clear();
        rig.grpc(rig.bundle_at(3));
        rig.grpc(rig.head_at(3));
        assert_eq!(rig.core.revision(), Some(of(epoch, 3)));
        assert_eq!(*rig.last_applied().bundle, rig.history[3]);
        assert_eq!(rig.receipts().last(), Some(&(of(epoch, 3), true)));
        assert_eq!(rig.core.freshness(), Freshness::Fresh);
        rig.grow(1);
        rig.nats(rig.change(4));
        assert_eq!(rig.core.revision(), Some(of(epoch, 4)), "and goes on from there");
        // Nothing leads back, over the wire or over a restart.
        assert_eq!(rig.refused_kinds(), [""; 0]);
        rig.grpc(old.bundle_at(5));
        rig.grpc(old.change(5));
        assert_eq!(rig.refused_kinds(), ["rollback"], "one kind is told once in a while");
        let mut again = rig.restarted();
        assert_eq!(again.core.revision(), Some(of(epoch, 4)));
        again.grpc(old.bundle_at(5));
        assert_eq!(again.refused_kinds(), ["rollback"]);
    }
}

/// Ground rule 16: a head of another epoch than the state's proves nothing; a higher one makes the
/// agent ask for a bundle.
#[test]
fn a_head_of_another_epoch_proves_nothing_and_a_higher_one_asks_for_a_bundle() {
    let (mut rig, old) = forked(1);
    rig.pass(SECOND);
    rig.nats(rig.head_at(3));
    assert_eq!(rig.snapshots, 1, "at once: no change leads there");
    for _ in 0..6 {
        rig.pass(SECOND);
        rig.nats(rig.head_at(3));
    }
    assert_eq!(rig.core.freshness(), Freshness::SoftStale, "it was not proved for the state of before");
    rig.grpc(rig.bundle_at(3));
    assert_eq!(rig.core.freshness(), Freshness::Fresh, "it counts for its own epoch");
    // A server that does not know of the epoch goes on signing heads of the one before.
    let mut late = old;
    for _ in 0..9 {
        rig.pass(2 * SECOND);
        late.now = rig.now;
        rig.grpc(late.head_at(5));
    }
    assert_eq!(rig.core.freshness(), Freshness::SoftStale);
    assert!(rig.refused_kinds().contains(&"log_rolled_back"), "{:?}", rig.refused_kinds());
    rig.pass(HARD);
    late.now = rig.now;
    rig.grpc(late.head_at(5));
    assert_eq!(rig.core.freshness(), Freshness::HardStale);
}

#[test]
fn what_heads_proved_of_an_ended_epoch_is_no_proof_of_the_next() {
    let (mut rig, _) = forked(1);
    assert_eq!(rig.core.freshness(), Freshness::Fresh);
    rig.grpc(rig.bundle_at(3));
    assert_eq!(rig.core.freshness(), Freshness::HardStale, "it may be an old bundle of that epoch");
    let mut again = rig.restarted();
    assert_eq!(again.core.freshness(), Freshness::HardStale, "nor is the saved head");
    again.grpc(again.head_at(3));
    assert_eq!(again.core.freshness(), Freshness::Fresh);
}

/// A lagging replica sends what it has; the first seconds of an epoch are told to nobody.
#[test]
fn heads_of_the_epoch_just_left_are_no_alarm() {
    let (mut rig, mut old) = forked(1);
    rig.grpc(rig.bundle_at(3));
    for _ in 0..4 {
        rig.pass(SECOND);
        old.now = rig.now;
        rig.nats(old.head_at(5));
    }
    assert_eq!(rig.refused_kinds(), [""; 0]);
}

#[test]
fn a_change_of_a_later_epoch_asks_for_a_bundle_and_waits_for_it() {
    let (mut rig, _) = forked(NOW);
    rig.grow(1);
    rig.nats(rig.change(4));
    assert_eq!((rig.core.revision(), rig.snapshots), (Some(5), 1));
    rig.grpc(rig.bundle_at(3));
    assert_eq!(rig.core.revision(), Some(of(NOW, 4)));
}

/// Ground rule 16: an agent refuses an epoch beyond its clock plus skew, also from disk.
#[test]
fn an_epoch_of_the_future_is_refused() {
    let (mut rig, _) = forked(NOW + SKEW + 1);
    for message in [rig.bundle_at(3), rig.head_at(3), rig.change(3)] {
        rig.refusals.clear();
        rig.pass(5 * SECOND);
        rig.step_wall(-5);
        rig.grpc(message);
        assert_eq!(rig.refused_kinds(), ["epoch_future"]);
        assert_eq!(rig.core.revision(), Some(5));
    }
    // The clock comes there.
    rig.step_wall(1);
    rig.grpc(rig.bundle_at(3));
    rig.grpc(rig.head_at(3));
    assert_eq!((rig.core.revision(), rig.core.freshness()), (Some(of(NOW + SKEW + 1, 3)), Freshness::Fresh));
    // The machine starts again with a clock that was set back.
    let mut again = rig.restarted();
    again.step_wall(-100);
    again.applied.clear();
    again.refusals.clear();
    again.restart();
    assert!(again.refused_kinds().contains(&"epoch_future"), "{:?}", again.refused_kinds());
    assert!(again.applied.iter().all(|trust| !trust.freshness.admits()), "it admits nobody");
    assert_eq!(again.core.revision(), Some(of(NOW + SKEW + 1, 3)), "and stays the floor");
    again.step_wall(100);
    again.pass(SECOND);
    again.grpc(again.head_at(3));
    assert_eq!(again.core.freshness(), Freshness::Fresh);
}

/// An agent that knows three servers and has not been started.
fn with_three_servers() -> (Rig, Rig) {
    let (mut rig, old) = forked(1);
    rig.servers = 3;
    rig.disk = SavedState::default();
    rig.applied.clear();
    rig.statements.clear();
    rig.snapshots = 0;
    rig.restart();
    (rig, old)
}

/// Ground rule 16: without saved state an agent asks every server that it knows (2 s) and takes the
/// highest.
#[test]
fn without_a_saved_state_the_highest_of_what_every_server_has_is_taken() {
    let (mut rig, mut old) = with_three_servers();
    old.now = rig.now;
    assert_eq!(rig.rounds, 1);
    rig.grpc(old.bundle_at(5));
    rig.grpc(old.head_at(5));
    assert!(rig.applied.is_empty(), "another may know more");
    rig.grpc(rig.bundle_at(2));
    rig.grpc(rig.bundle_at(3));
    rig.grpc(rig.head_at(3));
    rig.grpc(old.bundle_at(4));
    assert!(rig.applied.is_empty());
    rig.handle(Input::EveryServerAsked);
    assert_eq!(*rig.applied[0].bundle, rig.history[3], "nothing lower was ever enforced");
    assert!(rig.ready, "the head that came meanwhile counts");
    assert_eq!((rig.refused_kinds().len(), rig.snapshots), (0, 0));
    assert_eq!(rig.receipts(), [(of(1, 3), true)]);
}

#[test]
fn a_server_that_says_nothing_is_waited_for_two_seconds() {
    let (mut rig, mut old) = with_three_servers();
    old.now = rig.now;
    rig.grpc(old.bundle_at(4));
    rig.pass(2 * SECOND - TICK);
    assert_eq!(rig.core.revision(), None);
    rig.pass(TICK);
    assert_eq!(rig.core.revision(), Some(4));
    rig.handle(Input::EveryServerAsked);
    assert_eq!(rig.core.revision(), Some(4), "late, and nothing more");
    // With nothing from anybody, it goes on asking one after another.
    let (mut rig, _) = with_three_servers();
    rig.handle(Input::EveryServerAsked);
    assert_eq!(rig.snapshots, 1);
    // A forged or foreign bundle does not stand in the way of a good one.
    let (mut rig, _) = with_three_servers();
    let stranger = rig.signed_by_stranger(rig.raw_bundle(3));
    rig.grpc(Message::Bundle(stranger));
    let foreign = rig.signed(proto::TrustBundle { mqtt_instance_id: "other".into(), ..rig.raw_bundle(3) });
    rig.grpc(Message::Bundle(foreign));
    rig.grpc(rig.bundle_at(2));
    rig.handle(Input::EveryServerAsked);
    assert_eq!(rig.core.revision(), Some(of(1, 2)));
    assert_eq!(rig.refused_kinds(), ["unknown_key", "wrong_instance"]);
}

#[derive(Clone, Debug)]
enum Delivery {
    Bundle(Index),
    Change(Index),
    Head(Index),
    Restart,
    Pass(u64),
}

fn delivery() -> impl Strategy<Value = (usize, Delivery)> {
    let what = prop_oneof![
        3 => any::<Index>().prop_map(Delivery::Bundle),
        4 => any::<Index>().prop_map(Delivery::Change),
        4 => any::<Index>().prop_map(Delivery::Head),
        1 => Just(Delivery::Restart),
        2 => (1_u64..4_000).prop_map(Delivery::Pass),
    ];
    (0_usize..3, what)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    /// Ground rule 16, as a property: three histories of one log, any of their messages in any
    /// order, and restarts. What is held is always a state of one of them, whole; its revision never
    /// falls; and it is fresh only by a head of its own epoch that came within the soft budget.
    #[test]
    fn histories_are_never_mixed_and_freshness_is_of_the_epoch_that_is_held(
        forks in (0_usize..6, 0_usize..6),
        deliveries in proptest::collection::vec(delivery(), 1..60),
    ) {
        let mut rig = Rig::new(6);
        let mut histories = vec![rig.restarted()];
        for (fork, epoch) in [(forks.0, 1), (forks.1.min(forks.0), NOW)] {
            rig.begin_epoch(fork, epoch);
            rig.grow(4);
            histories.push(rig.restarted());
        }
        rig.handle(Input::Loaded(None));
        let mut proved: BTreeMap<u64, Duration> = BTreeMap::new();
        for (which, what) in deliveries {
            let floor = rig.core.revision().unwrap_or(0);
            let history = &mut histories[which];
            history.now = rig.now;
            match what {
                Delivery::Bundle(index) => rig.grpc(history.bundle_at(index.index(history.history.len()))),
                Delivery::Change(index) => {
                    rig.nats(history.change(index.index(history.history.len() - 1) + 1));
                }
                Delivery::Head(index) => {
                    proved.insert(history.epoch, rig.now.monotonic);
                    rig.nats(history.head_at(index.index(history.history.len())));
                }
                Delivery::Restart => rig.restart(),
                Delivery::Pass(milliseconds) => rig.pass(Duration::from_millis(milliseconds)),
            }
            prop_assert_eq!(rig.discarded.as_ref(), None);
            let revision = rig.core.revision().unwrap_or(0);
            prop_assert!(revision >= floor, "back to {} from {}", revision, floor);
            if let Some(bundle) = rig.core.bundle() {
                let count = usize::try_from(revision & 0xffff_ffff).unwrap();
                let history = histories.iter().find(|history| history.epoch == revision >> 32).unwrap();
                prop_assert_eq!(&**bundle, &history.history[count]);
            }
            if rig.core.freshness() == Freshness::Fresh {
                // A head may be 40 s late: its validity and the skew.
                let at = proved.get(&(revision >> 32)).copied();
                let late = Duration::from_secs(40);
                prop_assert!(at.is_some_and(|at| rig.now.monotonic - at <= SOFT + late), "fresh without a head");
            }
        }
        // And as soon as the last history alone speaks, it is what is held.
        let last = &mut histories[2];
        rig.pass(5 * SECOND);
        last.now = rig.now;
        let end = last.history.len() - 1;
        rig.grpc(last.bundle_at(end));
        rig.grpc(last.head_at(end));
        prop_assert_eq!(&**rig.core.bundle().unwrap(), &last.history[end]);
        prop_assert_eq!(rig.core.freshness(), Freshness::Fresh);
    }
}
