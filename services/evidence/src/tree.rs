//! The Merkle tree of RFC 9162 §2.1, over the hashes of the log's rows.
//!
//! Leaf `i` (from 0) is the hash of the row at position `i + 1`, 32 bytes. Inner nodes are
//! not kept by anybody who only checks; a store keeps those of perfect subtrees, and
//! [`Span::perfect`] takes whatever range a proof needs apart into such subtrees.

use catrust_domain::Sha256;
use sha2::Digest as _;

/// `HASH(0x00 || leaf)`.
#[must_use]
pub fn leaf_hash(row_hash: &Sha256) -> Sha256 {
    let mut hasher = sha2::Sha256::new();
    hasher.update([0]);
    hasher.update(row_hash.as_bytes());
    Sha256(hasher.finalize().into())
}

/// `HASH(0x01 || left || right)`.
#[must_use]
pub fn node_hash(left: &Sha256, right: &Sha256) -> Sha256 {
    let mut hasher = sha2::Sha256::new();
    hasher.update([1]);
    hasher.update(left.as_bytes());
    hasher.update(right.as_bytes());
    Sha256(hasher.finalize().into())
}

/// The root of a tree without leaves.
#[must_use]
pub fn empty_root() -> Sha256 {
    Sha256::of(b"")
}

/// What is needed of a tree to go on with it: the roots of its perfect subtrees, largest
/// first. At most 64 hashes, whatever the size.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    /// Level and root of each, levels falling.
    subtrees: Vec<(u32, Sha256)>,
}

impl Frontier {
    /// The tree without leaves.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of leaves.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Appends the leaf of a row.
    pub fn push(&mut self, row_hash: &Sha256) {
        self.push_subtree(0, leaf_hash(row_hash));
    }

    /// Appends a perfect subtree of `2^level` leaves.
    ///
    /// # Panics
    /// Where the size is not a multiple of that: such a subtree is not one of the tree's.
    pub fn push_subtree(&mut self, level: u32, root: Sha256) {
        assert!(self.size.trailing_zeros() >= level || self.size == 0, "a subtree out of place");
        let (mut level, mut root) = (level, root);
        self.size += 1 << level;
        while let Some((last, left)) = self.subtrees.last()
            && *last == level
        {
            root = node_hash(left, &root);
            self.subtrees.pop();
            level += 1;
        }
        self.subtrees.push((level, root));
    }

    /// The root of the tree: `MTH` of RFC 9162.
    #[must_use]
    pub fn root(&self) -> Sha256 {
        let mut subtrees = self.subtrees.iter().rev();
        let Some((_, last)) = subtrees.next() else { return empty_root() };
        subtrees.fold(*last, |right, (_, left)| node_hash(left, &right))
    }
}

/// The leaves from `start` to `end`, the latter not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First leaf.
    pub start: u64,
    /// The one after the last leaf.
    pub end: u64,
}

/// A perfect subtree: the leaves from `index << level` on, `2^level` of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subtree {
    /// Its height.
    pub level: u32,
    /// Its number among those of its level, from 0.
    pub index: u64,
}

impl Span {
    /// Takes the span apart into the largest perfect subtrees, from left to right. Their
    /// roots, pushed onto an empty [`Frontier`], give the root of a span that a proof names:
    /// such a span begins at a multiple of a power of two that is at least its length.
    #[must_use]
    pub fn perfect(self) -> Vec<Subtree> {
        let mut subtrees = Vec::new();
        let mut at = self.start;
        while at < self.end {
            let fits = (self.end - at).ilog2();
            let level = if at == 0 { fits } else { fits.min(at.trailing_zeros()) };
            subtrees.push(Subtree { level, index: at >> level });
            at += 1 << level;
        }
        subtrees
    }
}

/// The largest power of two below `size`, which is at least 2.
const fn split(size: u64) -> u64 {
    1 << (size - 1).ilog2()
}

/// The spans whose roots prove that leaf `index` is in a tree of `size`, in the order of the
/// proof: `PATH` of RFC 9162 §2.1.3.1. `index` MUST be below `size`.
#[must_use]
pub fn inclusion_spans(index: u64, size: u64) -> Vec<Span> {
    let (mut start, mut end) = (0, size);
    let mut spans = Vec::new();
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            spans.push(Span { start: middle, end });
            end = middle;
        } else {
            spans.push(Span { start, end: middle });
            start = middle;
        }
    }
    spans.reverse();
    spans
}

/// The spans whose roots prove that the tree of `old` leaves is the beginning of that of
/// `size`, in the order of the proof: `PROOF` of RFC 9162 §2.1.4.1. 0 < `old` ≤ `size`.
#[must_use]
pub fn consistency_spans(old: u64, size: u64) -> Vec<Span> {
    let (mut start, mut end) = (0, size);
    let mut spans = Vec::new();
    // Whether the subtree is one that the old root was made of as it is.
    let mut whole = true;
    while old != end {
        let middle = start + split(end - start);
        if old <= middle {
            spans.push(Span { start: middle, end });
            end = middle;
        } else {
            spans.push(Span { start, end: middle });
            start = middle;
            whole = false;
        }
    }
    if !whole {
        spans.push(Span { start, end });
    }
    spans.reverse();
    spans
}

