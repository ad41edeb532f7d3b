//! Budgets, clocks and the choice of a source, in virtual time.

use super::rig::{HARD, SOFT};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn freshness_told(rig: &Rig) -> Vec<Freshness> {
    let mut told: Vec<Freshness> = rig.applied.iter().map(|trust| trust.freshness).collect();
    told.dedup();
    told
}

#[test]
fn without_heads_the_bundle_is_served_on_and_then_admits_nobody() {
    let mut rig = Rig::live(2);
    rig.pass(SOFT);
    assert_eq!(rig.core.freshness(), Freshness::Fresh);
    rig.pass(SECOND);
    assert_eq!(rig.last_applied().freshness, Freshness::SoftStale);
    assert!(rig.last_applied().freshness.admits());
    assert_eq!(*rig.last_applied().bundle, rig.history[2], "the last known good one");
    rig.pass(HARD - SOFT);
    assert_eq!(rig.last_applied().freshness, Freshness::HardStale);
    assert!(!rig.last_applied().freshness.admits());
    rig.grpc(rig.head_at(2));
    assert_eq!(rig.last_applied().freshness, Freshness::Fresh);
    use Freshness::{Fresh, HardStale, SoftStale};
    assert_eq!(freshness_told(&rig), [HardStale, Fresh, SoftStale, HardStale, Fresh]);
    assert_eq!(rig.receipts(), [(2, true)], "one receipt for one revision");
}

#[test]
fn changes_and_bundles_alone_do_not_make_fresh() {
    let mut rig = Rig::live(2);
    rig.pass(SOFT + SECOND);
    rig.grow(2);
    rig.nats(rig.change(3));
    rig.grpc(rig.bundle_at(4));
    assert_eq!(rig.core.revision(), Some(4));
    assert_eq!(rig.core.freshness(), Freshness::SoftStale, "somebody may hold the next ones back");
}

#[test]
fn replayed_and_expired_heads_do_not_make_fresh() {
    let mut rig = Rig::live(2);
    rig.pass(SECOND);
    let head = rig.head_at(2);
    rig.grpc(head.clone());
    for _ in 0..7 {
        rig.pass(SECOND);
        rig.grpc(head.clone());
    }
    assert_eq!(rig.core.freshness(), Freshness::SoftStale);
    let held_back = rig.head_at(2);
    rig.pass(SECOND * 41);
    rig.grpc(held_back);
    assert_eq!(rig.core.freshness(), Freshness::SoftStale);
    assert_eq!(rig.refused_kinds(), ["head_expired"]);
}

#[test]
fn a_wall_clock_that_steps_back_extends_nothing() {
    let mut rig = Rig::live(2);
    let old = rig.head_at(2);
    rig.pass(HARD / 2);
    rig.step_wall(-100_000);
    rig.grpc(old);
    rig.pass(HARD / 2 + SECOND);
    assert_eq!(rig.core.freshness(), Freshness::HardStale);
}

const YEAR: i64 = 365 * 86_400;

/// A whole site was a year ahead, and its clocks are set right.
fn set_right() -> (Rig, Message, Message) {
    let mut rig = Rig::live(2);
    let before = rig.head_at(2);
    rig.step_wall(YEAR);
    rig.pass(SECOND);
    rig.grpc(rig.head_at(2));
    rig.pass_quietly(40 * SECOND);
    assert_eq!(rig.core.freshness(), Freshness::Fresh);
    let ahead = rig.head_at(2);
    rig.step_wall(-YEAR);
    (rig, before, ahead)
}

/// Ground rule 23: an agent whose clock was set back recovers within 30 s by fresh heads, never by old
/// ones.
#[test]
fn a_clock_that_is_set_right_costs_seconds_and_makes_no_old_head_count() {
    let (mut rig, before, ahead) = set_right();
    for _ in 0..5 {
        rig.pass(2 * SECOND);
        rig.nats(rig.head_at(2));
        rig.nats(before.clone());
        rig.nats(ahead.clone());
    }
    assert_eq!(rig.core.freshness(), Freshness::SoftStale, "no head without an answer");
    assert!(rig.refused_kinds().contains(&"head_expired"), "{:?}", rig.refused_kinds());
    rig.be_served(8 * SECOND);
    assert_eq!(rig.core.freshness(), Freshness::Fresh);
    // And from then on as ever: by heads alone, over either source.
    let streams = rig.streams;
    for _ in 0..5 {
        rig.pass(2 * SECOND);
        rig.nats(rig.head_at(2));
        assert_eq!(rig.core.freshness(), Freshness::Fresh);
    }
    assert_eq!(rig.streams, streams);
    assert_eq!(rig.core.active_source(), SourceKind::Nats, "it leans on NATS again");
}

