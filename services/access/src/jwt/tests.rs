//! A token from its bytes to what it says, with a real key.

use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::*;

const NOW: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_micros(second * 1_000_000)
}

fn base64url(bytes: impl AsRef<[u8]>) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

struct Signer(Ed25519KeyPair);

impl Signer {
    fn new() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
    }

    fn key_set(&self, id: &str) -> JwkSet {
        JwkSet::parse(json!({"keys": [self.jwk(id)]}).to_string().as_bytes()).unwrap()
    }

    fn jwk(&self, id: &str) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": base64url(self.0.public_key())})
    }

    fn sign(&self, header: &Value, claims: &str) -> String {
        let signed = format!("{}.{}", base64url(header.to_string()), base64url(claims));
        format!("{signed}.{}", base64url(self.0.sign(signed.as_bytes())))
    }

    fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": "EdDSA", "kid": "k"}), &claims.to_string())
    }
}

fn claims() -> Value {
    json!({"iss": "https://issuer", "aud": "catrust", "sub": "alice", "account_id": "1", "exp": NOW + 60})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn of_broker(instance: &str, broker: Value) -> Value {
    let mut claims = with("mqtt_instance_id", json!(instance));
    claims["broker_id"] = broker;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn rules() -> TokenRules {
    use JwtAlgorithm::{EdDsa, Es256, Es384, Ps256, Rs256};
    TokenRules {
        issuer: "https://issuer".to_owned(),
        audience: "catrust".to_owned(),
        algorithms: vec![Es256, Es384, EdDsa, Rs256, Ps256],
        user_claim: "sub".to_owned(),
        account_claim: "account_id".to_owned(),
        operator_claim: None,
        instance_claim: "mqtt_instance_id".to_owned(),
        broker_claim: "broker_id".to_owned(),
        require_binding: false,
        max_age: Duration::from_secs(86_400),
        clock_skew: Duration::from_secs(5),
    }
}

fn tokens(rules: &TokenRules, signer: &Signer) -> Tokens {
    let tokens = Tokens::new(rules.clone());
    tokens.replace(signer.key_set("k"), at(NOW));
    tokens
}

fn verify(tokens: &Tokens, token: &str, second: i64) -> Result<Arc<TokenBearer>, &'static str> {
    tokens.verify(token, &Sha256::of(token.as_bytes()), at(second)).map_err(|problem| problem.reason)
}

#[test]
fn a_good_token_says_who_its_bearer_is() {
    let (rules, signer) =
        (TokenRules { operator_claim: Some("catrust_operator".into()), ..rules() }, Signer::new());
    let tokens = tokens(&rules, &signer);
    let verified = verify(&tokens, &signer.token(&claims()), NOW).unwrap();
    assert_eq!(
        (&*verified.principal, verified.account_id.as_str(), verified.operator),
        ("alice", "1", false)
    );
    assert_eq!(verified.expires_at(), at(NOW + 65));
    let several = signer.token(&with("aud", json!(["other", "catrust"])));
    assert!(verify(&tokens, &several, NOW).is_ok());
    let operator = signer.token(&with("catrust_operator", json!(true)));
    assert!(verify(&tokens, &operator, NOW).unwrap().operator);
    let broker = verify(&tokens, &signer.token(&of_broker("fleet-a", json!("gate-1"))), NOW).unwrap();
    assert_eq!(broker.broker.as_ref().map(|broker| broker.broker_id.as_str()), Some("gate-1"));
    let mut both = of_broker("fleet-a", json!("gate-1"));
    both["catrust_operator"] = json!(true);
    assert_eq!(verify(&tokens, &signer.token(&both), NOW).unwrap_err(), "it makes a broker an operator");
    for no in [json!("true"), json!(1), json!(false)] {
        assert!(!verify(&tokens, &signer.token(&with("catrust_operator", no)), NOW).unwrap().operator);
    }
}

#[test]
fn a_token_that_does_not_say_what_it_must_is_refused() {
    let signer = Signer::new();
    let tokens = tokens(&rules(), &signer);
    let cases = [
        (with("iss", json!("https://issuer/")), "iss"),
        (without("iss"), "iss"),
        (with("aud", json!("catrust2")), "aud"),
        (with("aud", json!(["a", 1])), "aud"),
        (with("aud", json!({"catrust": 1})), "aud"),
        (without("aud"), "aud"),
        (without("exp"), "no exp"),
        (with("exp", json!("1800000060")), "no time"),
        (with("exp", json!(-1)), "no time"),
        (with("exp", json!(1e300)), "no time"),
        (with("nbf", json!(null)), "no time"),
        (without("sub"), "user_claim"),
        (with("sub", json!("")), "user_claim"),
        (with("sub", json!("a\u{7}b")), "user_claim"),
        (with("sub", json!("x".repeat(257))), "user_claim"),
        (with("account_id", json!("a*b")), "account_claim"),
        (with("account_id", json!(1)), "account_claim"),
        (with("broker_id", json!("gate-1")), "without the other"),
        (with("mqtt_instance_id", json!("fleet-a")), "without the other"),
        (of_broker("fleet-a", json!("gate.1")), "malformed"),
        (of_broker("fleet-a", json!(1)), "malformed"),
        (with("cnf", json!({"jkt": "x"})), "cnf"),
        (with("cnf", json!({"x5t#S256": "short"})), "cnf"),
        (with("cnf", json!("x")), "cnf"),
    ];
    for (claims, expected) in cases {
        let reason = verify(&tokens, &signer.token(&claims), NOW).unwrap_err();
        assert!(reason.contains(expected), "{claims}: {reason}");
    }
    let twice = claims().to_string().replacen('{', "{\"sub\":\"bob\",", 1);
    let token = signer.sign(&json!({"alg": "EdDSA", "kid": "k"}), &twice);
    assert!(verify(&tokens, &token, NOW).unwrap_err().contains("twice"));
}

#[test]
fn header_key_and_signature_must_fit() {
    let signer = Signer::new();
    let tokens = tokens(&rules(), &signer);
    let claims = claims().to_string();
    let cases = [
        (json!({"alg": "none", "kid": "k"}), "algorithms"),
        (json!({"alg": "HS256", "kid": "k"}), "algorithms"),
        (json!({"alg": "eddsa", "kid": "k"}), "algorithms"),
        (json!({"alg": "RS512", "kid": "k"}), "algorithms"),
        (json!({"alg": "ES256", "kid": "k"}), "not of the kind"),
        (json!({"alg": "RS256", "kid": "k"}), "not of the kind"),
        (json!({"alg": "EdDSA", "kid": "K"}), "kid is not"),
        (json!({"alg": "EdDSA"}), "no kid"),
    ];
    for (header, expected) in cases {
        let reason = verify(&tokens, &signer.sign(&header, &claims), NOW).unwrap_err();
        assert!(reason.contains(expected), "{header}: {reason}");
    }
    let forged = Signer::new().token(&self::claims());
    assert_eq!(verify(&tokens, &forged, NOW).unwrap_err(), "its signature does not hold");
    let good = signer.token(&self::claims());
    let (unsigned, _) = good.rsplit_once('.').unwrap();
    assert_eq!(verify(&tokens, &format!("{unsigned}."), NOW).unwrap_err(), "its signature does not hold");
}

#[test]
fn a_token_with_any_one_character_changed_is_refused() {
    let signer = Signer::new();
    let tokens = tokens(&rules(), &signer);
    let good = signer.token(&claims());
    verify(&tokens, &good, NOW).unwrap();
    for (at, had) in good.char_indices() {
        for put in ['A', 'B', '_', '.', '=', ' '].into_iter().filter(|put| *put != had) {
            let mut changed = good.clone();
            changed.replace_range(at..=at, &put.to_string());
            assert!(verify(&tokens, &changed, NOW).is_err(), "{put:?} at {at} of {good}");
        }
        assert!(verify(&tokens, &good[..at], NOW).is_err(), "cut at {at}");
    }
    assert!(verify(&tokens, &format!("{good}A"), NOW).is_err());
}

proptest::proptest! {
    /// Whatever comes, it is refused and nothing breaks: header and claims that were signed
    /// all the same, and text that never was a token.
    #[test]
    fn what_was_never_meant_as_a_token_is_refused(header in ".*", claims in ".*", text in "\\PC*") {
        let signer = Signer::new();
        let tokens = tokens(&rules(), &signer);
        let signed = format!("{}.{}", base64url(&header), base64url(&claims));
        let signed = format!("{signed}.{}", base64url(signer.0.sign(signed.as_bytes())));
        let good = json!({"alg": "EdDSA", "kid": "k"});
        for token in [signed, signer.sign(&good, &claims), text] {
            proptest::prop_assert!(verify(&tokens, &token, NOW).is_err());
        }
    }
}

/// Also the second time, when the signature is not looked at again.
#[test]
fn a_token_counts_from_nbf_to_exp_and_the_skew_beyond() {
    let signer = Signer::new();
    let tokens = tokens(&rules(), &signer);
    let token = signer.token(&with("nbf", json!(NOW + 10)));
    for _ in 0..2 {
        assert_eq!(verify(&tokens, &token, NOW + 4).unwrap_err(), "it is not valid yet");
        assert!(verify(&tokens, &token, NOW + 5).is_ok());
        assert!(verify(&tokens, &token, NOW + 64).is_ok());
        assert_eq!(verify(&tokens, &token, NOW + 65).unwrap_err(), "it has expired");
    }
    let fraction = signer.token(&with("exp", json!(NOW as f64 + 0.5)));
    assert_eq!(
        verify(&tokens, &fraction, NOW).unwrap().expires_at().micros(),
        (NOW + 5) * 1_000_000 + 500_000
    );
}

#[test]
fn with_a_withdrawn_key_goes_what_it_verified() {
    let (old, new) = (Signer::new(), Signer::new());
    let tokens = tokens(&rules(), &old);
    let token = old.token(&claims());
    assert!(verify(&tokens, &token, NOW).is_ok());
    tokens.replace(new.key_set("k"), at(NOW));
    assert_eq!(verify(&tokens, &token, NOW).unwrap_err(), "its signature does not hold");
    assert!(verify(&tokens, &new.token(&claims()), NOW).is_ok());
}

#[test]
fn a_stream_by_a_key_that_is_gone_is_told_and_one_by_a_key_that_stays_is_not() {
    let (goes, stays) = (Signer::new(), Signer::new());
    let set = |signers: &[(&Signer, &str)]| {
        let keys: Vec<_> = signers.iter().map(|(signer, id)| signer.jwk(id)).collect();
        JwkSet::parse(json!({"keys": keys}).to_string().as_bytes()).unwrap()
    };
    let tokens = Tokens::new(rules());
    tokens.replace(set(&[(&goes, "g"), (&stays, "s")]), at(NOW));
    let shown = |signer: &Signer, id: &str| {
        let token = signer.sign(&json!({"alg": "EdDSA", "kid": id}), &claims().to_string());
        verify(&tokens, &token, NOW).unwrap().withdrawn.clone()
    };
    let before = [shown(&goes, "g"), shown(&stays, "s")];
    tokens.replace(set(&[(&stays, "s")]), at(NOW));
    assert_eq!(before.map(|shown| shown.is_cancelled()), [true, false]);
}

#[test]
fn keys_that_nobody_has_confirmed_for_too_long_verify_nothing() {
    let (signer, rules) = (Signer::new(), TokenRules { max_age: Duration::from_secs(60), ..rules() });
    let tokens = Tokens::new(rules);
    let token = signer.token(&with("exp", json!(NOW + 1_000)));
    assert!(verify(&tokens, &token, NOW).unwrap_err().contains("key set"), "none was read yet");
    tokens.replace(signer.key_set("k"), at(NOW));
    assert!(verify(&tokens, &token, NOW + 60).is_ok());
    assert!(verify(&tokens, &token, NOW + 61).unwrap_err().contains("max_age_seconds"));
    tokens.confirm(at(NOW + 61));
    assert!(verify(&tokens, &token, NOW + 61).is_ok());
}

#[test]
fn a_token_can_be_required_to_be_bound() {
    let (signer, rules) = (Signer::new(), TokenRules { require_binding: true, ..rules() });
    let tokens = tokens(&rules, &signer);
    assert!(verify(&tokens, &signer.token(&claims()), NOW).unwrap_err().contains("bound to no certificate"));
    let hash = Sha256::of(b"certificate");
    let bound = signer.token(&with("cnf", json!({"x5t#S256": base64url(hash.as_bytes())})));
    assert_eq!(verify(&tokens, &bound, NOW).unwrap().certificate, Some(hash));
}

/// The whole authenticator: tokens, certificates, and both.
mod known_callers {
    use std::path::Path;

    use super::*;
    use crate::PermissionSource;
    use crate::client_certificate::ClientCertificate;
    use crate::known_callers::KnownCallers;
    use crate::static_identities::StaticIdentities;
    use crate::{Authenticator as _, Credentials};

    fn certificate(spiffe: &str) -> Vec<u8> {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = vec![rcgen::SanType::URI(spiffe.try_into().unwrap())];
        params.not_after = rcgen::date_time_ymd(2040, 1, 1);
        params.self_signed(&key).unwrap().der().to_vec()
    }

    struct Setting {
        signer: Signer,
        callers: KnownCallers,
        alices: Vec<u8>,
        bobs: Vec<u8>,
        strangers: Vec<u8>,
    }

    fn setting() -> Setting {
        let text = format!(
            "[[identity]]\nprincipal = \"bob\"\naccount_id = \"2\"\ntoken_sha256 = \"{}\"\n\
             [[identity]]\nprincipal = \"bob\"\naccount_id = \"2\"\ncertificate = \"spiffe://e/bob\"\n\
             [[identity]]\nprincipal = \"alice\"\naccount_id = \"1\"\ncertificate = \"spiffe://e/alice\"\n",
            Sha256::of(b"bobs")
        );
        let (path, before) = (Path::new("i.toml"), StaticIdentities::default());
        let identities = StaticIdentities::parse(&text, path, PermissionSource::Policies, &before).unwrap();
        let signer = Signer::new();
        let callers = KnownCallers::new(Some(Arc::new(tokens(&rules(), &signer))));
        callers.replace(identities);
        Setting {
            signer,
            callers,
            alices: certificate("spiffe://e/alice"),
            bobs: certificate("spiffe://e/bob"),
            strangers: certificate("spiffe://e/stranger"),
        }
    }

    impl Setting {
        fn who(
            &self,
            bearer_token: Option<&str>,
            client_certificate: Option<&[u8]>,
        ) -> Result<String, &'static str> {
            let read = client_certificate.map(|der| ClientCertificate::read(der).unwrap());
            let credentials = Credentials { bearer_token, client_certificate: read.as_ref() };
            let identity = self.callers.authenticate(&credentials, at(NOW));
            identity.map(|identity| identity.principal.to_string()).map_err(|problem| problem.reason)
        }

        fn bound_to(&self, certificate: &[u8]) -> String {
            let hash = base64url(Sha256::of(certificate).as_bytes());
            self.signer.token(&with("cnf", json!({"x5t#S256": hash})))
        }
    }

    #[test]
    fn each_credential_alone_names_its_principal() {
        let setting = setting();
        let jwt = setting.signer.token(&claims());
        assert_eq!(setting.who(Some("bobs"), None).as_deref(), Ok("bob"));
        assert_eq!(setting.who(None, Some(&setting.bobs)).as_deref(), Ok("bob"));
        assert_eq!(setting.who(Some(&jwt), None).as_deref(), Ok("alice"));
        assert!(setting.who(None, None).is_err() && setting.who(None, Some(&setting.strangers)).is_err());
        assert!(setting.who(Some("wrong"), None).is_err());
    }

    #[test]
    fn a_token_of_the_file_and_a_certificate_are_of_one_principal() {
        let setting = setting();
        assert_eq!(setting.who(Some("bobs"), Some(&setting.bobs)).as_deref(), Ok("bob"));
        assert_eq!(setting.who(Some("bobs"), Some(&setting.strangers)).as_deref(), Ok("bob"));
        assert!(setting.who(Some("bobs"), Some(&setting.alices)).is_err());
        assert!(
            setting.who(Some("wrong"), Some(&setting.bobs)).is_err(),
            "a certificate makes no token good"
        );
    }

    #[test]
    fn a_jwt_and_a_certificate_are_bound_together() {
        let setting = setting();
        let loose = setting.signer.token(&claims());
        assert_eq!(
            setting.who(Some(&loose), Some(&setting.alices)).as_deref(),
            Ok("alice"),
            "the same principal"
        );
        assert!(setting.who(Some(&loose), Some(&setting.bobs)).is_err(), "another principal");
        assert!(setting.who(Some(&loose), Some(&setting.strangers)).is_err(), "nothing holds them together");
        let bound = setting.bound_to(&setting.strangers);
        assert_eq!(setting.who(Some(&bound), Some(&setting.strangers)).as_deref(), Ok("alice"));
        assert!(setting.who(Some(&bound), None).is_err(), "without its certificate");
        assert!(setting.who(Some(&bound), Some(&setting.alices)).is_err(), "with another one of hers");
        let to_bob = setting.bound_to(&setting.bobs);
        assert!(
            setting.who(Some(&to_bob), Some(&setting.bobs)).is_err(),
            "the certificate is known as bob's"
        );
    }

    #[test]
    fn an_issuer_cannot_speak_for_a_principal_of_another_account() {
        let setting = setting();
        let claiming = |account: &str| {
            let mut claims = with("sub", json!("bob"));
            claims["account_id"] = json!(account);
            setting.signer.token(&claims)
        };
        assert!(setting.who(Some(&claiming("1")), None).is_err());
        assert_eq!(setting.who(Some(&claiming("2")), None).as_deref(), Ok("bob"));
    }

    #[test]
    fn an_identity_ends_with_the_first_of_its_credentials() {
        let setting = setting();
        let ends = |token: Option<&str>, certificate: Option<&[u8]>, second| {
            let read = certificate.map(|der| ClientCertificate::read(der).unwrap());
            let credentials = Credentials { bearer_token: token, client_certificate: read.as_ref() };
            setting.callers.authenticate(&credentials, at(second)).map(|identity| identity.expires_at)
        };
        let of_certificate = at(2_208_988_801);
        assert_eq!(ends(Some("bobs"), None, NOW).unwrap(), None);
        assert_eq!(ends(None, Some(&setting.bobs), NOW).unwrap(), Some(of_certificate));
        assert!(ends(None, Some(&setting.bobs), 2_208_988_801).is_err(), "the connection outlived it");
        let jwt = setting.bound_to(&setting.strangers);
        assert_eq!(ends(Some(&jwt), Some(&setting.strangers), NOW).unwrap(), Some(at(NOW + 65)));
    }

    #[test]
    fn a_huge_token_is_refused_by_its_length() {
        let setting = setting();
        let huge = format!("ey{}.e30.AAAA", "A".repeat(MAX_TOKEN));
        assert_eq!(setting.who(Some(&huge), None), Err("the token is too long"));
    }
}
