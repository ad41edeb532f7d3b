//! The published vectors hold: what was ever handed out as evidence stays good.

#![expect(clippy::unwrap_used, reason = "the whole file is a test; clippy knows only of functions marked so")]

use std::path::Path;

use catrust_evidence::checkpoint::split_notes;
use catrust_evidence::tree::{
    consistency_spans, inclusion_spans, is_consistent, root_from_inclusion, span_root,
};
use catrust_evidence::{EventProof, ExportVerifier, Sha256, SignedCheckpoint, Span, TrustKeys};
use serde::Deserialize;

fn read(name: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name)).unwrap()
}

#[derive(Deserialize)]
struct Tree {
    rows: Vec<Sha256>,
    roots: Vec<Sha256>,
    inclusion: Vec<Inclusion>,
    consistency: Vec<Consistency>,
}

#[derive(Deserialize)]
struct Inclusion {
    index: u64,
    size: u64,
    path: Vec<Sha256>,
}

#[derive(Deserialize)]
struct Consistency {
    old: u64,
    size: u64,
    path: Vec<Sha256>,
}

#[test]
fn trees_and_proofs_are_those_of_the_rfc() {
    let tree: Tree = serde_json::from_str(&read("tree.json")).unwrap();
    let root = |size: u64| tree.roots[usize::try_from(size).unwrap()];
    let roots = |spans: Vec<Span>| -> Vec<Sha256> {
        spans.into_iter().map(|span| span_root(&tree.rows, span)).collect()
    };
    for size in 0..=tree.rows.len() as u64 {
        assert_eq!(span_root(&tree.rows, Span { start: 0, end: size }), root(size), "{size}");
    }
    assert!(tree.inclusion.len() >= 10 && tree.consistency.len() >= 8);
    for Inclusion { index, size, path } in &tree.inclusion {
        assert_eq!(&roots(inclusion_spans(*index, *size)), path, "{index}/{size}");
        let row = tree.rows[usize::try_from(*index).unwrap()];
        assert_eq!(root_from_inclusion(&row, *index, *size, path), Some(root(*size)), "{index}/{size}");
    }
    for Consistency { old, size, path } in &tree.consistency {
        assert_eq!(&roots(consistency_spans(*old, *size)), path, "{old}/{size}");
        assert!(is_consistent(*old, &root(*old), *size, &root(*size), path), "{old}/{size}");
    }
}

#[test]
fn an_export_a_proof_and_checkpoints_of_a_real_log_hold() {
    let keys = TrustKeys::from_pem(&read("key.pem")).unwrap();
    let file = read("checkpoints");
    let (notes, torn) = split_notes(&file);
    assert_eq!((notes.len(), torn), (3, ""));
    let earlier: Vec<_> = notes.iter().map(|note| SignedCheckpoint::open(note, &keys).unwrap()).collect();
    let export = read("export.jsonl");
    let mut verifier = ExportVerifier::new(&keys, &earlier);
    let mut rows = Vec::new();
    for line in export.lines() {
        rows.extend(verifier.line(line).unwrap());
    }
    let report = verifier.finish().unwrap();
    assert_eq!((report.checkpoint.size, report.earlier_checkpoints), (7, 3));

    let proof: EventProof = serde_json::from_str(&read("proof.json")).unwrap();
    let verified = proof.verify(&keys).unwrap();
    assert_eq!(proof.row, rows[3]);
    assert_eq!(verified.checkpoint, report.checkpoint);
}

/// Whatever single byte of an export is another one, it is noticed.
#[test]
fn every_changed_byte_of_an_export_is_noticed() {
    let keys = TrustKeys::from_pem(&read("key.pem")).unwrap();
    let export = read("export.jsonl").into_bytes();
    let holds = |bytes: &[u8]| -> bool {
        let Ok(text) = std::str::from_utf8(bytes) else { return false };
        let mut verifier = ExportVerifier::new(&keys, &[]);
        text.lines().all(|line| verifier.line(line).is_ok()) && verifier.finish().is_ok()
    };
    assert!(holds(&export));
    let first_row = export.iter().position(|byte| *byte == b'\n').unwrap();
    for index in first_row..export.len() - 1 {
        let mut changed = export.clone();
        changed[index] ^= 1;
        assert!(!holds(&changed), "byte {index}: {}", String::from_utf8_lossy(&changed[index - 9..=index]));
    }
}
