//! Promises of the begin of a log epoch.

use std::collections::BTreeSet;
use std::sync::Arc;

use catrust_domain::event::{CaCertificateInactivated, LogEpochBegan};
use catrust_domain::log_epoch::{BeginPlace, EndBefore, LostChange, LostFate, MADE_AGAIN_BY, revision_count};
use catrust_domain::read_model::ReadModel;
use catrust_domain::{
    CaState, EpochInForce, Event, InactivationScope, InstanceId, LogEpoch, LogEvidence, LogHead, LogMark,
    Notary as _, RecordedEvent, SerialNumber, Sha256,
};

use super::Fixture;
use super::appending::read_all;
use super::commands::{ACCOUNT, activate, append_all, inactivate, instance, populate, unique_id};
use super::ground::{TestNotary, set_back};
use crate::{
    BegunEpoch, BundleAt, CommandStore as _, EpochPlan, EpochStore as _, EventLog as _, EventStore,
    Ground as _, LostTrust, MadeAgain, Maintenance as _, NothingLost, ReadModelStore as _, StoreError,
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
