use rcgen::{
    BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SerialNumber as RcSerial,
};

use super::*;

const CODE: &str = "a-register-code";

struct Ca {
    key: KeyPair,
    params: CertificateParams,
    pem: String,
}

fn ca_with(change: impl FnOnce(&mut CertificateParams)) -> Ca {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Factory, 1");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.serial_number = Some(RcSerial::from(vec![0x7a, 0x0f]));
    change(&mut params);
    let pem = params.self_signed(&key).unwrap().pem();
    Ca { key, params, pem }
}

fn ca() -> Ca {
    ca_with(|_| {})
}

impl Ca {
    fn sign(&self, change: impl FnOnce(&mut CertificateParams)) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, CODE);
        change(&mut params);
        let issuer = Issuer::from_params(&self.params, &self.key);
        params.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap().pem()
    }
}

/// 2026-01-01: inside the default validity of rcgen (1975 to 4096).
fn now() -> Timestamp {
    Timestamp::from_micros(1_767_225_600_000_000)
}

#[track_caller]
fn refused(ca: &str, verification: &str) -> String {
    match prove_possession(ca, verification, now()) {
        Err(ApiError::CertificateContent { field, problem }) => format!("{field}: {problem}"),
        other => panic!("expected CertificateContent, got {other:?}"),
    }
}

#[test]
fn a_signed_code_proves_possession() {
    let ca = ca();
    let proven = prove_possession(&ca.pem, &ca.sign(|_| {}), now()).unwrap();
    assert_eq!(proven.register_code, CODE);
    assert_eq!(proven.facts.sn.as_str(), "7A0F");
    assert_eq!(proven.facts.subject, "CN=Factory\\, 1");
    let again = prove_possession(&proven.facts.ca_content, &ca.sign(|_| {}), now()).unwrap();
    assert_eq!(again.facts, proven.facts, "the re-encoded PEM is the same certificate");
}

#[test]
fn text_around_the_block_is_permitted() {
    let ca = ca();
    let with_text = format!("Certificate:\n  Data: …\n{}\ntrailing text\n", ca.pem);
    assert!(prove_possession(&with_text, &ca.sign(|_| {}), now()).is_ok());
}

#[test]
fn somebody_elses_key_proves_nothing() {
    let (ca, other) = (ca(), ca());
    assert!(refused(&ca.pem, &other.sign(|_| {})).contains("not signed with the CA's key"));
    let stranger = ca_with(|params| params.distinguished_name.push(DnType::OrganizationName, "x"));
    assert!(refused(&ca.pem, &stranger.sign(|_| {})).contains("not issued by the CA"));
}

#[test]
fn leaf_certificates_are_no_cas() {
    let ca = ca();
    for is_ca in [IsCa::NoCa, IsCa::ExplicitNoCa] {
        let leaf = ca_with(|params| params.is_ca = is_ca);
        assert!(refused(&leaf.pem, &ca.sign(|_| {})).contains("CA:TRUE"));
    }
    let no_sign = ca_with(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign]);
    assert!(refused(&no_sign.pem, &no_sign.sign(|_| {})).contains("keyCertSign"));
}

#[test]
fn validity_of_both_certificates_counts() {
    let expired = ca_with(|params| params.not_after = rcgen::date_time_ymd(2025, 12, 31));
    assert!(refused(&expired.pem, &expired.sign(|_| {})).contains("ca_content: expired"));
    let future = ca_with(|params| params.not_before = rcgen::date_time_ymd(2027, 1, 1));
    assert!(refused(&future.pem, &future.sign(|_| {})).contains("ca_content: is not valid before"));
    let ca = ca();
    let stale = ca.sign(|params| params.not_after = rcgen::date_time_ymd(2025, 12, 31));
    assert!(refused(&ca.pem, &stale).contains("verification_content: expired"));
}

#[test]
fn the_last_second_is_inside_the_validity() {
    let ca = ca_with(|params| params.not_after = rcgen::date_time_ymd(2026, 1, 1));
    let verification = ca.sign(|_| {});
    assert!(prove_possession(&ca.pem, &verification, now()).is_ok());
    assert!(prove_possession(&ca.pem, &verification, now().plus_seconds(1)).is_err());
}

#[test]
fn exactly_one_certificate_and_nothing_secret() {
    let ca = ca();
    let code = ca.sign(|_| {});
    assert!(refused(&format!("{0}{0}", ca.pem), &code).contains("more than one certificate"));
    let with_key = format!("{}{}", ca.pem, ca.key.serialize_pem());
    assert!(refused(&with_key, &code).contains("private key"));
    assert!(refused("hello", &code).contains("no PEM block"));
    assert!(
        refused("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n", &code)
            .contains("ca_content")
    );
    let der_garbage = pem_of(&[0x30, 0x03, 1, 2, 3]);
    assert!(refused(&der_garbage, &code).contains("not an X.509"));
}

#[test]
fn trailing_bytes_after_the_der_are_refused() {
    let ca = ca();
    let mut der = single_certificate(CA_FIELD, &ca.pem).unwrap();
    der.push(0);
    assert!(refused(&pem_of(&der), &ca.sign(|_| {})).contains("bytes after"));
}

#[test]
fn a_verification_certificate_needs_one_common_name() {
    let ca = ca();
    let nameless = ca.sign(|params| params.distinguished_name = rcgen::DistinguishedName::new());
    assert!(refused(&ca.pem, &nameless).contains("no common name"));
}

#[test]
fn missing_and_endless_texts_are_field_errors() {
    let ca = ca();
    for text in [String::new(), "x".repeat(MAX_PEM_LENGTH + 1)] {
        assert!(matches!(prove_possession(&text, &ca.pem, now()), Err(ApiError::Fields(_))));
        assert!(matches!(prove_possession(&ca.pem, &text, now()), Err(ApiError::Fields(_))));
    }
}

fn pem_of(der: &[u8]) -> String {
    pem::encode("CERTIFICATE", der)
}

/// Made with `openssl req -x509 -newkey rsa:BITS -HASH`: rcgen makes no weak ones.
#[test]
fn weak_keys_and_signatures_are_refused_with_their_reason() {
    let ca = ca();
    let openssl = |newkey: &str, hash: &str| {
        let directory = tempfile::tempdir().unwrap();
        let (key, certificate) = (directory.path().join("key"), directory.path().join("ca"));
        let output = std::process::Command::new("openssl")
            .args(["req", "-x509", "-nodes", "-days", "36500", "-subj", "/CN=weak", hash, "-newkey", newkey])
            .args(["-addext", "keyUsage=keyCertSign", "-keyout"])
            .arg(key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        std::fs::read_to_string(certificate).unwrap()
    };
    for (newkey, hash, reason) in
        [("rsa:1024", "-sha256", "RSA key of 1024 bits"), ("rsa:2048", "-sha1", "too weak or not supported")]
    {
        let weak = openssl(newkey, hash);
        // After it was made: it is valid from the second in which that was.
        let at = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros();
        let at = Timestamp::from_micros(i64::try_from(at).unwrap());
        let refusal = prove_possession(&weak, &ca.sign(|_| {}), at).unwrap_err();
        let ApiError::CertificateContent { field: "ca_content", problem } = refusal else {
            panic!("{refusal:?}")
        };
        assert!(problem.contains(reason), "{problem}");
    }
}
