//! Promises of a log whose database was set back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use catrust_domain::{
    CommandEnvelope, EpochInForce, LogEpoch, LogEvidence, LogHead, LogMark, Notary, RecordedEvent, Seal,
    Sha256, Verdict,
};

use super::Fixture;
use super::appending::read_all;
use super::commands::{activate, append_all, inactivate, instance, populate};
use crate::{
    BundleAt, EventLog as _, EventStore, Ground as _, Maintenance as _, ReadModelStore as _, StoreError,
};

/// A reader that goes on from a row learns by the same read that the row is still there,
/// and otherwise that the log was set back.
pub async fn a_read_from_a_row_proves_that_the_row_is_there<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("followed");
    let sns = populate(&store, &id, &["a"]).await;
    append_all(&store, &[inactivate(&id, &sns[0])]).await;
    let rows = read_all(&store).await;
    let heads: Vec<LogHead> = rows.iter().map(RecordedEvent::head).collect();
    assert_eq!(store.read_from(&LogHead::EMPTY, 10).await.expect("a read"), rows);
    assert_eq!(store.read_from(&heads[1], 1).await.expect("a read"), rows[2..3]);
    assert_eq!(store.read_from(&heads[3], 10).await.expect("a read"), []);
    let other = LogHead { hash: Sha256::ZERO, ..heads[1] };
    let refused = store.read_from(&other, 10).await;
    assert!(
        matches!(&refused, Err(StoreError::SetBack { reason }) if reason.contains("another row")),
        "{refused:?}"
    );
    fixture.tamper("DELETE FROM events WHERE position > 2").await;
    for lost in &heads[2..] {
        let refused = store.read_from(lost, 10).await;
        assert!(
            matches!(&refused, Err(StoreError::SetBack { reason }) if reason.contains("not there any more")),
            "{refused:?}"
        );
    }
    assert_eq!(store.read_from(&heads[1], 10).await.expect("a read"), []);
    assert_eq!(*store.epoch().borrow(), EpochInForce::FIRST);
}

/// Signs with a key that is a text; believes those that it is given.
#[derive(Clone, Debug)]
pub struct TestNotary {
    key: &'static str,
    believed: Vec<&'static str>,
    revoked: Vec<&'static str>,
}

impl TestNotary {
    /// Signs with `key` and believes it alone.
    #[must_use]
    pub fn new(key: &'static str) -> Arc<Self> {
        Arc::new(Self { key, believed: vec![key], revoked: Vec::new() })
    }

    /// Signs with `key`, and knows that `revoked` once was a key.
    #[must_use]
    pub fn after(key: &'static str, revoked: &'static str) -> Arc<Self> {
        Arc::new(Self { key, believed: vec![key], revoked: vec![revoked] })
    }

    fn sign(key: &str, statement: &[u8]) -> Vec<u8> {
        Sha256::of(&[key.as_bytes(), statement].concat()).as_bytes().to_vec()
    }
}

impl Notary for TestNotary {
    fn key_id(&self) -> Option<String> {
        Some(self.key.to_owned())
    }

    fn seal(&self, statement: &[u8]) -> Option<Seal> {
        Some(Seal { key_id: self.key.to_owned(), value: Self::sign(self.key, statement) })
    }

    fn check(&self, statement: &[u8], seal: &Seal) -> Result<(), String> {
        let signed = self.believed.contains(&seal.key_id.as_str())
            && seal.value == Self::sign(&seal.key_id, statement);
        if signed { Ok(()) } else { Err("nobody who is believed signed it".to_owned()) }
    }

    fn check_past(&self, statement: &[u8], seal: &Seal) -> Result<(), String> {
        let signed = seal.value == Self::sign(&seal.key_id, statement);
        let known = self.revoked.contains(&seal.key_id.as_str());
        if signed && known { Ok(()) } else { self.check(statement, seal) }
    }
}

/// Takes rows away as a restore does, read model included.
pub(super) async fn set_back<F: Fixture>(fixture: &F, to: u64) {
    fixture.tamper(&format!("DELETE FROM events WHERE position > {to}")).await;
    let store = fixture.open().await;
    store.rebuild().await.expect("the rebuild");
}

