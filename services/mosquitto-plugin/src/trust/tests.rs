use rcgen::date_time_ymd;

use super::*;
use crate::testing::Authority;

/// 2023-11-14.
const NOW: i64 = 1_700_000_000;
const ACTIVE: CaState = CaState::Active;
const INACTIVE: CaState = CaState::Inactive(InactivationScope::Key);
const SUPERSEDED: CaState = CaState::Inactive(InactivationScope::Certificate);

fn set(states: &[(&Authority, CaState)]) -> TrustSet {
    let entries: Vec<_> = states.iter().map(|(ca, state)| Entry::new(&ca.der, *state)).collect();
    TrustSet::new(&entries).unwrap().0
}

fn verify(trust: &TrustSet, leaf: &[u8], chain: &[&Authority]) -> Result<Vouched, Refusal> {
    let presented: Vec<_> = chain.iter().map(|ca| ca.der.clone()).collect();
    trust.verify(leaf, &presented, &Intermediates::default(), NOW).map(|path| path.vouched)
}

#[test]
fn the_empty_set_trusts_nobody() {
    let a = Authority::new("A");
    assert_eq!(verify(&TrustSet::default(), &a.device("d").der, &[]), Err(Refusal::UnknownIssuer));
}

#[test]
fn the_vouching_ca_is_named_and_the_path_holds_as_long_as_it_is_active() {
    let (a, b) = (Authority::new("A"), Authority::new("B"));
    let both = set(&[(&a, ACTIVE), (&b, ACTIVE)]);
    let vouched = verify(&both, &a.device("d").der, &[]).unwrap();
    assert_eq!(vouched.anchor, Sha256::of(&a.der));
    assert!(both.still_holds(&vouched, NOW));
    assert!(set(&[(&a, ACTIVE), (&b, INACTIVE)]).still_holds(&vouched, NOW));
    for fallen in [set(&[(&a, INACTIVE), (&b, ACTIVE)]), set(&[(&a, SUPERSEDED)]), set(&[(&b, ACTIVE)])] {
        assert!(!fallen.still_holds(&vouched, NOW));
    }
    assert!(!both.still_holds(&vouched, i64::MAX), "expired");
}

#[test]
fn a_key_that_is_denied_takes_its_renewed_and_cross_signed_certificates_along() {
    let (a, b) = (Authority::new("A"), Authority::new("B"));
    let (renewed, cross) = (a.renewed(), a.cross_signed_by(&b));
    let leaf = a.device("d").der;
    let before = set(&[(&a, ACTIVE), (&renewed, ACTIVE), (&b, ACTIVE)]);
    let direct = verify(&before, &leaf, &[]).unwrap();
    let crossed = verify(&set(&[(&b, ACTIVE)]), &leaf, &[&cross]).unwrap();
    let after = set(&[(&a, INACTIVE), (&renewed, ACTIVE), (&b, ACTIVE)]);
    assert_eq!(verify(&after, &leaf, &[]), Err(Refusal::Inactive));
    assert_eq!(verify(&after, &leaf, &[&cross]), Err(Refusal::Inactive));
    assert!(!after.still_holds(&direct, NOW));
    assert!(!after.still_holds(&crossed, NOW));
}

#[test]
fn a_superseded_certificate_is_denied_and_its_key_is_not() {
    let (a, b) = (Authority::new("A"), Authority::new("B"));
    let (renewed, cross) = (a.renewed(), a.cross_signed_by(&b));
    let leaf = a.device("d").der;
    let trust = set(&[(&a, SUPERSEDED), (&renewed, ACTIVE)]);
    assert_eq!(verify(&trust, &leaf, &[]).unwrap().anchor, Sha256::of(&renewed.der));
    // As an intermediate, it is denied as well.
    let trust = set(&[(&cross, SUPERSEDED), (&b, ACTIVE)]);
    assert_eq!(verify(&trust, &leaf, &[&cross]), Err(Refusal::Inactive));
}

#[test]
fn a_denied_intermediate_does_not_hide_another_path() {
    let (a, b, c) = (Authority::new("A"), Authority::new("B"), Authority::new("C"));
    let (over_b, over_c) = (a.cross_signed_by(&b), a.cross_signed_by(&c));
    let trust = set(&[(&over_b, SUPERSEDED), (&b, ACTIVE), (&c, ACTIVE)]);
    let vouched = verify(&trust, &a.device("d").der, &[&over_b, &over_c]).unwrap();
    assert_eq!(vouched.anchor, Sha256::of(&c.der));
}

