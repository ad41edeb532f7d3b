//! Promises of the begin of a log epoch.

use std::collections::BTreeSet;
use std::sync::Arc;

use catrust_domain::event::{CaCertificateInactivated, LogEpochBegan};
use catrust_domain::log_epoch::{BeginPlace, EndBefore, LostChange, LostFate, MADE_AGAIN_BY, revision_count};
use catrust_domain::read_model::ReadModel;
use catrust_domain::{
    CaState, EpochInForce, Event, InactivationScope, InstanceId, LogEpoch, LogEvidence, LogHead, LogMark,
    Notary as _, RecordedEvent, SerialNumber, Sha256, Timestamp,
};

use super::Fixture;
use super::appending::read_all;
use super::commands::{ACCOUNT, activate, append_all, inactivate, instance, populate, unique_id};
use super::ground::{TestNotary, set_back};
use super::receipts::applied;
use crate::{
    BegunEpoch, BundleAt, CommandStore as _, EpochPlan, EpochStore as _, EventLog as _, EventStore,
    FleetStore as _, Ground as _, LostTrust, MadeAgain, Maintenance as _, NothingLost, ReadModelStore as _,
    StoreError,
};

/// Inactivations of one instance that were lost: made again where the CA is active here.
pub struct LostInactivations {
    /// The instance.
    pub instance: InstanceId,
    /// Its CA certificates, and the position that each inactivation had.
    pub sns: Vec<(SerialNumber, u64)>,
}

impl LostTrust for LostInactivations {
    fn instances(&self) -> BTreeSet<InstanceId> {
        BTreeSet::from([self.instance.clone()])
    }

    fn make_again(&self, restored: &ReadModel) -> MadeAgain {
        let mut again = MadeAgain::default();
        for (sn, position) in &self.sns {
            let restored = restored.certificate(&self.instance, sn).expect("it was loaded");
            let fate = if restored.state.is_active() { LostFate::MadeAgain } else { LostFate::Unknown };
            if restored.state.is_active() {
                let event = Event::CaCertificateInactivated(CaCertificateInactivated {
                    certificate: Arc::clone(&restored.facts),
                    scope: InactivationScope::Key,
                    with_will: false,
                    reason: format!("made again; was position {position} of epoch 0"),
                });
                again.events.push((self.instance.clone(), event));
            }
            again.lost.push(LostChange {
                position: *position,
                instance_id: self.instance.clone(),
                sn: Some(sn.clone()),
                event_type: "CaCertificateInactivated".into(),
                fate,
                text: "inactive".into(),
            });
        }
        again
    }
}

/// A plan on where the log stands now, whose end it keeps.
///
/// # Panics
/// When the store fails.
pub async fn plan_now(store: &impl EventStore, lost: Arc<dyn LostTrust>) -> EpochPlan {
    let seen = store.stand().await.expect("the stand");
    EpochPlan {
        fork_position: seen.end.position,
        fork_hash: seen.end.hash,
        end_before: EndBefore { epoch: seen.epoch.epoch, position: seen.end.position, hash: None },
        seen,
        checkpoints: vec!["a note".into()],
        lost,
        reason: "a test".into(),
        actor: "root@host".into(),
        account_id: ACCOUNT.parse().expect("a name"),
        request_id: unique_id(),
    }
}

/// Begins an epoch that keeps all that the log has; gives the epoch, and the end of the log.
///
/// # Panics
/// When it does not begin.
pub async fn begin(store: &impl EventStore, lost: Arc<dyn LostTrust>) -> (EpochInForce, LogHead) {
    let plan = plan_now(store, lost).await;
    match store.begin_epoch(&plan).await.expect("the begin") {
        BegunEpoch::Begun { epoch, end, .. } => (epoch, end),
        other => panic!("{other:?}"),
    }
}

fn began(row: &RecordedEvent) -> LogEpochBegan {
    match row.decode().expect("an event") {
        Event::LogEpochBegan(began) => began,
        other => panic!("{other:?}"),
    }
}