/// Ground rule 23: the same for an agent that finds a saved head in its future.
#[test]
fn a_saved_head_of_the_future_does_not_outlive_the_first_answer() {
    let (mut rig, before, ahead) = set_right();
    rig.restart();
    assert_eq!(rig.core.freshness(), Freshness::HardStale, "its age is not known");
    for head in [before, ahead] {
        rig.grpc(head);
        assert_eq!(rig.core.freshness(), Freshness::HardStale);
    }
    rig.be_served(8 * SECOND);
    assert_eq!(rig.core.freshness(), Freshness::Fresh);
    rig.be_served(40 * SECOND);
    rig.restart();
    assert_eq!(rig.core.freshness(), Freshness::SoftStale, "a head of the right time is saved again");
}

/// Whoever turns the clock of an agent back and has recorded heads of then has nothing.
#[test]
fn recorded_heads_do_not_count_again_when_the_clock_is_turned_back_to_them() {
    let mut rig = Rig::live(2);
    let recorded: Vec<Message> = (0..60)
        .map(|_| {
            rig.pass(2 * SECOND);
            let head = rig.head_at(2);
            rig.grpc(head.clone());
            head
        })
        .collect();
    rig.step_wall(-120);
    for head in recorded {
        rig.pass(2 * SECOND);
        rig.grpc(head.clone());
        // Nor as an answer that agrees with the clocks of the servers and not with its own.
        let true_time = rig.now.wall.plus_seconds(120);
        rig.grpc(rig.answer_at(2, true_time));
    }
    assert_eq!(rig.core.freshness(), Freshness::SoftStale);
    assert!(rig.streams > 0, "it asks");
}

#[test]
fn a_saved_state_is_relied_on_while_it_is_younger_than_the_hard_budget() {
    let rig = Rig::live(2);
    for (away, expected) in [
        (5, Freshness::Fresh),
        (300, Freshness::SoftStale),
        (599, Freshness::SoftStale),
        (601, Freshness::HardStale),
        // The wall clock was set back while the agent was away: the age is not known.
        (-31, Freshness::HardStale),
    ] {
        let mut again = rig.restarted();
        again.step_wall(away);
        again.applied.clear();
        again.restart();
        assert_eq!(again.last_applied().freshness, expected, "after {away} s");
        assert_eq!(again.ready, expected.admits());
        assert_eq!(again.core.revision(), Some(2), "the floor is there in any case");
    }
}

#[test]
fn a_restart_does_not_renew_the_budget() {
    let mut rig = Rig::live(2);
    for _ in 0..5 {
        rig.pass(HARD / 6);
        rig.restart();
        assert_eq!(rig.core.freshness(), Freshness::SoftStale);
    }
    rig.pass(HARD / 6 + SECOND);
    rig.restart();
    assert_eq!(rig.core.freshness(), Freshness::HardStale);
}

#[test]
fn the_saved_head_is_renewed_every_half_minute() {
    let mut rig = Rig::live(2);
    rig.log.clear();
    rig.pass_quietly(SECOND * 120);
    let saved = rig.log.iter().filter(|line| line.starts_with("persist head")).count();
    assert_eq!(saved, 4);
    rig.pass(SECOND * 550);
    rig.restart();
    assert_eq!(rig.core.freshness(), Freshness::SoftStale, "at most half a minute of the budget is lost");
}

#[test]
fn nats_takes_over_when_its_heads_come_and_grpc_when_they_stop() {
    let mut rig = Rig::live(2);
    rig.handle(Input::SourceUp(SourceKind::Nats));
    for _ in 0..3 {
        rig.nats(rig.head_at(2));
        rig.pass(SECOND * 2);
    }
    assert_eq!(rig.switches, [SourceKind::Nats]);
    // NATS falls silent; heads come by gRPC as soon as it is asked.
    let silent_since = rig.now.monotonic - SECOND * 2;
    while rig.switches.len() == 1 {
        rig.pass(TICK);
    }
    assert_eq!(rig.switches[1], SourceKind::Grpc);
    assert!(rig.now.monotonic - silent_since < SOFT, "within the soft budget");
    assert_eq!(rig.core.freshness(), Freshness::Fresh);
    // And back.
    for _ in 0..3 {
        rig.nats(rig.head_at(2));
        rig.pass(SECOND * 2);
    }
    assert_eq!(rig.switches[2..], [SourceKind::Nats]);
}

#[test]
fn a_lost_connection_to_nats_does_not_wait_for_the_silence() {
    let mut rig = Rig::live(2);
    for _ in 0..3 {
        rig.nats(rig.head_at(2));
        rig.pass(SECOND);
    }
    assert_eq!(rig.switches, [SourceKind::Nats]);
    rig.handle(Input::SourceLost(SourceKind::Nats));
    rig.pass(SECOND);
    assert_eq!(rig.switches, [SourceKind::Nats, SourceKind::Grpc]);
}

#[test]
fn heads_that_nats_delivers_unsigned_do_not_make_it_the_choice() {
    let mut rig = Rig::live(2);
    for _ in 0..6 {
        rig.pass(SECOND);
        let head = rig.signed_by_stranger(rig.raw_head(2));
        rig.nats(Message::Head(head));
        rig.grpc(rig.head_at(2));
    }
    assert_eq!(rig.switches, []);
}
