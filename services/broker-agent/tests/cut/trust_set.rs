//! Which chains are trusted: the collisions that brokers get wrong.

use catrust_broker_agent::{Refusal, RevisionTrust};
use catrust_domain::CaState;
use rustls::pki_types::UnixTime;

use crate::fixtures::{ACTIVE, Ca, Device, INACTIVE, SUPERSEDED, trust};

fn set(states: &[(&Ca, CaState)]) -> RevisionTrust {
    RevisionTrust::new(&trust(1, states).bundle, true, &RevisionTrust::nothing())
}

fn vouches(set: &RevisionTrust, device: &Device) -> Result<catrust_domain::Sha256, Refusal> {
    set.admit(&device.chain, UnixTime::now()).map(|path| path.anchor())
}

#[test]
fn an_active_ca_vouches_for_its_devices_and_nobody_elses() {
    let (a, b) = (Ca::new("A"), Ca::new("B"));
    let set = set(&[(&a, ACTIVE), (&b, INACTIVE)]);
    assert_eq!(vouches(&set, &a.device("a1")), Ok(a.sha256()));
    assert!(vouches(&set, &b.device("b1")).is_err());
    assert!(vouches(&set, &Ca::new("C").device("c1")).is_err());
}

#[test]
fn no_active_ca_no_bundle_and_a_stale_bundle_refuse_everybody() {
    let a = Ca::new("A");
    let device = a.device("a1");
    assert_eq!(vouches(&RevisionTrust::nothing(), &device), Err(Refusal::Stale));
    assert!(vouches(&set(&[]), &device).is_err());
    let stale = RevisionTrust::new(&trust(1, &[(&a, ACTIVE)]).bundle, false, &RevisionTrust::nothing());
    assert_eq!(vouches(&stale, &device), Err(Refusal::Stale));
    assert!(stale.verify(&device.chain, UnixTime::now()).is_ok());
}

#[test]
fn a_namesake_with_another_key_neither_helps_nor_harms() {
    let a = Ca::new("A");
    let other = a.namesake();
    for device in [a.device("a1"), a.device_without_key_id("a2")] {
        assert_eq!(vouches(&set(&[(&a, ACTIVE), (&other, ACTIVE)]), &device), Ok(a.sha256()));
        assert_eq!(vouches(&set(&[(&a, ACTIVE), (&other, INACTIVE)]), &device), Ok(a.sha256()));
        assert!(vouches(&set(&[(&a, INACTIVE), (&other, ACTIVE)]), &device).is_err());
    }
}

#[test]
fn forty_namesakes_do_not_hide_the_ca_of_a_device_and_seven_not_without_key_id() {
    let a = Ca::new("A");
    let others: Vec<Ca> = (0..40).map(|_| a.namesake()).collect();
    let states: Vec<_> = others.iter().chain([&a]).map(|ca| (ca, ACTIVE)).collect();
    assert_eq!(vouches(&set(&states), &a.device("a1")), Ok(a.sha256()));
    assert_eq!(vouches(&set(&states[33..]), &a.device_without_key_id("a1")), Ok(a.sha256()));
}

#[test]
fn a_renewed_certificate_falls_with_its_key_and_stays_when_only_the_old_one_is_superseded() {
    let old = Ca::new("A");
    let new = old.renewed();
    let device = old.device("a1");
    assert!(vouches(&set(&[(&old, INACTIVE), (&new, ACTIVE)]), &device).is_err());
    assert_eq!(vouches(&set(&[(&old, SUPERSEDED), (&new, ACTIVE)]), &device), Ok(new.sha256()));
    assert!(vouches(&set(&[(&old, SUPERSEDED)]), &device).is_err());
}

#[test]
fn a_cross_signed_path_from_an_active_ca_is_refused() {
    let (a, b) = (Ca::new("A"), Ca::new("B"));
    let mut device = a.device("a1");
    device.chain.push(a.cross_signed_by(&b));
    assert_eq!(vouches(&set(&[(&b, ACTIVE)]), &device), Ok(b.sha256()));
    assert_eq!(vouches(&set(&[(&a, INACTIVE), (&b, ACTIVE)]), &device), Err(Refusal::Inactive));
}