/// Ground rule 9: `LogEpochBegan` stands at head + 1, with a signature by a server key. Ground
/// rule 11: it and everything made again are one transaction. Ground rule 13: other replicas
/// take the epoch up without a restart.
pub async fn an_epoch_begins_with_what_was_lost_in_force_again<F: Fixture>(fixture: &F) {
    let store = fixture.open_with(TestNotary::new("k")).await;
    let id = instance("lost");
    let sns = populate(&store, &id, &["a", "b"]).await;
    append_all(&store, &[inactivate(&id, &sns[0])]).await;
    set_back(fixture, 5).await;
    let other = fixture.open_with(TestNotary::new("k")).await;
    assert!(matches!(store.append(&[activate(&id, &sns[1])]).await, Err(StoreError::SetBack { .. })));
    let lost = LostInactivations { instance: id.clone(), sns: vec![(sns[0].clone(), 6)] };
    let plan = plan_now(&other, Arc::new(lost)).await;
    let begun = other.begin_epoch(&plan).await.expect("the begin");
    let BegunEpoch::Begun { epoch, end, made_again, lost } = begun else { panic!("{begun:?}") };
    assert_eq!((epoch.position, end.position, made_again, lost.len()), (6, 7, 1, 1));
    assert_eq!(*other.epoch().borrow(), epoch);
    let rows = read_all(&other).await;
    assert_eq!(rows.last().map(RecordedEvent::head), Some(end));
    let payload = began(&rows[5]);
    assert!(rows[5].instance_id.is_reserved());
    assert_eq!((payload.made_again, payload.lost, payload.reason.as_str()), (1, lost, "a test"));
    assert_eq!((payload.fork_position, payload.fork_hash), (5, rows[4].hash));
    assert_eq!((rows[5].actor.as_str(), rows[6].actor.as_str()), ("root@host", MADE_AGAIN_BY));
    assert_eq!(rows[6].revision, Some(epoch.epoch.revision(3)));
    assert_eq!((rows[5].epoch, rows[6].epoch, rows[4].epoch), (epoch.epoch, epoch.epoch, LogEpoch::FIRST));

    // The process that knew the lost row goes on by itself, and in the new epoch.
    append_all(&store, &[inactivate(&id, &sns[1])]).await;
    assert_eq!(*store.epoch().borrow(), epoch);
    for store in [&store, &other] {
        let bundle = store.load_bundle(&id, BundleAt::Now).await.expect("a read").expect("a bundle");
        assert_eq!(bundle.revision, epoch.epoch.revision(4));
        assert!(bundle.entries.iter().all(|entry| entry.state == CaState::Inactive(InactivationScope::Key)));
    }
    assert!(other.verify().await.expect("the report").is_clean());
    let rebuilt = other.rebuild().await.expect("the rebuild");
    assert_eq!((rebuilt.instances, rebuilt.certificates), (0, 0), "{rebuilt:?}");
}

