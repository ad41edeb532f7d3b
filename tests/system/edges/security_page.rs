//! `deploy/SECURITY.md` claims nothing by a test that is not there.

use std::collections::BTreeSet;
use std::path::Path;

use catrust_tests::program::repository;

/// Every name of a function in the Rust files below `directory`, and every case of a list.
fn names_in(directory: &Path, names: &mut BTreeSet<String>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            names_in(&path, names)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path)?;
            let defined = text.split("fn ").skip(1).filter_map(|rest| rest.split(['(', '<']).next());
            names.extend(defined.map(str::to_owned));
        }
    }
    Ok(())
}

/// What stands in backticks and is a sentence, as the names of tests are.
fn claimed(page: &str) -> BTreeSet<&str> {
    let sentence = |word: &&str| {
        word.matches('_').count() >= 3
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    page.split('`').skip(1).step_by(2).filter(sentence).collect()
}

#[test]
fn every_test_that_the_security_page_names_exists() -> anyhow::Result<()> {
    let page = std::fs::read_to_string(repository().join("deploy/SECURITY.md"))?;
    let mut names = BTreeSet::new();
    for room in ["services", "tests"] {
        names_in(&repository().join(room), &mut names)?;
    }
    let claimed = claimed(&page);
    assert!(claimed.len() > 60, "only {} names were found", claimed.len());
    let missing: Vec<_> = claimed.into_iter().filter(|name| !names.contains(*name)).collect();
    assert!(missing.is_empty(), "the page names tests that do not exist: {missing:?}");
    Ok(())
}
