//! Keys that change: rotation, revocation, expiry, and sets that are held back, replayed or
//! forged; in virtual time.

use std::sync::Arc as Shared;

use catrust_signing::timestamp;

use super::rig::{HARD, SOFT};
use super::*;
use crate::contract::key;
use crate::message;
use crate::signing::{SigningKey, TrustKeys};

const SECOND: Duration = Duration::from_secs(1);
/// How long a set and its keys are valid, unless a test says otherwise.
const LONG: i64 = 1_000_000;

/// A rig whose agent knows a root key alone, and the keys of its servers.
struct Site {
    rig: Rig,
    root: SigningKey,
    old: Shared<SigningKey>,
    new: Shared<SigningKey>,
}

/// A key in a set.
struct Named<'a> {
    key: &'a SigningKey,
    /// Seconds from now.
    until: i64,
    revoked: bool,
}

fn good(key: &SigningKey) -> Named<'_> {
    Named { key, until: LONG, revoked: false }
}

fn until(key: &SigningKey, until: i64) -> Named<'_> {
    Named { key, until, revoked: false }
}

fn revoked(key: &SigningKey) -> Named<'_> {
    Named { key, until: LONG, revoked: true }
}

impl Site {
    /// A log with two changes, signed with the old key, and an agent that was not started.
    fn new() -> Self {
        let mut rig = Rig::new(2);
        let (root, old, new) = (key(), Shared::clone(&rig.signer), Shared::new(key()));
        rig.given = KeyRing::new(TrustKeys::default(), TrustKeys::from(&root));
        rig.restart();
        Self { rig, root, old, new }
    }

    /// An agent that is fresh by the old key.
    fn live() -> Self {
        let mut site = Self::new();
        let set = site.set(1, LONG, &[good(&site.old)]);
        site.rig.grpc(set);
        site.rig.grpc(site.rig.bundle_at(2));
        site.rig.grpc(site.rig.head_at(2));
        assert_eq!(site.rig.core.freshness(), Freshness::Fresh);
        site
    }

    fn raw_set(&self, version: u64, expires_in: i64, keys: &[Named<'_>]) -> proto::KeySet {
        let wall = self.rig.now.wall;
        let named = |named: &Named<'_>| proto::EventKey {
            key_id: named.key.key_id().to_owned(),
            public_key: named.key.public_key_pem(),
            not_before: Some(timestamp(wall.plus_seconds(-LONG))),
            not_after: Some(timestamp(wall.plus_seconds(named.until))),
            revoked: named.revoked,
        };
        let mut set = proto::KeySet {
            version,
            keys: keys.iter().map(named).collect(),
            issued_at: Some(timestamp(wall.plus_seconds(-LONG))),
            expires_at: Some(timestamp(wall.plus_seconds(expires_in))),
            signature: None,
        };
        set.sign(&self.root).unwrap();
        set
    }

