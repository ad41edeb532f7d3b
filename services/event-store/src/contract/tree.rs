//! Promises about what a Merkle tree over the log is made of.

use catrust_domain::Sha256;

use super::Fixture;
use super::appending::read_all;
use super::commands::{instance, populate};
use crate::{EvidenceStore as _, StoreError};

/// Hashes are those of the rows, in order; a hole is told, not closed.
pub async fn hashes_are_read_without_gaps<F: Fixture>(fixture: &F) {
    let store = fixture.open().await;
    populate(&store, &instance("tree"), &["a", "b"]).await;
    let log = read_all(&store).await;
    let hashes: Vec<Sha256> = log.iter().map(|row| row.hash).collect();
    assert_eq!(store.read_hashes(0, 100).await.expect("hashes"), hashes);
    assert_eq!(store.read_hashes(2, 2).await.expect("hashes"), hashes[2..4]);
    assert_eq!(store.read_hashes(hashes.len() as u64, 9).await.expect("hashes"), []);
    assert_eq!(store.find_event(log[1].event_id).await.expect("a read").as_ref(), Some(&log[1]));
    assert_eq!(store.find_event(log[1].request_id).await.expect("a read"), None);
    fixture.tamper("DELETE FROM events WHERE position = 3").await;
    let holed = store.read_hashes(0, 100).await;
    assert!(matches!(&holed, Err(StoreError::Corrupt { row, .. }) if row == "3"), "{holed:?}");
}

/// Nodes stay as they were kept first, and end where the next one is not there.
pub async fn tree_nodes_are_kept_once<F: Fixture>(fixture: &F) {
    let (store, other) = (fixture.open().await, fixture.open().await);
    let node = |number: u8| Sha256([number; 32]);
    assert_eq!(store.count_tree_nodes(8).await.expect("a count"), 0);
    store.keep_tree_nodes(8, 0, &[node(0), node(1)]).await.expect("kept");
    other.keep_tree_nodes(8, 1, &[node(9), node(2)]).await.expect("kept");
    other.keep_tree_nodes(16, 0, &[node(7)]).await.expect("kept");
    other.keep_tree_nodes(8, 4, &[node(4)]).await.expect("kept");
    assert_eq!(store.read_tree_nodes(8, 0, 100).await.expect("nodes"), [node(0), node(1), node(2)]);
    assert_eq!(store.read_tree_nodes(8, 1, 1).await.expect("nodes"), [node(1)]);
    assert_eq!(store.read_tree_nodes(8, 3, 5).await.expect("nodes"), []);
    assert_eq!(store.read_tree_nodes(16, 0, 5).await.expect("nodes"), [node(7)]);
    assert_eq!(store.count_tree_nodes(16).await.expect("a count"), 1);
}
