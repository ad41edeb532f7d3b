//! JWTs and the sets of keys that sign them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use catrust_access::jwt::{JwkSet, Tokens};
use catrust_control_plane::config::JwtConfig;
use catrust_domain::{Sha256, Timestamp};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::runner::{Corpus, run};

const SECOND: i64 = 1_800_000_000;
const NOW: Timestamp = Timestamp::from_micros(SECOND * 1_000_000);
const HEADER: &str = r#"{"alg":"EdDSA","kid":"k"}"#;
const WORDS: &[&str] = &[
    "\"alg\"",
    "\"none\"",
    "\"HS256\"",
    "\"kid\"",
    "\"crit\"",
    "\"exp\"",
    "\"aud\"",
    "\"cnf\"",
    "[",
    "{",
    "null",
    "1e400",
    "-1",
    "\"aud\":[\"catrust\",\"x\"]",
    ".",
    "..",
    "=",
    "e30",
];

struct Issuer(Ed25519KeyPair);

impl Issuer {
    fn new() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
    }

    fn key_set(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.0.public_key());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "use": "sig", "x": x}]}).to_string()
    }

    fn token(&self, header: &[u8], claims: &[u8]) -> String {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.0.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    fn tokens(&self) -> Tokens {
        let config = JwtConfig {
            issuer: Some("https://issuer".to_owned()),
            audience: Some("catrust".to_owned()),
            operator_claim: Some("operator".to_owned()),
            ..JwtConfig::default()
        };
        let tokens = Tokens::new(config.rules());
        tokens.replace(JwkSet::parse(self.key_set().as_bytes()).unwrap(), NOW);
        tokens
    }
}

fn claims() -> Vec<Value> {
    let plain = json!({"iss": "https://issuer", "aud": "catrust", "sub": "alice", "account_id": "1", "exp": SECOND + 60});
    let mut more = plain.clone();
    more["aud"] = json!(["other", "catrust"]);
    more["nbf"] = json!(SECOND - 1);
    more["operator"] = json!(true);
    more["cnf"] = json!({"x5t#S256": URL_SAFE_NO_PAD.encode([7; 32])});
    let mut broker = plain.clone();
    broker["mqtt_instance_id"] = json!("fleet-a");
    broker["broker_id"] = json!("broker-1");
    vec![plain, more, broker]
}

#[test]
fn tokens_of_strangers() {
    let issuer = Issuer::new();
    let genuine: Vec<String> = claims()
        .iter()
        .map(|claims| issuer.token(HEADER.as_bytes(), claims.to_string().as_bytes()))
        .collect();
    let tokens = issuer.tokens();
    run(&Corpus::of(genuine.clone(), WORDS), |input| {
        let Ok(token) = std::str::from_utf8(input) else { return };
        let accepted = tokens.verify(token, &Sha256::of(input), NOW).is_ok();
        assert_eq!(accepted, genuine.iter().any(|genuine| genuine == token), "{token}");
    });
}

#[test]
fn signed_headers() {
    let issuer = Issuer::new();
    let claims = claims()[0].to_string();
    let tokens = issuer.tokens();
    run(&Corpus::of([HEADER, r#"{"typ":"JWT","alg":"EdDSA","kid":"k"}"#], WORDS), |input| {
        let token = issuer.token(input, claims.as_bytes());
        if tokens.verify(&token, &Sha256::of(token.as_bytes()), NOW).is_ok() {
            let header: Value = serde_json::from_slice(input).expect("JSON");
            assert_eq!(
                (&header["alg"], &header["kid"], header.get("crit")),
                (&json!("EdDSA"), &json!("k"), None)
            );
        }
    });
}

#[test]
fn signed_claims() {
    let issuer = Issuer::new();
    let tokens = issuer.tokens();
    let samples = claims().into_iter().map(|claims| claims.to_string());
    run(&Corpus::of(samples, WORDS), |input| {
        let token = issuer.token(HEADER.as_bytes(), input);
        if tokens.verify(&token, &Sha256::of(token.as_bytes()), NOW).is_ok() {
            let claims: Value = serde_json::from_slice(input).expect("JSON");
            assert_eq!(claims["iss"], "https://issuer");
            let audience = &claims["aud"];
            assert!(
                audience == "catrust" || audience.as_array().unwrap().contains(&json!("catrust")),
                "{audience}"
            );
            assert!(claims["exp"].as_f64().unwrap() > SECOND as f64 - 31.0, "{}", claims["exp"]);
        }
    });
}

#[test]
fn key_sets() {
    let rsa = json!({"kty": "RSA", "kid": "r", "n": URL_SAFE_NO_PAD.encode([0xC1; 256]), "e": "AQAB", "alg": "RS256"});
    let point = URL_SAFE_NO_PAD.encode([1; 32]);
    let ec = json!({"kty": "EC", "crv": "P-256", "kid": "e", "x": point, "y": point, "key_ops": ["verify"]});
    let samples = [Issuer::new().key_set(), json!({"keys": [rsa, ec]}).to_string()];
    let words = &[
        "\"kty\"",
        "\"RSA\"",
        "\"oct\"",
        "\"k\"",
        "\"keys\"",
        "\"kid\"",
        "[",
        "]",
        "null",
        "\"use\":\"enc\"",
    ];
    run(&Corpus::of(samples, words), |input| {
        if let Err(problem) = JwkSet::parse(input) {
            assert!(!problem.is_empty());
        }
    });
}
