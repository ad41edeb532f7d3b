//! The files of an operator.

use std::path::Path;

use catrust_access::{Identities, PermissionSource};
use catrust_control_plane::config::Config;

use crate::runner::{Corpus, run};

const WORDS: &[&str] = &[
    "[grpc]",
    "[database]",
    "[auth]",
    "[tls]",
    "[signing]",
    "[audit]",
    "[nats]",
    "listen = ",
    "\"127.0.0.1:0\"",
    "url = ",
    "\"postgres://[::1\"",
    "= [",
    "]",
    "'''",
    "\"\"\"",
    "true",
    "nan",
    "1979-05-27T07:32:00Z",
    "\\u0000",
    "#",
    "[[",
    "]]",
];

fn sample(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/config").join(name);
    std::fs::read_to_string(path).expect("the sample")
}

/// A file whose content changes.
struct Rewritten(tempfile::NamedTempFile);

impl Rewritten {
    fn new() -> Self {
        Self(tempfile::NamedTempFile::new().expect("a temporary file"))
    }

    fn with(&self, content: &[u8]) -> &Path {
        std::fs::write(self.0.path(), content).expect("the disk takes it");
        self.0.path()
    }
}

#[test]
fn settings() {
    let file = Rewritten::new();
    let samples = ["production.toml", "dev.toml", "sqlite.toml"].map(sample);
    run(&Corpus::of(samples, WORDS), |input| {
        match Config::load(Some(file.with(input)), std::iter::empty()) {
            Err(error) => assert!(!error.to_string().is_empty()),
            Ok(config) => {
                let _ = config.validate();
                let _ = config.validate_for_development();
                config.to_toml().expect("what was read can be written");
            }
        }
    });
}

#[test]
fn identities() {
    let samples = ["identities.example.toml", "identities.beside-policies.example.toml"].map(sample);
    let words = &[
        "[[identity]]",
        "principal = ",
        "token_sha256 = ",
        "allow = ",
        "\"mq:*\"",
        "resources = ",
        "broker_id = ",
    ];
    run(&Corpus::of(samples, words), |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        for permissions in [PermissionSource::Identities, PermissionSource::Policies] {
            if let Err(error) = Identities::parse(text, Path::new("identities.toml"), permissions) {
                assert!(!error.to_string().is_empty());
            }
        }
    });
}
