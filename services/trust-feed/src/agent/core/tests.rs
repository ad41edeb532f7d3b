mod epochs;
mod keys;
mod properties;
mod rig;
mod staleness;

use catrust_domain::Sha256;
use proptest::prelude::*;

use super::*;
use crate::canonical::VerifyError;
use rig::{Rig, TICK};

#[test]
fn a_cold_agent_trusts_nobody_until_a_head_vouches_for_its_bundle() {
    let mut rig = Rig::new(3);
    rig.handle(Input::Loaded(None));
    assert!(rig.applied.is_empty());
    rig.grpc(rig.bundle_at(3));
    let trust = rig.last_applied();
    assert_eq!((trust.bundle.revision, trust.freshness), (3, Freshness::HardStale));
    assert!(!rig.ready);
    rig.grpc(rig.head_at(3));
    assert_eq!(rig.last_applied().freshness, Freshness::Fresh);
    assert!(rig.ready);
    assert_eq!(rig.receipts(), [(3, true)]);
}

#[test]
fn a_change_is_applied_then_persisted_then_stated() {
    let mut rig = Rig::live(2);
    rig.log.clear();
    rig.grow(1);
    rig.nats(rig.change(3));
    assert_eq!(rig.log, ["apply 3 Change", "persist change 3", "receipt 3"]);
    let trust = rig.last_applied();
    assert_eq!(*trust.bundle, rig.history[3]);
    let statement = rig.statements.last().unwrap();
    assert_eq!(statement.digest, rig.history[3].digest);
    assert!(statement.traceparent.starts_with("00-"), "{statement:?}");
}

#[test]
fn words_of_a_change_reach_the_enforcer_and_those_of_many_do_not() {
    let mut rig = Rig::live(9);
    rig.delete_first();
    rig.nats(rig.change(10));
    assert!(rig.last_applied().with_will);
    assert_eq!(rig.last_applied().reason, "gone");
    // What comes as a bundle has no words of its own.
    rig.grow(2);
    rig.delete_first();
    rig.grpc(rig.bundle_at(13));
    assert_eq!((rig.last_applied().with_will, &*rig.last_applied().reason), (false, ""));
    // Nor has a change after one that the enforcer does not have.
    rig.delete_first();
    rig.enforcer_fails = true;
    rig.nats(rig.change(14));
    assert!(rig.last_applied().with_will);
    rig.delete_first();
    rig.enforcer_fails = false;
    rig.nats(rig.change(15));
    assert_eq!(rig.last_applied().bundle.revision, 15);
    assert!(!rig.last_applied().with_will);
}

#[test]
fn changes_out_of_order_wait_for_the_one_before() {
    let mut rig = Rig::live(2);
    rig.grow(3);
    rig.nats(rig.change(5));
    rig.nats(rig.change(4));
    assert_eq!(rig.core.revision(), Some(2));
    assert_eq!(rig.snapshots, 1, "one question for both");
    rig.nats(rig.change(3));
    assert_eq!(rig.core.revision(), Some(5));
    assert_eq!(rig.applied_revisions(), [2, 2, 3, 4, 5]);
}

#[test]
fn a_gap_is_closed_by_a_bundle_and_what_was_kept() {
    let mut rig = Rig::live(2);
    rig.grow(4);
    rig.nats(rig.change(6));
    rig.grpc(rig.bundle_at(5));
    assert_eq!(rig.core.revision(), Some(6));
    assert_eq!(rig.receipts().last(), Some(&(6, true)));
}

#[test]
fn a_change_that_does_not_come_is_told_by_the_head() {
    let mut rig = Rig::live(2);
    rig.grow(1);
    rig.nats(rig.head_at(3));
    assert_eq!(rig.snapshots, 0, "it may be on its way");
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.snapshots, 1);
    rig.grpc(rig.bundle_at(3));
    assert_eq!(rig.core.revision(), Some(3));
}

