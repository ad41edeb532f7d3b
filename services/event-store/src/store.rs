//! What a store does: a trait for each kind of caller, which asks for the smallest that
//! serves it, and [`EventStore`] for all of them together.

use std::sync::Arc;

use async_trait::async_trait;
use catrust_domain::{
    BrokerId, CommandEnvelope, EpochInForce, FleetMember, Instance, InstanceId, LogEntry, LogEvidence,
    LogHead, Receipt, RecordedEvent, Reply, RequestKey, SerialNumber, Sha256, Timestamp, TrustBundle,
    Verdict,
};
use tokio::sync::{broadcast, watch};
use uuid::Uuid;

use crate::{
    BegunEpoch, BundleAt, CertificateView, CommandResults, EpochPlan, FreshnessLease, LogStand, Page,
    RebuildReport, RefusalFilter, RefusedCall, StateFilter, StoreError, TrustChangePage, TrustChangeSearch,
    VerifyReport,
};

/// The right to be the one that publishes, held until dropped.
///
/// An optimisation only: two publishers are harmless (see the feed), they just
/// waste work. Destructive repairs of the feed are reserved to the holder.
#[async_trait]
pub trait PublisherLease: Send {
    /// Whether the lease is still held; `false` for ever once it is lost.
    async fn is_held(&mut self) -> bool;
}

/// Which of the database servers a store uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrimaryInUse {
    /// Number of the server among those that this process has used: another one, or the same
    /// started again, has a higher number. From 1 on; 0 in an engine that has no servers.
    pub turn: u64,
    /// Whether the server has acknowledged a commit of full durability. Until then nothing
    /// that was read from it may be signed: a server that was superseded would show it, too.
    pub confirmed: bool,
}

/// The log as those read it who follow it.
///
/// Every read sees each append that was acknowledged before it began. Positions
/// are dense and in commit order: a reader that has seen `n` will never meet a
/// new event at or below `n`.
#[async_trait]
pub trait EventLog: Send + Sync + 'static {
    /// Identity of the log, made when its database was created.
    fn log_id(&self) -> Uuid;

    /// A hint that the log has grown: the highest position known to this process.
    /// It may lag or skip; a reader MUST also poll.
    fn appended(&self) -> watch::Receiver<u64>;

    /// The batch of events right after position `after`, where this process committed
    /// it itself a moment ago and still has it. Costs no query, and says nothing of what
    /// comes after: `None` means that [`EventLog::read`] knows.
    fn recent(&self, _after: u64) -> Option<Arc<[LogEntry]>> {
        None
    }

    /// Which database server is in use. Where it is another one than before, what was read
    /// from the one before and not acknowledged to this process MUST be read again: it may
    /// have been there alone.
    fn primary(&self) -> watch::Receiver<PrimaryInUse>;

    /// The newest freshness lease of this process; `None` before the first. Renewed each
    /// second while commits are acknowledged. What is signed as current MUST rest on one that
    /// [`FreshnessLease::is_valid`], and on a state that came through exactly its end.
    fn freshness(&self) -> watch::Receiver<Option<FreshnessLease>>;

    /// The end of the log.
    async fn head(&self) -> Result<LogHead, StoreError>;

    /// Reads up to `limit` events after position `after`, ascending, without gaps.
    async fn read(&self, after: u64, limit: u32) -> Result<Vec<RecordedEvent>, StoreError>;

    /// As [`EventLog::read`] after the row `since`, and proves in the same statement that the
    /// log still has that row. Nothing is asked of an empty log's head.
    ///
    /// # Errors
    /// [`StoreError::SetBack`] where it has not: what was read from there on is no longer
    /// the log. Where a new epoch has begun since, [`EventLog::epoch`] says so by then.
    async fn read_from(&self, since: &LogHead, limit: u32) -> Result<Vec<RecordedEvent>, StoreError> {
        if since.position == 0 {
            return self.read(0, limit).await;
        }
        let mut rows = self.read(since.position - 1, limit.saturating_add(1)).await?;
        match rows.first() {
            Some(row) if row.position == since.position && row.hash == since.hash => {
                rows.remove(0);
                Ok(rows)
            }
            found => {
                let found = found.map_or("it is not there any more", |_| "another row is there now");
                let reason = format!("this server has read position {} of the log: {found}", since.position);
                Err(StoreError::SetBack { reason })
            }
        }
    }

    /// The epoch in force, as the last append or read of this process found it.
    /// [`EpochInForce::FIRST`] until one has begun.
    fn epoch(&self) -> watch::Receiver<EpochInForce>;

    /// Tries to become the one that publishes; `None` when another process is.
    async fn try_lease_publisher(&self) -> Result<Option<Box<dyn PublisherLease>>, StoreError>;
}

