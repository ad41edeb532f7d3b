//! The issuer's public keys (JSON Web Key Set, RFC 7517 §5), and signatures checked with
//! them.
//!
//! A key has a kind, and an algorithm is checked only with a key of its kind: a token cannot
//! have an RSA key taken for a secret, or a curve for another one (RFC 8725 §3.1).

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{
    self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::JwtAlgorithm::{self, EdDsa, Es256, Es384, Ps256, Ps384, Ps512, Rs256, Rs384, Rs512};
use super::json;

/// Most bytes of a key set: a hundred keys with their certificates.
pub(super) const MAX_BYTES: usize = 256 * 1_024;
/// Most keys.
const MAX_KEYS: usize = 100;
/// Bytes of an RSA modulus: 2,048 to 8,192 bits. Less is too weak (RFC 7518 §3.3), more is
/// work that an attacker would choose.
const RSA_MODULUS: std::ops::RangeInclusive<usize> = 256..=1_024;

/// The usable keys of an issuer, by their `kid`.
#[derive(Debug, Default)]
pub struct JwkSet(HashMap<String, Key>);

/// A public key that signatures may be checked with.
#[derive(Debug)]
pub(super) struct Key {
    material: Material,
    /// The only algorithm that it may be used with, where the set says so.
    only: Option<String>,
    /// Cancelled when a set comes into force that has not this key.
    pub withdrawn: Arc<CancellationToken>,
}

#[derive(Debug, PartialEq)]
enum Material {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// Uncompressed point.
    P256(Vec<u8>),
    /// Uncompressed point.
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl JwkSet {
    /// Reads a file.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = std::fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        Self::parse(&text).map_err(|problem| format!("{}: {problem}", path.display()))
    }

    /// Reads a set. Keys of an unknown kind, for another use, or without a name are passed
    /// over (RFC 7517 §5).
    ///
    /// # Errors
    /// It is no key set, has a name twice, or no key that can be used.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("the key set is larger than {MAX_BYTES} bytes"));
        }
        let set = json::object(text).map_err(|problem| format!("the key set {problem}"))?;
        let Some(Value::Array(keys)) = set.get("keys") else {
            return Err("the key set has no list `keys` (RFC 7517 §5)".to_owned());
        };
        if keys.len() > MAX_KEYS {
            return Err(format!("the key set has more than {MAX_KEYS} keys"));
        }
        let mut known = HashMap::new();
        for (id, key) in keys.iter().filter_map(read) {
            if known.insert(id.clone(), key).is_some() {
                return Err(format!("the key set has two keys with the kid {id:?}: which one is meant?"));
            }
        }
        if known.is_empty() {
            return Err(
                "the key set has no key that can be used: RSA of 2,048 bits or more, P-256, P-384 or \
                        Ed25519, with a kid, for signatures"
                    .to_owned(),
            );
        }
        Ok(Self(known))
    }

    /// Number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none, as before the first was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes the keys that stand unchanged in the set `before` the same ones.
    pub(super) fn inherit(&mut self, before: &Self) {
        for (id, key) in &mut self.0 {
            if let Some(same) = before.same_as(id, key) {
                key.withdrawn = Arc::clone(&same.withdrawn);
            }
        }
    }

    /// Withdraws the keys that the set `after` has not. It MUST be in force.
    pub(super) fn make_way_for(&self, after: &Self) {
        for (_, key) in self.0.iter().filter(|(id, key)| after.same_as(id, key).is_none()) {
            key.withdrawn.cancel();
        }
    }

    fn same_as(&self, id: &str, key: &Key) -> Option<&Key> {
        self.find(id).filter(|known| known.material == key.material && known.only == key.only)
    }

    pub(super) fn find(&self, id: &str) -> Option<&Key> {
        self.0.get(id)
    }
}

/// The key and its name, if it can be used here.
fn read(key: &Value) -> Option<(String, Key)> {
    let members = key.as_object()?;
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    if text("use").is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    if let Some(operations) = members.get("key_ops") {
        operations.as_array()?.iter().find(|operation| *operation == "verify")?;
    }
    let only = match members.get("alg") {
        None => None,
        Some(name) => Some(name.as_str()?.to_owned()),
    };
    Some((text("kid")?.to_owned(), Key { material: material(members)?, only, withdrawn: Arc::default() }))
}

fn material(members: &Map<String, Value>) -> Option<Material> {
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    let sized = |name: &str, length: usize| bytes(name).filter(|bytes| bytes.len() == length);
    let point = |length| Some([&[4], &*sized("x", length)?, &*sized("y", length)?].concat());
    match (text("kty")?, text("crv")) {
        ("RSA", _) => {
            // ring takes numbers without leading zeros, and some issuers write one.
            let number = |name| Some(trimmed(&bytes(name)?).to_vec());
            let (n, e) = (number("n")?, number("e")?);
            RSA_MODULUS.contains(&n.len()).then_some(Material::Rsa { n, e })
        }
        ("EC", Some("P-256")) => point(32).map(Material::P256),
        ("EC", Some("P-384")) => point(48).map(Material::P384),
        ("OKP", Some("Ed25519")) => sized("x", 32).map(Material::Ed25519),
        _ => None,
    }
}

fn trimmed(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    &number[zeros..]
}

