//! The walls between the rooms, read off the dependencies themselves.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

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

/// A room and what it may reach in what it ships, however many crates lie between.
struct Wall {
    room: &'static str,
    /// The only rooms that it may reach.
    rooms: &'static [&'static str],
    /// What it may not reach, each a list of patterns: a crate, crates that begin alike
    /// (`tonic*`), or a feature of a crate (`chrono/now`).
    not: &'static [&'static [&'static str]],
}

const RUNTIME: &[&str] = &["tokio*", "mio", "futures-executor", "tracing*"];
const NETWORK: &[&str] = &["tonic*", "hyper*", "h2", "axum*", "rustls", "socket2", "async-nats"];
const DATABASE: &[&str] = &["sqlx*", "libsqlite3-sys"];
const CLOCK: &[&str] = &["chrono/now", "chrono/clock", "chrono-tz", "time"];
const RANDOMNESS: &[&str] = &["rand", "rand_core", "getrandom", "uuid/v4", "uuid/v7"];
const CONTRACT: &[&str] = &["prost*", "pbjson*"];

/// Every member of the workspace, the system tests aside.
const WALLS: &[Wall] = &[
    Wall { room: "catrust-proto", rooms: &[], not: &[RUNTIME, NETWORK, DATABASE, CLOCK, RANDOMNESS] },
    Wall {
        room: "catrust-domain",
        rooms: &[],
        not: &[RUNTIME, NETWORK, DATABASE, CLOCK, RANDOMNESS, CONTRACT],
    },
    // Asked by the server and offline by the command line: neither may show in it.
    Wall {
        room: "catrust-policy",
        rooms: &[],
        not: &[RUNTIME, NETWORK, DATABASE, CLOCK, RANDOMNESS, CONTRACT],
    },
    // Used offline by the command line, too. It makes keys, so randomness is its own.
    Wall {
        room: "catrust-signing",
        rooms: &["catrust-domain", "catrust-proto"],
        not: &[RUNTIME, NETWORK, DATABASE, CLOCK],
    },
    // An auditor checks with it, who has no server, no database and no network.
    Wall {
        room: "catrust-evidence",
        rooms: &["catrust-domain", "catrust-proto", "catrust-signing"],
        not: &[RUNTIME, NETWORK, DATABASE, CLOCK, RANDOMNESS],
    },
    Wall {
        room: "catrust-event-store",
        rooms: &["catrust-domain"],
        not: &[&["tonic*", "axum*", "hyper*", "async-nats"], CONTRACT],
    },
    Wall {
        room: "catrust-trust-feed",
        rooms: &["catrust-domain", "catrust-proto", "catrust-signing"],
        not: &[DATABASE],
    },
    // One capability each, and no path to the API.
    Wall {
        room: "catrust-access",
        rooms: &["catrust-domain", "catrust-policy"],
        not: &[DATABASE, CONTRACT, &["tonic*", "axum*", "async-nats"]],
    },
    Wall {
        room: "catrust-limiter",
        rooms: &["catrust-domain", "catrust-proto", "catrust-signing", "catrust-trust-feed"],
        not: &[DATABASE],
    },
    // Copies the log to the feed, and has no path to the API.
    Wall {
        room: "catrust-publisher",
        rooms: &[
            "catrust-domain",
            "catrust-event-store",
            "catrust-proto",
            "catrust-signing",
            "catrust-trust-feed",
        ],
        not: &[&["tonic-health", "tonic-reflection", "opentelemetry*", "clap*"]],
    },
    Wall {
        room: "catrust-control-plane",
        rooms: &[
            "catrust-access",
            "catrust-domain",
            "catrust-event-store",
            "catrust-evidence",
            "catrust-limiter",
            "catrust-policy",
            "catrust-proto",
            "catrust-publisher",
            "catrust-signing",
            "catrust-trust-feed",
        ],
        not: &[],
    },
    // Loaded into a broker as well. Its DER reader brings `time`, for dates.
    Wall {
        room: "catrust-device-trust",
        rooms: &["catrust-domain"],
        not: &[RUNTIME, NETWORK, DATABASE, CONTRACT],
    },
    Wall {
        room: "catrust-decision-table",
        rooms: &["catrust-domain"],
        not: &[RUNTIME, NETWORK, DATABASE, CONTRACT],
    },
    Wall {
        room: "catrust-broker-agent",
        rooms: &[
            "catrust-device-trust",
            "catrust-domain",
            "catrust-mosquitto-control",
            "catrust-proto",
            "catrust-signing",
            "catrust-trust-feed",
        ],
        not: &[DATABASE],
    },
    Wall {
        room: "catrust-mosquitto-control",
        rooms: &["catrust-domain"],
        not: &[RUNTIME, NETWORK, DATABASE, CONTRACT],
    },
    // Inside somebody else's broker: no runtime, no network of its own.
    Wall {
        room: "catrust-mosquitto-plugin",
        rooms: &["catrust-device-trust", "catrust-domain", "catrust-mosquitto-control"],
        not: &[RUNTIME, NETWORK, DATABASE, CONTRACT],
    },
    Wall {
        room: "catrust-cli",
        rooms: &["catrust-domain", "catrust-evidence", "catrust-policy", "catrust-proto", "catrust-signing"],
        not: &[DATABASE, &["async-nats"]],
    },
    // A leaf, so that the tests of every room may use it.
    Wall {
        room: "catrust-test-harness",
        rooms: &[],
        not: &[DATABASE, CONTRACT, &["tonic*", "hyper*", "rustls", "async-nats"]],
    },
];

