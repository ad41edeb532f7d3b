//! X.509 at registration: what makes a certificate a CA certificate that catrust
//! can stand behind, and the proof that whoever registers it holds its key.
//!
//! RFC 5280 for the fields, RFC 7468 for the PEM. Everything here is a function of
//! its arguments; the time is one of them.

mod algorithm;

use catrust_domain::{CertificateFacts, SerialNumber, Sha256, Timestamp};
use catrust_signing::pem;
use x509_parser::certificate::X509Certificate;
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;
use x509_parser::x509::AttributeTypeAndValue;

use crate::error::ApiError;

use catrust_access::distinguished_name::rfc4514;

/// Longest PEM text that is accepted, in bytes.
pub const MAX_PEM_LENGTH: usize = 64 * 1024;

const CA_FIELD: &str = "ca_content";
const VERIFICATION_FIELD: &str = "verification_content";

/// A CA certificate that passed every check, and the code that its key signed.
#[derive(Debug)]
pub struct ProvenCa {
    /// The certificate.
    pub facts: CertificateFacts,
    /// Common name of the verification certificate.
    pub register_code: String,
}

/// Checks a CA certificate and the verification certificate that its key signed.
///
/// # Errors
/// [`ApiError::CertificateContent`] naming the field and what is wrong, or
/// [`ApiError::Fields`] where the text is missing or too long.
pub fn prove_possession(
    ca_content: &str,
    verification_content: &str,
    now: Timestamp,
) -> Result<ProvenCa, ApiError> {
    let lengths = [(CA_FIELD, ca_content), (VERIFICATION_FIELD, verification_content)];
    let violations: Vec<_> =
        lengths.into_iter().filter_map(|(field, text)| length_problem(field, text)).collect();
    if !violations.is_empty() {
        return Err(ApiError::Fields(violations));
    }
    let ca_der = single_certificate(CA_FIELD, ca_content)?;
    let verification_der = single_certificate(VERIFICATION_FIELD, verification_content)?;
    let ca = parse(CA_FIELD, &ca_der)?;
    let verification = parse(VERIFICATION_FIELD, &verification_der)?;
    let facts = ca_facts(&ca, &ca_der, now)?;
    let register_code = proven_code(&ca, &verification, now)?;
    Ok(ProvenCa { facts, register_code })
}

fn length_problem(field: &'static str, text: &str) -> Option<(&'static str, String)> {
    match text.len() {
        0 => Some((field, "is required".to_owned())),
        length if length > MAX_PEM_LENGTH => Some((field, format!("is longer than {MAX_PEM_LENGTH} bytes"))),
        _ => None,
    }
}

fn unusable(field: &'static str, problem: impl Into<String>) -> ApiError {
    ApiError::CertificateContent { field, problem: problem.into() }
}

/// The DER of the only PEM block of the text. Text around the block, as
/// `openssl x509 -text` prints it, is permitted (RFC 7468 §2).
fn single_certificate(field: &'static str, text: &str) -> Result<Vec<u8>, ApiError> {
    let mut certificate = None;
    for block in Pem::iter_from_buffer(text.as_bytes()) {
        let block = block.map_err(|_| unusable(field, "the PEM is malformed"))?;
        match block.label.as_str() {
            "CERTIFICATE" if certificate.is_none() => certificate = Some(block.contents),
            "CERTIFICATE" => {
                return Err(unusable(
                    field,
                    "holds more than one certificate; send the CA certificate alone",
                ));
            }
            label if label.ends_with("PRIVATE KEY") => {
                return Err(unusable(
                    field,
                    "holds a private key; never send one, and consider this key compromised",
                ));
            }
            label => {
                return Err(unusable(
                    field,
                    format!("holds a PEM block {label:.40}, not only a CERTIFICATE"),
                ));
            }
        }
    }
    certificate.ok_or_else(|| unusable(field, "holds no PEM block `-----BEGIN CERTIFICATE-----`"))
}

fn parse<'a>(field: &'static str, der: &'a [u8]) -> Result<X509Certificate<'a>, ApiError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(unusable(field, "has bytes after the certificate's DER")),
        Err(_) => Err(unusable(field, "is not an X.509 certificate in DER")),
    }
}

