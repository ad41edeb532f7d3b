//! `catrust keys`: what a script sees of it, without any server; and `openssl` beside it.

#![expect(clippy::unwrap_used, reason = "the whole file is a test; clippy knows only of functions marked so")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

struct Desk {
    directory: TempDir,
}

impl Desk {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Runs `catrust keys …` in the directory.
    fn keys(&self, arguments: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_catrust"));
        // A server and a token that cannot be used: nobody may look for them.
        command.env_clear().env("CATRUST_SERVER", "https://127.0.0.1:1");
        command.args(["--token-file", "/nonexistent", "-o", "json", "keys"]);
        command.current_dir(self.directory.path()).args(arguments.split_whitespace()).output().unwrap()
    }

    fn done(&self, arguments: &str) -> Value {
        let output = self.keys(arguments);
        assert_eq!(output.status.code(), Some(0), "{arguments}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// Gives what is said.
    fn refused(&self, arguments: &str, code: i32) -> String {
        let output = self.keys(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments}: {}", text(&output.stdout));
        text(&output.stderr)
    }

    /// Makes a key; gives its name.
    fn generate(&self, name: &str) -> String {
        let made = self.done(&format!("generate --out {name}.pem"));
        made["key_id"].as_str().unwrap().to_owned()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn ids(set: &Value) -> Vec<(String, bool)> {
    let keys = set["keys"].as_array().unwrap().iter();
    keys.map(|key| (key["keyId"].as_str().unwrap().to_owned(), key["revoked"] == true)).collect()
}

#[test]
fn a_private_key_is_its_owners_alone_is_never_overwritten_and_openssl_reads_it() {
    let desk = Desk::new();
    let key_id = desk.generate("root");
    let mode = std::fs::metadata(desk.path("root.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = std::fs::read(desk.path("root.pem")).unwrap();
    let said = desk.refused("generate --out root.pem --public other.pub.pem", 2);
    assert!(said.contains("is there already"), "{said}");
    assert!(!desk.path("other.pub.pem").exists(), "half of a pair is left behind");
    assert!(desk.refused("generate --out new.pem --public root.pub.pem", 2).contains("is there already"));
    assert!(!desk.path("new.pem").exists());
    assert_eq!(std::fs::read(desk.path("root.pem")).unwrap(), before);
    for file in ["root.pem", "root.pub.pem"] {
        assert_eq!(desk.done(&format!("show {file}"))["key_ids"], serde_json::json!([key_id]), "{file}");
    }
    let openssl =
        Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(desk.path("root.pem")).output();
    let openssl = openssl.unwrap();
    assert_eq!(text(&openssl.stdout), std::fs::read_to_string(desk.path("root.pub.pem")).unwrap());
}

#[test]
fn a_rotation_is_a_set_after_the_other() {
    let desk = Desk::new();
    desk.generate("root");
    let (old, new) = (desk.generate("old"), desk.generate("new"));
    let vouch = "vouch --root-key root.pem --set keys.json";
    let first = desk.done(&format!("{vouch} --add old.pub.pem"));
    assert_eq!((first["version"].as_str(), ids(&first)), (Some("1"), vec![(old.clone(), false)]));
    let verify = "verify keys.json --root-key root.pub.pem";
    let verified = desk.done(&format!("{verify} --key old.pem"));
    assert_eq!((verified["version"].as_u64(), verified["key_id"].as_str()), (Some(1), Some(&*old)));
    assert!(
        desk.refused(&format!("{verify} --key new.pem"), 1).contains("neither pinned nor in the key set")
    );
    let both = desk.done(&format!("{vouch} --add new.pub.pem --valid-days 30"));
    assert_eq!(ids(&both), [(old.clone(), false), (new.clone(), false)]);
    let revoked = desk.done(&format!("{vouch} --revoke {old}"));
    assert_eq!(ids(&revoked), [(old.clone(), true), (new.clone(), false)]);
    assert!(desk.refused(&format!("{verify} --key old.pub.pem"), 1).contains("the key is revoked"));
    assert!(desk.refused(&format!("{vouch} --add old.pub.pem"), 2).contains("is revoked, for good"));
    assert_eq!(desk.done(&format!("{verify} --key new.pub.pem"))["version"], 3);
    let dropped = desk.done(&format!("{vouch} --drop {old}"));
    assert_eq!((dropped["version"].as_str(), ids(&dropped)), (Some("4"), vec![(new, false)]));
    let renewed = desk.done(&format!("{vouch} --expires-days 7"));
    assert_eq!((renewed["version"].as_str(), &renewed["keys"]), (Some("5"), &dropped["keys"]));
    assert_eq!(desk.done("show keys.json"), renewed);
}

#[test]
fn what_would_be_refused_by_agents_is_refused_here() {
    let desk = Desk::new();
    desk.generate("root");
    desk.generate("stranger");
    desk.generate("event");
    let vouch = "vouch --root-key root.pem --set keys.json";
    assert!(desk.refused(&format!("{vouch} --add event.pem"), 2).contains("is a private key"));
    assert!(desk.refused(&format!("{vouch} --revoke abc"), 2).contains("no key abc in the set"));
    assert!(!desk.path("keys.json").exists(), "nothing is left of what was refused");
    desk.done(&format!("{vouch} --add event.pub.pem --expires-at 2030-01-01T00:00:00Z --version 9"));
    let said = desk.refused("vouch --root-key stranger.pem --set keys.json", 2);
    assert!(said.contains("no root key vouches"), "{said}");
    assert!(desk.refused(&format!("{vouch} --version 9"), 2).contains("the next one is 10"));
    let said = desk.refused("verify keys.json --root-key stranger.pub.pem", 1);
    assert!(said.contains("no root key vouches"), "{said}");
    let verify = "verify keys.json --root-key stranger.pub.pem --root-key root.pub.pem";
    desk.done(&format!("{verify} --at 2030-01-01T00:00:00Z"));
    let said = desk.refused(&format!("{verify} --at 2030-01-01T00:00:00.000001Z"), 1);
    assert!(said.contains("the key set expired at 2030-01-01T00:00:00.000000Z"), "{said}");
    let set = std::fs::read_to_string(desk.path("keys.json")).unwrap();
    std::fs::write(desk.path("forged.json"), set.replace("2030", "2031")).unwrap();
    assert!(desk.refused("verify forged.json --root-key root.pub.pem", 1).contains("does not match"));
    std::fs::write(desk.path("broken.json"), "{").unwrap();
    assert!(desk.refused("show broken.json", 2).contains("is no key set"));
    std::fs::write(desk.path("no.pem"), "hello").unwrap();
    assert!(desk.refused("show no.pem", 2).contains("not an Ed25519 public key"));
}
