//! Tokens that count for nothing, and why.

use std::time::Duration;

use catrust_tests::client::refused;
use catrust_tests::eventually::eventually;
use catrust_tests::issuer::{Key, Publisher, base64url, claims, now};
use ring::hmac;
use serde_json::{Value, json};
use tonic::Code;

use super::{LOGGED, deployed, logged, no_identity, read};

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims("alice");
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims("alice");
    claims.as_object_mut().expect("an object").remove(name);
    claims
}

/// The attack on libraries that take the key's kind from the token: the public key as an
/// HMAC secret.
fn confused(key: &Key, public_pem: &str) -> String {
    let header = json!({"alg": "HS256", "kid": key.id});
    let signed = format!("{}.{}", base64url(header.to_string()), base64url(claims("alice").to_string()));
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, public_pem.as_bytes()), signed.as_bytes());
    format!("{signed}.{}", base64url(mac))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_an_identity_and_policies_say_what_it_may() -> anyhow::Result<()> {
    let (es256, rs256) = (Key::es256("ec")?, Key::rs256("rsa").await?);
    let publisher = Publisher::start(&[&es256, &rs256]).await?;
    let (_deployment, replica) = deployed(&publisher).await?;
    let instance = replica.instance().await?;
    for key in [&es256, &rs256] {
        read(&replica, &instance.id, &key.token(&claims("alice"))).await?;
    }
    // Somebody without a policy, and somebody of an account that has none.
    let carol = read(&replica, &instance.id, &es256.token(&claims("carol"))).await;
    refused(carol, Code::PermissionDenied, "PermissionCheckFailed")?;
    let elsewhere = read(&replica, &instance.id, &es256.token(&with("account_id", json!("account-b")))).await;
    refused(elsewhere, Code::PermissionDenied, "PermissionCheckFailed")?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_flaw_makes_a_token_worthless_and_only_the_log_says_which() -> anyhow::Result<()> {
    let (key, rsa) = (Key::es256("k")?, Key::rs256("rsa").await?);
    let publisher = Publisher::start(&[&key, &rsa]).await?;
    let (_deployment, replica) = deployed(&publisher).await?;
    let instance = replica.instance().await?;
    let good = key.token(&claims("alice"));
    read(&replica, &instance.id, &good).await?;

    let signed = |header: Value| key.sign(&header, &claims("alice").to_string());
    let stranger = Key::es256("k")?;
    let header = json!({"alg": "ES256", "kid": "k"});
    let twice = claims("alice").to_string().replacen('{', "{\"sub\":\"bob\",", 1);
    let unsigned = format!("{}.", good.rsplit_once('.').expect("three parts").0);
    let none = format!(
        "{}.{}.",
        base64url(json!({"alg": "none", "kid": "k"}).to_string()),
        base64url(claims("alice").to_string())
    );
    let header_with_key = json!({"alg": "ES256", "kid": "k", "jwk": stranger.public()});
    let brought = stranger.sign(&header_with_key, &claims("alice").to_string());
    let flaws = [
        (key.token(&with("exp", json!(now() - 31))), "expired"),
        (key.token(&without("exp")), "no exp"),
        (key.token(&with("nbf", json!(now() + 300))), "not valid yet"),
        (key.token(&with("iss", json!("https://issuer.example.com"))), "iss"),
        (key.token(&with("aud", json!("another-service"))), "aud"),
        (key.token(&without("aud")), "aud"),
        (key.token(&without("sub")), "user_claim"),
        (key.token(&without("account_id")), "account_claim"),
        (key.token(&with("account_id", json!("operators/*"))), "account_claim"),
        (key.sign(&header, &twice), "twice"),
        (none, "alg is not among"),
        (unsigned, "signature does not hold"),
        (confused(&rsa, &rsa.public().to_string()), "alg is not among"),
        (signed(json!({"alg": "RS256", "kid": "k"})), "not of the kind"),
        (rsa.sign(&json!({"alg": "ES256", "kid": "rsa"}), &claims("alice").to_string()), "not of the kind"),
        (stranger.token(&claims("alice")), "signature does not hold"),
        (Key::es256("other")?.token(&claims("alice")), "kid is not in the key set"),
        (signed(json!({"alg": "ES256"})), "no kid"),
        (signed(json!({"alg": "ES256", "kid": "k", "crit": ["b64"], "b64": false})), "crit"),
        (signed(json!({"alg": "ES256", "kid": "k", "typ": "logout+jwt"})), "typ"),
        (brought, "signature does not hold"),
    ];
    let mut answers = std::collections::BTreeSet::new();
    for (token, reason) in flaws {
        // The log has some lines a second for such calls, so that one may have to be repeated.
        eventually(Duration::from_secs(20), reason, async || {
            let answer = read(&replica, &instance.id, &token).await;
            answers.insert(answer.as_ref().err().map(|status| status.message().to_owned()));
            let request_id = no_identity(answer)?;
            logged(&replica, &request_id, reason, Duration::from_millis(500)).await
        })
        .await?;
    }
    assert_eq!(answers.len(), 1, "what a caller hears tells nothing apart: {answers:?}");
    assert!(!replica.server.output().text().contains(good.rsplit_once('.').expect("three parts").1));
    read(&replica, &instance.id, &good).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_may_differ_by_the_skew() -> anyhow::Result<()> {
    let key = Key::es256("k")?;
    let publisher = Publisher::start(&[&key]).await?;
    let (_deployment, replica) = deployed(&publisher).await?;
    let instance = replica.instance().await?;
    // 30 seconds by default; the test has 15 of them to be slow in.
    read(&replica, &instance.id, &key.token(&with("exp", json!(now() - 15)))).await?;
    read(&replica, &instance.id, &key.token(&with("nbf", json!(now() + 15)))).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_and_misshapen_tokens_are_refused_and_harm_nobody() -> anyhow::Result<()> {
    let key = Key::es256("k")?;
    let publisher = Publisher::start(&[&key]).await?;
    let (_deployment, replica) = deployed(&publisher).await?;
    let instance = replica.instance().await?;
    let padded = key.token(&with("padding", json!("x".repeat(7_000))));
    assert!(padded.len() > 8_192);
    let request_id = no_identity(read(&replica, &instance.id, &padded).await)?;
    logged(&replica, &request_id, "too long", LOGGED).await?;
    let deep = format!("{}.e30.AAAA", base64url("[".repeat(4_000)));
    for token in ["eyJ.e30.AAAA", "ey..", "a.b.c", "ey.ey.ey.ey.ey", &deep, &"e".repeat(8_192)] {
        no_identity(read(&replica, &instance.id, token).await)?;
    }
    let large = key.token(&with("padding", json!("x".repeat(4_000))));
    read(&replica, &instance.id, &large).await?;
    Ok(())
}
