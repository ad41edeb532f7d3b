//! The log against checkpoints that were signed before, and against the tree that is kept.
//!
//! A checkpoint says how many events there were and which root they had. A log that is
//! shorter now lost its end; one with another root was changed between the last checkpoint
//! that still holds and this one.

use std::path::Path;

use anyhow::Context as _;
use catrust_event_store::EvidenceStore;
use catrust_event_store::report::{Damage, DamageKind};
use catrust_evidence::{Frontier, SignedCheckpoint, TrustKeys};
use serde_json::{Value, json};

use crate::evidence::checkpoint_file;

/// Hashes read at once.
const CHUNK: u32 = 8_192;
/// Rows of a node that is kept on the lowest level, and that level.
const NODE: u64 = 256;
const LEVEL: u32 = 8;

/// What the checkpoints say about the log.
pub(super) struct CheckpointReport {
    checkpoints: usize,
    largest: u64,
    /// Damage of the log, by position.
    pub(super) damage: Vec<Damage>,
}

/// Reads the file and checks every signature.
pub(super) fn read(path: &Path, keys: &TrustKeys) -> anyhow::Result<Vec<SignedCheckpoint>> {
    let mut checkpoints = checkpoint_file::read(path, keys)?;
    let origin = checkpoints.first().map(|first| first.checkpoint.origin.clone());
    let one = |signed: &SignedCheckpoint| Some(&signed.checkpoint.origin) == origin.as_ref();
    anyhow::ensure!(checkpoints.iter().all(one), "{} holds checkpoints of several logs", path.display());
    checkpoints.sort_by_key(|signed| signed.checkpoint.size);
    Ok(checkpoints)
}

/// Compares the log, which ends at `head`, with every checkpoint; they ascend by size.
pub(super) async fn compare(
    store: &dyn EvidenceStore,
    head: u64,
    checkpoints: &[SignedCheckpoint],
) -> anyhow::Result<CheckpointReport> {
    let largest = checkpoints.last().map_or(0, |last| last.checkpoint.size);
    let mut report = CheckpointReport { checkpoints: checkpoints.len(), largest, damage: Vec::new() };
    let mut open = checkpoints.iter().peekable();
    let (mut tree, mut node, mut holds) = (Frontier::new(), Frontier::new(), 0);
    'log: while tree.size() < head {
        // What cannot be read, or is not there, is told by the walk over the log.
        let Ok(hashes) = store.read_hashes(tree.size(), CHUNK).await else { break };
        if hashes.is_empty() {
            break;
        }
        for hash in hashes {
            tree.push(&hash);
            node.push(&hash);
            if node.size() == NODE {
                let number = tree.size() / NODE - 1;
                if let Some(damage) = kept_node(store, number, &node).await? {
                    report.damage.push(damage);
                }
                node = Frontier::new();
            }
            while let Some(signed) = open.next_if(|signed| signed.checkpoint.size <= tree.size()) {
                if signed.checkpoint.size == tree.size() && signed.checkpoint.root != tree.root() {
                    report.damage.push(changed(holds, tree.size()));
                    // Every later one differs, too.
                    break 'log;
                }
                holds = signed.checkpoint.size;
            }
        }
    }
    if largest > head {
        let description = format!("the log ends at {head}, and a checkpoint of {largest} events was signed");
        report.damage.push(Damage { kind: DamageKind::TailCut, position: Some(head + 1), description });
    }
    Ok(report)
}

fn changed(holds: u64, size: u64) -> Damage {
    let description = match holds + 1 == size {
        true => format!("the checkpoint of {size} events was signed for another event here"),
        false => format!(
            "an event from here to {size} is not the one that was signed: the checkpoint of {holds} events holds, \
             that of {size} does not"
        ),
    };
    Damage { kind: DamageKind::NotAsPublished, position: Some(holds + 1), description }
}

/// Compares a node that is kept with the rows below it.
async fn kept_node(
    store: &dyn EvidenceStore,
    number: u64,
    node: &Frontier,
) -> anyhow::Result<Option<Damage>> {
    let kept = store.read_tree_nodes(LEVEL, number, 1).await.context("the tree cannot be read")?;
    let differs = kept.first().is_some_and(|kept| *kept != node.root());
    Ok(differs.then(|| Damage {
        kind: DamageKind::NotAsPublished,
        position: Some(number * NODE + 1),
        description: format!("the {NODE} events from here on are not those that the tree was built of"),
    }))
}

impl CheckpointReport {
    /// For people.
    pub(super) fn text(&self) -> String {
        format!("checkpoints: {} compared, of up to {} events", self.checkpoints, self.largest)
    }

    /// For scripts.
    pub(super) fn json(&self) -> Value {
        json!({ "compared": self.checkpoints, "largest": self.largest })
    }
}
