//! Policies: in Cedar, and RAM documents.

use catrust_policy::{AccessRequest, Action, Policies, PolicyBundle, PolicyFile, Resource};

use crate::runner::{Corpus, run};

const CEDAR: &[&str] = &[
    "permit",
    "forbid",
    "(",
    ")",
    "principal",
    "action",
    "resource",
    "when",
    "unless",
    "{",
    "}",
    ";",
    "==",
    "in",
    "like",
    "context",
    "\"*\"",
    "ip(\"10.0.0.0/8\")",
    "&&",
    "||",
    "!",
    "if",
    "then",
    "else",
    "Catrust::",
    "@id(\"a\")",
    "9223372036854775807",
];
const RAM: &[&str] = &[
    "\"Version\"",
    "\"Statement\"",
    "\"Effect\"",
    "\"Allow\"",
    "\"Deny\"",
    "\"Action\"",
    "\"Resource\"",
    "\"Condition\"",
    "\"IpAddress\"",
    "\"NotIpAddress\"",
    "\"DateLessThan\"",
    "\"acs:SourceIp\"",
    "\"acs:CurrentTime\"",
    "*",
    "?",
    "[",
    "]",
    "{",
    "}",
    "\"acs:mq:*:*:*\"",
    "\"mq:*\"",
    "::/0",
    "10.0.0.0/33",
];

fn samples(ending: &str) -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/policies/1234567890");
    let files = std::fs::read_dir(folder).expect("the samples").map(|file| file.expect("a file").path());
    let texts: Vec<String> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == ending))
        .map(|path| std::fs::read_to_string(path).expect("a sample"))
        .collect();
    assert!(!texts.is_empty(), "no sample ends in {ending}");
    texts
}

/// Compiles; asks what compiles.
fn check(name: &str, samples: Vec<String>, words: &[&'static str]) {
    let mut compiled = 0_u64;
    run(&Corpus::of(samples, words), |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let file = PolicyFile::new("1234567890", name, text.to_owned()).expect("the ending is known");
        match Policies::compile(&PolicyBundle::new(vec![file])) {
            Err(refused) => assert!(!refused.to_string().is_empty()),
            Ok(policies) => {
                compiled += 1;
                let request = AccessRequest {
                    principal: "alice",
                    account_id: "1234567890",
                    operator: false,
                    action: Action::UnregisterCaCertificate,
                    resource: Resource {
                        region_id: "cn-hangzhou",
                        account_id: "1234567890",
                        instance_id: "fleet-a",
                    },
                    source_ip: Some([10, 0, 0, 1].into()),
                    time_ms: 1_800_000_000_000,
                };
                let decision = policies.decide(&request);
                let elsewhere = AccessRequest { account_id: "another", ..request };
                assert!(!policies.decide(&elsewhere).allowed, "one account's policies decide for another");
                assert_eq!(policies.decide_anew(&request).allowed, decision.allowed);
            }
        }
    });
    assert!(compiled > 0, "nothing was ever asked");
}

#[test]
fn cedar_policies() {
    check("a.cedar", samples("cedar"), CEDAR);
}

#[test]
fn ram_documents() {
    check("a.json", samples("json"), RAM);
}
