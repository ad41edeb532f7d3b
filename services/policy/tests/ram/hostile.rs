//! Whatever lies in a policy file, reading it ends with policies or with problems.

use catrust_policy::{AccessRequest, Action, Policies, PolicyBundle, PolicyFile, Resource};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Compiles and, where that succeeds, asks.
fn survives(name: &str, text: String) -> bool {
    let bundle = PolicyBundle::new(vec![PolicyFile::new("1", name, text).unwrap()]);
    let Ok(policies) = Policies::compile(&bundle).inspect_err(|refused| assert!(!refused.0.is_empty()))
    else {
        return false;
    };
    let request = AccessRequest {
        principal: "p",
        account_id: "1",
        operator: true,
        action: Action::GetInstance,
        resource: Resource { region_id: "r", account_id: "1", instance_id: "i" },
        source_ip: Some([10, 0, 0, 1].into()),
        time_ms: 0,
    };
    assert_eq!(*policies.decide(&request), policies.decide_anew(&request));
    true
}

fn tokens(tokens: &'static [&'static str]) -> impl Strategy<Value = String> {
    vec(select(tokens), 0..80).prop_map(|tokens| tokens.join(" "))
}

const CEDAR: &[&str] = &[
    "permit",
    "forbid",
    "(",
    ")",
    "principal",
    ",",
    "action",
    "resource",
    ";",
    "when",
    "unless",
    "{",
    "}",
    "==",
    "in",
    "has",
    "like",
    "is",
    "[",
    "]",
    "context",
    ".",
    "source_ip",
    "time",
    "operator",
    "isInRange",
    "ip(\"10.0.0.0/8\")",
    "||",
    "&&",
    "!",
    "-",
    "+",
    "*",
    "1",
    "9223372036854775807",
    "\"*\"",
    "Principal::\"p\"",
    "Action::\"mq:GetInstance\"",
    "if",
    "then",
    "else",
    "true",
    "datetime(\"x\")",
    "@id(\"x\")",
    "?principal",
    "//",
    "\n",
    "\"",
    "\\",
    "permit(principal, action, resource);",
    "forbid(principal, action, resource) when {",
];

const RAM: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\"Version\"",
    "\"1\"",
    "\"Principal\"",
    "\"*\"",
    "\"Statement\"",
    "\"Effect\"",
    "\"Allow\"",
    "\"Deny\"",
    "\"Action\"",
    "\"Resource\"",
    "\"Condition\"",
    "\"IpAddress\"",
    "\"acs:SourceIp\"",
    "\"10.0.0.0/99\"",
    "null",
    "1e999",
    "\"\\ud800\"",
    "{\"Effect\": \"Allow\", \"Action\": \"*\", \"Resource\": \"*\"}",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bytes_are_refused_and_harm_nobody(bytes in vec(any::<u8>(), 0..400)) {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        survives("a.cedar", text.clone());
        survives("a.json", text);
    }

    #[test]
    fn characters_are_refused_and_harm_nobody(text in "\\PC{0,200}") {
        survives("a.cedar", text.clone());
        survives("a.json", text);
    }

    #[test]
    fn words_of_cedar_in_any_order_harm_nobody(text in tokens(CEDAR)) {
        survives("a.cedar", text);
    }

    #[test]
    fn words_of_documents_in_any_order_harm_nobody(text in tokens(RAM)) {
        survives("a.json", text);
    }

    #[test]
    fn conditions_of_any_words_harm_nobody(text in tokens(CEDAR)) {
        survives("a.cedar", format!("permit(principal, action, resource) when {{ {text} }};"));
    }
}

#[test]
fn endless_chains_and_nests_are_refused_before_they_fill_the_stack() {
    for part in [
        "true||",
        "context.operator&&",
        "1+",
        "if true then true else ",
        "(",
        "[",
        "{a:",
        "!",
        "-",
        "a.",
        "f(",
    ] {
        let text = format!(
            "permit(principal, action, resource) when {{ {}true }};",
            part.repeat(200_000 / part.len())
        );
        assert!(!survives("a.cedar", text), "{part}");
    }
    for part in ["[", "{\"Version\":", "{\"Statement\":["] {
        assert!(!survives("a.json", part.repeat(200_000 / part.len())), "{part}");
    }
}

/// At the bound, a policy still is compiled and evaluated, in the stack of an ordinary thread.
#[test]
fn the_deepest_policies_that_are_taken_can_be_evaluated() {
    for (part, last) in [("false||", "true"), ("true&&", "true"), ("if false then true else ", "true")] {
        let text = format!("permit(principal, action, resource) when {{ {}{last} }};", part.repeat(250));
        let bundle = PolicyBundle::new(vec![PolicyFile::new("1", "a.cedar", text).unwrap()]);
        let policies = Policies::compile(&bundle).unwrap_or_else(|refused| panic!("{part}: {refused}"));
        let request = AccessRequest {
            principal: "p",
            account_id: "1",
            operator: false,
            action: Action::GetInstance,
            resource: Resource { region_id: "r", account_id: "1", instance_id: "i" },
            source_ip: None,
            time_ms: 0,
        };
        assert_eq!(policies.decide(&request).to_string(), "allowed by 1/a.cedar:1", "{part}");
    }
}