fn ca_facts(ca: &X509Certificate<'_>, der: &[u8], now: Timestamp) -> Result<CertificateFacts, ApiError> {
    check_version_3(CA_FIELD, ca)?;
    let is_ca = ca
        .basic_constraints()
        .map_err(|_| unusable(CA_FIELD, "has malformed or repeated BasicConstraints"))?
        .is_some_and(|constraints| constraints.value.ca);
    if !is_ca {
        return Err(unusable(
            CA_FIELD,
            "is not a CA certificate: BasicConstraints CA:TRUE is missing (RFC 5280 §4.2.1.9)",
        ));
    }
    let key_usage = ca.key_usage().map_err(|_| unusable(CA_FIELD, "has malformed or repeated KeyUsage"))?;
    if key_usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err(unusable(
            CA_FIELD,
            "may not sign certificates: KeyUsage lacks keyCertSign (RFC 5280 §4.2.1.3)",
        ));
    }
    let (not_before, not_after) = check_validity(CA_FIELD, ca, now)?;
    algorithm::check_key(CA_FIELD, ca)?;
    // A self-issued certificate carries its own proof; others cannot be checked here.
    if ca.subject().as_raw() == ca.issuer().as_raw() {
        algorithm::check_signature(CA_FIELD, ca)?;
        if ca.verify_signature(None).is_err() {
            return Err(unusable(CA_FIELD, "is self-signed, but the signature does not match its key"));
        }
    }
    Ok(CertificateFacts {
        sn: serial_number(ca)?,
        sha256: Sha256::of(der),
        spki_sha256: Sha256::of(ca.public_key().raw),
        subject: rfc4514(ca.subject()),
        subject_key_id: subject_key_id(ca)?,
        issuer: rfc4514(ca.issuer()),
        not_before,
        not_after,
        ca_content: pem::encode("CERTIFICATE", der),
    })
}

fn check_version_3(field: &'static str, certificate: &X509Certificate<'_>) -> Result<(), ApiError> {
    if certificate.version() == x509_parser::x509::X509Version::V3 {
        Ok(())
    } else {
        Err(unusable(field, "is not an X.509 version 3 certificate"))
    }
}

fn serial_number(ca: &X509Certificate<'_>) -> Result<SerialNumber, ApiError> {
    let bytes = ca.raw_serial();
    if bytes.first().is_some_and(|first| first & 0x80 != 0) {
        return Err(unusable(CA_FIELD, "has a negative serial number (RFC 5280 §4.1.2.2)"));
    }
    SerialNumber::from_bytes(bytes)
        .map_err(|problem| unusable(CA_FIELD, format!("has a serial number that {problem}")))
}

fn subject_key_id(ca: &X509Certificate<'_>) -> Result<String, ApiError> {
    use x509_parser::extensions::{ParsedExtension, X509Extension};
    let extension = ca
        .get_extension_unique(&x509_parser::oid_registry::OID_X509_EXT_SUBJECT_KEY_IDENTIFIER)
        .map_err(|_| unusable(CA_FIELD, "has more than one SubjectKeyIdentifier"))?;
    match extension.map(X509Extension::parsed_extension) {
        None => Ok(String::new()),
        Some(ParsedExtension::SubjectKeyIdentifier(id)) => Ok(hex::encode(id.0)),
        Some(_) => Err(unusable(CA_FIELD, "has a malformed SubjectKeyIdentifier")),
    }
}

fn check_validity(
    field: &'static str,
    certificate: &X509Certificate<'_>,
    now: Timestamp,
) -> Result<(Timestamp, Timestamp), ApiError> {
    let at = |time: ASN1Time| Timestamp::from_micros(time.timestamp().saturating_mul(1_000_000));
    let (not_before, not_after) =
        (at(certificate.validity().not_before), at(certificate.validity().not_after));
    if now < not_before {
        return Err(unusable(field, format!("is not valid before {not_before}")));
    }
    // The end is inclusive, to the second (RFC 5280 §4.1.2.5).
    if now >= not_after.plus_seconds(1) {
        return Err(unusable(field, format!("expired at {not_after}")));
    }
    Ok((not_before, not_after))
}

/// The common name of the verification certificate, when the CA's key signed it.
fn proven_code(
    ca: &X509Certificate<'_>,
    verification: &X509Certificate<'_>,
    now: Timestamp,
) -> Result<String, ApiError> {
    check_validity(VERIFICATION_FIELD, verification, now)?;
    if verification.issuer().as_raw() != ca.subject().as_raw() {
        return Err(unusable(
            VERIFICATION_FIELD,
            "was not issued by the CA: its issuer is not the CA's subject",
        ));
    }
    algorithm::check_signature(VERIFICATION_FIELD, verification)?;
    verification
        .verify_signature(Some(ca.public_key()))
        .map_err(|_| unusable(VERIFICATION_FIELD, "is not signed with the CA's key"))?;
    let mut names = verification.subject().iter_common_name();
    match (names.next().map(AttributeTypeAndValue::as_str), names.next()) {
        (Some(Ok(code)), None) => Ok(code.to_owned()),
        (Some(_), _) => {
            Err(unusable(VERIFICATION_FIELD, "has more than one common name, or one that is no text"))
        }
        (None, _) => Err(unusable(
            VERIFICATION_FIELD,
            "has no common name; use the register code from GetRegisterCode",
        )),
    }
}

#[cfg(test)]
mod tests;