/// Ground rule 10: a begin is compare-and-set on the end of the log and on the evidence; the
/// loser of a race finds an ended epoch and does nothing.
pub async fn a_begin_is_refused_where_the_ground_has_moved<F: Fixture>(fixture: &F) {
    let store = fixture.open_with(TestNotary::new("k")).await;
    let id = instance("race");
    let sns = populate(&store, &id, &["a"]).await;
    let before = plan_now(&store, Arc::new(NothingLost)).await;
    append_all(&store, &[inactivate(&id, &sns[0])]).await;
    let moved = store.begin_epoch(&before).await.expect("an answer");
    assert!(matches!(&moved, BegunEpoch::Moved { now } if now.end.position == 4), "{moved:?}");

    let before = plan_now(&store, Arc::new(NothingLost)).await;
    let mark = LogMark::Row { position: 9, hash: Sha256::ZERO };
    let seen_at = before.seen.end.occurred_at;
    let evidence = LogEvidence { epoch: LogEpoch::FIRST, mark, witness: "a stream".into(), seen_at };
    assert!(store.accuse(&evidence).await.expect("a verdict").halts());
    let moved = store.begin_epoch(&before).await.expect("an answer");
    assert!(matches!(&moved, BegunEpoch::Moved { now } if now.end == before.seen.end), "{moved:?}");

    let plan = plan_now(&store, Arc::new(NothingLost)).await;
    let elsewhere = EpochPlan { fork_hash: Sha256::ZERO, ..plan.clone() };
    let refused = store.begin_epoch(&elsewhere).await.expect("an answer");
    assert!(
        matches!(&refused, BegunEpoch::Refused { reason } if reason.contains("fork position 4")),
        "{refused:?}"
    );
    assert_eq!(store.head().await.expect("the head").position, 4);

    let other = fixture.open_with(TestNotary::new("k")).await;
    let (one, two) = tokio::join!(store.begin_epoch(&plan), other.begin_epoch(&plan));
    let answers = [one.expect("an answer"), two.expect("an answer")];
    let begun: Vec<_> = answers
        .iter()
        .filter_map(|answer| match answer {
            BegunEpoch::Begun { epoch, .. } => Some(*epoch),
            _ => None,
        })
        .collect();
    let [epoch] = begun[..] else { panic!("{answers:?}") };
    assert!(answers.contains(&BegunEpoch::Ended { epoch }), "{answers:?}");
    assert_eq!(store.head().await.expect("the head").position, 5);
    append_all(&store, &[activate(&id, &sns[0])]).await;
}

/// Ground rule 11: no row of a begin without all of them.
pub async fn a_begin_that_fails_leaves_nothing<F: Fixture>(fixture: &F) {
    struct OfNoInstance(MadeAgain);
    impl LostTrust for OfNoInstance {
        fn instances(&self) -> BTreeSet<InstanceId> {
            BTreeSet::new()
        }
        fn make_again(&self, _restored: &ReadModel) -> MadeAgain {
            self.0.clone()
        }
    }
    let store = fixture.open_with(TestNotary::new("k")).await;
    let id = instance("whole");
    let sns = populate(&store, &id, &["a"]).await;
    append_all(&store, &[inactivate(&id, &sns[0])]).await;
    let event = read_all(&store).await[3].decode().expect("an event");
    let lost = OfNoInstance(MadeAgain { events: vec![(id.clone(), event)], lost: Vec::new() });
    let plan = plan_now(&store, Arc::new(lost)).await;
    let failed = store.begin_epoch(&plan).await;
    assert!(matches!(failed, Err(StoreError::Corrupt { .. })), "{failed:?}");
    assert_eq!(store.head().await.expect("the head").position, 4);
    assert_eq!(*store.epoch().borrow(), EpochInForce::FIRST);
    append_all(&store, &[activate(&id, &sns[0])]).await;

    let without_keys = fixture.open().await;
    let plan = plan_now(&without_keys, Arc::new(NothingLost)).await;
    let refused = without_keys.begin_epoch(&plan).await.expect("an answer");
    assert!(
        matches!(&refused, BegunEpoch::Refused { reason } if reason.contains("no server key")),
        "{refused:?}"
    );
}