/// Whether the log is the one that was acknowledged.
#[async_trait]
pub trait Ground: Send + Sync + 'static {
    /// Holds a piece of evidence against the log, which MUST be verified: its maker believes
    /// the signature, or it is what this process acknowledged itself.
    ///
    /// Looks on a fresh connection to a server that takes writes, after a durable commit,
    /// under the append lock. Where the log contradicts it, the evidence is stored with this
    /// server's signature, and no replica acknowledges anything while that lasts.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]: nothing is known; ask again.
    async fn accuse(&self, evidence: &LogEvidence) -> Result<Verdict, StoreError>;

    /// Where the log stands, and what contradicts it now.
    async fn ground(&self) -> Result<GroundReport, StoreError>;
}

/// Where the log stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroundReport {
    /// The epoch in force.
    pub epoch: EpochInForce,
    /// The end of the log.
    pub end: LogHead,
    /// Evidence that is believed, stored or in this process' memory, with what it comes to;
    /// nothing is set back where none of it [`Verdict::halts`].
    pub evidence: Vec<(LogEvidence, Verdict)>,
    /// Positions of rows that claim to begin an epoch and are not believed.
    pub unbelieved_begins: Vec<u64>,
}

/// Log epochs.
#[async_trait]
pub trait EpochStore: Send + Sync + 'static {
    /// Where the log stands now, for an [`EpochPlan`].
    async fn stand(&self) -> Result<LogStand, StoreError>;

    /// Begins a log epoch: [`catrust_domain::event::LogEpochBegan`] right behind the end of the
    /// log, signed, and what is made again, in one transaction under the append lock, on a server
    /// that takes writes. Nothing is recorded unless it is [`BegunEpoch::Begun`].
    ///
    /// # Errors
    /// [`StoreError::Ambiguous`]: it may have begun; [`EpochStore::stand`] tells.
    /// [`StoreError::Corrupt`]: the read model of an instance that lost something is damaged; rebuild it first.
    async fn begin_epoch(&self, plan: &EpochPlan) -> Result<BegunEpoch, StoreError>;
}

/// Commands, and the replies that are kept for their repeats.
#[async_trait]
pub trait CommandStore: Send + Sync + 'static {
    /// Commits a batch in one transaction, and tells what each command came to.
    ///
    /// At most [`crate::MAX_BATCH`] commands. Results are durable before they are
    /// returned. A refused command does not disturb the others. Calls on one
    /// store are queued.
    ///
    /// # Errors
    /// Applies to the whole batch, of which nothing is recorded, except for
    /// [`StoreError::Ambiguous`]: then the caller cannot know, and MUST say so.
    async fn append(&self, commands: &[CommandEnvelope]) -> Result<CommandResults, StoreError>;

    /// Finds the stored reply of a request, whatever the request was.
    async fn find_reply(&self, key: &RequestKey) -> Result<Option<Reply>, StoreError>;

    /// Forgets stored replies older than `before`; gives their number.
    async fn prune_replies(&self, before: Timestamp) -> Result<u64, StoreError>;
}

/// Instances, CA certificates and trust bundles, as they are and as they were.
///
/// Every read sees each append that was acknowledged before it began.
#[async_trait]
pub trait ReadModelStore: Send + Sync + 'static {
    /// Finds an instance.
    async fn find_instance(&self, id: &InstanceId) -> Result<Option<Instance>, StoreError>;

    /// Lists instances after the registration position `after`, in that order.
    async fn list_instances(&self, after: u64, limit: u32) -> Result<Page<Instance>, StoreError>;

    /// Finds a CA certificate.
    async fn find_certificate(
        &self,
        id: &InstanceId,
        sn: &SerialNumber,
    ) -> Result<Option<CertificateView>, StoreError>;

    /// Lists CA certificates after the registration position `after`, in that order.
    async fn list_certificates(
        &self,
        id: &InstanceId,
        state: StateFilter,
        after: u64,
        limit: u32,
    ) -> Result<Page<CertificateView>, StoreError>;

    /// Searches a bounded stretch of the log after position `after` for up to `limit`
    /// trust changes.
    async fn search_trust_changes(
        &self,
        search: &TrustChangeSearch,
        after: u64,
        limit: u32,
    ) -> Result<TrustChangePage, StoreError>;

    /// Loads a trust bundle, all of it from one snapshot, its digest checked
    /// against its entries. `None` when there is no such instance, or it has not
    /// reached the revision, or did not exist at the time.
    async fn load_bundle(&self, id: &InstanceId, at: BundleAt) -> Result<Option<TrustBundle>, StoreError>;

    /// Lists trust changes of an instance after revision `after_revision`, ascending.
    async fn read_trust_changes(
        &self,
        id: &InstanceId,
        after_revision: u64,
        limit: u32,
    ) -> Result<Vec<RecordedEvent>, StoreError>;
}