/// The root that an inclusion proof leads to: RFC 9162 §2.1.3.2. `None` where the proof has
/// another length than one of this leaf and size.
#[must_use]
pub fn root_from_inclusion(row_hash: &Sha256, index: u64, size: u64, proof: &[Sha256]) -> Option<Sha256> {
    if index >= size {
        return None;
    }
    let (mut node, mut last) = (index, size - 1);
    let mut root = leaf_hash(row_hash);
    for hash in proof {
        if last == 0 {
            return None;
        }
        if node & 1 == 1 || node == last {
            root = node_hash(hash, &root);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            root = node_hash(&root, hash);
        }
        node >>= 1;
        last >>= 1;
    }
    (last == 0).then_some(root)
}

/// Whether `proof` shows that the tree of `size` with `root` goes on from that of `old` with
/// `old_root`: RFC 9162 §2.1.4.2.
#[must_use]
pub fn is_consistent(old: u64, old_root: &Sha256, size: u64, root: &Sha256, proof: &[Sha256]) -> bool {
    if old == 0 {
        return proof.is_empty() && *old_root == empty_root();
    }
    if old == size {
        return proof.is_empty() && old_root == root;
    }
    if old > size {
        return false;
    }
    let mut hashes = proof.iter();
    let first = if old.is_power_of_two() { Some(old_root) } else { hashes.next() };
    let Some(first) = first else { return false };
    let (mut node, mut last) = (old - 1, size - 1);
    while node & 1 == 1 {
        node >>= 1;
        last >>= 1;
    }
    let (mut old_found, mut found) = (*first, *first);
    for hash in hashes {
        if last == 0 {
            return false;
        }
        if node & 1 == 1 || node == last {
            old_found = node_hash(hash, &old_found);
            found = node_hash(hash, &found);
            while node & 1 == 0 && node != 0 {
                node >>= 1;
                last >>= 1;
            }
        } else {
            found = node_hash(&found, hash);
        }
        node >>= 1;
        last >>= 1;
    }
    last == 0 && old_found == *old_root && found == *root
}

/// The root of a span over rows that are all at hand.
#[must_use]
pub fn span_root(rows: &[Sha256], span: Span) -> Sha256 {
    let range =
        usize::try_from(span.start).unwrap_or(usize::MAX)..usize::try_from(span.end).unwrap_or(usize::MAX);
    let mut frontier = Frontier::new();
    rows.get(range).unwrap_or_default().iter().for_each(|hash| frontier.push(hash));
    frontier.root()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rows(count: u64) -> Vec<Sha256> {
        (0..count).map(|number| Sha256::of(&number.to_be_bytes())).collect()
    }

    /// `MTH` as RFC 9162 §2.1.1 writes it down.
    fn mth(rows: &[Sha256]) -> Sha256 {
        match rows {
            [] => empty_root(),
            [row] => leaf_hash(row),
            _ => {
                let (left, right) = rows.split_at(usize::try_from(split(rows.len() as u64)).unwrap());
                node_hash(&mth(left), &mth(right))
            }
        }
    }

    fn proof(rows: &[Sha256], spans: &[Span]) -> Vec<Sha256> {
        spans.iter().map(|span| span_root(rows, *span)).collect()
    }

    #[test]
    fn roots_are_those_of_the_rfc() {
        for size in 0..70 {
            let rows = rows(size);
            let mut frontier = Frontier::new();
            rows.iter().for_each(|row| frontier.push(row));
            assert_eq!((frontier.size(), frontier.root()), (size, mth(&rows)), "{size}");
        }
        assert_eq!(
            empty_root().to_string(),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn every_leaf_of_every_small_tree_is_proved_and_no_other_in_its_place() {
        for size in 1..40 {
            let rows = rows(size);
            for index in 0..size {
                let path = proof(&rows, &inclusion_spans(index, size));
                let row = &rows[usize::try_from(index).unwrap()];
                assert_eq!(root_from_inclusion(row, index, size, &path), Some(mth(&rows)), "{index}/{size}");
                for other in (0..size).filter(|other| *other != index) {
                    assert_ne!(root_from_inclusion(row, other, size, &path), Some(mth(&rows)));
                }
                let short = path.get(1..).unwrap_or_default();
                assert!(size == 1 || root_from_inclusion(row, index, size, short) != Some(mth(&rows)));
                let long = [path, vec![Sha256::ZERO]].concat();
                assert_ne!(root_from_inclusion(row, index, size, &long), Some(mth(&rows)));
            }
        }
    }

    #[test]
    fn every_beginning_of_every_small_tree_is_consistent_and_another_is_not() {
        for size in 1..40 {
            let rows = rows(size);
            for old in 1..=size {
                let old_root = mth(&rows[..usize::try_from(old).unwrap()]);
                let path = proof(&rows, &consistency_spans(old, size));
                assert!(is_consistent(old, &old_root, size, &mth(&rows), &path), "{old}/{size}");
                assert!(!is_consistent(old, &Sha256::ZERO, size, &mth(&rows), &path));
                assert!(!is_consistent(old, &old_root, size, &Sha256::ZERO, &path));
                if old > 1 {
                    assert!(!is_consistent(old - 1, &old_root, size, &mth(&rows), &path), "{old}/{size}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn spans_are_made_of_perfect_subtrees(size in 1_u64..5_000, at in any::<u64>()) {
            let rows = rows(size);
            let index = at % size;
            let spans = [inclusion_spans(index, size), consistency_spans(index + 1, size)].concat();
            for span in spans {
                let mut frontier = Frontier::new();
                for subtree in span.perfect() {
                    let start = subtree.index << subtree.level;
                    let root = span_root(&rows, Span { start, end: start + (1 << subtree.level) });
                    frontier.push_subtree(subtree.level, root);
                }
                prop_assert_eq!(frontier.root(), span_root(&rows, span));
            }
        }
    }
}