    fn set(&self, version: u64, expires_in: i64, keys: &[Named<'_>]) -> Message {
        Message::KeySet(Box::new(self.raw_set(version, expires_in, keys)))
    }

    fn servers_sign_with(&mut self, key: &Shared<SigningKey>) {
        self.rig.signer = Shared::clone(key);
    }

    /// The agent has never been anything but fresh since it became so.
    fn assert_no_trust_was_lost(&self) {
        let told: Vec<Freshness> = self.rig.applied.iter().map(|trust| trust.freshness).collect();
        let lost = told.iter().skip_while(|freshness| !freshness.admits()).any(|f| *f != Freshness::Fresh);
        assert!(!lost, "{told:?}");
        assert_eq!(self.rig.refused_kinds(), [""; 0]);
    }
}

#[test]
fn nobody_is_believed_before_a_root_key_vouches() {
    let mut site = Site::new();
    site.rig.grpc(site.rig.bundle_at(2));
    assert_eq!((site.rig.core.revision(), site.rig.refused_kinds()), (None, vec!["unknown_key"]));
    let mut forged = site.raw_set(1, LONG, &[good(&site.old)]);
    forged.sign(&site.old).unwrap();
    site.rig.grpc(Message::KeySet(Box::new(forged)));
    site.rig.pass(5 * SECOND);
    site.rig.grpc(site.rig.bundle_at(2));
    assert_eq!(site.rig.core.revision(), None);
    let kinds = site.rig.refused_kinds();
    assert_eq!(kinds, ["unknown_key", "key_set_not_vouched_for", "unknown_key"]);
}

#[test]
fn a_rotation_in_the_middle_of_the_stream_loses_no_trust() {
    let mut site = Site::live();
    let new = Shared::clone(&site.new);
    site.rig.grpc(site.set(2, LONG, &[good(&site.old), good(&new)]));
    site.rig.pass_quietly(3 * SECOND);
    // Two replicas, one with each key, and each signs whatever it comes to.
    for turn in 0..6 {
        let signer = if turn % 2 == 0 { Shared::clone(&new) } else { Shared::clone(&site.old) };
        site.servers_sign_with(&signer);
        site.rig.grow(1);
        site.rig.nats(site.rig.change(3 + turn));
        site.rig.pass_quietly(2 * SECOND);
    }
    site.servers_sign_with(&new);
    site.rig.pass_quietly(2 * SECOND);
    site.rig.grpc(site.set(3, LONG, &[good(&new)]));
    // What is on disk is signed by a key that is gone.
    assert_eq!(site.rig.snapshots, 1);
    site.rig.grpc(site.rig.bundle_at(8));
    site.rig.pass_quietly(10 * SECOND);
    assert_eq!(site.rig.core.revision(), Some(8));
    site.assert_no_trust_was_lost();
    let again = site.rig.restarted();
    assert_eq!((again.core.revision(), again.discarded.clone()), (Some(8), None));
    assert!(again.core.freshness().admits(), "as old as the last saved head");
}

#[test]
fn a_restart_finds_its_keys_and_goes_on_by_the_old_and_the_new_one() {
    let mut site = Site::live();
    site.rig.grpc(site.set(2, LONG, &[until(&site.old, 60), good(&site.new)]));
    site.rig = site.rig.restarted();
    assert_eq!((site.rig.core.revision(), site.rig.core.freshness()), (Some(2), Freshness::Fresh));
    let new = Shared::clone(&site.new);
    site.servers_sign_with(&new);
    site.rig.grpc(site.rig.head_at(2));
    // The old key has expired meanwhile, and what it signed was true.
    site.rig.pass_quietly(200 * SECOND);
    site.rig = site.rig.restarted();
    assert_eq!((site.rig.core.revision(), site.rig.discarded.clone()), (Some(2), None));
    assert!(site.rig.core.freshness().admits(), "the saved head is by the new key");
    assert_eq!(site.rig.refused_kinds(), [""; 0]);
}

#[test]
fn messages_by_a_revoked_key_are_refused_and_trust_goes_on_by_another() {
    let mut site = Site::live();
    let new = Shared::clone(&site.new);
    site.rig.grpc(site.set(2, LONG, &[good(&site.old), good(&new)]));
    site.servers_sign_with(&new);
    site.rig.grpc(site.rig.head_at(2));
    site.rig.grpc(site.set(3, LONG, &[revoked(&site.old), good(&new)]));
    assert_eq!(site.rig.core.freshness(), Freshness::Fresh, "the last head was by the good key");
    let old = Shared::clone(&site.old);
    site.servers_sign_with(&old);
    site.rig.grow(1);
    site.rig.nats(site.rig.change(3));
    site.rig.grpc(site.rig.bundle_at(3));
    site.rig.grpc(site.rig.head_at(3));
    assert_eq!(site.rig.core.revision(), Some(2));
    assert_eq!(site.rig.refused_kinds(), ["key_revoked"], "told once in a while");
    site.servers_sign_with(&new);
    site.rig.grpc(site.rig.bundle_at(3));
    assert_eq!((site.rig.core.revision(), site.rig.core.freshness()), (Some(3), Freshness::Fresh));
}

#[test]
fn a_revocation_of_the_key_in_use_admits_nobody_until_another_signs() {
    let mut site = Site::live();
    site.rig.grpc(site.set(2, LONG, &[revoked(&site.old), good(&site.new)]));
    assert_eq!(site.rig.last_applied().freshness, Freshness::HardStale);
    assert_eq!(*site.rig.last_applied().bundle, site.rig.history[2], "sessions stay");
    assert_eq!(site.rig.snapshots, 1);
    let new = Shared::clone(&site.new);
    site.servers_sign_with(&new);
    site.rig.pass(SECOND);
    site.rig.grpc(site.rig.head_at(2));
    assert_eq!(site.rig.core.freshness(), Freshness::Fresh, "the state was the log's after all");
}

/// Whoever has stolen the key has made the agent believe in a revision that the log never
/// had, and that no honest one would ever reach.
#[test]
fn what_a_stolen_key_made_an_agent_believe_goes_with_the_key() {
    let mut site = Site::live();
    let mut thief = Rig::new(0);
    thief.signer = Shared::clone(&site.old);
    let mut forged = site.rig.history[2].clone();
    forged.revision = 900;
    forged.entries.pop();
    forged.digest = TrustBundle::compute_digest(&forged.entries);
    let log_id = site.rig.sample.log_id();
    let bundle = thief.signed(message::trust_bundle(log_id, &forged, site.rig.now.wall));
    site.rig.grpc(Message::Bundle(bundle));
    assert_eq!(site.rig.core.revision(), Some(900));
    site.rig.grpc(site.set(2, LONG, &[revoked(&site.old), good(&site.new)]));
    let new = Shared::clone(&site.new);
    site.servers_sign_with(&new);
    site.rig.grpc(site.rig.bundle_at(2));
    assert_eq!(site.rig.core.revision(), Some(2));
    assert_eq!(*site.rig.last_applied().bundle, site.rig.history[2]);
    assert!(!site.rig.core.freshness().admits(), "heads by the thief prove nothing");
    site.rig.pass(SECOND);
    site.rig.grpc(site.rig.head_at(2));
    assert_eq!(site.rig.core.freshness(), Freshness::Fresh);
    let again = site.rig.restarted();
    assert_eq!((again.core.revision(), again.discarded.clone()), (Some(2), None));
}

#[test]
fn changes_that_wait_go_with_the_key_that_signed_them() {
    let mut site = Site::live();
    site.rig.grow(2);
    site.rig.nats(site.rig.change(4));
    let new = Shared::clone(&site.new);
    site.rig.grpc(site.set(2, LONG, &[revoked(&site.old), good(&new)]));
    site.servers_sign_with(&new);
    site.rig.grpc(site.rig.bundle_at(3));
    assert_eq!(site.rig.core.revision(), Some(3), "the change to 4 was by the revoked key");
}

#[test]
fn an_expired_set_admits_nobody_new_until_a_newer_one_comes() {
    let mut site = Site::live();
    site.rig.grpc(site.set(2, 60, &[good(&site.old)]));
    // The set is believed for as long as clocks may differ.
    site.rig.pass_quietly(89 * SECOND);
    assert_eq!(site.rig.core.freshness(), Freshness::Fresh);
    site.rig.pass_quietly(4 * SECOND);
    assert_eq!(site.rig.last_applied().freshness, Freshness::HardStale);
    assert_eq!(*site.rig.last_applied().bundle, site.rig.history[2], "sessions stay");
    assert_eq!(site.rig.refused_kinds(), ["key_set_expired"]);
    // Nor does a restart help.
    assert_eq!(site.rig.restarted().core.freshness(), Freshness::HardStale);
    site.rig.grpc(site.set(3, LONG, &[good(&site.old)]));
    site.rig.pass_quietly(2 * SECOND);
    assert_eq!(site.rig.last_applied().freshness, Freshness::Fresh);
}

#[test]
fn an_expired_key_admits_nobody_new_and_old_changes_by_it_are_history() {
    let mut site = Site::live();
    site.rig.grow(1);
    site.rig.nats(site.rig.change(3));
    site.rig.grpc(site.set(2, LONG, &[until(&site.old, 10), good(&site.new)]));
    site.rig.pass_quietly(45 * SECOND);
    assert_eq!(site.rig.last_applied().freshness, Freshness::HardStale);
    assert_eq!(site.rig.refused_kinds(), ["key_expired"]);
    let new = Shared::clone(&site.new);
    site.servers_sign_with(&new);
    site.rig.pass_quietly(10 * SECOND);
    assert_eq!(site.rig.last_applied().freshness, Freshness::Fresh);
    let told = site.rig.refusals.len();
    for revision in [1, 2, 3] {
        site.rig.nats(site.rig.change(revision));
    }
    assert_eq!(site.rig.refusals.len(), told, "the stream keeps them for ever");
    // What would be news is refused.
    let old = Shared::clone(&site.old);
    site.servers_sign_with(&old);
    site.rig.grow(1);
    site.rig.nats(site.rig.change(4));
    assert_eq!((site.rig.core.revision(), site.rig.refusals.len()), (Some(3), told + 1));
    // The same once the key is dropped.
    site.rig.grpc(site.set(3, LONG, &[good(&site.new)]));
    for revision in [1, 2, 3] {
        site.rig.nats(site.rig.change(revision));
    }
    assert_eq!(site.rig.refusals.len(), told + 1);
    site.rig.nats(site.rig.change(4));
    assert_eq!((site.rig.core.revision(), site.rig.refused_kinds().pop()), (Some(3), Some("unknown_key")));
}

#[test]
fn sets_that_are_rolled_back_forked_or_old_are_refused_and_change_nothing() {
    let mut site = Site::live();
    let before = site.set(1, LONG, &[good(&site.old)]);
    let second = site.set(2, LONG, &[good(&site.old), good(&site.new)]);
    site.rig.grpc(second.clone());
    site.rig.grpc(second);
    assert_eq!(site.rig.refused_kinds(), [""; 0], "the same again is no news");
    site.rig.grpc(before.clone());
    assert_eq!(site.rig.refused_kinds(), [""; 0], "replicas do not read their files all at once");
    site.rig.grpc(site.rig.head_at(2));
    assert_eq!(
        site.rig.saved_keys.as_ref().map(|set| set.version),
        Some(2),
        "and it is refused all the same"
    );
    site.rig.pass_quietly(61 * SECOND);
    site.rig.grpc(before);
    site.rig.grpc(site.set(2, LONG, &[good(&site.old)]));
    site.rig.grpc(site.set(3, -31, &[good(&site.new)]));
    assert_eq!(site.rig.refused_kinds(), ["key_set_rollback", "key_set_forked", "key_set_is_old"]);
    site.rig.pass_quietly(4 * SECOND);
    assert_eq!(site.rig.core.freshness(), Freshness::Fresh);
    // The floor outlives a restart.
    let first = site.set(1, LONG, &[good(&site.old)]);
    let mut again = site.rig.restarted();
    again.grpc(first);
    assert_eq!(again.refused_kinds(), ["key_set_rollback"]);
}

#[test]
fn a_saved_set_of_another_root_is_put_aside() {
    let mut site = Site::live();
    let mut foreign = site.raw_set(7, LONG, &[good(&site.old)]);
    foreign.sign(&key()).unwrap();
    site.rig.saved_keys = Some(foreign);
    let again = site.rig.restarted();
    assert!(again.discarded.is_some());
    assert_eq!(again.core.revision(), None, "nobody vouches for the key of the saved state");
}

#[test]
fn an_agent_without_root_key_passes_key_sets_over() {
    let mut site = Site::new();
    site.rig.given = KeyRing::from(TrustKeys::from(&*site.old));
    site.rig.restart();
    site.rig.grpc(site.set(1, LONG, &[revoked(&site.old)]));
    site.rig.grpc(site.rig.bundle_at(2));
    site.rig.grpc(site.rig.head_at(2));
    assert_eq!(site.rig.core.freshness(), Freshness::Fresh);
    assert_eq!((site.rig.refused_kinds(), &site.rig.saved_keys), (Vec::new(), &None));
}

#[test]
fn old_heads_that_are_replayed_are_a_freeze_and_end_in_nobody_new() {
    let mut site = Site::live();
    let replayed = site.rig.head_at(2);
    for _ in 0..400 {
        site.rig.pass(2 * SECOND);
        site.rig.nats(replayed.clone());
        site.rig.grpc(replayed.clone());
        let age = site.rig.core.age(site.rig.now).unwrap();
        let expected = if age <= SOFT {
            Freshness::Fresh
        } else if age <= HARD {
            Freshness::SoftStale
        } else {
            Freshness::HardStale
        };
        assert_eq!(site.rig.core.freshness(), expected, "{age:?}");
    }
    assert_eq!(site.rig.core.freshness(), Freshness::HardStale);
}

/// A signature of one message under the body of another, whichever two.
#[test]
fn signatures_do_not_go_with_another_body() {
    let mut site = Site::live();
    site.rig.grow(2);
    let set = site.raw_set(2, LONG, &[good(&site.old)]);
    let (head, newer) = (site.rig.raw_head(2), site.rig.raw_head(4));
    let (bundle, larger) = (site.rig.raw_bundle(2), site.rig.raw_bundle(4));
    let Message::Change(change) = site.rig.change(3) else { unreachable!() };
    let Message::Change(next) = site.rig.change(4) else { unreachable!() };
    let signatures = [
        &set.signature,
        &head.signature,
        &newer.signature,
        &bundle.signature,
        &larger.signature,
        &change.signature,
        &next.signature,
    ];
    let mut tried = 0;
    for signature in signatures {
        let signature = signature.clone();
        let mixtures = [
            (
                set.signature == signature,
                Message::KeySet(Box::new(proto::KeySet { signature: signature.clone(), ..set.clone() })),
            ),
            (
                newer.signature == signature,
                Message::Head(proto::Head { signature: signature.clone(), ..newer.clone() }),
            ),
            (
                larger.signature == signature,
                Message::Bundle(proto::TrustBundle { signature: signature.clone(), ..larger.clone() }),
            ),
            (
                change.signature == signature,
                Message::Change(Box::new(proto::TrustChange { signature, ..(*change).clone() })),
            ),
        ];
        for (whole, mixture) in mixtures {
            if !whole {
                site.rig.pass_quietly(6 * SECOND);
                let told = site.rig.refusals.len();
                site.rig.grpc(mixture.clone());
                assert_eq!(site.rig.refusals.len(), told + 1, "{mixture:?}");
                tried += 1;
            }
        }
    }
    assert_eq!(tried, 7 * 4 - 4);
    assert_eq!((site.rig.core.revision(), site.rig.core.freshness()), (Some(2), Freshness::Fresh));
}

/// Ground rule 16: the floor falls with a revoked key, the log epoch that it made up too.
#[test]
fn an_epoch_that_a_stolen_key_made_up_falls_with_the_key() {
    let mut site = Site::live();
    let set = site.set(2, LONG, &[good(&site.old), good(&site.new)]);
    site.rig.grpc(set);
    // The thief signs a state of an epoch far above the log's.
    let mut made_up = proto::TrustBundle { revision: 2 | (200_000_000 << 32), ..site.rig.raw_bundle(2) };
    made_up.sign(&site.old).unwrap();
    site.rig.grpc(Message::Bundle(made_up));
    assert_eq!(site.rig.core.revision(), Some(2 | (200_000_000 << 32)));
    site.servers_sign_with(&Shared::clone(&site.new));
    site.rig.grpc(site.rig.bundle_at(2));
    assert_eq!(site.rig.refused_kinds(), ["rollback"]);
    let set = site.set(3, LONG, &[revoked(&site.old), good(&site.new)]);
    site.rig.grpc(set);
    site.rig.enforcer_fails = true;
    site.rig.grpc(site.rig.bundle_at(2));
    assert!(site.rig.last_applied().takes_back);
    site.rig.enforcer_fails = false;
    site.rig.pass(2 * SECOND);
    assert!(site.rig.last_applied().takes_back, "until the enforcer has it");
    site.rig.grpc(site.rig.head_at(2));
    assert!(!site.rig.last_applied().takes_back);
    assert_eq!((site.rig.core.revision(), site.rig.core.freshness()), (Some(2), Freshness::Fresh));
    assert_eq!(site.rig.restarted().core.revision(), Some(2), "on disk too");
}