/// Edges that no wall follows: `ring` can draw random numbers. Who imports `ring` is seen.
const NOT_FOLLOWED: [(&str, &str); 1] = [("ring", "getrandom")];

/// What a room ships: its crates by name, two versions of one taken together.
#[derive(Default)]
struct Shipped {
    features: BTreeMap<String, BTreeSet<String>>,
    imports: BTreeMap<String, BTreeSet<String>>,
}

impl Shipped {
    /// Asks `cargo tree`, one room at a time. `cargo metadata` turns on in a crate what any
    /// member of the workspace turns on in it, so that by it every room has every feature.
    fn of(room: &str) -> anyhow::Result<Self> {
        let mut cargo = std::process::Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(["tree", "--locked", "--offline", "--package", room, "--edges", "normal,no-proc-macro"]);
        cargo.args(["--prefix", "depth", "--format", "{p}|{f}"]).current_dir(repository());
        let output = cargo.output()?;
        anyhow::ensure!(output.status.success(), "{room}: {}", String::from_utf8_lossy(&output.stderr));
        Self::read(&String::from_utf8(output.stdout)?)
    }

    /// Reads lines such as `2tonic v0.14.9|channel,server (*)`: depth, crate, features. Under
    /// a star stands nothing: what follows was told before.
    fn read(tree: &str) -> anyhow::Result<Self> {
        let mut shipped = Self::default();
        let mut path: Vec<String> = Vec::new();
        for line in tree.lines() {
            let (head, features) = line.trim_end_matches(" (*)").split_once('|').context("no features")?;
            let start = head.find(|c: char| !c.is_ascii_digit()).context("no crate")?;
            let (depth, name) = (head[..start].parse()?, head[start..].split(' ').next().unwrap_or_default());
            path.truncate(depth);
            if let Some(importer) = path.last() {
                shipped.imports.entry(importer.clone()).or_default().insert(name.to_owned());
            }
            let features = features.split(',').filter(|feature| !feature.is_empty()).map(str::to_owned);
            shipped.features.entry(name.to_owned()).or_default().extend(features);
            path.push(name.to_owned());
        }
        Ok(shipped)
    }

    /// The crates that the room reaches, each with a shortest path to it.
    fn reach<'a>(&'a self, room: &'a str) -> BTreeMap<&'a str, Vec<&'a str>> {
        let mut found = BTreeMap::new();
        let mut open = VecDeque::from([vec![room]]);
        while let Some(path) = open.pop_front() {
            let name = path[path.len() - 1];
            if found.contains_key(name) {
                continue;
            }
            let imports = self.imports.get(name).into_iter().flatten();
            let followed = imports.filter(|import| !NOT_FOLLOWED.contains(&(name, import.as_str())));
            open.extend(followed.map(|import| [&path[..], &[import.as_str()]].concat()));
            found.insert(name, path);
        }
        found
    }

    /// What the room reaches behind its wall, as paths.
    fn broken(&self, wall: &Wall) -> Vec<String> {
        let behind = |name: &str| {
            let foreign_room =
                name.starts_with("catrust-") && name != wall.room && !wall.rooms.contains(&name);
            foreign_room || wall.not.iter().copied().flatten().any(|pattern| self.matches(pattern, name))
        };
        let reached = self.reach(wall.room).into_iter();
        reached.filter(|(name, _)| behind(name)).map(|(_, path)| path.join(" > ")).collect()
    }

    fn matches(&self, pattern: &str, name: &str) -> bool {
        if let Some((owner, feature)) = pattern.split_once('/') {
            return owner == name && self.features.get(name).is_some_and(|on| on.contains(feature));
        }
        pattern.strip_suffix('*').map_or(pattern == name, |beginning| name.starts_with(beginning))
    }
}

