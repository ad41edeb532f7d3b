//! Evidence that somebody hands over: exports, proofs, checkpoints.

use std::path::Path;

use catrust_evidence::checkpoint::split_notes;
use catrust_evidence::{EventProof, ExportVerifier, SignedCheckpoint, TrustKeys};
use catrust_signing::pem;

use crate::runner::{Corpus, run};

const WORDS: &[&str] = &["\n", "\n\n", "— ", " ", "0", "\"row\":", "null", "[]", "{}", "\\u0000", "+", "="];

fn vector(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../evidence/vectors");
    std::fs::read_to_string(folder.join(name)).expect("the vector")
}

fn keys() -> TrustKeys {
    TrustKeys::from_pem(&vector("key.pem")).expect("the key")
}

#[test]
fn checkpoints() {
    let (keys, file) = (keys(), vector("checkpoints"));
    let (notes, _) = split_notes(&file);
    let texts: Vec<String> = notes
        .iter()
        .map(|note| SignedCheckpoint::open(note, &keys).expect("genuine").checkpoint.text())
        .collect();
    run(&Corpus::of(notes.clone(), WORDS), |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        for note in split_notes(text).0 {
            if let Ok(signed) = SignedCheckpoint::open(note, &keys) {
                assert!(texts.contains(&signed.checkpoint.text()), "{note}");
            }
        }
    });
}

#[test]
fn proofs() {
    let (keys, proof) = (keys(), vector("proof.json"));
    let genuine: EventProof = serde_json::from_str(&proof).expect("the vector");
    let genuine = genuine.verify(&keys).expect("genuine").event;
    run(&Corpus::of([proof], WORDS), |input| {
        let Ok(proof) = serde_json::from_slice::<EventProof>(input) else { return };
        if let Ok(verified) = proof.verify(&keys) {
            assert_eq!(verified.event, genuine);
        }
    });
}

#[test]
fn exports() {
    let (keys, export) = (keys(), vector("export.jsonl"));
    let rows = |text: &str| {
        let mut verifier = ExportVerifier::new(&keys, &[]);
        let rows = text.lines().map(|line| verifier.line(line)).collect::<Result<Vec<_>, _>>();
        rows.and_then(|rows| verifier.finish().map(|_| rows.into_iter().flatten().collect::<Vec<_>>()))
    };
    let genuine = rows(&export).expect("genuine");
    run(&Corpus::of([export.clone()], WORDS), |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        if let Ok(rows) = rows(text) {
            assert_eq!(rows, genuine);
        }
    });
}

#[test]
fn keys_in_pem() {
    let samples = [vector("key.pem"), pem::encode("PRIVATE KEY", &[7; 48])];
    run(
        &Corpus::of(samples, &["-----BEGIN PUBLIC KEY-----", "-----END PUBLIC KEY-----", "\n", "MCow"]),
        |input| {
            let Ok(text) = std::str::from_utf8(input) else { return };
            if let Ok(keys) = TrustKeys::from_pem(text) {
                assert_eq!(
                    TrustKeys::from_pem(&keys.to_pem()).map(|again| again.to_pem()).ok(),
                    Some(keys.to_pem())
                );
            }
            let _ = catrust_signing::SigningKey::from_pem(text);
        },
    );
}
