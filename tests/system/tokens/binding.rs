//! A token and a client certificate at once: bound together, or refused.

use catrust_tests::deployment::{ACCOUNT, Identity, Plan};
use catrust_tests::issuer::{Key, Publisher, bound_to, claims};
use catrust_tests::tls::Tls;
use serde_json::Value;

use super::{LOGGED, logged, no_identity, plan, read_by};

const ALICE: &str = "spiffe://example.org/alice";
const BOB: &str = "spiffe://example.org/bob";
const STRANGER: &str = "spiffe://example.org/stranger";

fn by_certificate(principal: &str, name: &str) -> Identity {
    Identity {
        principal: principal.to_owned(),
        account: ACCOUNT.to_owned(),
        certificate: Some(name.to_owned()),
        ..Identity::default()
    }
}

fn known_by_certificate(plan: Plan) -> Plan {
    plan.identity(by_certificate("alice", ALICE)).identity(by_certificate("bob", BOB))
}

fn bound(user: &str, certificate_der: &[u8]) -> Value {
    let mut claims = claims(user);
    claims["cnf"] = bound_to(certificate_der);
    claims
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bound_token_counts_with_its_certificate_alone() -> anyhow::Result<()> {
    let (key, tls) = (Key::es256("k")?, Tls::new()?);
    let publisher = Publisher::start(&[&key]).await?;
    let plan = tls.plan(known_by_certificate(plan()));
    let deployment = plan.set("auth.jwt.key_set_url", &format!("{:?}", publisher.url())).deploy().await?;
    let replica = deployment.replica("a").await?;
    let operator = tls.caller(&replica.server, None, Some(catrust_tests::deployment::OPERATOR))?;
    let owner = tls.caller(&replica.server, None, Some(catrust_tests::deployment::OWNER))?;
    let id = catrust_tests::instance::TestInstance::register(&operator, &owner, ACCOUNT).await?.id;

    let (alices, bobs) = (tls.client_ca.client(ALICE)?, tls.client_ca.client(BOB)?);
    let (strangers, another) = (tls.client_ca.client(STRANGER)?, tls.client_ca.client(STRANGER)?);
    let loose = key.token(&claims("alice"));
    let to_stranger = key.token(&bound("alice", &strangers.der));
    let good = [
        (None, Some(&loose), "a token alone"),
        (Some(&alices), None, "a certificate alone"),
        (Some(&alices), Some(&loose), "both of one principal"),
        (Some(&strangers), Some(&to_stranger), "bound to each other"),
    ];
    for (leaf, token, what) in good {
        let caller = tls.caller(&replica.server, leaf, token.map(String::as_str))?;
        let answer = read_by(&caller, &id).await;
        assert!(answer.is_ok(), "{what}: {answer:?}");
    }
    let to_bob = key.token(&bound("alice", &bobs.der));
    let bad = [
        (None, &to_stranger, "the connection has none"),
        (Some(&another), &to_stranger, "another client certificate"),
        (Some(&alices), &to_stranger, "another client certificate"),
        (Some(&strangers), &loose, "not bound"),
        (Some(&bobs), &loose, "different principals"),
        (Some(&bobs), &to_bob, "different principals"),
    ];
    for (leaf, token, reason) in bad {
        let caller = tls.caller(&replica.server, leaf, Some(token))?;
        let request_id = no_identity(read_by(&caller, &id).await)?;
        logged(&replica, &request_id, reason, LOGGED).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn binding_can_be_required_of_every_token() -> anyhow::Result<()> {
    let (key, tls) = (Key::es256("k")?, Tls::new()?);
    let publisher = Publisher::start(&[&key]).await?;
    let plan = tls.plan(known_by_certificate(plan())).set("auth.jwt.require_binding", "true");
    let deployment = plan.set("auth.jwt.key_set_url", &format!("{:?}", publisher.url())).deploy().await?;
    let replica = deployment.replica("a").await?;
    let operator = tls.caller(&replica.server, None, Some(catrust_tests::deployment::OPERATOR))?;
    let owner = tls.caller(&replica.server, None, Some(catrust_tests::deployment::OWNER))?;
    let id = catrust_tests::instance::TestInstance::register(&operator, &owner, ACCOUNT).await?.id;

    let alices = tls.client_ca.client(ALICE)?;
    let loose = key.token(&claims("alice"));
    for leaf in [None, Some(&alices)] {
        let caller = tls.caller(&replica.server, leaf, Some(&loose))?;
        let request_id = no_identity(read_by(&caller, &id).await)?;
        logged(&replica, &request_id, "bound to no certificate", LOGGED).await?;
    }
    let token = key.token(&bound("alice", &alices.der));
    read_by(&tls.caller(&replica.server, Some(&alices), Some(&token))?, &id).await?;
    Ok(())
}
