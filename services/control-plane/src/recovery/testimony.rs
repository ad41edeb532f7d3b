//! What witnesses say that the log had: verified messages of all streams, evidence that servers
//! stored, and the checkpoint file. Reads alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use catrust_domain::log_epoch::{
    EndBefore, LostChange, LostEvent, LostTrustChange, made_again, spell_revision,
};
use catrust_domain::read_model::ReadModel;
use catrust_domain::{CaState, InstanceId, LogEpoch, LogEvidence, LogHead, LogMark, Sha256, Verdict};
use catrust_event_store::{EventStore, LogStand, LostTrust, MadeAgain, StateFilter};
use catrust_publisher::{KnownKeys, SignedMessage, SignedRow};
use catrust_trust_feed::nats::stream_name;
use catrust_trust_feed::parse::Change;
use catrust_trust_feed::{FeedError, NatsFeed, StreamOutline, StreamUse};
use tokio::time::{Instant, sleep};

/// How long the connection to NATS may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Records read at once.
const PAGE: u32 = 1_000;

/// What witnesses say, and what the log says to it.
pub(crate) struct WitnessedLog {
    /// Where the log stood before the witnesses were heard.
    pub(crate) stand: LogStand,
    /// The last row on which the log and all witnesses agree.
    pub(crate) fork: LogHead,
    /// The furthest end that anything shows; the log's own where nothing is lost.
    pub(crate) end_before: EndBefore,
    /// Furthest position that a stream shows in the epoch in force or a later one, and its name.
    pub(crate) furthest: Option<(u64, String)>,
    /// Messages of rows that the log does not have, ascending by epoch and position.
    pub(crate) lost: Vec<LostEvent>,
    /// Stored evidence, and what it comes to.
    pub(crate) evidence: Vec<(LogEvidence, Verdict)>,
}

/// What one stream after the other shows.
#[derive(Default)]
struct Heard {
    furthest: Option<(SignedRow, String)>,
    /// Highest position below every contradiction at which the log has the row that a message shows.
    agreed: BTreeMap<u64, Sha256>,
    contradicted: BTreeSet<u64>,
    lost: BTreeMap<(LogEpoch, u64, Sha256), LostEvent>,
}

impl WitnessedLog {
    /// Hears all witnesses: `feed` where there are streams, and `checkpoint`, the size of the last
    /// one that is known, with its epoch.
    ///
    /// # Errors
    /// The store or NATS does not answer, or a server signed what this version cannot read.
    pub(crate) async fn hear(
        store: &dyn EventStore,
        feed: Option<&NatsFeed>,
        keys: &KnownKeys,
        checkpoint: Option<(LogEpoch, u64)>,
    ) -> anyhow::Result<Self> {
        let stand = store.stand().await?;
        let evidence = store.ground().await?.evidence;
        let heard = match feed {
            Some(feed) => hear_streams(store, feed, keys, &stand).await?,
            None => Heard::default(),
        };
        let mut contradicted = heard.contradicted;
        for (evidence, verdict) in &evidence {
            if verdict.halts() && evidence.mark.position() <= stand.end.position {
                contradicted.insert(evidence.mark.position());
            }
        }
        let fork =
            match contradicted.first() {
                None => stand.end,
                Some(first) => {
                    heard.agreed.range(..first).next_back().map_or(LogHead::EMPTY, |(position, hash)| {
                        LogHead { position: *position, hash: *hash, ..LogHead::EMPTY }
                    })
                }
            };
        let mut ends = vec![EndBefore {
            epoch: stand.epoch.epoch,
            position: stand.end.position,
            hash: Some(stand.end.hash),
        }];
        ends.extend(heard.furthest.as_ref().map(|(row, _)| EndBefore {
            epoch: LogEpoch(row.epoch),
            position: row.position,
            hash: Some(row.event_hash),
        }));
        ends.extend(evidence.iter().map(|(evidence, _)| EndBefore {
            epoch: evidence.epoch,
            position: evidence.mark.position(),
            hash: match &evidence.mark {
                LogMark::Row { hash, .. } => Some(*hash),
                LogMark::Trust { .. } | LogMark::Checkpoint { .. } => None,
            },
        }));
        ends.extend(checkpoint.map(|(epoch, position)| EndBefore { epoch, position, hash: None }));
        let furthest_end = ends.into_iter().max_by_key(|end| (end.epoch, end.position, end.hash.is_some()));
        let end_before = furthest_end.context("no end")?;
        let furthest = heard.furthest.map(|(row, name)| (row.position, name));
        Ok(Self { stand, fork, end_before, furthest, lost: heard.lost.into_values().collect(), evidence })
    }

    /// Whether the log lacks anything that a witness shows.
    pub(crate) fn is_set_back(&self) -> bool {
        let shown = (self.end_before.epoch, self.end_before.position);
        let is_ahead = shown > (self.stand.epoch.epoch, self.stand.end.position);
        is_ahead || !self.lost.is_empty() || self.evidence.iter().any(|(_, verdict)| verdict.halts())
    }

