//! What holds after any sequence of commands, however it was cut into batches.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use catrust_domain::batch::Needs;
use catrust_domain::read_model::{EventMeta, ReadModel};
use catrust_domain::{
    CommandEnvelope, InstanceId, LogHead, Rejection, Reply, Sha256, Timestamp, TrustBundle, TrustEntry,
};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::fixtures::*;
use crate::given::NOW;
use crate::memory_store::MemoryStore;
use crate::random;

/// Commits `commands` in batches of the given sizes, in turn.
fn run_in_batches(
    commands: &[CommandEnvelope],
    sizes: &[usize],
    mut now: impl FnMut() -> Timestamp,
) -> (MemoryStore, Vec<Result<Reply, Rejection>>) {
    let mut store = MemoryStore::new();
    let mut results = Vec::new();
    let mut rest = commands;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (batch, later) = rest.split_at((*size).min(rest.len()));
        results.extend(store.append(now(), batch));
        rest = later;
    }
    (store, results)
}

fn bundle_digest(model: &ReadModel, id: &InstanceId) -> Sha256 {
    let entries: Vec<_> =
        model.certificates().filter(|row| row.instance_id == *id).map(TrustEntry::from).collect();
    TrustBundle::compute_digest(&entries)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(160))]

    #[test]
    fn the_read_model_is_the_folded_log(
        commands in random::commands(60),
        sizes in prop::collection::vec(1_usize..9, 1..6),
    ) {
        let (store, _) = run_in_batches(&commands, &sizes, || NOW);
        prop_assert_eq!(store.read_model(), store.fold());
        for (id, instance) in &store.instances {
            let rows = store.certificates.keys().filter(|key| key.0 == *id).count();
            prop_assert_eq!(usize::try_from(instance.certificate_count).unwrap(), rows);
            prop_assert_eq!(instance.bundle_digest, bundle_digest(&store.read_model(), id));
            prop_assert_eq!(instance.bundle_digest, instance.set_hash.digest());
        }
    }

    #[test]
    fn each_trust_change_carries_the_revision_and_digest_of_a_fold_from_scratch(
        commands in random::commands(60),
        sizes in prop::collection::vec(1_usize..9, 1..6),
    ) {
        let (store, _) = run_in_batches(&commands, &sizes, || NOW);
        let mut model = ReadModel::new();
        let mut revisions: BTreeMap<InstanceId, u64> = BTreeMap::new();
        for recorded in &store.events {
            let event = recorded.decode().unwrap();
            model.evolve(&EventMeta::from(recorded), &event).unwrap();
            let id = &recorded.instance_id;
            prop_assert_eq!(&recorded.stream_id, &event.stream_id(id));
            if let Some(effect) = event.trust_effect() {
                let revision = revisions.entry(id.clone()).or_default();
                *revision += 1;
                prop_assert_eq!(recorded.revision, Some(*revision));
                prop_assert_eq!(recorded.bundle_digest, Some(bundle_digest(&model, id)));
                prop_assert_eq!(recorded.sn.as_ref(), Some(&effect.certificate.sn));
                let row = model.certificate(id, &effect.certificate.sn);
                prop_assert_eq!(row.map(|row| row.state), effect.state);
                let instance = model.instance(id).unwrap();
                prop_assert_eq!((instance.revision, instance.trust_position), (*revision, recorded.position));
            } else {
                prop_assert_eq!((recorded.revision, recorded.bundle_digest, &recorded.sn), (None, None, &None));
            }
        }
    }

    #[test]
    fn positions_and_stream_versions_are_dense_the_chain_holds_and_time_runs_on(
        commands in random::commands(60),
        sizes in prop::collection::vec(1_usize..9, 1..6),
        clock in prop::collection::vec(0_i64..1_000, 60),
    ) {
        let mut ticks = clock.into_iter().map(Timestamp::from_micros);
        let (store, _) = run_in_batches(&commands, &sizes, || ticks.next().unwrap());
        let mut head = LogHead::EMPTY;
        let mut versions: HashMap<&str, u64> = HashMap::new();
        for event in &store.events {
            prop_assert_eq!(event.position, head.position + 1);
            prop_assert_eq!(event.hash, event.compute_hash(&head.hash));
            prop_assert!(event.occurred_at >= head.occurred_at);
            let version = versions.entry(&event.stream_id).or_default();
            *version += 1;
            prop_assert_eq!(event.stream_version, *version);
            head = event.head();
        }
        prop_assert_eq!(store.head, head);
        let ids: BTreeSet<_> = store.events.iter().map(|event| event.event_id).collect();
        prop_assert_eq!(ids.len(), store.events.len());
    }

    #[test]
    fn one_big_batch_and_many_small_ones_come_to_the_same(
        commands in random::commands(60),
        sizes in prop::collection::vec(1_usize..9, 1..6),
    ) {
        let (big, big_results) = run_in_batches(&commands, &[usize::MAX], || NOW);
        let (small, small_results) = run_in_batches(&commands, &sizes, || NOW);
        prop_assert_eq!(big_results, small_results);
        prop_assert_eq!(&big.events, &small.events);
        prop_assert_eq!(big.read_model(), small.read_model());
        prop_assert_eq!(big.replies, small.replies);
    }

    /// A store loads no more than what `Needs` names, so that has to be enough.
    #[test]
    fn needs_name_all_that_a_batch_looks_at(
        commands in random::commands(60),
        at in any::<prop::sample::Index>(),
    ) {
        let (before, batch) = commands.split_at(at.index(commands.len()));
        let (store, _) = run_in_batches(before, &[7], || NOW);
        let mut needed = store.load(NOW, &Needs::of(batch));
        let mut full = store.load_all(NOW);
        for command in batch {
            prop_assert_eq!(needed.run(command), full.run(command));
        }
        prop_assert_eq!(needed.finish(), full.finish());
    }

    #[test]
    fn refused_commands_leave_no_trace(commands in random::commands(60)) {
        let (with, results) = run_in_batches(&commands, &[5], || NOW);
        let accepted: Vec<_> =
            commands.into_iter().zip(&results).filter(|(_, result)| result.is_ok()).map(|(c, _)| c).collect();
        let (without, again) = run_in_batches(&accepted, &[5], || NOW);
        prop_assert!(again.iter().all(Result::is_ok));
        prop_assert_eq!(with.events, without.events);
        prop_assert_eq!(with.replies, without.replies);
    }

    #[test]
    fn a_repeat_of_an_accepted_request_changes_nothing_and_gets_its_reply(
        commands in random::commands(60),
    ) {
        let (mut store, results) = run_in_batches(&commands, &[5], || NOW);
        let (repeats, replies): (Vec<_>, Vec<_>) = commands
            .into_iter()
            .zip(results)
            .filter(|(command, result)| command.request_key().is_some() && result.is_ok())
            .unzip();
        let head = store.head;
        prop_assert_eq!(store.append(NOW, &repeats), replies);
        prop_assert_eq!(store.head, head);
    }

    #[test]
    fn turning_off_leaves_the_certificate_off_and_turning_on_leaves_it_on(
        commands in random::commands(60),
        sn in prop::sample::select(vec!["01", "02", "03", "04"]),
    ) {
        let sn = serial(sn);
        let (store, _) = run_in_batches(&commands, &[5], || NOW);
        let state = |store: &MemoryStore| store.certificates.get(&(fleet(), sn.clone())).map(|row| row.state);
        for scope in [catrust_domain::InactivationScope::Certificate, catrust_domain::InactivationScope::Key] {
            let mut off = store.clone();
            if off.append(NOW, &[asked(inactivate(&sn, scope))])[0].is_ok() {
                let held = matches!(
                    state(&off), Some(catrust_domain::CaState::Inactive(held)) if held >= scope
                );
                prop_assert!(held, "{:?}", state(&off));
            }
        }
        let mut on = store.clone();
        if on.append(NOW, &[asked(activate(&sn))])[0].is_ok() {
            prop_assert_eq!(state(&on), Some(catrust_domain::CaState::Active));
        }
    }
}