#[test]
fn no_room_reaches_what_is_behind_its_wall() -> anyhow::Result<()> {
    let broken = WALLS.iter().map(|wall| Ok(Shipped::of(wall.room)?.broken(wall)));
    let broken: Vec<Vec<String>> = broken.collect::<anyhow::Result<_>>()?;
    assert_eq!(broken.concat(), Vec::<String>::new());
    Ok(())
}

#[test]
fn every_member_of_the_workspace_is_a_room_with_a_wall() -> anyhow::Result<()> {
    let metadata = metadata()?;
    let members: BTreeSet<&str> = metadata.workspace_packages().iter().map(|m| m.name.as_str()).collect();
    let walls: BTreeSet<&str> = WALLS.iter().map(|wall| wall.room).chain(["catrust-tests"]).collect();
    assert_eq!(members, walls);
    Ok(())
}

/// The command line gets the domain with what it imports, and does not use it itself.
#[test]
fn the_command_line_imports_no_domain() -> anyhow::Result<()> {
    let shipped = Shipped::of("catrust-cli")?;
    assert!(!shipped.imports["catrust-cli"].contains("catrust-domain"));
    Ok(())
}

#[test]
fn a_wall_falls_over_any_number_of_crates_and_over_a_feature() -> anyhow::Result<()> {
    let tree = "0catrust-a v1 (/a)|\n1catrust-b v1 (/b)|\n2grpc v1|\n3runtime v2|net,time\n3ring v0|\n\
                4getrandom v0|\n1clock v1|std\n2runtime v2|net,time (*)\n1runtime v1|old\n";
    let shipped = Shipped::read(tree)?;
    let of = |rooms, not| shipped.broken(&Wall { room: "catrust-a", rooms, not });
    let b: &[&str] = &["catrust-b"];
    assert_eq!(of(b, &[]), [""; 0]);
    assert_eq!(of(&[], &[]), ["catrust-a > catrust-b"], "a room that is not named");
    assert_eq!(of(b, &[&["grpc"]]), ["catrust-a > catrust-b > grpc"], "over another room");
    assert_eq!(of(b, &[&["grp"], &["run*"]]), ["catrust-a > runtime"], "by the shortest path");
    assert_eq!(of(b, &[&["runtime/time"]]), ["catrust-a > runtime"], "a feature");
    assert_eq!(of(b, &[&["runtime/old", "clock/now"]]), ["catrust-a > runtime"], "of any version");
    assert_eq!(of(b, &[&["clock/now", "getrandom"]]), [""; 0], "a feature that is off, an edge not followed");
    // What stands under a star stood there before.
    let starred = Shipped::read("0catrust-a v1|\n1x v1|\n2y v1|\n1catrust-b v1|\n2x v1| (*)\n")?;
    assert_eq!(starred.reach("catrust-b")["y"], ["catrust-b", "x", "y"]);
    Ok(())
}

#[test]
fn the_tests_know_the_contract_and_no_inside() -> anyhow::Result<()> {
    let metadata = metadata()?;
    let tests = metadata.packages.iter().find(|package| package.name.as_str() == "catrust-tests");
    let own = tests.context("no tests")?.dependencies.iter().filter(|d| d.name.starts_with("catrust-"));
    assert_eq!(
        own.map(|dependency| dependency.name.as_str()).collect::<Vec<_>>(),
        ["catrust-proto", "catrust-test-harness"]
    );
    Ok(())
}

/// Sources that a room's own wall keeps clean; Cargo cannot see inside a crate.
#[test]
fn the_api_knows_no_database_the_middleware_no_certificate_and_the_rules_no_clock() -> anyhow::Result<()> {
    let now = &["Instant::now", "SystemTime", "Utc::now"][..];
    for (folder, words) in [
        ("control-plane/src/api", &["sqlx", "async_nats", "SELECT ", "INSERT "][..]),
        ("control-plane/src/middleware", &["sqlx", "async_nats", "x509_parser", "CaCertificate"]),
        ("domain/src", now),
        ("evidence/src", now),
        ("policy/src", now),
        ("signing/src", now),
    ] {
        let mut files = 0;
        for file in sources(&repository().join("services").join(folder))? {
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