#[test]
fn a_device_with_the_key_of_an_inactive_ca_is_refused() {
    let (a, b) = (Authority::new("A"), Authority::new("B"));
    let leaf = b.device_with_key_of(&a, "d").der;
    let vouched = verify(&set(&[(&a, ACTIVE), (&b, ACTIVE)]), &leaf, &[]).unwrap();
    let trust = set(&[(&a, INACTIVE), (&b, ACTIVE)]);
    assert_eq!(verify(&trust, &leaf, &[]), Err(Refusal::Inactive));
    assert!(!trust.still_holds(&vouched, NOW));
}

#[test]
fn anchors_intermediates_and_leaves_are_valid_only_in_their_time() {
    let late = |name: &str| Authority::with(name, |params| params.not_before = date_time_ymd(2024, 1, 1));
    let early = |name: &str| Authority::with(name, |params| params.not_after = date_time_ymd(2023, 1, 1));
    for ca in [late("L"), early("E")] {
        let trust = set(&[(&ca, ACTIVE)]);
        assert_eq!(verify(&trust, &ca.device("d").der, &[]), Err(Refusal::Expired));
        // As an intermediate below a root that is valid.
        let root = Authority::new("R");
        let trust = set(&[(&root, ACTIVE)]);
        let below = ca.cross_signed_by(&root);
        assert_eq!(verify(&trust, &ca.device("d").der, &[&below]), Err(Refusal::Expired));
    }
    let a = Authority::new("A");
    let leaf = a.device_with("d", |params| params.not_after = date_time_ymd(2023, 1, 1)).der;
    assert_eq!(verify(&set(&[(&a, ACTIVE)]), &leaf, &[]), Err(Refusal::Expired));
}

#[test]
fn the_time_of_a_path_is_the_shortest_of_its_certificates() {
    let root = Authority::new("R");
    let short = Authority::with("I", |params| params.not_after = date_time_ymd(2025, 1, 1));
    let below = short.cross_signed_by(&root);
    let trust = set(&[(&root, ACTIVE)]);
    let vouched = verify(&trust, &short.device("d").der, &[&below]).unwrap();
    let end = Certificate::parse(&below.der).unwrap().validity.not_after;
    assert!(trust.still_holds(&vouched, end));
    assert!(!trust.still_holds(&vouched, end + 1));
}

#[test]
fn long_chains_and_malformed_certificates_are_refused_before_any_work() {
    let a = Authority::new("A");
    let trust = set(&[(&a, ACTIVE)]);
    let others: Vec<_> = (0..9).map(|number| Authority::new(&format!("O{number}"))).collect();
    let others: Vec<_> = others.iter().collect();
    let leaf = a.device("d").der;
    assert!(verify(&trust, &leaf, &others[..8]).is_ok());
    assert_eq!(verify(&trust, &leaf, &others), Err(Refusal::ChainTooLong));
    let fat = vec![vec![0; 16 * 1024 + 1]];
    let refusal = trust.verify(&leaf, &fat, &Intermediates::default(), NOW).unwrap_err();
    assert_eq!(refusal, Refusal::ChainTooLong);
    assert_eq!(verify(&trust, b"no certificate", &[]), Err(Refusal::Malformed));
}

#[test]
fn a_signature_of_another_key_with_the_same_name_is_no_path() {
    let (a, impostor) = (Authority::new("A"), Authority::new("A"));
    assert_eq!(verify(&set(&[(&a, ACTIVE)]), &impostor.device("d").der, &[]), Err(Refusal::UnknownIssuer));
}

#[test]
fn the_digest_is_that_of_the_domain_and_entries_come_once() {
    let (a, b) = (Authority::new("A"), Authority::new("B"));
    let entries = [Entry::new(&a.der, ACTIVE), Entry::new(&b.der, SUPERSEDED)];
    let mut hash = SetHash::empty();
    for (ca, state) in [(&b, SUPERSEDED), (&a, ACTIVE)] {
        let link = Certificate::parse(&ca.der).unwrap().link;
        hash.add(&canonical_entry(&link.sha256, &link.spki_sha256, state));
    }
    assert_eq!(TrustSet::new(&entries).unwrap().1, hash.digest());
    let twice = [Entry::new(&a.der, ACTIVE), Entry::new(&a.der, INACTIVE)];
    assert_eq!(TrustSet::new(&twice).unwrap_err(), InvalidEntries::Repeated(1));
    let damaged = [Entry::new(b"x", INACTIVE)];
    assert_eq!(TrustSet::new(&damaged).unwrap_err(), InvalidEntries::NotACertificate(0));
}
