//! The one task of a replica that records receipts.
//!
//! As the appender, it commits what has come in as a batch, and a lone receipt at
//! once. Unlike the appender it leaves a pause between two batches: a fleet gives signs
//! of life all the time, and a transaction for each would cost the log its place on
//! the disk. What cannot be recorded is dropped after a few attempts: the broker says
//! it again within seconds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use catrust_domain::{InstanceId, NameStanding, OutcomeKind, Receipt, Speakers, error_chain};
use catrust_event_store::{FleetStore, MAX_RECEIPTS, ReadModelStore, StoreError};
use opentelemetry::metrics::Meter;
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::instruments::{ReceiptInstruments, ReceiptVia};
use super::queue::{Fate, ReceiptQueue, WaitingReceipt};
use crate::directory::Directory;
use crate::error::ApiError;

/// Receipts that may wait: some 10 MB, or a second of 80,000 brokers.
const CAPACITY: usize = 16_384;
/// Shortest time from one batch to the next.
const PACE: Duration = Duration::from_millis(5);
/// How often a batch is tried, and the pause in between: a failover of the database
/// should cost no receipt.
const ATTEMPTS: u32 = 4;
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Hands receipts to the task that records them. Cheap to clone.
#[derive(Clone)]
pub(crate) struct ReceiptIntake {
    queue: Arc<Mutex<ReceiptQueue>>,
    filled: Arc<Notify>,
    speakers: Arc<Mutex<Speakers>>,
    instruments: Arc<ReceiptInstruments>,
}

impl ReceiptIntake {
    /// Makes the intake and the future of its task, which ends after `stop` when the
    /// queue is empty.
    pub(crate) fn new(
        store: Arc<dyn FleetStore>,
        read_model: Arc<dyn ReadModelStore>,
        directory: Arc<Directory>,
        meter: &Meter,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let queue = Arc::new(Mutex::new(ReceiptQueue::new(CAPACITY)));
        let instruments = Arc::new(ReceiptInstruments::new(meter));
        let intake = Self { queue, filled: Arc::default(), speakers: Arc::default(), instruments };
        let recorder = ReceiptRecorder { intake: intake.clone(), store, read_model, directory };
        (intake, recorder.run(stop))
    }

    /// Queues a receipt and waits until every replica knows it.
    ///
    /// # Errors
    /// [`ApiError::Overloaded`] when the queue is full or the broker says more than can
    /// be recorded, [`ApiError::Store`] when the store is away.
    pub(crate) async fn record(&self, receipt: Receipt) -> Result<(), ApiError> {
        let receipt = self.judge(receipt);
        let (answer, fate) = oneshot::channel();
        self.enqueue(WaitingReceipt { receipt, answers: vec![answer] }, ReceiptVia::Grpc);
        match fate.await {
            Ok(Fate::Recorded) => Ok(()),
            Ok(Fate::Shed) => Err(ApiError::Overloaded),
            Ok(Fate::Unavailable) => {
                Err(StoreError::Unavailable("receipts cannot be recorded".into()).into())
            }
            Ok(Fate::Failed) => Err(ApiError::Internal("receipts cannot be recorded".to_owned())),
            Err(_) => Err(ApiError::Draining),
        }
    }

    /// Queues a receipt that nobody waits for.
    pub(crate) fn offer(&self, receipt: Receipt) {
        let receipt = self.judge(receipt);
        self.enqueue(WaitingReceipt { receipt, answers: Vec::new() }, ReceiptVia::Nats);
    }

    /// What the receipt is worth, where two brokers may speak under its name.
    fn judge(&self, receipt: Receipt) -> Receipt {
        let Some(origin) = receipt.origin else { return receipt };
        let (instance, broker) = (&receipt.instance_id, &receipt.broker_id);
        let standing = {
            let mut speakers = self.speakers.lock().unwrap_or_else(PoisonError::into_inner);
            speakers.hear(instance, broker, origin, receipt.received_at)
        };
        match standing {
            NameStanding::Sound => receipt,
            NameStanding::Disputed { new } => {
                if new {
                    tracing::warn!(
                        %instance,
                        %broker,
                        "two brokers speak under one name, or one that was put back to an earlier state: \
                         give each a name of its own; until then, what they state does not count"
                    );
                }
                self.instruments.disputed();
                receipt.disputed()
            }
        }
    }