/// Ground rule 1: E is max(E before + 1, seconds since 2020-01-01 by the database), and above
/// every one that evidence shows. One far ahead of the clock is refused, not begun.
pub async fn numbers_of_epochs_rise_above_all_that_is_known<F: Fixture>(fixture: &F) {
    let store = fixture.open_with(TestNotary::new("k")).await;
    let id = instance("numbers");
    populate(&store, &id, &["a"]).await;
    let (first, _) = begin(&store, Arc::new(NothingLost)).await;
    // 2026-01-01, when this was written.
    assert!(first.epoch > LogEpoch(189_000_000), "{first:?}");
    let (second, _) = begin(&store, Arc::new(NothingLost)).await;
    assert!(second.epoch > first.epoch);
    let rows = read_all(&store).await;
    assert_eq!((rows[3].stream_version, rows[4].stream_version), (1, 2));

    let shown = LogEpoch(second.epoch.0 + 20);
    let mark = LogMark::Row { position: 9, hash: Sha256::ZERO };
    let seen_at = rows[4].occurred_at;
    let evidence = LogEvidence { epoch: shown, mark, witness: "a stream".into(), seen_at };
    assert!(store.accuse(&evidence).await.expect("a verdict").halts());
    let (third, _) = begin(&store, Arc::new(NothingLost)).await;
    assert!(third.epoch > shown, "{third:?}");

    let plan = plan_now(&store, Arc::new(NothingLost)).await;
    for ahead in [LogEpoch(third.epoch.0 + 1_000), LogEpoch::LAST, LogEpoch(u32::MAX)] {
        let end_before = EndBefore { epoch: ahead, ..plan.end_before.clone() };
        let answer = store.begin_epoch(&EpochPlan { end_before, ..plan.clone() }).await.expect("an answer");
        assert!(matches!(answer, BegunEpoch::Refused { .. }), "{answer:?}");
    }
    assert_eq!(*store.epoch().borrow(), third);
    assert!(store.verify().await.expect("the report").is_clean());
}

/// What has begun has happened, also where its key was revoked since. What nobody signed, or
/// somebody for another place, or with a number far ahead of the clock, begins nothing: it would
/// make every broker refuse everything.
pub async fn a_begin_is_believed_by_its_signature_place_and_number<F: Fixture>(fixture: &F) {
    let store = fixture.open_with(TestNotary::new("k")).await;
    let id = instance("belief");
    let sns = populate(&store, &id, &["a"]).await;
    let (epoch, _) = begin(&store, Arc::new(NothingLost)).await;
    let later = fixture.open_with(TestNotary::after("new", "k")).await;
    later.ground().await.expect("the ground");
    assert_eq!(*later.epoch().borrow(), epoch);
    append_all(&later, &[inactivate(&id, &sns[0])]).await;
    let stranger = fixture.open_with(TestNotary::new("new")).await;
    assert_eq!(stranger.ground().await.expect("the ground").unbelieved_begins, [4]);
    assert_eq!(*stranger.epoch().borrow(), EpochInForce::FIRST);

    let rows = read_all(&store).await;
    let signed = |change: fn(&mut LogEpochBegan), actor: &str| {
        let mut began = began(&rows[3]);
        change(&mut began);
        let place = BeginPlace { position: 4, previous: &rows[2].hash, actor };
        let seal = TestNotary::new("k").seal(&began.statement(store.log_id(), &place)).expect("a seal");
        began.signature = seal.value.iter().map(|byte| format!("{byte:02x}")).collect();
        Event::LogEpochBegan(began).encode()
    };
    let cases = [
        (signed(|began| began.reason.push('!'), "root@host"), None),
        (signed(|began| began.epoch.0 += 3_600, "root@host"), Some("far ahead")),
        (signed(|_| {}, "mallory@host"), Some("another principal")),
    ];
    for (payload, refused) in cases {
        let payload = payload.replace('\'', "''");
        let sql = format!(
            "UPDATE events SET payload = CAST('{payload}' AS {}) WHERE position = 4",
            F::PAYLOAD_TYPE
        );
        fixture.tamper(&sql).await;
        let reader = fixture.open_with(TestNotary::new("k")).await;
        let unbelieved = reader.ground().await.expect("the ground").unbelieved_begins;
        assert_eq!(unbelieved.is_empty(), refused.is_none(), "{refused:?}");
        let in_force = if refused.is_none() { epoch.epoch } else { LogEpoch::FIRST };
        assert_eq!(reader.epoch().borrow().epoch, in_force, "{refused:?}");
    }
    assert_eq!(revision_count(rows[4].revision.expect("a revision")), 2);
}