#[test]
fn a_head_that_was_ahead_counts_when_its_change_has_come() {
    let mut rig = Rig::live(2);
    rig.pass(Duration::from_secs(4));
    rig.grow(1);
    rig.nats(rig.head_at(3));
    rig.pass(Duration::from_millis(500));
    rig.nats(rig.change(3));
    assert_eq!(rig.core.age(rig.now), Some(Duration::ZERO));
    assert_eq!(rig.snapshots, 0);
}

#[test]
fn a_snapshot_that_fails_is_asked_for_again() {
    let mut rig = Rig::live(2);
    rig.grow(2);
    rig.nats(rig.change(4));
    assert_eq!(rig.snapshots, 1);
    rig.handle(Input::SnapshotFailed);
    rig.pass(Duration::from_millis(900));
    assert_eq!(rig.snapshots, 1);
    rig.pass(Duration::from_millis(200));
    assert_eq!(rig.snapshots, 2);
    // A replica that lags does not help either, and a forged answer less.
    rig.grpc(rig.bundle_at(1));
    rig.pass(Duration::from_millis(1_100));
    rig.grpc(rig.forged_bundle());
    rig.pass(Duration::from_millis(1_100));
    assert_eq!(rig.snapshots, 4);
    assert_eq!(rig.refused_kinds(), ["rollback", "bad_signature"]);
}

/// The bundle was asked for, and changes came faster than the answer.
#[test]
fn an_answer_that_changes_have_overtaken_is_no_rollback() {
    let mut rig = Rig::live(2);
    rig.grow(5);
    rig.nats(rig.change(4));
    assert_eq!(rig.snapshots, 1, "there is a gap");
    rig.nats(rig.change(3));
    assert_eq!(rig.core.revision(), Some(4));
    rig.grpc(rig.bundle_at(2));
    assert_eq!((rig.core.revision(), rig.refused_kinds().len()), (Some(4), 0));
    rig.grpc(rig.bundle_at(1));
    assert_eq!(rig.refused_kinds(), ["rollback"], "older than what was there at the question");
    rig.pass(Duration::from_millis(1_100));
    rig.grpc(rig.bundle_at(4));
    // Until the same refusal is told again.
    rig.pass(Duration::from_secs(120));
    rig.refusals.clear();
    rig.grpc(rig.bundle_at(3));
    assert_eq!(rig.refused_kinds(), ["rollback"], "nothing was asked for");
}

#[test]
fn forged_foreign_and_old_messages_are_refused_with_a_reason_and_change_nothing() {
    let mut rig = Rig::live(3);
    let before = rig.core.bundle().cloned();
    let unsigned = |mut bundle: proto::TrustBundle| {
        bundle.signature = None;
        bundle
    };
    let empty = proto::TrustBundle { entries: Vec::new(), ..rig.raw_bundle(3) };
    let foreign = proto::TrustBundle { mqtt_instance_id: "other".into(), ..rig.raw_bundle(3) };
    let other_log = proto::TrustBundle { log_id: Uuid::from_u128(7).to_string(), ..rig.raw_bundle(3) };
    let fork = proto::TrustBundle { bundle_digest: Sha256::of(b"fork").to_string(), ..rig.raw_bundle(3) };
    let mut swapped_key = rig.raw_bundle(3);
    swapped_key.entries[0].spki_sha256 = Sha256::of(b"another key").to_string();
    let cases = [
        (Message::Bundle(unsigned(rig.raw_bundle(3))), "unsigned"),
        (rig.forged_bundle(), "bad_signature"),
        (Message::Bundle(rig.signed_by_stranger(rig.raw_bundle(3))), "unknown_key"),
        (rig.bundle_at(2), "rollback"),
        (Message::Bundle(rig.signed(foreign)), "wrong_instance"),
        (Message::Bundle(rig.signed(other_log)), "wrong_log"),
        // Signed, and yet impossible: a stolen key does not make a bundle consistent.
        (Message::Bundle(rig.signed(empty)), "malformed"),
        (Message::Bundle(rig.signed(fork)), "malformed"),
        (Message::Bundle(rig.signed(swapped_key)), "malformed"),
    ];
    for (message, kind) in cases {
        rig.refusals.clear();
        rig.grpc(message);
        assert_eq!(rig.refused_kinds(), [kind]);
        let Refused { digest, .. } = rig.refusals[0];
        assert_eq!(digest, rig.history[3].digest, "the receipt says what is enforced");
        assert_eq!(rig.core.bundle(), before.as_ref());
        rig.pass_quietly(Duration::from_secs(5));
    }
}