async fn refused(store: &impl EventStore, command: CommandEnvelope) -> String {
    match store.append(&[command]).await {
        Err(StoreError::SetBack { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

fn row_evidence(head: &LogHead, epoch: LogEpoch) -> LogEvidence {
    let mark = LogMark::Row { position: head.position, hash: head.hash };
    LogEvidence { epoch, mark, witness: "a stream".to_owned(), seen_at: head.occurred_at }
}

/// Ground rule 3: evidence is what this replica itself acknowledged. Ground rule 6: it counts
/// under the append lock, and lasts while it contradicts the log.
pub async fn nothing_is_appended_to_a_log_that_this_process_knows_further<F: Fixture>(fixture: &F) {
    let store = fixture.open_with(TestNotary::new("k")).await;
    let id = instance("short");
    let sns = populate(&store, &id, &["a", "b"]).await;
    append_all(&store, &[inactivate(&id, &sns[0])]).await;
    set_back(fixture, 5).await;
    for _ in 0..2 {
        let reason = refused(&store, inactivate(&id, &sns[1])).await;
        assert!(reason.contains("this server has seen position 6"), "{reason}");
        assert!(reason.contains("the log ends at position 5"), "{reason}");
    }
    assert_eq!(store.head().await.expect("the head").position, 5);
    let report = store.ground().await.expect("the ground");
    assert_eq!((report.end.position, report.epoch), (5, EpochInForce::FIRST));
    assert!(report.evidence.iter().any(|(_, verdict)| verdict.halts()), "{report:?}");
}

/// The position alone proves nothing: the hash does.
pub async fn nothing_is_appended_to_another_log_of_the_same_length<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("other");
    let sns = populate(&store, &id, &["a", "b"]).await;
    append_all(&store, &[inactivate(&id, &sns[0])]).await;
    set_back(fixture, 5).await;
    let other = fixture.open().await;
    append_all(&other, &[inactivate(&id, &sns[1]), activate(&id, &sns[1])]).await;
    let reason = refused(&store, inactivate(&id, &sns[1])).await;
    assert!(reason.contains("something else there"), "{reason}");
}

/// What a follower read, and handed to brokers, counts as well; and rows which do not follow it
/// do not make it forgotten.
pub async fn what_was_read_by_another_process_is_remembered<F: Fixture>(fixture: &F) {
    let (store, reader) = (fixture.open().await, fixture.open().await);
    let id = instance("read");
    let sns = populate(&store, &id, &["a", "b"]).await;
    append_all(&store, &[inactivate(&id, &sns[0])]).await;
    assert_eq!(read_all(&reader).await.len(), 6);
    set_back(fixture, 5).await;
    let other = fixture.open().await;
    append_all(&other, &[inactivate(&id, &sns[1]), activate(&id, &sns[1])]).await;
    assert_eq!(reader.read(6, 10).await.expect("a read").len(), 1);
    let reason = refused(&reader, inactivate(&id, &sns[1])).await;
    assert!(reason.contains("this server has seen position 6"), "{reason}");
}

/// A log that grows during a look has lost nothing: what was acknowledged after its end was read
/// is not held against that end.
pub async fn a_look_beside_appends_finds_nothing_lost<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("busy");
    let sns = populate(&store, &id, &["a"]).await;
    let appends = async {
        for _ in 0..150 {
            append_all(&store, &[inactivate(&id, &sns[0])]).await;
            append_all(&store, &[activate(&id, &sns[0])]).await;
        }
    };
    let looks = async {
        loop {
            let report = store.ground().await.expect("the ground");
            assert!(!report.evidence.iter().any(|(_, verdict)| verdict.halts()), "{report:?}");
        }
    };
    tokio::select! {
        () = appends => {}
        () = looks => {}
    }
}

/// Ground rule 7: the finder stores the evidence, signed, in a table that every look under the
/// append lock reads: no other replica goes on acknowledging. It is a verdict, not a latch.
pub async fn stored_evidence_halts_every_process_for_as_long_as_it_contradicts<F: Fixture>(fixture: &F) {
    let store = fixture.open_with(TestNotary::new("k")).await;
    let id = instance("stored");
    let sns = populate(&store, &id, &["a", "b"]).await;
    append_all(&store, &[inactivate(&id, &sns[0])]).await;
    let lost = read_all(&store).await.pop().expect("a row");
    set_back(fixture, 5).await;
    let running = fixture.open_with(TestNotary::new("k")).await;
    append_all(&running, &[]).await;
    refused(&store, inactivate(&id, &sns[1])).await;
    let started = fixture.open_with(TestNotary::new("k")).await;
    for other in [&running, &started] {
        let reason = refused(other, inactivate(&id, &sns[1])).await;
        assert!(reason.contains("position 6"), "{reason}");
    }
    // The same again says nothing new.
    let evidence = row_evidence(&lost.head(), LogEpoch::FIRST);
    assert!(started.accuse(&evidence).await.expect("a verdict").halts());
    assert_eq!(started.ground().await.expect("the ground").evidence.len(), 1);
    // The row comes back, as where a backup is replayed further.
    let without_keys = fixture.open().await;
    append_all(&without_keys, &[envelope_again(&lost)]).await;
    let reason = refused(&started, inactivate(&id, &sns[1])).await;
    assert!(reason.contains("something else there"), "{reason}");
}

/// The change of a row once more, which makes another row of the same position.
fn envelope_again(lost: &RecordedEvent) -> CommandEnvelope {
    inactivate(&lost.instance_id, lost.sn.as_ref().expect("a trust change"))
}

/// Ground rule 3: a stolen login of the application must not be able to stop the kill switch.
pub async fn evidence_that_nobody_signed_halts_nothing<F: Fixture>(fixture: &F) {
    let store = fixture.open_with(TestNotary::new("k")).await;
    let id = instance("forged");
    let sns = populate(&store, &id, &["a", "b"]).await;
    let digest = "(SELECT hash FROM events WHERE position = 1)";
    let time = "(SELECT occurred_at FROM events WHERE position = 1)";
    for key in ["k", "stolen"] {
        let forged = format!(
            "INSERT INTO log_evidence (log_epoch, mark, instance_id, position, revision, digest, witness, seen_at, \
             key_id, seal) VALUES (7, 'ROW', '', 9000, 0, {digest}, 'nobody', {time}, '{key}', {digest})"
        );
        fixture.execute(&forged).await.expect("the insertion");
    }
    append_all(&store, &[inactivate(&id, &sns[0])]).await;
    // What another key signed that is not believed here.
    let stranger = fixture.open_with(TestNotary::new("stolen")).await;
    let beyond = LogHead { position: 9_000, ..store.head().await.expect("the head") };
    assert!(stranger.accuse(&row_evidence(&beyond, LogEpoch::FIRST)).await.expect("a verdict").halts());
    refused(&stranger, inactivate(&id, &sns[1])).await;
    append_all(&store, &[inactivate(&id, &sns[1])]).await;
}

/// Ground rule 6: it counts once confirmed against the log.
pub async fn evidence_that_the_log_bears_out_is_not_stored<F: Fixture>(fixture: &F) {
    let store = fixture.open_with(TestNotary::new("k")).await;
    let id = instance("borne-out");
    let sns = populate(&store, &id, &["a", "b"]).await;
    let head = store.head().await.expect("the head");
    let bundle = store.load_bundle(&id, BundleAt::Now).await.expect("a read").expect("the bundle");
    let trust = |digest| LogEvidence {
        mark: LogMark::Trust {
            instance_id: id.clone(),
            position: bundle.position,
            revision: bundle.revision,
            digest,
        },
        ..row_evidence(&head, LogEpoch::FIRST)
    };
    for evidence in [row_evidence(&head, LogEpoch::FIRST), trust(bundle.digest)] {
        assert_eq!(store.accuse(&evidence).await.expect("a verdict"), Verdict::Agrees);
    }
    append_all(&store, &[inactivate(&id, &sns[0])]).await;
    assert!(store.accuse(&trust(Sha256::ZERO)).await.expect("a verdict").halts());
    let reason = refused(&store, inactivate(&id, &sns[1])).await;
    assert!(reason.contains("revision 2 of borne-out"), "{reason}");
}

/// Ground rule 4: evidence of a higher epoch means that this server is superseded: it halts.
pub async fn evidence_of_a_later_epoch_halts<F: Fixture>(fixture: &F) {
    let store = fixture.open_with(TestNotary::new("k")).await;
    let id = instance("superseded");
    let sns = populate(&store, &id, &["a"]).await;
    let head = store.head().await.expect("the head");
    assert_eq!(
        store.accuse(&row_evidence(&head, LogEpoch(9))).await.expect("a verdict"),
        Verdict::Superseded
    );
    let reason = refused(&store, inactivate(&id, &sns[0])).await;
    assert!(reason.contains("in epoch 9"), "{reason}");
}

/// What the log forgot must not come back from memory, to be signed and published.
pub async fn batches_in_memory_are_forgotten_with_the_log<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    let id = instance("recent");
    let sns = populate(&store, &id, &["a"]).await;
    append_all(&store, &[inactivate(&id, &sns[0])]).await;
    assert!(store.recent(3).is_some());
    set_back(fixture, 3).await;
    refused(&store, activate(&id, &sns[0])).await;
    assert!(store.recent(3).is_none());
}

/// A login that may add rows can add very many: an append stays about as fast, and what a server
/// signed is found among them, also where it came first.
pub async fn a_flood_of_forged_evidence_slows_nothing_and_hides_nothing<F: Fixture>(fixture: &F) {
    let store = fixture.open_with(TestNotary::new("k")).await;
    let id = instance("flood");
    let sns = populate(&store, &id, &["a", "b"]).await;
    let forge = async |rows: u32| {
        let forged = format!(
            "INSERT INTO log_evidence (log_epoch, mark, instance_id, position, revision, digest, witness, seen_at, \
             key_id, seal) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) \
             SELECT 7, 'ROW', '', 9000 + n.i, 0, e.hash, 'nobody', e.occurred_at, 'k', e.hash \
             FROM n JOIN events AS e ON e.position = 1"
        );
        fixture.execute(&forged).await.expect("the insertion");
    };
    let appends = async |store: &F::Store| {
        let mut longest = Duration::ZERO;
        for _ in 0..10 {
            for command in [inactivate(&id, &sns[0]), activate(&id, &sns[0])] {
                let began = Instant::now();
                append_all(store, &[command]).await;
                longest = longest.max(began.elapsed());
            }
        }
        longest
    };
    forge(100_000).await;
    let longest = appends(&store).await;
    println!("longest append beside 100,000 forged rows: {longest:?}");
    assert!(longest < Duration::from_secs(1), "{longest:?}");
    forge(1).await;
    let longest = appends(&store).await;
    assert!(longest < Duration::from_secs(1), "{longest:?}");

    // Evidence of a server, and a flood behind it.
    let end = store.head().await.expect("the head");
    let beyond = LogHead { position: 9_000, ..end };
    let running = fixture.open_with(TestNotary::new("k")).await;
    append_all(&running, &[]).await;
    assert!(store.accuse(&row_evidence(&beyond, LogEpoch::FIRST)).await.expect("a verdict").halts());
    forge(2_000).await;
    for other in [fixture.open_with(TestNotary::new("k")).await, running] {
        let looks = 16;
        let mut halted = false;
        for _ in 0..looks {
            let report = other.ground().await.expect("the ground");
            halted |= report.evidence.iter().any(|(_, verdict)| verdict.halts());
        }
        assert!(halted, "the evidence was not found in {looks} looks");
        let reason = refused(&other, inactivate(&id, &sns[1])).await;
        assert!(reason.contains("position 9000"), "{reason}");
    }
}