    /// What would become of each lost change, were an epoch to begin now.
    ///
    /// # Errors
    /// The store does not answer.
    pub(crate) async fn foretell(&self, store: &dyn EventStore) -> anyhow::Result<Vec<LostChange>> {
        let loss = GatheredLoss(self.lost.clone());
        let mut restored = ReadModel::new();
        for id in loss.instances() {
            let Some(instance) = store.find_instance(&id).await? else { continue };
            restored.insert_instance(instance);
            let mut after = 0;
            loop {
                let page = store.list_certificates(&id, StateFilter::Any, after, PAGE).await?;
                let Some(last) = page.items.last() else { break };
                after = last.certificate.registered_position;
                page.items.into_iter().for_each(|view| restored.insert_certificate(view.certificate));
            }
        }
        Ok(loss.make_again(&restored).lost)
    }
}

/// What was lost, as messages show it.
#[derive(Clone, Debug, Default)]
pub(crate) struct GatheredLoss(pub(crate) Vec<LostEvent>);

impl LostTrust for GatheredLoss {
    fn instances(&self) -> BTreeSet<InstanceId> {
        self.0.iter().filter(|event| event.trust.is_some()).map(|event| event.instance_id.clone()).collect()
    }

    fn make_again(&self, restored: &ReadModel) -> MadeAgain {
        let (events, lost) = made_again(&self.0, restored);
        MadeAgain { events, lost }
    }
}

/// Reads what all streams keep of this log, of the epoch in force and later ones. Each keeps the
/// last change of each CA certificate: of those before it nothing is left to tell.
async fn hear_streams(
    store: &dyn EventStore,
    feed: &NatsFeed,
    keys: &KnownKeys,
    stand: &LogStand,
) -> anyhow::Result<Heard> {
    let mut heard = Heard::default();
    for outline in answer(feed).await.context("the streams cannot be read")? {
        if matches!(outline.role, StreamUse::Foreign(_)) {
            continue;
        }
        let mut sequence = 0;
        while let Some(kept) = feed.kept_in(outline.number, sequence).await? {
            sequence = kept.sequence;
            let Some(message) = keys.signed_message(&kept.body) else { continue };
            let Some(row) = message.row() else { continue };
            if row.log_id == store.log_id() && LogEpoch(row.epoch) >= stand.epoch.epoch {
                heard.hear(store, stand, &row, &message, stream_name(outline.number)).await?;
            }
        }
    }
    Ok(heard)
}

impl Heard {
    async fn hear(
        &mut self,
        store: &dyn EventStore,
        stand: &LogStand,
        row: &SignedRow,
        message: &SignedMessage,
        stream: String,
    ) -> anyhow::Result<()> {
        let key = |row: &SignedRow| (row.epoch, row.position);
        if self.furthest.as_ref().is_none_or(|(furthest, _)| key(furthest) < key(row)) {
            self.furthest = Some((row.clone(), stream.clone()));
        }
        if row.position <= stand.end.position {
            let found = store.read(row.position.saturating_sub(1), 1).await?;
            if found
                .first()
                .is_some_and(|found| (found.position, found.hash) == (row.position, row.event_hash))
            {
                self.agreed.insert(row.position, row.event_hash);
                return Ok(());
            }
            self.contradicted.insert(row.position);
        }
        let event = lost_event(row, message).with_context(|| {
            format!("position {} in {stream} is signed, and cannot be read", row.position)
        })?;
        self.lost.insert((event.epoch, event.position, row.event_hash), event);
        Ok(())
    }
}

fn lost_event(row: &SignedRow, message: &SignedMessage) -> anyhow::Result<LostEvent> {
    let (instance_id, event_type, trust) = match message {
        SignedMessage::Change(change) => {
            let Change { instance_id, certificate, revision, state, .. } = Change::try_from(&**change)?;
            let trust = LostTrustChange { certificate, revision, state };
            (instance_id, change.event_type.clone(), Some(trust))
        }
        SignedMessage::Event(event) => (event.mqtt_instance_id.parse()?, event.event_type.clone(), None),
    };
    Ok(LostEvent { position: row.position, epoch: LogEpoch(row.epoch), instance_id, event_type, trust })
}

/// A lost change for people.
pub(crate) fn spell(event: &LostEvent) -> String {
    let LostEvent { event_type, instance_id, trust, .. } = event;
    let Some(change) = trust else { return format!("{event_type} in {instance_id}") };
    let state = match change.state {
        None => "deleted",
        Some(CaState::Inactive(_)) => "INACTIVE",
        Some(CaState::Active) => "ACTIVE",
    };
    let sn = &change.certificate.sn;
    let revision = spell_revision(change.revision);
    format!("{event_type} of CA certificate {sn} in {instance_id}, {revision} there ({state})")
}

/// Every stream, once the connection is there.
pub(crate) async fn answer(feed: &NatsFeed) -> Result<Vec<StreamOutline>, FeedError> {
    let deadline = Instant::now() + CONNECT_LIMIT;
    loop {
        match feed.outlines().await {
            Err(FeedError::Unavailable(_)) if Instant::now() < deadline => {
                sleep(Duration::from_millis(50)).await;
            }
            answer => return answer,
        }
    }
}
