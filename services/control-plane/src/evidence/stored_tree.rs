//! The tree over the log, of hashes of rows and of nodes that the store has kept.
//!
//! Kept are the roots of perfect subtrees on every eighth level. Any span of the tree takes a
//! handful of reads of up to 256 hashes then, however long the log is.

use std::pin::Pin;

use catrust_event_store::{EvidenceStore, StoreError};
use catrust_evidence::tree::{Subtree, inclusion_spans, leaf_hash};
use catrust_evidence::{Frontier, Sha256, Span};

/// Levels between two that are kept.
const STEP: u32 = 8;
/// Children of a kept node.
const FAN: u32 = 1 << STEP;
/// The highest level that is kept: 2^40 events are more than there will be.
const TOP: u32 = 40;
/// Kept nodes that are made of one read of rows.
const NODES_AT_ONCE: u32 = 16;

pub(crate) struct StoredTree<'a> {
    store: &'a dyn EvidenceStore,
}

impl<'a> StoredTree<'a> {
    #[must_use]
    pub(crate) fn new(store: &'a dyn EvidenceStore) -> Self {
        Self { store }
    }

    /// Keeps every node that the log is long enough for and that is not kept yet. Several
    /// replicas may do so at once.
    ///
    /// # Errors
    /// The store's; what is kept by then stays.
    pub(crate) async fn extend(&self) -> Result<(), StoreError> {
        loop {
            let first = self.store.count_tree_nodes(STEP).await?;
            let rows = self.store.read_hashes(first * u64::from(FAN), FAN * NODES_AT_ONCE).await?;
            let nodes: Vec<Sha256> = rows.chunks_exact(FAN as usize).map(root_of_rows).collect();
            if nodes.is_empty() {
                break;
            }
            self.store.keep_tree_nodes(STEP, first, &nodes).await?;
        }
        let mut level = 2 * STEP;
        while level <= TOP {
            let below = self.store.count_tree_nodes(level - STEP).await?;
            let first = self.store.count_tree_nodes(level).await?;
            if below / u64::from(FAN) == 0 {
                break;
            }
            for index in first..below / u64::from(FAN) {
                let node = self.subtree(Subtree { level, index }).await?;
                self.store.keep_tree_nodes(level, index, &[node]).await?;
            }
            level += STEP;
        }
        Ok(())
    }

    /// The root of the tree over the first `size` rows, which MUST be there.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn root(&self, size: u64) -> Result<Sha256, StoreError> {
        self.span(Span { start: 0, end: size }).await
    }

    /// The proof that row `index`, from 0, is in the tree of the first `size` rows.
    ///
    /// # Errors
    /// The store's.
    pub(crate) async fn inclusion_path(&self, index: u64, size: u64) -> Result<Vec<Sha256>, StoreError> {
        let mut path = Vec::new();
        for span in inclusion_spans(index, size) {
            path.push(self.span(span).await?);
        }
        Ok(path)
    }

    async fn span(&self, span: Span) -> Result<Sha256, StoreError> {
        let mut frontier = Frontier::new();
        for subtree in span.perfect() {
            frontier.push_subtree(subtree.level, self.subtree(subtree).await?);
        }
        Ok(frontier.root())
    }

    /// The root of a perfect subtree: kept, or of its descendants on the next lower level
    /// that is kept. A node that is missing, since whoever made it was stopped halfway, is
    /// made of those below it.
    fn subtree(
        &self,
        subtree: Subtree,
    ) -> Pin<Box<dyn Future<Output = Result<Sha256, StoreError>> + Send + '_>> {
        Box::pin(async move {
            let Subtree { level, index } = subtree;
            if level > 0
                && level % STEP == 0
                && let Some(kept) = self.store.read_tree_nodes(level, index, 1).await?.pop()
            {
                return Ok(kept);
            }
            let base = level.saturating_sub(1) / STEP * STEP;
            let (first, count) = (index << (level - base), 1_u32 << (level - base));
            let mut frontier = Frontier::new();
            if base == 0 {
                let rows = self.store.read_hashes(first, count).await?;
                rows.iter().for_each(|row| frontier.push_subtree(0, leaf_hash(row)));
            } else {
                let kept = self.store.read_tree_nodes(base, first, count).await?;
                kept.iter().for_each(|node| frontier.push_subtree(base, *node));
                for index in first + kept.len() as u64..first + u64::from(count) {
                    frontier.push_subtree(base, self.subtree(Subtree { level: base, index }).await?);
                }
            }
            if frontier.size() < 1 << level {
                let reason = format!("the log has only {} of the rows of a subtree", frontier.size());
                return Err(StoreError::Corrupt { table: "events", row: (first + 1).to_string(), reason });
            }
            Ok(frontier.root())
        })
    }
}

fn root_of_rows(rows: &[Sha256]) -> Sha256 {
    let mut frontier = Frontier::new();
    rows.iter().for_each(|row| frontier.push(row));
    frontier.root()
}
