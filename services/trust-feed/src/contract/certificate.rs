//! A certificate that parses and was signed by nobody: enough for a feed, which
//! carries certificates, and for readers, which hash them.

/// `SEQUENCE { OID 1.3.101.112 }`: Ed25519 (RFC 8410 §3).
const ED25519: [u8; 7] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
/// `OID 2.5.4.3`: common name.
const COMMON_NAME: [u8; 5] = [0x06, 0x03, 0x55, 0x04, 0x03];
/// The times of validity that a sample log's facts state, as UTCTime.
const VALIDITY: [&[u8]; 2] = [b"231114221320Z", b"330518033320Z"];

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const UTF8_STRING: u8 = 0x0c;
const UTC_TIME: u8 = 0x17;
const VERSION: u8 = 0xa0;

/// The DER of a certificate with this serial number, common name and Ed25519 key, and
/// the DER of its SubjectPublicKeyInfo.
pub fn made_up(serial: &[u8], common_name: &str, key: &[u8; 32]) -> (Vec<u8>, Vec<u8>) {
    let spki = wrap(SEQUENCE, &[&ED25519, &bits(key)]);
    let attribute = wrap(SEQUENCE, &[&COMMON_NAME, &wrap(UTF8_STRING, &[common_name.as_bytes()])]);
    let name = wrap(SEQUENCE, &[&wrap(SET, &[&attribute])]);
    let [not_before, not_after] = VALIDITY.map(|time| wrap(UTC_TIME, &[time]));
    let body = wrap(
        SEQUENCE,
        &[
            &wrap(VERSION, &[&wrap(INTEGER, &[&[2]])]),
            // A leading zero byte keeps it positive.
            &wrap(INTEGER, &[&[0], serial]),
            &ED25519,
            &name,
            &wrap(SEQUENCE, &[&not_before, &not_after]),
            &name,
            &spki,
        ],
    );
    (wrap(SEQUENCE, &[&body, &ED25519, &bits(&[0; 64])]), spki)
}

fn bits(bytes: &[u8]) -> Vec<u8> {
    wrap(BIT_STRING, &[&[0], bytes])
}

/// Tag, length and the parts one after another; at most 65,535 bytes.
fn wrap(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let [.., high, low] = content.len().to_be_bytes();
    let mut der = vec![tag];
    match (high, low) {
        (0, 0..=0x7f) => der.push(low),
        (0, _) => der.extend([0x81, low]),
        _ => der.extend([0x82, high, low]),
    }
    der.extend(content);
    der
}