#[test]
fn an_empty_bundle_is_taken_when_it_is_signed_and_its_digest_says_so() {
    let mut rig = Rig::live(1);
    rig.delete_first();
    assert!(rig.history[2].entries.is_empty());
    rig.grpc(rig.bundle_at(2));
    assert_eq!(rig.core.revision(), Some(2));
    assert!(rig.last_applied().bundle.entries.is_empty());
    assert_eq!(rig.last_applied().freshness, Freshness::Fresh);
}

#[test]
fn the_same_revision_with_another_digest_is_refused() {
    let mut rig = Rig::live(3);
    let fork = Rig::fork_of(&rig, 3);
    rig.grpc(Message::Bundle(fork.clone()));
    let head = proto::Head { bundle_digest: fork.bundle_digest, ..rig.raw_head(3) };
    rig.pass_quietly(Duration::from_secs(5));
    rig.grpc(Message::Head(rig.signed(head)));
    assert_eq!(rig.refused_kinds(), ["digest_mismatch", "digest_mismatch"]);
    assert_eq!(*rig.core.bundle().unwrap().as_ref(), rig.history[3]);
}

#[test]
fn a_log_that_was_rolled_back_does_not_keep_an_agent_fresh() {
    let mut rig = Rig::live(5);
    for _ in 0..20 {
        rig.pass(Duration::from_secs(2));
        rig.grpc(rig.head_at(4));
    }
    assert_eq!(rig.core.freshness(), Freshness::SoftStale);
    assert!(rig.refused_kinds().contains(&"log_rolled_back"), "{:?}", rig.refused_kinds());
}

#[test]
fn heads_of_a_revision_just_left_still_prove_freshness() {
    let mut rig = Rig::live(2);
    // Under a steady stream of changes, heads are never of the very last one.
    for revision in 3..40 {
        rig.grow(1);
        rig.pass(Duration::from_millis(500));
        rig.nats(rig.change(revision));
        rig.nats(rig.head_at(revision - 1));
        assert_eq!(rig.core.freshness(), Freshness::Fresh, "at {revision}");
    }
    assert!(rig.refusals.is_empty(), "{:?}", rig.refusals);
}

#[test]
fn a_flood_of_refused_messages_is_answered_seldom() {
    let mut rig = Rig::live(3);
    for _ in 0..100 {
        rig.nats(rig.forged_bundle());
    }
    assert_eq!(rig.refusals.len(), 1);
    rig.pass(Duration::from_secs(5));
    rig.nats(rig.forged_bundle());
    assert_eq!(rig.refusals[1].untold, 99);
}

#[test]
fn an_enforcer_that_fails_is_asked_again_and_no_receipt_is_given_before() {
    let mut rig = Rig::live(2);
    rig.grow(1);
    rig.enforcer_fails = true;
    rig.log.clear();
    rig.nats(rig.change(3));
    rig.pass(Duration::from_secs(2));
    assert_eq!(rig.receipts().last(), Some(&(2, true)));
    assert!(matches!(rig.refusals[0].refusal, MessageRefusal::NotApplied { .. }));
    rig.enforcer_fails = false;
    rig.pass(Duration::from_secs(2));
    assert_eq!(rig.receipts().last(), Some(&(3, true)));
    let last = &rig.log[rig.log.len() - 2..];
    assert_eq!(last, ["apply 3 Retry", "receipt 3"]);
}

