//! What a hostile chain can cost, in milliseconds: full chains of several shapes, for
//! P-256 and RSA-2048. For a release build:
//! `cargo run --release -p catrust-device-trust --example path_cost`.
#![expect(clippy::unwrap_used, reason = "a figure that cannot be taken ends the program")]

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use catrust_device_trust::{Anchor, Effort, MAX_CHAIN_BYTES, MAX_NAMESAKES, TrustSet};
use catrust_domain::CaState;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, GeneralSubtree, IsCa, Issuer, KeyPair,
    NameConstraints, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SanType,
};
use rustls_pki_types::{CertificateDer, UnixTime};

const ROUNDS: usize = 200;

type MakeKey = fn() -> KeyPair;

fn main() {
    // The largest public exponent that ring takes makes the dearest check.
    let kinds: [(&str, MakeKey); 3] = [
        ("P-256", || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()),
        ("RSA-2048", || rsa_key("65537")),
        ("RSA-2048, e = 2^33-1", || rsa_key("8589934591")),
    ];
    println!("{:<22} {:<52} {:>6} {:>6} {:>9} {:>9}", "keys", "chain", "checks", "asked", "p50 ms", "max ms");
    for (kind, key) in kinds {
        let keys: Vec<KeyPair> = (0..14).map(|_| key()).collect();
        let mut worst = Duration::ZERO;
        for (shape, set, chain) in shapes(&keys) {
            let bytes: usize = chain.iter().map(|certificate| certificate.len()).sum();
            assert!(bytes <= MAX_CHAIN_BYTES, "{shape}: {bytes} bytes");
            let (effort, spans) = measure(&set, &chain);
            let (middle, most) = (spans[ROUNDS / 2], spans[ROUNDS - 1]);
            worst = worst.max(middle);
            println!(
                "{kind:<22} {shape:<52} {:>6} {:>6} {:>9.3} {:>9.3}",
                effort.signature_checks,
                effort.questions,
                middle.as_secs_f64() * 1000.0,
                most.as_secs_f64() * 1000.0
            );
        }
        println!("{kind:<22} worst {:.3} ms", worst.as_secs_f64() * 1000.0);
    }
}

fn measure(set: &TrustSet, chain: &[CertificateDer<'static>]) -> (Effort, Vec<Duration>) {
    let now = UnixTime::now();
    let mut spans = Vec::new();
    let mut effort = Effort::default();
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        effort = set.verify_counted(chain, now).1;
        spans.push(begin.elapsed());
    }
    spans.sort();
    (effort, spans)
}

fn rsa_key(exponent: &str) -> KeyPair {
    let exponent = format!("rsa_keygen_pubexp:{exponent}");
    let arguments = ["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-pkeyopt"];
    let output = Command::new("openssl").args(arguments).arg(exponent).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    KeyPair::from_pem_and_sign_algo(&String::from_utf8(output.stdout).unwrap(), &PKCS_RSA_SHA256).unwrap()
}

fn params(name: &str, is_ca: bool) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

/// A certificate for `key`, which says that `issuer` signed it; `signer` did.
fn sign(
    params: &CertificateParams,
    key: &KeyPair,
    issuer: &str,
    signer: &KeyPair,
) -> CertificateDer<'static> {
    params.signed_by(key, &Issuer::new(self::params(issuer, true), signer)).unwrap().into()
}

fn fat(name: &str, is_ca: bool, bytes: usize) -> CertificateParams {
    let mut params = params(name, is_ca);
    params.custom_extensions.push(CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5; bytes]));
    params
}

/// With as many extensions as a certificate may have.
fn busy(name: &str, is_ca: bool) -> CertificateParams {
    let mut params = params(name, is_ca);
    for number in 0..27 {
        params.custom_extensions.push(CustomExtension::from_oid_content(&[1, 2, 3, number], vec![5; 60]));
    }
    params
}

fn set(anchors: impl IntoIterator<Item = CertificateDer<'static>>) -> TrustSet {
    let mut set = TrustSet::default();
    for der in anchors {
        assert!(set.add(&Arc::new(Anchor::read(&der).unwrap()), CaState::Active));
    }
    set
}

/// As many anchors of the subject X as are tried.
fn namesakes(keys: &[KeyPair]) -> TrustSet {
    set(keys[..MAX_NAMESAKES].iter().map(|key| sign(&params("X", true), key, "X", key)))
}

type Shape = (&'static str, TrustSet, Vec<CertificateDer<'static>>);

fn shapes(keys: &[KeyPair]) -> Vec<Shape> {
    let stranger = &keys[13];
    // Four of one subject with four keys, none signed by any of the others.
    let crowd = |leaf: CertificateParams, other: &dyn Fn() -> CertificateParams| {
        let mut chain = vec![sign(&leaf, &keys[12], "X", stranger)];
        chain.extend(keys[8..12].iter().map(|key| sign(&other(), key, "X", stranger)));
        chain
    };
    let thin = || params("X", true);
    let mut shapes = vec![
        (
            "no anchor of the name",
            set([sign(&params("Y", true), &keys[0], "Y", &keys[0])]),
            crowd(params("d", false), &thin),
        ),
        ("four of one subject below eight namesakes", namesakes(keys), crowd(params("d", false), &thin)),
        (
            "the same, the device's certificate of 12 KiB",
            namesakes(keys),
            crowd(fat("d", false, 11_800), &thin),
        ),
        ("the same, all of 3 KiB", namesakes(keys), crowd(fat("d", false, 2_400), &|| fat("X", true, 2_400))),
        ("the same, 28 extensions each", namesakes(keys), crowd(busy("d", false), &|| busy("X", true))),
        (
            "the device's certificate alone, 15 KiB",
            namesakes(keys),
            vec![sign(&fat("d", false, 15_000), &keys[12], "X", stranger)],
        ),
    ];
    // Signed in a row, each with the key of the next.
    let mut row = vec![sign(&params("d", false), &keys[12], "X", &keys[8])];
    row.extend((8..12).map(|place| {
        let signer = if place == 11 { &keys[0] } else { &keys[place + 1] };
        sign(&thin(), &keys[place], "X", signer)
    }));
    let root = || set([sign(&params("X", true), &keys[0], "X", &keys[0])]);
    shapes.push(("a valid row of four of one subject", root(), row.clone()));
    row[1..].reverse();
    shapes.push(("the same, the other way round", root(), row));
    // Valid, but for the last name; four twins, so that each of them is a path.
    let constrained = || {
        let mut params = params("X", true);
        let permitted_subtrees =
            (0..10).map(|number| GeneralSubtree::DnsName(format!("c{number}.example"))).collect();
        params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
        params
    };
    let mut leaf = params("d", false);
    leaf.subject_alt_names = (0..20)
        .map(|number| {
            SanType::DnsName(format!("d.c{}.example", if number == 19 { 99 } else { 9 }).try_into().unwrap())
        })
        .collect();
    let mut twins = vec![sign(&leaf, &keys[12], "X", &keys[8])];
    for filler in 0..4 {
        let mut params = constrained();
        params.custom_extensions.push(CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![filler; 9]));
        twins.push(sign(&params, &keys[8], "X", &keys[0]));
    }
    shapes.push(("four twins with name constraints", root(), twins));
    shapes
}
