//! What a document says, and what is refused of it.

use crate::{AccessRequest, Action, Policies, PolicyBundle, PolicyFile, PolicyProblems, Resource};

fn compile(text: &str) -> Result<Policies, PolicyProblems> {
    let file = PolicyFile::new("1", "a.json", text.to_owned()).unwrap();
    Policies::compile(&PolicyBundle::new(vec![file]))
}

/// A document of one statement, allowing what `elements` say.
fn document(elements: &str) -> String {
    format!(
        "{{\"Version\": \"1\", \"Principal\": \"ops-*\", \"Statement\": [\n{{\"Effect\": \"Allow\", {elements}}}]}}"
    )
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    let error = compile(text).unwrap_err().to_string();
    assert!(error.lines().any(|line| line.starts_with(expected)), "{error}");
}

fn asked(principal: &'static str, action: Action) -> AccessRequest<'static> {
    let resource = Resource { region_id: "r", account_id: "1", instance_id: "fleet-a" };
    AccessRequest {
        principal,
        account_id: "1",
        operator: false,
        action,
        resource,
        source_ip: None,
        time_ms: 0,
    }
}

const ANYTHING: &str = r#""Action": "*", "Resource": "*""#;

#[test]
fn a_statement_names_principals_actions_and_resources() {
    let text = document(r#""Action": ["mq:Get*", "mq:WatchTrust"], "Resource": "acs:mq:*:1:fleet-?""#);
    let policies = compile(&text).unwrap();
    let request = asked("ops-alice", Action::GetInstance);
    assert_eq!(policies.decide(&request).to_string(), "allowed by 1/a.json:2 (statement 1)");
    assert!(policies.decide(&asked("ops-", Action::WatchTrust)).allowed);
    assert!(!policies.decide(&asked("dev-alice", Action::GetInstance)).allowed);
    assert!(!policies.decide(&asked("ops-alice", Action::UpdateInstance)).allowed);
    let resource = Resource { instance_id: "fleet-ab", ..request.resource };
    assert!(!policies.decide(&AccessRequest { resource, ..request }).allowed);
}

#[test]
fn without_an_address_an_allowance_does_not_apply_and_a_denial_does() {
    for operator in ["IpAddress", "NotIpAddress"] {
        let condition =
            format!("{ANYTHING}, \"Condition\": {{\"{operator}\": {{\"acs:SourceIp\": \"10.0.0.0/8\"}}}}");
        let allowing = document(&condition);
        let denying = allowing.replacen(
            "\"Statement\": [",
            "\"Statement\": [{\"Effect\": \"Allow\", \"Action\": \"*\", \"Resource\": \"*\"},",
            1,
        );
        let denying = denying.replace("\n{\"Effect\": \"Allow\"", "\n{\"Effect\": \"Deny\"");
        let inside = operator == "IpAddress";
        for (text, ip, allowed) in [
            (&allowing, None, false),
            (&allowing, Some("10.9.9.9"), inside),
            (&allowing, Some("9.9.9.9"), !inside),
            (&allowing, Some("::1"), !inside),
            (&denying, None, false),
            (&denying, Some("10.9.9.9"), !inside),
            (&denying, Some("9.9.9.9"), inside),
        ] {
            let source_ip = ip.map(|ip| ip.parse().unwrap());
            let request = AccessRequest { source_ip, ..asked("ops-alice", Action::GetInstance) };
            assert_eq!(compile(text).unwrap().decide(&request).allowed, allowed, "{operator} {ip:?} {text}");
        }
    }
}

#[test]
fn what_is_not_known_is_refused_with_its_statement_and_line() {
    let second = document(ANYTHING)
        .replace("}]}", "},\n\n{\"Effect\": \"Deny\",\n\"NotAction\": \"*\", \"Resource\": \"*\"}]}");
    refused(&second, "1/a.json:5: statement 2: unknown field `NotAction`");
    let cases = [
        (
            document(r#""Action": "*", "NotResource": "*""#),
            "1/a.json:2: statement 1: unknown field `NotResource`",
        ),
        (document(r#""Action": "*""#), "1/a.json:2: statement 1: missing field `Resource`"),
        (document(r#""Action": [], "Resource": "*""#), "1/a.json:2: statement 1: an empty list"),
        (document(r#""Action": 1, "Resource": "*""#), "1/a.json:2: statement 1: invalid type"),
        (
            document(r#""Action": "*", "Action": "*", "Resource": "*""#),
            "1/a.json:2: statement 1: duplicate field `Action`",
        ),
        (
            document(r#""Action": "mq:Inactivate*", "Resource": "*""#),
            "1/a.json:2: statement 1: Action: \"mq:Inactivate*\"",
        ),
        (
            document(r#""Action": "*", "Resource": "acs:mq:*""#),
            "1/a.json:2: statement 1: Resource: \"acs:mq:*\"",
        ),
        (document(&format!("{ANYTHING}, \"Condition\": {{}}")), "1/a.json:2: statement 1: an empty object"),
        (
            document(&format!("{ANYTHING}, \"Condition\": {{\"StringLike\": {{\"acs:SourceIp\": \"*\"}}}}")),
            "1/a.json:2: statement 1: Condition: StringLike: is not known",
        ),
        (
            document(&format!(
                "{ANYTHING}, \"Condition\": {{\"IpAddress\": {{\"acs:CurrentTime\": \"10.0.0.1\"}}}}"
            )),
            "1/a.json:2: statement 1: Condition: IpAddress: knows no key `acs:CurrentTime`",
        ),
        (
            document(&format!(
                "{ANYTHING}, \"Condition\": {{\"IpAddress\": {{\"acs:SourceIp\": \"office\"}}}}"
            )),
            "1/a.json:2: statement 1: Condition: IpAddress: \"office\" is no address",
        ),
        (
            document(&format!(
                "{ANYTHING}, \"Condition\": {{\"DateLessThan\": {{\"acs:CurrentTime\": \"soon\"}}}}"
            )),
            "1/a.json:2: statement 1: Condition: DateLessThan: \"soon\" is no time",
        ),
        (
            document(&format!(
                "{ANYTHING}, \"Condition\": {{\"IpAddress\": {{\"acs:SourceIp\": \"1.1.1.1\"}}, \"IpAddress\": {{\"acs:SourceIp\": \"2.2.2.2\"}}}}"
            )),
            "1/a.json:2: statement 1: `IpAddress` stands there twice",
        ),
        (document(ANYTHING).replace("Allow", "allow"), "1/a.json:2: statement 1: unknown variant `allow`"),
        (document(ANYTHING).replace("\"1\"", "\"2\""), "1/a.json:1: Version is \"2\", must be \"1\""),
        (
            document(ANYTHING).replace("\"ops-*\"", "[\"ops-*\", \"\"]"),
            "1/a.json:1: Principal: \"\" must have 1 to",
        ),
        (
            document(ANYTHING).replace("\"Principal\": \"ops-*\", ", ""),
            "1/a.json:2: missing field `Principal`",
        ),
        (
            document(ANYTHING).replace("\"Version\"", "\"Id\": \"x\", \"Version\""),
            "1/a.json:1: unknown field `Id`",
        ),
        (
            "{\"Version\": \"1\", \"Principal\": \"*\", \"Statement\": []}".to_owned(),
            "1/a.json:1: Statement is empty",
        ),
        ("{\n\"Version\": ,".to_owned(), "1/a.json:2: expected value"),
    ];
    for (text, expected) in cases {
        refused(&text, expected);
    }
}

#[test]
fn names_with_quotes_and_backslashes_stay_names() {
    let text = document(ANYTHING).replace("ops-*", "a\\\"b\\\\*\\u0041");
    let policies = compile(&text).unwrap();
    assert!(policies.decide(&asked("a\"b\\xyA", Action::GetInstance)).allowed);
    assert!(!policies.decide(&asked("a\"b\\xy", Action::GetInstance)).allowed);
}

#[test]
fn a_thousand_principals_are_no_deep_policy() {
    let names: Vec<String> = (0..5_000).map(|n| format!("\"p{n}\"")).collect();
    let text = document(ANYTHING).replace("\"ops-*\"", &format!("[{}]", names.join(",")));
    let policies = compile(&text).unwrap();
    assert!(policies.decide(&asked("p4999", Action::GetInstance)).allowed);
    assert!(!policies.decide(&asked("p5000", Action::GetInstance)).allowed);
}