#[test]
fn a_disk_that_fails_is_asked_again_and_no_receipt_is_given_before() {
    let mut rig = Rig::live(2);
    rig.grow(1);
    rig.disk_fails = true;
    rig.nats(rig.change(3));
    assert_eq!(rig.last_applied().bundle.revision, 3, "trust does not wait for the disk");
    rig.pass(Duration::from_secs(2));
    assert_eq!(rig.receipts().last(), Some(&(2, true)));
    assert!(matches!(rig.refusals[0].refusal, MessageRefusal::NotPersisted { .. }));
    rig.disk_fails = false;
    rig.pass(Duration::from_secs(2));
    assert_eq!(rig.receipts().last(), Some(&(3, true)));
    let mut again = rig.restarted();
    assert_eq!(again.core.revision(), Some(3));
    again.grpc(again.bundle_at(2));
    assert_eq!(again.refused_kinds(), ["rollback"], "the floor survives");
}

#[test]
fn many_saved_changes_are_replaced_by_a_bundle() {
    let mut rig = Rig::live(1);
    rig.grow(1_001);
    for revision in 2..=1_001 {
        rig.nats(rig.change(revision));
        assert_eq!(rig.snapshots, 0, "at {revision}");
    }
    rig.nats(rig.change(1_002));
    assert_eq!(rig.snapshots, 1);
    rig.grpc(rig.bundle_at(1_002));
    assert_eq!(rig.disk.changes.len(), 0);
    assert_eq!(rig.disk.bundle.revision, 1_002);
    assert_eq!(rig.applied_revisions().last(), Some(&1_002), "and nothing is applied twice");
}

#[test]
fn a_saved_state_is_applied_before_any_contact() {
    let rig = Rig::live(3);
    let mut again = rig.restarted();
    assert_eq!(again.log, ["apply 3 Saved", "ready", "receipt 3"]);
    assert_eq!(again.last_applied().freshness, Freshness::Fresh);
    again.grow(1);
    again.nats(again.change(4));
    assert_eq!(again.core.revision(), Some(4));
}

#[test]
fn saved_changes_from_before_the_saved_bundle_are_passed_over() {
    let mut rig = Rig::live(2);
    rig.grow(2);
    rig.nats(rig.change(3));
    // The end came between the new bundle and the removal of the old changes.
    rig.disk.bundle = rig.raw_bundle(4);
    assert_eq!(rig.restarted().core.revision(), Some(4));
}

#[test]
fn a_saved_state_that_was_tampered_with_is_discarded() {
    let mut rig = Rig::live(2);
    rig.grow(2);
    rig.nats(rig.change(3));
    rig.nats(rig.change(4));
    let good = rig.disk.clone();
    type Spoil = fn(&mut SavedState);
    let spoil: [(&str, Spoil); 6] = [
        ("bad_signature", |saved| saved.bundle.revision += 1),
        ("bad_signature", |saved| saved.changes[1].with_will = true),
        ("gap", |saved| drop(saved.changes.remove(0))),
        ("unsigned", |saved| saved.changes[0].signature = None),
        ("bad_signature", |saved| {
            saved.head.as_mut().unwrap().issued_at.as_mut().unwrap().seconds += 1_000;
        }),
        ("bad_signature", |saved| saved.bundle.entries.clear()),
    ];
    for (kind, spoil) in spoil {
        rig.disk = good.clone();
        spoil(&mut rig.disk);
        let again = rig.restarted();
        assert_eq!(again.discarded.as_ref().map(MessageRefusal::kind), Some(kind));
        assert!(again.applied.is_empty());
    }
}

