//! What callers send at registration.

use catrust_control_plane::certificate::prove_possession;
use catrust_domain::Timestamp;
use catrust_signing::pem;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use crate::runner::{Corpus, run};

const WORDS: &[&str] =
    &["-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----", "-----", "\r\n", "\n", "=", "MII", "\0"];

/// In the validity that rcgen gives by default.
const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_000_000);
const CODE: &str = "0123456789abcdef0123456789abcdef";

/// DER of a CA certificate, and of the certificate that proves possession of its key.
fn proof() -> (Vec<u8>, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.distinguished_name.push(DnType::CommonName, "CA");
    ca.distinguished_name.push(DnType::OrganizationName, "Ünïcode");
    let certificate = ca.self_signed(&key).unwrap();
    let mut verification = CertificateParams::default();
    verification.distinguished_name.push(DnType::CommonName, CODE);
    let issuer = Issuer::new(ca, key);
    let verification = verification.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
    (certificate.der().to_vec(), verification.der().to_vec())
}

fn certificate(der: &[u8]) -> String {
    pem::encode("CERTIFICATE", der)
}

#[test]
fn pem_of_ca_certificates() {
    let (ca, verification) = proof();
    let verification = certificate(&verification);
    let both = format!("{}{}", certificate(&ca), certificate(&ca));
    run(&Corpus::of([certificate(&ca), both], WORDS), |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        if let Ok(proven) = prove_possession(text, &verification, NOW) {
            assert_eq!(proven.register_code, CODE);
            let again = prove_possession(&proven.facts.ca_content, &verification, NOW);
            assert_eq!(again.expect("what is kept is good").facts, proven.facts);
        }
    });
}

#[test]
fn der_of_ca_certificates() {
    let (ca, verification) = proof();
    let verification = certificate(&verification);
    run(&Corpus::of([ca], &["\u{30}", "\u{6}\u{3}\u{55}\u{1d}\u{13}", "\u{1}\u{1}"]), |input| {
        if let Ok(proven) = prove_possession(&certificate(input), &verification, NOW) {
            let kept: Option<pem::CertificateDer<'_>> = pem::decode_one(&proven.facts.ca_content);
            assert_eq!(kept.as_deref(), Some(input));
        }
    });
}

#[test]
fn der_of_verification_certificates() {
    let (ca, verification) = proof();
    let ca = certificate(&ca);
    assert!(prove_possession(&ca, &certificate(&verification), NOW).is_ok());
    run(&Corpus::of([verification], &["\u{30}", "\u{6}\u{3}\u{55}\u{4}\u{3}"]), |input| {
        if let Ok(proven) = prove_possession(&ca, &certificate(input), NOW) {
            assert_eq!(proven.register_code, CODE, "the code is under the signature");
        }
    });
}