#[test]
fn an_inactive_intermediate_below_an_active_root_is_refused() {
    let root = Ca::new("root");
    let (inner, other) = (root.intermediate("inner"), root.intermediate("other"));
    let device = inner.device("d1");
    assert_eq!(vouches(&set(&[(&root, ACTIVE)]), &device), Ok(root.sha256()));
    for state in [INACTIVE, SUPERSEDED] {
        let set = set(&[(&root, ACTIVE), (&inner, state)]);
        assert_eq!(vouches(&set, &device), Err(Refusal::Inactive), "{state:?}");
        assert_eq!(vouches(&set, &other.device("d2")), Ok(root.sha256()), "{state:?}");
    }
}

#[test]
fn an_active_intermediate_vouches_alone_for_devices_that_send_no_chain() {
    let root = Ca::new("root");
    let inner = root.intermediate("inner");
    let mut device = inner.device("d1");
    device.chain.truncate(1);
    let set = set(&[(&inner, ACTIVE), (&root, INACTIVE)]);
    assert_eq!(vouches(&set, &device), Ok(inner.sha256()));
}

#[test]
fn a_device_with_the_key_of_an_inactive_ca_is_refused() {
    let (a, b) = (Ca::new("A"), Ca::new("B"));
    let thief = a.as_device_of(&b);
    assert_eq!(vouches(&set(&[(&a, ACTIVE), (&b, ACTIVE)]), &thief), Ok(b.sha256()));
    assert_eq!(vouches(&set(&[(&a, INACTIVE), (&b, ACTIVE)]), &thief), Err(Refusal::Inactive));
}

#[test]
fn an_anchor_vouches_only_while_it_is_valid() {
    let end = UnixTime::now().as_secs() + 1000;
    let a = Ca::valid_until("A", std::time::UNIX_EPOCH + std::time::Duration::from_secs(end));
    let (set, device) = (set(&[(&a, ACTIVE)]), a.device("a1"));
    let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    assert!(set.admit(&device.chain, at(end)).is_ok());
    assert!(set.admit(&device.chain, at(end + 1)).is_err());
    assert!(set.admit(&device.chain, at(end)).is_ok());
}

#[test]
fn of_twins_the_one_that_is_valid_longest_vouches() {
    let long = Ca::new("A");
    let set = set(&[(&long, ACTIVE)]);
    assert_eq!(vouches(&set, &long.renewed().device("a1")), Ok(long.sha256()));
}

#[test]
fn a_server_certificate_and_a_ca_certificate_are_no_devices() {
    let a = Ca::new("A");
    let set = set(&[(&a, ACTIVE)]);
    let (server, _) = a.server();
    let der = rustls::pki_types::pem::PemObject::from_pem_slice(server.as_bytes()).unwrap();
    assert!(matches!(set.admit(&[der], UnixTime::now()), Err(Refusal::WrongPurpose)));
    assert!(matches!(set.admit(std::slice::from_ref(&a.der), UnixTime::now()), Err(Refusal::WrongPurpose)));
}

#[test]
fn chains_without_end_and_garbage_are_refused() {
    let a = Ca::new("A");
    let (set, device) = (set(&[(&a, ACTIVE)]), a.device("a1"));
    // A certificate that is sent twice counts once.
    let others = (0..5).map(|_| Ca::new("A").der).collect();
    let long = [device.chain.clone(), others].concat();
    assert_eq!(set.admit(&long, UnixTime::now()).unwrap_err(), Refusal::ChainTooLong);
    let big = [device.chain, vec![vec![0; 20_000].into()]].concat();
    assert_eq!(set.admit(&big, UnixTime::now()).unwrap_err(), Refusal::ChainTooLong);
    assert_eq!(set.admit(&[vec![7; 90].into()], UnixTime::now()).unwrap_err(), Refusal::Malformed);
    assert_eq!(set.admit(&[], UnixTime::now()).unwrap_err(), Refusal::NoCertificate);
}

#[test]
fn an_entry_whose_content_is_another_certificate_vouches_for_nobody() {
    let (a, b) = (Ca::new("A"), Ca::new("B"));
    let mut entry = a.entry(ACTIVE);
    let mut facts = (*entry.facts).clone();
    facts.ca_content = b.pem.clone();
    entry.facts = facts.into();
    let mut bundle = (*trust(1, &[(&b, ACTIVE)]).bundle).clone();
    bundle.entries.push(entry);
    let set = RevisionTrust::new(&bundle, true, &RevisionTrust::nothing());
    assert_eq!(set.unusable().len(), 1);
    assert!(vouches(&set, &a.device("a1")).is_err());
    assert_eq!(vouches(&set, &b.device("b1")), Ok(b.sha256()));
}