/// What is read, checked and rebuilt is right over three epochs, at a process that was there
/// before them too.
pub async fn three_epochs_are_one_log<F: Fixture>(fixture: &F) {
    let store = fixture.open_with(TestNotary::new("k")).await;
    let id = instance("three");
    let sns = populate(&store, &id, &["a", "b"]).await;
    append_all(&store, &[inactivate(&id, &sns[0])]).await;
    let other = fixture.open_with(TestNotary::new("k")).await;
    append_all(&other, &[inactivate(&id, &sns[1])]).await;
    let kept = other.recent(6);
    assert!(kept.is_some_and(|batch| batch[0].row.position == 7));

    let (first, _) = begin(&store, Arc::new(NothingLost)).await;
    append_all(&store, &[activate(&id, &sns[0])]).await;
    let (second, _) = begin(&store, Arc::new(NothingLost)).await;
    let lifted = second.epoch.revision(5);
    for store in [&store, &other] {
        let found = store.find_instance(&id).await.expect("a read").expect("the instance");
        let listed = store.list_instances(0, 10).await.expect("a page").items;
        assert_eq!((found.revision, listed[0].revision), (lifted, lifted));
        let bundle = store.load_bundle(&id, BundleAt::Now).await.expect("a read").expect("the bundle");
        assert_eq!((bundle.revision, bundle.position), (lifted, 9));
        assert_eq!(*store.epoch().borrow(), second);
        let again = store.load_bundle(&id, BundleAt::Revision(lifted)).await.expect("a read");
        assert_eq!(again.as_ref(), Some(&bundle));
    }
    assert!(other.recent(6).is_none(), "what was kept of an epoch that has ended");
    // With rows in memory that are of the epoch before.
    append_all(&other, &[activate(&id, &sns[1])]).await;
    let rows = read_all(&other).await;
    let revisions: Vec<u64> = rows.iter().filter_map(|row| row.revision).collect();
    let expected = [1, 2, 3, 4, first.epoch.revision(5), second.epoch.revision(6)];
    assert_eq!(revisions, expected);
    let epochs: Vec<u32> = rows[6..].iter().map(|row| row.epoch.0).collect();
    assert_eq!(epochs, [0, first.epoch.0, first.epoch.0, second.epoch.0, second.epoch.0]);

    // A broker has what it got under the number that it had then, or that it was called later.
    let digest_of = |revision: u64| {
        rows.iter().find(|row| row.revision == Some(revision)).and_then(|row| row.bundle_digest)
    };
    let enforced = [
        ("b1", first.epoch.revision(4), digest_of(4)),
        ("b2", lifted, digest_of(first.epoch.revision(5))),
        ("b3", second.epoch.revision(6), digest_of(second.epoch.revision(6))),
        ("b4", second.epoch.revision(7), None),
    ];
    for (broker, revision, _) in &enforced {
        let receipt = applied(&id, broker, *revision, Sha256::ZERO, 0);
        store.record_receipts(&[receipt]).await.expect("the receipt");
    }
    for (member, (broker, _, digest)) in store.list_brokers(&id).await.expect("a list").iter().zip(&enforced)
    {
        assert_eq!((member.broker.broker_id.as_str(), member.log_digest), (*broker, *digest));
    }

    for (after, expected) in [(0, &expected[..]), (4, &expected[4..]), (lifted, &expected[5..])] {
        let changes = store.read_trust_changes(&id, after, 10).await.expect("the changes");
        assert_eq!(changes.iter().filter_map(|row| row.revision).collect::<Vec<_>>(), expected);
    }
    for row in rows.iter().filter(|row| row.revision.is_some()) {
        let at = BundleAt::Time(row.occurred_at);
        let bundle = store.load_bundle(&id, at).await.expect("a read").expect("the bundle");
        assert_eq!((Some(bundle.digest), Some(bundle.revision)), (row.bundle_digest, row.revision));
    }
    let at_begin = store.load_bundle(&id, BundleAt::Time(rows[9].occurred_at)).await.expect("a read");
    assert_eq!(at_begin.map(|bundle| bundle.revision), Some(lifted));

    let without_keys = fixture.open().await;
    assert!(without_keys.verify().await.expect("the report").is_clean());
    fixture.tamper("UPDATE instances SET revision = 4; DELETE FROM ca_certificates").await;
    let report = store.verify().await.expect("the report");
    assert_eq!(report.damage.len(), 3, "{report:?}");
    store.rebuild().await.expect("the rebuild");
    assert!(store.verify().await.expect("the report").is_clean());
    let bundle = store.load_bundle(&id, BundleAt::Now).await.expect("a read").expect("the bundle");
    assert_eq!(bundle.revision, second.epoch.revision(6));

    // A trust change of an epoch that has ended, and one of an epoch that never began.
    append_all(&store, &[inactivate(&id, &sns[0])]).await;
    for wrong in [first.epoch.revision(7), LogEpoch(second.epoch.0 + 1).revision(7)] {
        fixture.tamper(&format!("UPDATE events SET revision = {wrong} WHERE position = 12")).await;
        let report = store.verify().await.expect("the report");
        let told = |text: &str| report.damage.iter().any(|damage| damage.description.contains(text));
        assert!(told("of an epoch that is not in force there"), "{report:?}");
    }
}

