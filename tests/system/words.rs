//! One word for one thing: what a person decided once, and a change forgets.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use catrust_tests::program::repository;

/// Where "octet" stands all the same.
const OTHERS_WORDS: [(&str, &str); 3] = [
    ("migrations/", "applied ones do not change, and `octet_length` is the word of SQL"),
    ("services/evidence/vectors/", "given to other implementations as it is"),
    ("tests/system/words.rs", "says so itself"),
];

#[test]
fn a_byte_is_no_octet() -> anyhow::Result<()> {
    let mut found = Vec::new();
    for path in files(&["proto", "services", "tests", "migrations", "deploy"], |_| true)? {
        if OTHERS_WORDS.iter().any(|(place, _)| path.starts_with(place)) {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(repository().join(&path)) else { continue };
        // `IpAddr::octets` is the name of the standard library.
        let wrong = |line: &&str| line.to_lowercase().replace(".octets()", "").contains("octet");
        found.extend(text.lines().find(wrong).map(|line| format!("{}: {}", path.display(), line.trim())));
    }
    assert_eq!(found, Vec::<String>::new());
    Ok(())
}

/// Names that more than one room gives to a type of its own, and why. The room that owns the
/// idea keeps the word; the type of the other one gets a fuller name.
const SHARED: [(&str, &str); 1] =
    [("Timestamp", "the time of the rules, and `google.protobuf.Timestamp`, which the contract names so")];

/// Shared as well, without such a reason. The list only gets shorter: a name that one room
/// alone has by now fails the test until it is struck from here.
const STILL_SHARED: [&str; 19] = [
    "Admin",
    "Appender",
    "Command",
    "Decision",
    "Denial",
    "Effect",
    "Engine",
    "Entry",
    "Evidence",
    "Failure",
    "LogFormat",
    "Moment",
    "Pace",
    "Row",
    "Sessions",
    "State",
    "Tasks",
    "Value",
    "Verdict",
];

#[test]
fn a_name_is_the_type_of_one_room() -> anyhow::Result<()> {
    let mut rooms = BTreeMap::<String, BTreeSet<String>>::new();
    let shipped = |path: &Path| {
        let text = path.to_string_lossy();
        text.ends_with(".rs") && text.contains("/src/") && !text.contains("/tests")
    };
    for path in files(&["proto", "services"], shipped)? {
        let text = std::fs::read_to_string(repository().join(&path))?;
        // Tests stand last in a file, and name their fixtures as they like.
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let path = path.to_string_lossy();
        let room = path.split("/src/").next().unwrap_or_default();
        for name in text.lines().filter_map(defined) {
            rooms.entry(name.to_owned()).or_default().insert(room.to_owned());
        }
    }
    let shared: BTreeMap<_, _> = rooms.into_iter().filter(|(_, rooms)| rooms.len() > 1).collect();
    let names: BTreeSet<&str> = shared.keys().map(String::as_str).collect();
    let known = SHARED.iter().map(|(name, _)| *name).chain(STILL_SHARED);
    assert_eq!(names, known.collect(), "{shared:#?}");
    Ok(())
}

/// The type that a line defines.
fn defined(line: &str) -> Option<&str> {
    let line = line.trim_start();
    let line =
        line.strip_prefix("pub ").or_else(|| line.split_once(") ").map(|(_, rest)| rest)).unwrap_or(line);
    let line = ["struct ", "enum ", "trait ", "union "].iter().find_map(|word| line.strip_prefix(word))?;
    line.split(|c: char| !c.is_alphanumeric()).next().filter(|name| !name.is_empty())
}

#[test]
fn a_definition_is_seen_and_a_use_is_none() {
    assert_eq!(defined("pub(crate) struct Session {"), Some("Session"));
    assert_eq!(defined("    enum Kind<'a> {"), Some("Kind"));
    assert_eq!(defined("pub trait Keys {"), Some("Keys"));
    for other in
        ["impl Session {", "/// A struct Session", "let session = Session::new();", "pub fn structure() {"]
    {
        assert_eq!(defined(other), None, "{other}");
    }
}

/// Files below the folders, as paths in the repository.
fn files(folders: &[&str], wanted: impl Fn(&Path) -> bool) -> anyhow::Result<Vec<PathBuf>> {
    let mut open: Vec<PathBuf> = folders.iter().map(PathBuf::from).collect();
    let mut found = Vec::new();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(repository().join(&folder))? {
            let path = folder.join(entry?.file_name());
            if repository().join(&path).is_dir() {
                open.push(path);
            } else if wanted(&path) {
                found.push(path);
            }
        }
    }
    anyhow::ensure!(!found.is_empty(), "no files");
    Ok(found)
}
