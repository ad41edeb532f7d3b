use catrust_domain::log_evidence::Contradiction;
use catrust_domain::{Timestamp, TrustBundle};
use catrust_event_store::GroundReport;
use catrust_trust_feed::contract::{SampleLog, key};
use catrust_trust_feed::{Signed, SigningKey, TrustPoint, message};

use super::*;

/// The rows of a log up to some position.
struct Rows {
    log_id: Uuid,
    rows: Vec<RecordedEvent>,
}

#[async_trait]
impl LogRows for Rows {
    fn log_id(&self) -> Uuid {
        self.log_id
    }

    async fn row_at(&self, position: u64) -> Result<Option<RecordedEvent>, StoreError> {
        Ok(self.rows.iter().find(|row| row.position == position).cloned())
    }
}

/// Notes who is accused.
#[derive(Default)]
struct Notes(Mutex<Vec<LogEvidence>>);

#[async_trait]
impl Ground for Notes {
    async fn accuse(&self, evidence: &LogEvidence) -> Result<Verdict, StoreError> {
        self.0.lock().unwrap().push(evidence.clone());
        Ok(Verdict::SetBack(Contradiction::Shorter { end: 3 }))
    }

    async fn ground(&self) -> Result<GroundReport, StoreError> {
        unreachable!("nobody asks")
    }
}

struct Court {
    log: SampleLog,
    instance: InstanceId,
    key: Arc<SigningKey>,
    witness: Witness,
    notes: Arc<Notes>,
    /// The bundle of the log before it was set back.
    lost: TrustBundle,
}

impl Court {
    /// A log that was set back by some changes, and a server that does not know.
    fn set_back() -> Self {
        let mut log = SampleLog::new();
        let instance = log.register_instance("fleet");
        let sn = log.register_certificate(&instance);
        let kept = log.events().to_vec();
        for _ in 0..3 {
            log.toggle(&instance, &sn);
        }
        let (key, notes) = (Arc::new(key()), Arc::new(Notes::default()));
        let rows = Rows { log_id: log.log_id(), rows: kept };
        let keys = Arc::new(ServerKeys::from(Arc::clone(&key)));
        let clock: Clock = Arc::new(|| Timestamp::from_micros(7));
        let witness = Witness::new(Arc::new(rows), keys, Arc::clone(&notes) as Arc<dyn Ground>, clock);
        let lost = log.bundle(&instance);
        Self { log, instance, key, witness, notes, lost }
    }

    fn signed<M: Signed>(&self, mut message: M) -> M {
        message.sign(&self.key).unwrap();
        message
    }

    fn head(&self, bundle: &TrustBundle) -> v1::Head {
        let point = TrustPoint {
            instance_id: bundle.instance_id.clone(),
            revision: bundle.revision,
            position: bundle.position,
            digest: bundle.digest,
        };
        self.signed(message::head(self.log.log_id(), &point, Timestamp::from_micros(1)))
    }

    fn bundle(&self) -> v1::TrustBundle {
        self.signed(message::trust_bundle(self.log.log_id(), &self.lost, Timestamp::from_micros(1)))
    }

    async fn hear(&self, message: Shown<'_>) -> bool {
        tokio::time::advance(PACE).await;
        self.witness.hear(&self.instance, "b1", message).await
    }

    fn accused(&self) -> Vec<LogEvidence> {
        self.notes.0.lock().unwrap().clone()
    }
}

/// Ground rule 5: an agent that holds a newer state than the server adds its signed head, and its
/// signed bundle when asked.
#[tokio::test(start_paused = true)]
async fn a_signed_head_beyond_the_log_is_evidence_and_its_bundle_is_asked_for() {
    let court = Court::set_back();
    assert!(!court.hear(Shown::Bundle(&court.bundle())).await);
    assert_eq!(court.accused(), [], "a bundle that nobody asked for is not looked at");
    assert!(court.hear(Shown::Head(&court.head(&court.lost))).await, "the bundle is wanted");
    let evidence = LogEvidence {
        epoch: LogEpoch::FIRST,
        mark: LogMark::Trust {
            instance_id: court.instance.clone(),
            position: court.lost.position,
            revision: court.lost.revision,
            digest: court.lost.digest,
        },
        witness: "broker b1".to_owned(),
        seen_at: Timestamp::from_micros(7),
    };
    assert_eq!(court.accused(), [evidence]);
    assert!(!court.hear(Shown::Bundle(&court.bundle())).await);
    assert_eq!(court.accused().len(), 2);
    assert!(!court.hear(Shown::Head(&court.head(&court.lost))).await, "it is there");
    assert!(!court.hear(Shown::Bundle(&court.bundle())).await);
    assert_eq!(court.accused().len(), 3, "and is not looked at twice");
}

/// Ground rule 3: a sequence number, a bare receipt, an unsigned row is no evidence: a stolen login of
/// a broker must not be able to stop the kill switch.
#[tokio::test(start_paused = true)]
async fn what_no_server_of_this_log_has_signed_is_evidence_of_nothing() {
    let court = Court::set_back();
    let good = court.head(&court.lost);
    let mut stranger = good.clone();
    stranger.sign(&key()).unwrap();
    let cases = [
        v1::Head { signature: None, ..good.clone() },
        v1::Head { revision: good.revision + 1, ..good.clone() },
        v1::Head { position: 1_000, ..good.clone() },
        stranger,
        court.signed(v1::Head { mqtt_instance_id: "other".into(), ..good.clone() }),
        court.signed(v1::Head { log_id: Uuid::from_u128(7).to_string(), ..good.clone() }),
        court.signed(v1::Head { bundle_digest: "?".into(), ..good }),
        v1::Head::default(),
    ];
    for head in cases {
        assert!(!court.hear(Shown::Head(&head)).await);
    }
    assert_eq!(court.accused(), []);
}

#[tokio::test(start_paused = true)]
async fn what_the_log_has_is_no_evidence_under_whatever_epoch() {
    let court = Court::set_back();
    let mut log = court.log.copy();
    log.truncate(3);
    let kept = log.bundle(&court.instance);
    let lifted = TrustBundle { revision: (9 << 32) | kept.revision, ..kept.clone() };
    let none = TrustBundle { revision: 0, position: 0, ..kept.clone() };
    for bundle in [&kept, &lifted, &none] {
        assert!(!court.hear(Shown::Head(&court.head(bundle))).await);
    }
    assert_eq!(court.accused(), []);
    // Another state at a position that the log has.
    let other = TrustBundle { digest: Sha256::of(b"other"), ..kept };
    court.hear(Shown::Head(&court.head(&other))).await;
    assert_eq!(court.accused().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_shows_the_same_head_costs_one_look_a_second() {
    let court = Court::set_back();
    let head = court.head(&court.lost);
    for _ in 0..1_000 {
        court.witness.hear(&court.instance, "b", Shown::Head(&head)).await;
        tokio::time::advance(Duration::from_millis(3)).await;
    }
    assert_eq!(court.accused().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_shows_rubbish_without_end_hides_nobody_else() {
    let court = Court::set_back();
    let (rubbish, head) = (v1::Head::default(), court.head(&court.lost));
    assert_ne!(turn_of("evil"), turn_of("honest"));
    for _ in 0..100 {
        court.witness.hear(&court.instance, "evil", Shown::Head(&rubbish)).await;
    }
    assert!(court.witness.hear(&court.instance, "honest", Shown::Head(&head)).await);
    assert_eq!(court.accused().len(), 1);
}