/// The log says nothing of what it lost: a revision beyond the fork of an ended epoch, and a
/// time between fork and begin, are refused with the epoch that ended.
pub async fn what_was_lost_with_an_epoch_is_not_told<F: Fixture>(fixture: &F) {
    let store = fixture.open_with(TestNotary::new("k")).await;
    let id = instance("unknown");
    let sns = populate(&store, &id, &["a"]).await;
    append_all(&store, &[inactivate(&id, &sns[0])]).await;
    append_all(&store, &[activate(&id, &sns[0])]).await;
    set_back(fixture, 4).await;
    // Somebody goes on that does not know of the loss: another change of the same number.
    let other = fixture.open_with(TestNotary::new("k")).await;
    append_all(&other, &[activate(&id, &sns[0])]).await;
    let rows = read_all(&other).await;
    let mut plan = plan_now(&other, Arc::new(NothingLost)).await;
    (plan.fork_position, plan.fork_hash) = (4, rows[3].hash);
    let begun = other.begin_epoch(&plan).await.expect("the begin");
    let BegunEpoch::Begun { epoch: EpochInForce { epoch, .. }, .. } = begun else { panic!("{begun:?}") };
    let rows = read_all(&other).await;

    let load = async |at| store.load_bundle(&id, at).await;
    let last = revision_count(rows.iter().rev().find_map(|row| row.revision).expect("a revision"));
    for (revision, position) in
        [(0, 0), (1, 3), (2, 4), (epoch.revision(0), 0), (epoch.revision(1), 3), (epoch.revision(last), 5)]
    {
        let bundle = load(BundleAt::Revision(revision)).await.expect("a read").expect("the bundle");
        assert_eq!((bundle.revision, bundle.position), (revision, position));
    }
    for absent in [epoch.revision(last + 1), LogEpoch(epoch.0 + 1).revision(1), LogEpoch(3).revision(1)] {
        assert_eq!(load(BundleAt::Revision(absent)).await.expect("a read"), None);
    }
    let is_lost = |loaded: &Result<_, StoreError>| {
        matches!(loaded, Err(StoreError::EpochEnded { ended: LogEpoch::FIRST, fork_position: 4, next })
            if *next == epoch)
    };
    for lost in [3, 4, 900] {
        let loaded = load(BundleAt::Revision(lost)).await;
        assert!(is_lost(&loaded), "{loaded:?}");
    }
    let begun_at = rows[5].occurred_at;
    let just_before = Timestamp::from_micros(begun_at.micros() - 1);
    for time in [rows[3].occurred_at, rows[4].occurred_at, just_before] {
        let loaded = load(BundleAt::Time(time)).await;
        assert!(is_lost(&loaded), "{loaded:?}");
    }
    let before = load(BundleAt::Time(rows[2].occurred_at)).await.expect("a read").expect("the bundle");
    assert_eq!(before.revision, 1);
    let after = load(BundleAt::Time(begun_at)).await.expect("a read").expect("the bundle");
    assert_eq!(after.revision, epoch.revision(last));
}
