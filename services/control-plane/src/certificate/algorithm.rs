//! Which keys and signatures are good enough: those that the enforcing side verifies.
//! A CA with any other would be ACTIVE in the record and refused at every broker.

use x509_parser::certificate::X509Certificate;
use x509_parser::public_key::PublicKey;

use super::unusable;
use crate::error::ApiError;

const SUPPORTED: &str =
    "use RSA (2,048 bits or more), ECDSA on P-256 or P-384, each with SHA-256 or better, or Ed25519";
/// NIST SP 800-131A: shorter ones have been disallowed since 2014.
const MIN_RSA_BITS: usize = 2_048;
const P256: &str = "1.2.840.10045.3.1.7";
const P384: &str = "1.3.132.0.34";
const EC_PUBLIC_KEY: &str = "1.2.840.10045.2.1";
const ED25519: &str = "1.3.101.112";

/// RSA PKCS#1 with SHA-256, -384, -512; ECDSA with SHA-256, -384; Ed25519.
const SIGNATURES: [&str; 6] = [
    "1.2.840.113549.1.1.11",
    "1.2.840.113549.1.1.12",
    "1.2.840.113549.1.1.13",
    "1.2.840.10045.4.3.2",
    "1.2.840.10045.4.3.3",
    ED25519,
];

/// Checks the algorithm that a certificate is signed with.
pub(super) fn check_signature(
    field: &'static str,
    certificate: &X509Certificate<'_>,
) -> Result<(), ApiError> {
    let oid = certificate.signature_algorithm.algorithm.to_id_string();
    if SIGNATURES.contains(&oid.as_str()) {
        return Ok(());
    }
    Err(unusable(
        field,
        format!("is signed with the algorithm {oid}, which is too weak or not supported; {SUPPORTED}"),
    ))
}

/// Checks the key that a certificate holds.
pub(super) fn check_key(field: &'static str, certificate: &X509Certificate<'_>) -> Result<(), ApiError> {
    let key = certificate.public_key();
    let oid = key.algorithm.algorithm.to_id_string();
    match key.parsed() {
        Ok(PublicKey::RSA(rsa)) if rsa.key_size() >= MIN_RSA_BITS => Ok(()),
        Ok(PublicKey::RSA(rsa)) => {
            Err(unusable(field, format!("has an RSA key of {} bits; {SUPPORTED}", rsa.key_size())))
        }
        _ if oid == EC_PUBLIC_KEY => {
            let parameters = key.algorithm.parameters.as_ref();
            let curve = parameters.and_then(|parameters| parameters.as_oid().ok());
            match curve.map(|curve| curve.to_id_string()).as_deref() {
                Some(P256 | P384) => Ok(()),
                _ => Err(unusable(field, format!("has a key on another curve; {SUPPORTED}"))),
            }
        }
        _ if oid == ED25519 => Ok(()),
        _ => Err(unusable(field, format!("has a key of the kind {oid}; {SUPPORTED}"))),
    }
}
