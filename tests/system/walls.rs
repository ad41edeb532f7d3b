//! The walls between the rooms, read off the dependencies themselves.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context as _;
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};
use catrust_tests::program::repository;

/// For this platform only: what others need was never downloaded here.
fn metadata() -> anyhow::Result<Metadata> {
    let version = std::process::Command::new("rustc").arg("-vV").output()?;
    let version = String::from_utf8(version.stdout)?;
    let host =
        version.lines().find_map(|line| line.strip_prefix("host: ")).context("no host in rustc -vV")?;
    let manifest = repository().join("Cargo.toml");
    let options = ["--locked", "--offline", "--filter-platform", host].map(str::to_owned);
    Ok(MetadataCommand::new().manifest_path(manifest).other_options(options).exec()?)
}

/// What each room may not import in what it ships: tests are free to.
const WALLS: [(&str, &[&str]); 11] = [
    ("catrust-proto", &["catrust-*", "tokio", "sqlx", "async-nats", "tracing"]),
    (
        "catrust-domain",
        &[
            "catrust-*",
            "tokio",
            "tonic",
            "tonic-*",
            "prost",
            "sqlx",
            "async-nats",
            "tracing",
            "chrono-tz",
            "rand",
            "getrandom",
            "time",
        ],
    ),
    // Asked by the server and offline by the command line: neither may show in it.
    (
        "catrust-policy",
        &[
            "catrust-*",
            "tokio",
            "tonic*",
            "prost",
            "sqlx",
            "async-nats",
            "tracing*",
            "rand",
            "getrandom",
            "time",
        ],
    ),
    (
        "catrust-event-store",
        &[
            "tonic",
            "tonic-*",
            "prost",
            "pbjson*",
            "async-nats",
            "catrust-proto",
            "catrust-trust-feed",
            "catrust-control-plane",
        ],
    ),
    // Used offline by the command line, too.
    (
        "catrust-signing",
        &[
            "catrust-event-store",
            "catrust-trust-feed",
            "catrust-control-plane",
            "sqlx",
            "async-nats",
            "tokio",
            "tonic*",
            "tracing*",
            "chrono",
            "time",
        ],
    ),
    // An auditor checks with it, who has no server, no database and no network.
    (
        "catrust-evidence",
        &[
            "catrust-event-store",
            "catrust-trust-feed",
            "catrust-control-plane",
            "sqlx",
            "async-nats",
            "tokio",
            "tonic*",
            "tracing*",
            "chrono",
            "time",
            "rand",
            "getrandom",
        ],
    ),
    ("catrust-trust-feed", &["sqlx", "catrust-event-store", "catrust-control-plane"]),
    ("catrust-control-plane", &["catrust-cli", "catrust-tests"]),
    (
        "catrust-cli",
        &[
            "catrust-domain",
            "catrust-event-store",
            "catrust-trust-feed",
            "catrust-control-plane",
            "sqlx",
            "async-nats",
        ],
    ),
    ("catrust-broker-agent", &["catrust-event-store", "catrust-control-plane", "sqlx"]),
    // Inside somebody else's broker: no runtime, no network of its own.
    (
        "catrust-mosquitto-plugin",
        &[
            "catrust-event-store",
            "catrust-control-plane",
            "catrust-trust-feed",
            "catrust-proto",
            "sqlx",
            "async-nats",
            "tokio",
            "tonic*",
        ],
    ),
];

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |prefix| name.starts_with(prefix))
}

#[test]
fn no_room_imports_what_is_behind_its_wall() -> anyhow::Result<()> {
    let metadata = metadata()?;
    for (room, forbidden) in WALLS {
        let package = metadata.packages.iter().find(|package| package.name.as_str() == room);
        let package = package.with_context(|| format!("there is no room {room}"))?;
        for dependency in package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development) {
            let broken = forbidden.iter().find(|pattern| matches(pattern, &dependency.name));
            // `dep:` behind a feature for contract suites is no import of what is shipped.
            if dependency.optional {
                continue;
            }
            assert!(broken.is_none(), "{room} imports {} (forbidden: {broken:?})", dependency.name);
        }
    }
    Ok(())
}

#[test]
fn the_tests_know_the_contract_and_no_inside() -> anyhow::Result<()> {
    let metadata = metadata()?;
    let tests = metadata.packages.iter().find(|package| package.name.as_str() == "catrust-tests");
    let own = tests.context("no tests")?.dependencies.iter().filter(|d| d.name.starts_with("catrust-"));
    assert_eq!(own.map(|dependency| dependency.name.as_str()).collect::<Vec<_>>(), ["catrust-proto"]);
    Ok(())
}

/// Sources that a room's own wall keeps clean; Cargo cannot see inside a crate.
#[test]
fn the_api_knows_no_database_and_no_broker_and_the_middleware_no_certificate() -> anyhow::Result<()> {
    let control_plane = repository().join("services/control-plane/src");
    for (folder, words) in [
        ("api", &["sqlx", "async_nats", "SELECT ", "INSERT "][..]),
        ("middleware", &["sqlx", "async_nats", "x509_parser", "CaCertificate"][..]),
    ] {
        let mut files = 0;
        for file in sources(&control_plane.join(folder))? {
            let text = std::fs::read_to_string(&file)?;
            for word in words {
                let broken =
                    text.lines().find(|line| !line.trim_start().starts_with("//") && line.contains(word));
                // The load shedder knows the calls by their paths, which it must.
                let is_path =
                    broken.is_some_and(|line| line.contains("\"/catrust.v1.") || line.contains("Service/"));
                assert!(broken.is_none() || is_path, "{} knows {word}: {broken:?}", file.display());
            }
            files += 1;
        }
        assert!(files > 0, "no sources in {folder}");
    }
    Ok(())
}

fn sources(directory: &std::path::Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

/// Every package that the build of any member reaches, dev-dependencies aside.
fn shipped(metadata: &Metadata) -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
    let resolve = metadata.resolve.as_ref().context("no resolve")?;
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let mut open: Vec<_> = metadata.workspace_members.iter().collect();
    let mut seen = BTreeSet::new();
    let mut found = BTreeMap::<String, BTreeSet<String>>::new();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        let package = &metadata[id];
        found.entry(package.name.to_string()).or_default().insert(package.version.to_string());
        for dependency in &nodes.get(id).context("a package without a node")?.deps {
            if dependency.dep_kinds.iter().any(|kind| kind.kind == DependencyKind::Normal) {
                open.push(&dependency.pkg);
            }
        }
    }
    Ok(found)
}

#[test]
fn there_is_one_copy_of_the_stack_and_one_tls() -> anyhow::Result<()> {
    let shipped = shipped(&metadata()?)?;
    for name in ["tonic", "http", "hyper", "tower", "rustls", "ring", "prost", "tokio"] {
        let versions = shipped.get(name).with_context(|| format!("{name} is not there at all"))?;
        assert_eq!(versions.len(), 1, "{name}: {versions:?}");
    }
    for name in ["aws-lc-rs", "aws-lc-sys", "native-tls", "openssl", "openssl-sys", "reqwest"] {
        assert!(!shipped.contains_key(name), "{name} came in");
    }
    Ok(())
}

/// No file of the repository knows the machine that it was written on.
#[test]
fn no_manifest_names_a_machine_path() -> anyhow::Result<()> {
    for package in metadata()?.workspace_packages() {
        let text = std::fs::read_to_string(&package.manifest_path)?;
        assert!(!text.contains("path = \"/"), "{}", package.manifest_path);
    }
    Ok(())
}