/// The properties above would hold of commands that are all refused.
#[test]
fn random_commands_reach_every_event_and_every_rejection() {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut seen = BTreeSet::new();
    for _ in 0..2_000 {
        let commands = random::commands(60).new_tree(&mut runner).unwrap().current();
        let (store, results) = run_in_batches(&commands, &[5], || NOW);
        seen.extend(store.events.iter().map(|event| event.event_type.clone()));
        let rejections = results.into_iter().filter_map(Result::err);
        seen.extend(rejections.map(|rejection| {
            let name = format!("{rejection:?}");
            name.split(['(', ' ']).next().unwrap_or_default().to_owned()
        }));
    }
    let expected = [
        "CaCertificateActivated",
        "CaCertificateDeleted",
        "CaCertificateInactivated",
        "CaCertificateRegistered",
        "CertificateNotFound",
        "EditionNotSupported",
        "InstanceExists",
        "InstanceNotFound",
        "InstanceRegistered",
        "InstanceUpdated",
        "KeyHeldByActive",
        "MadeInactiveAgain",
        "NotOwner",
        "RegisterCodeIssued",
        "RegisterCodeSpent",
        "RegisterCodeUnknown",
        "RequestIdReused",
        "SerialNumberTaken",
        "TooManyCertificates",
    ];
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), expected);
}
