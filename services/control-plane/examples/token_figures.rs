//! What a token costs the server, good or forged: `cargo run --release -p
//! catrust-control-plane --example token_figures`.
//!
//! A forged token is refused before anybody is known whom a limit could count, so that its
//! price is what a flood of them costs.

use std::hint::black_box;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use catrust_access::jwt::{JwkSet, Tokens};
use catrust_control_plane::config::JwtConfig;
use catrust_domain::{Sha256, Timestamp};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use serde_json::json;

const NOW: i64 = 1_800_000_000;
const ROUNDS: u32 = 5_000;

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token; `number` makes it another one than the last.
fn token(algorithm: &str, key: &str, number: u32, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let header = json!({"alg": algorithm, "kid": key}).to_string();
    let claims = json!({
        "iss": "https://issuer", "aud": "catrust", "sub": "alice", "account_id": "1", "exp": NOW + 60, "jti": number,
    });
    let signed = format!("{}.{}", base64url(header), base64url(claims.to_string()));
    format!("{signed}.{}", base64url(sign(signed.as_bytes())))
}

/// Microseconds for each of many tokens.
fn microseconds(tokens: &Tokens, shown: &[String], expected: bool) -> f64 {
    let now = Timestamp::from_micros(NOW * 1_000_000);
    let started = Instant::now();
    for token in shown {
        let hash = Sha256::of(token.as_bytes());
        let verified = black_box(tokens.verify(black_box(token), &hash, now));
        assert_eq!(verified.is_ok(), expected, "{token}");
    }
    started.elapsed().as_secs_f64() * 1e6 / shown.len() as f64
}

fn main() {
    let random = SystemRandom::new();
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).expect("a key");
    let es256 =
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).expect("a key");
    let eddsa = Ed25519KeyPair::generate_pkcs8(&random).expect("a key");
    let eddsa = Ed25519KeyPair::from_pkcs8(eddsa.as_ref()).expect("a key");
    let point = es256.public_key().as_ref();
    let set = json!({"keys": [
        {"kty": "EC", "crv": "P-256", "kid": "ec", "x": base64url(&point[1..33]), "y": base64url(&point[33..])},
        {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": base64url(eddsa.public_key())},
    ]});
    let config = JwtConfig {
        issuer: Some("https://issuer".to_owned()),
        audience: Some("catrust".to_owned()),
        ..JwtConfig::default()
    };
    let tokens = Tokens::new(config.rules());
    let keys = JwkSet::parse(set.to_string().as_bytes()).expect("a key set");
    tokens.replace(keys, Timestamp::from_micros(NOW * 1_000_000));

    let by_es256 = |signed: &[u8]| es256.sign(&random, signed).expect("randomness").as_ref().to_vec();
    let by_eddsa = |signed: &[u8]| eddsa.sign(signed).as_ref().to_vec();
    let many = |make: &dyn Fn(u32) -> String| (0..ROUNDS).map(make).collect::<Vec<_>>();
    let good = many(&|number| token("ES256", "ec", number, by_es256));
    let one = vec![good[0].clone(); ROUNDS as usize];
    let rows = [
        ("misshapen", many(&|number| format!("ey{number}.e30.AAAA")), false),
        ("of another algorithm", many(&|number| token("HS256", "ec", number, |_| vec![0; 32])), false),
        ("under an unknown key", many(&|number| token("ES256", "no", number, |_| vec![0; 64])), false),
        ("forged, ES256", many(&|number| token("ES256", "ec", number, |_| vec![1; 64])), false),
        ("forged, EdDSA", many(&|number| token("EdDSA", "ed", number, |_| vec![1; 64])), false),
        ("good, ES256, for the first time", good, true),
        ("good, EdDSA, for the first time", many(&|number| token("EdDSA", "ed", number, by_eddsa)), true),
        ("good, remembered", one, true),
    ];
    for (what, shown, expected) in rows {
        println!("{what:<34} {:>8.2} µs", microseconds(&tokens, &shown, expected));
    }
}
