//! `catrust policy`: what a script sees of it, without any server.

#![expect(clippy::unwrap_used, reason = "the whole file is a test; clippy knows only of functions marked so")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn catrust(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_catrust"));
    // A server and a token that cannot be used: nobody may look for them.
    command.env_clear().env("CATRUST_SERVER", "https://127.0.0.1:1");
    command.args(["--token-file", "/nonexistent"]).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn samples() -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/policies");
    path.to_string_lossy().into_owned()
}

const FLEET: &str = "acs:mq:cn-hangzhou:1234567890:post-cn-7mz2d1";

fn test_of(principal: &str, action: &str, more: &[&str]) -> Output {
    let samples = samples();
    let asked = [
        "policy",
        "test",
        "--dir",
        &samples,
        "--account",
        "1234567890",
        "--principal",
        principal,
        "--action",
        action,
        "--resource",
        FLEET,
    ];
    catrust(&[&asked[..], more].concat())
}

#[test]
fn what_is_allowed_is_exit_0_and_names_the_policies() {
    let output = test_of("oncall-7", "mq:UnregisterCaCertificate", &["--source-ip", "10.1.2.3"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let expected = "\
ACTION                      DECISION  WHY
mq:UnregisterCaCertificate  ALLOWED   allowed by 1234567890/inactivation.json:5 (statement 1)
mq:MqttInstanceAccess       ALLOWED   allowed by 1234567890/inactivation.json:5 (statement 1)
";
    assert_eq!(text(&output.stdout), expected);
}

#[test]
fn what_is_denied_is_exit_1_and_names_the_denial() {
    let output = test_of("oncall-7", "mq:UnregisterCaCertificate", &["--source-ip", "9.1.2.3", "-o", "json"]);
    assert_eq!(output.status.code(), Some(1));
    let reply: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(reply["allowed"], false);
    assert!(reply["version"].as_str().unwrap().starts_with("policies-"));
    assert_eq!(reply["decisions"][0]["policies"][0], "1234567890/inactivation.json:10 (statement 2)");
    assert_eq!(reply["decisions"][1]["action"], "mq:MqttInstanceAccess");
    assert_eq!(reply["decisions"][1]["allowed"], true);
    assert!(text(&output.stderr).contains("oncall-7 may not mq:UnregisterCaCertificate on acs:mq:"));
    let output = test_of("oncall-77", "mq:UnregisterCaCertificate", &["--source-ip", "10.1.2.3"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).contains("REFUSED   no policy allows it"), "{}", text(&output.stdout));
}

#[test]
fn the_time_is_an_argument() {
    for (at, code) in [("2029-12-31T15:59:59.999Z", 0), ("2029-12-31T16:00:00Z", 1)] {
        let more = ["--source-ip", "2001:db8::1", "--at", at];
        let output = test_of("device-onboarding", "mq:RegisterCa", &more);
        assert_eq!(output.status.code(), Some(code), "{at}: {}", text(&output.stdout));
    }
}

#[test]
fn the_operator_flag_is_an_argument() {
    for (more, code) in [(&["--operator"][..], 0), (&[], 1)] {
        assert_eq!(test_of("ops-alice", "mq:RegisterInstance", more).status.code(), Some(code));
    }
}

#[test]
fn a_folder_is_checked_and_every_problem_listed() {
    let output = catrust(&["policy", "check", &samples()]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("1234567890  7\n"), "{}", text(&output.stdout));

    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("1")).unwrap();
    std::fs::write(
        folder.path().join("1/a.cedar"),
        "permit(principal, action, resource)\nwhen { context.x };",
    )
    .unwrap();
    std::fs::write(folder.path().join("1/b.json"), "{\"Version\": \"1\",\n\"Statements\": []}").unwrap();
    let path = folder.path().to_string_lossy().into_owned();
    let output = catrust(&["policy", "check", &path]);
    assert_eq!((output.status.code(), text(&output.stdout).trim()), (Some(1), ""));
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("\n1/a.cedar:2: ") && stderr.contains("\n1/b.json:2: unknown field `Statements`"),
        "{stderr}"
    );
    let output = catrust(&["policy", "check", &path, "-o", "json"]);
    let reply: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &reply["valid"]), (Some(1), &Value::from(false)));
    assert_eq!(reply["problems"].as_array().unwrap().len(), 2);
    assert_eq!(reply["problems"][1]["line"], 2);
}

#[test]
fn what_cannot_be_asked_is_exit_2() {
    let fleet = ["--resource", FLEET];
    let asked = |dir: &str, action: &str, resource: &[&str]| {
        let base = ["policy", "test", "--dir", dir, "--account", "1", "--principal", "p", "--action", action];
        catrust(&[&base[..], resource].concat()).status.code()
    };
    assert_eq!(asked("/nonexistent", "mq:GetInstance", &fleet), Some(2));
    assert_eq!(asked(&samples(), "mq:InactivateCaCertificate", &fleet), Some(2));
    assert_eq!(asked(&samples(), "mq:GetInstance", &["--resource", "acs:oss:r:1:i"]), Some(2));
    assert_eq!(asked(&samples(), "mq:GetInstance", &[]), Some(2));
}