    /// Counts what came as a receipt and is none.
    pub(crate) fn refuse(&self, via: ReceiptVia) {
        self.instruments.receipt(via, "invalid");
    }

    fn enqueue(&self, waiting: WaitingReceipt, via: ReceiptVia) {
        let outcome = match waiting.receipt.outcome.kind() {
            OutcomeKind::Applied => "applied",
            OutcomeKind::Refused => "refused",
        };
        self.instruments.receipt(via, outcome);
        let shed = self.queue.lock().unwrap_or_else(PoisonError::into_inner).push(waiting);
        if let Some(shed) = shed {
            self.instruments.lost("shed", 1);
            shed.answer(Fate::Shed);
        }
        self.filled.notify_one();
    }

    fn take_batch(&self) -> Vec<WaitingReceipt> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take_batch(MAX_RECEIPTS)
    }

    fn is_empty(&self) -> bool {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }
}

struct ReceiptRecorder {
    intake: ReceiptIntake,
    store: Arc<dyn FleetStore>,
    read_model: Arc<dyn ReadModelStore>,
    directory: Arc<Directory>,
}

impl ReceiptRecorder {
    async fn run(self, stop: CancellationToken) {
        loop {
            let batch = self.intake.take_batch();
            if batch.is_empty() {
                tokio::select! {
                    () = self.intake.filled.notified() => continue,
                    () = stop.cancelled() => {}
                }
                if self.intake.is_empty() {
                    return;
                }
                continue;
            }
            self.record(batch, &stop).await;
            sleep(PACE).await;
        }
    }

    async fn record(&self, batch: Vec<WaitingReceipt>, stop: &CancellationToken) {
        let receipts: Vec<Receipt> = batch.iter().map(|waiting| waiting.receipt.clone()).collect();
        let mut attempt = 1;
        let fate = loop {
            match self.try_record(&receipts).await {
                Ok(()) => break Fate::Recorded,
                Err(error) => {
                    let unavailable = matches!(error, StoreError::Unavailable(_));
                    if unavailable && attempt < ATTEMPTS && !stop.is_cancelled() {
                        attempt += 1;
                        sleep(RETRY_PAUSE).await;
                        continue;
                    }
                    tracing::warn!(
                        error = error_chain(&error),
                        receipts = receipts.len(),
                        "receipts could not be recorded; brokers repeat them"
                    );
                    self.intake.instruments.lost("store", receipts.len() as u64);
                    break if unavailable { Fate::Unavailable } else { Fate::Failed };
                }
            }
        };
        batch.into_iter().for_each(|waiting| waiting.answer(fate));
    }

    async fn try_record(&self, receipts: &[Receipt]) -> Result<(), StoreError> {
        let mut revisions: HashMap<&InstanceId, u64> = HashMap::new();
        let mut fitting = Vec::with_capacity(receipts.len());
        for receipt in receipts {
            let current = match revisions.get(&receipt.instance_id) {
                Some(current) if receipt.revision <= *current => *current,
                _ => self.revision(receipt).await?,
            };
            revisions.insert(&receipt.instance_id, current);
            fitting.push(receipt.clone().within(current));
        }
        let taken = self.store.record_receipts(&fitting).await?;
        let unheard = (fitting.len() as u64).saturating_sub(taken);
        if unheard > 0 {
            tracing::warn!(receipts = unheard, "an instance has too many brokers; new ones are not heard");
            self.intake.instruments.lost("fleet_full", unheard);
        }
        Ok(())
    }

    /// Revision of the instance of a receipt. The directory may lag what a broker has
    /// applied already: only the store's word makes a revision one of the future.
    async fn revision(&self, receipt: &Receipt) -> Result<u64, StoreError> {
        let id = &receipt.instance_id;
        if let Some(known) = self.directory.find(id)
            && receipt.revision <= known.revision
        {
            return Ok(known.revision);
        }
        let instance = self.read_model.find_instance(id).await?;
        if let Some(instance) = &instance {
            self.directory.insert(instance);
        }
        Ok(instance.map_or(0, |instance| instance.revision))
    }
}