#[test]
fn a_saved_state_of_another_instance_or_key_is_discarded() {
    let mut rig = Rig::live(2);
    let foreign = proto::TrustBundle { mqtt_instance_id: "other".into(), ..rig.raw_bundle(2) };
    let foreign = rig.signed(foreign);
    let good = std::mem::replace(&mut rig.disk.bundle, foreign);
    assert_eq!(rig.restarted().discarded.as_ref().map(MessageRefusal::kind), Some("wrong_instance"));
    rig.disk.bundle = rig.signed_by_stranger(good);
    let again = rig.restarted();
    assert!(matches!(again.discarded, Some(MessageRefusal::NotVerified(VerifyError::UnknownKey { .. }))));
}

#[test]
fn a_saved_state_without_its_last_changes_is_the_floor_and_proves_nothing() {
    let mut rig = Rig::live(2);
    rig.grow(1);
    rig.nats(rig.change(3));
    rig.pass(Duration::from_secs(31));
    rig.nats(rig.head_at(3));
    assert_eq!(rig.disk.head.as_ref().map(|head| head.revision), Some(3));
    rig.disk.changes.clear();
    let again = rig.restarted();
    assert_eq!(again.refused_kinds(), ["truncated"]);
    assert_eq!((again.core.revision(), again.core.freshness()), (Some(2), Freshness::HardStale));
}

#[test]
fn a_message_that_cannot_be_read_asks_for_a_bundle() {
    let mut rig = Rig::live(2);
    rig.handle(Input::Unreadable(SourceKind::Nats));
    assert_eq!((rig.refused_kinds(), rig.snapshots), (vec!["unreadable"], 1));
}

#[test]
fn memory_for_changes_that_came_too_early_is_bounded() {
    let mut rig = Rig::live(1);
    rig.grow(600);
    for revision in (3..=601).rev() {
        rig.nats(rig.change(revision));
    }
    assert_eq!(rig.core.early.len(), EARLY_CHANGES);
    assert_eq!(rig.core.early.keys().next(), Some(&3), "the nearest are kept");
}

#[test]
fn ticks_alone_do_nothing_to_a_fresh_agent() {
    let mut rig = Rig::live(2);
    rig.log.clear();
    rig.pass(TICK * 4);
    assert!(rig.log.is_empty(), "{:?}", rig.log);
}

#[test]
fn a_key_that_is_not_the_certificates_is_refused_although_digest_and_signature_agree() {
    let mut rig = Rig::live(2);
    let mut bundle = rig.history[2].clone();
    bundle.revision += 1;
    let mut facts = (*bundle.entries[0].facts).clone();
    facts.spki_sha256 = Sha256::of(b"another key");
    bundle.entries[0].facts = Arc::new(facts);
    bundle.digest = TrustBundle::compute_digest(&bundle.entries);
    let message = crate::message::trust_bundle(rig.sample.log_id(), &bundle, rig.now.wall);
    rig.grpc(Message::Bundle(rig.signed(message)));
    let text = rig.refusals[0].refusal.text();
    assert!(text.ends_with("field spki_sha256 is not that of ca_content"), "{text}");
    assert_eq!(rig.core.revision(), Some(2));
}

/// Ground rule 5: one that holds a newer state than the server shows it its newest signed head.
#[test]
fn a_server_that_shows_less_is_shown_the_newest_head() {
    let mut rig = Rig::live(5);
    assert_eq!(rig.core.evidence(rig.now), None, "nobody has shown less");
    rig.grpc(rig.bundle_at(4));
    let shown = rig.core.evidence(rig.now).cloned().unwrap();
    assert_eq!((shown.revision, shown.verified(&rig.given.on_record()).is_ok()), (5, true));
    rig.pass_quietly(Duration::from_secs(61));
    assert_eq!(rig.core.evidence(rig.now), None, "it has all of it since");
    rig.pass(Duration::from_secs(11));
    rig.grpc(rig.head_at(3));
    assert_eq!(rig.core.evidence(rig.now).map(|head| head.revision), Some(5));
    let again = rig.restarted();
    assert_eq!(again.core.newest_head().map(|head| head.revision), Some(5), "from the disk");
}