/// Hashes of rows, and the nodes of the Merkle tree over them.
#[async_trait]
pub trait EvidenceStore: EventLog {
    /// Reads hashes of up to `limit` rows after position `after`, ascending, without gaps.
    async fn read_hashes(&self, after: u64, limit: u32) -> Result<Vec<Sha256>, StoreError>;

    /// Finds the event with that identity.
    async fn find_event(&self, event_id: Uuid) -> Result<Option<RecordedEvent>, StoreError>;

    /// Number of tree nodes kept on `level`, a multiple of 8 above 0: those from 0 on.
    async fn count_tree_nodes(&self, level: u32) -> Result<u64, StoreError>;

    /// Reads up to `limit` tree nodes of `level` from number `first` on; fewer where the
    /// next one is not kept.
    async fn read_tree_nodes(&self, level: u32, first: u64, limit: u32) -> Result<Vec<Sha256>, StoreError>;

    /// Keeps tree nodes of `level` from number `first` on. Those that are kept already
    /// stay: several replicas make the same ones.
    async fn keep_tree_nodes(&self, level: u32, first: u64, nodes: &[Sha256]) -> Result<(), StoreError>;
}

/// What brokers say about the revisions. Not part of the log: neither verified nor rebuilt.
#[async_trait]
pub trait FleetStore: Send + Sync + 'static {
    /// Takes receipts in, at most [`crate::MAX_RECEIPTS`], in their order, as
    /// [`catrust_domain::BrokerState::take`] has it, and gives the number of those that
    /// were; the others are of brokers beyond [`crate::MAX_BROKERS`]. Several replicas may do so at once.
    ///
    /// # Errors
    /// A leading part of the receipts may have been taken; the same batch again does
    /// no harm.
    async fn record_receipts(&self, receipts: &[Receipt]) -> Result<u64, StoreError>;

    /// Lists the brokers of an instance, ascending by name, each with the log's digest
    /// at its revision, all from one snapshot. Forgotten ones may still be there.
    async fn list_brokers(&self, id: &InstanceId) -> Result<Vec<FleetMember>, StoreError>;

    /// Lists the brokers of all instances after the given one, ascending by instance
    /// and name.
    async fn list_all_brokers(
        &self,
        after: Option<(&InstanceId, &BrokerId)>,
        limit: u32,
    ) -> Result<Vec<FleetMember>, StoreError>;

    /// Removes brokers that were last heard before `before`; gives their number.
    async fn forget_brokers(&self, before: Timestamp) -> Result<u64, StoreError>;

    /// A hint that receipts changed what is known of an instance's brokers, beyond
    /// signs of life. It may lag or be lost; a reader MUST also poll. A receiver that
    /// lags MUST take every instance for changed.
    fn fleet_changes(&self) -> broadcast::Receiver<InstanceId>;
}

/// Refused calls. Not part of the log: neither verified nor rebuilt.
#[async_trait]
pub trait RefusalStore: Send + Sync + 'static {
    /// Records refused calls; then of each caller among them the newest `kept_per_caller`
    /// stay.
    async fn record_refusals(&self, refusals: &[RefusedCall], kept_per_caller: u64)
    -> Result<(), StoreError>;

    /// Forgets refused calls but the newest `kept`; gives their number.
    async fn prune_refusals(&self, kept: u64) -> Result<u64, StoreError>;

    /// Lists refused calls before number `before`, the newest first, each with its number.
    async fn list_refusals(
        &self,
        filter: &RefusalFilter,
        before: u64,
        limit: u32,
    ) -> Result<Vec<(u64, RefusedCall)>, StoreError>;
}

/// Care for the database.
#[async_trait]
pub trait Maintenance: Send + Sync + 'static {
    /// Checks the whole log: positions, hash chain, stream versions, revisions,
    /// digests, and that its fold equals the read model. Works on one snapshot and
    /// blocks nobody. Damage is told in the report, not as an error.
    async fn verify(&self) -> Result<VerifyReport, StoreError>;

    /// Builds the read model anew from the log beside the old one, compares the
    /// digests per instance, and swaps it in under the append lock.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the log itself does not fold: nothing is swapped.
    async fn rebuild(&self) -> Result<RebuildReport, StoreError>;

    /// Whether the database answers; for readiness.
    async fn ping(&self) -> Result<(), StoreError>;

    /// Waits until one of the store's own tasks has died: that which listens for what other
    /// processes commit, or that which renews the freshness lease. The process MUST NOT go on
    /// without it.
    async fn tasks_ended(&self);
}

/// All that a store does.
pub trait EventStore:
    CommandStore + ReadModelStore + EvidenceStore + FleetStore + RefusalStore + Maintenance + Ground + EpochStore
{
}

impl<S> EventStore for S where
    S: CommandStore
        + ReadModelStore
        + EvidenceStore
        + FleetStore
        + RefusalStore
        + Maintenance
        + Ground
        + EpochStore
{
}