impl Key {
    /// Checks a signature.
    pub fn verify(
        &self,
        algorithm: JwtAlgorithm,
        signed: &[u8],
        signature: &[u8],
    ) -> Result<(), &'static str> {
        if self.only.as_ref().is_some_and(|only| only != name(algorithm)) {
            return Err("its key is for another alg");
        }
        let holds = match (&self.material, algorithm) {
            (Material::Rsa { n, e }, _) => {
                let parameters = rsa(algorithm).ok_or("its key is not of the kind that its alg needs")?;
                RsaPublicKeyComponents { n, e }.verify(parameters, signed, signature)
            }
            (Material::P256(point), Es256) => {
                check(&signature::ECDSA_P256_SHA256_FIXED, point, signed, signature)
            }
            (Material::P384(point), Es384) => {
                check(&signature::ECDSA_P384_SHA384_FIXED, point, signed, signature)
            }
            (Material::Ed25519(point), EdDsa) => check(&signature::ED25519, point, signed, signature),
            _ => return Err("its key is not of the kind that its alg needs"),
        };
        holds.map_err(|_| "its signature does not hold")
    }
}

fn check(
    algorithm: &'static dyn VerificationAlgorithm,
    key: &[u8],
    signed: &[u8],
    signature: &[u8],
) -> Result<(), ring::error::Unspecified> {
    UnparsedPublicKey::new(algorithm, key).verify(signed, signature)
}

const fn rsa(algorithm: JwtAlgorithm) -> Option<&'static RsaParameters> {
    match algorithm {
        Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
        Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
        Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
        Ps384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
        Ps512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
        Es256 | Es384 | EdDsa => None,
    }
}

/// `alg` of the algorithm.
pub(super) const fn name(algorithm: JwtAlgorithm) -> &'static str {
    match algorithm {
        Es256 => "ES256",
        Es384 => "ES384",
        EdDsa => "EdDSA",
        Rs256 => "RS256",
        Rs384 => "RS384",
        Rs512 => "RS512",
        Ps256 => "PS256",
        Ps384 => "PS384",
        Ps512 => "PS512",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8037 appendix A.
    const ED25519: &str =
        r#"{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    const SIGNED: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    const SIGNATURE: &str =
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

    fn set(keys: &[&str]) -> Result<JwkSet, String> {
        JwkSet::parse(format!("{{\"keys\":[{}]}}", keys.join(",")).as_bytes())
    }

    #[test]
    fn the_example_of_rfc_8037_holds_and_nothing_near_it_does() {
        let keys = set(&[ED25519]).unwrap();
        let key = keys.find("a").unwrap();
        let signature = URL_SAFE_NO_PAD.decode(SIGNATURE).unwrap();
        assert_eq!(key.verify(EdDsa, SIGNED.as_bytes(), &signature), Ok(()));
        assert!(key.verify(EdDsa, &SIGNED.as_bytes()[1..], &signature).is_err());
        assert!(key.verify(EdDsa, SIGNED.as_bytes(), &signature[1..]).is_err());
        assert!(key.verify(EdDsa, SIGNED.as_bytes(), &[]).is_err());
        for other in [Es256, Es384, Rs256, Rs384, Rs512, Ps256, Ps384, Ps512] {
            assert_eq!(
                key.verify(other, SIGNED.as_bytes(), &signature),
                Err("its key is not of the kind that its alg needs")
            );
        }
    }

    #[test]
    fn keys_for_something_else_are_passed_over() {
        let with =
            |member: &str| ED25519.replacen('{', &format!("{{{member},"), 1).replacen("\"a\"", "\"b\"", 1);
        let short = format!("{{\"kty\":\"RSA\",\"kid\":\"b\",\"e\":\"AQAB\",\"n\":\"{}\"}}", "_".repeat(172));
        let others = [
            with(r#""use":"enc""#),
            with(r#""key_ops":["sign"]"#),
            ED25519.replace("\"kid\":\"a\",", ""),
            ED25519.replace("Ed25519", "X25519"),
            ED25519.replace("11qY", ""),
            r#"{"kty":"oct","kid":"b","k":"AAAA"}"#.to_owned(),
            short,
        ];
        for other in others {
            assert_eq!(set(&[ED25519, &other]).unwrap().len(), 1, "{other}");
            assert!(set(&[&other]).unwrap_err().contains("no key that can be used"), "{other}");
        }
        for same in [with(r#""use":"sig""#), with(r#""key_ops":["verify"]"#)] {
            assert_eq!(set(&[ED25519, &same]).unwrap().len(), 2, "{same}");
        }
    }

    #[test]
    fn a_key_for_one_algorithm_is_for_no_other() {
        let keys = set(&[&ED25519.replacen('{', "{\"alg\":\"ES256\",", 1)]).unwrap();
        let signature = URL_SAFE_NO_PAD.decode(SIGNATURE).unwrap();
        let verified = keys.find("a").unwrap().verify(EdDsa, SIGNED.as_bytes(), &signature);
        assert_eq!(verified, Err("its key is for another alg"));
    }

    #[test]
    fn what_is_no_key_set_is_refused_with_a_reason() {
        assert!(set(&[ED25519, ED25519]).unwrap_err().contains("two keys"));
        for (text, expected) in
            [("", "no JSON"), ("{}", "no list"), ("{\"keys\":[]}", "no key"), ("[]", "object")]
        {
            let problem = JwkSet::parse(text.as_bytes()).unwrap_err();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
        let large = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(MAX_BYTES));
        assert!(JwkSet::parse(large.as_bytes()).unwrap_err().contains("larger"));
    }
}
