//! The policy folder as it lies on the disk: `DIR/ACCOUNT/NAME.cedar` and `.json`.
//!
//! Everything in it is read or refused: a policy that is left out because of its name
//! could be the one that denies. Only names with a leading dot are passed over, which
//! is where editors, version control and Kubernetes (`..data`) keep what is theirs.

use std::fs;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::problem::{PolicyProblems, Problem, accept};

/// Largest file, in bytes.
const LARGEST_FILE: u64 = 256 * 1024;
/// Most bytes of a whole folder: a wrong path must not fill the memory.
const LARGEST_FOLDER: u64 = 64 * 1024 * 1024;

/// How a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    /// Cedar policies, `.cedar`.
    Cedar,
    /// A RAM policy document, `.json`.
    Ram,
}

/// One policy file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyFile {
    pub(crate) account_id: String,
    /// `ACCOUNT/NAME`, relative to the folder.
    pub(crate) path: String,
    pub(crate) language: Language,
    pub(crate) text: String,
}

impl PolicyFile {
    /// The file `name` of an account; `None` where the name ends with neither `.cedar`
    /// nor `.json`.
    #[must_use]
    pub fn new(account_id: &str, name: &str, text: String) -> Option<Self> {
        let language = match name.rsplit_once('.')?.1 {
            "cedar" => Language::Cedar,
            "json" => Language::Ram,
            _ => return None,
        };
        Some(Self { account_id: account_id.to_owned(), path: format!("{account_id}/{name}"), language, text })
    }
}

/// Every file of a folder, and the version that they make together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyBundle {
    files: Vec<PolicyFile>,
    version: String,
}

impl PolicyBundle {
    /// Reads a folder. What it holds is not looked at yet: see [`Policies::compile`](crate::Policies::compile).
    ///
    /// # Errors
    /// [`PolicyProblems`] with everything that is no policy file, or cannot be read.
    pub fn read(folder: &Path) -> Result<Self, PolicyProblems> {
        let mut reader = FolderReader { files: Vec::new(), bytes: 0, problems: Vec::new() };
        reader.folder(folder);
        if reader.problems.is_empty() && reader.files.is_empty() {
            let message = format!("{} holds no policy: nobody could call", folder.display());
            reader.problems.push(Problem::new("", 0, message));
        }
        accept(Self::new(reader.files), reader.problems)
    }

    /// Makes a bundle of files in any order.
    #[must_use]
    pub fn new(mut files: Vec<PolicyFile>) -> Self {
        files.sort_by(|one, other| (&one.account_id, &one.path).cmp(&(&other.account_id, &other.path)));
        let version = version(&files);
        Self { files, version }
    }

    /// Every file, by account and name.
    pub(crate) fn files(&self) -> &[PolicyFile] {
        &self.files
    }

    /// `policies-` and the first 16 hexadecimal digits of the SHA-256 of all names and
    /// contents: two servers with the same version have the same policies.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }
}

fn version(files: &[PolicyFile]) -> String {
    let mut hash = Sha256::new();
    for part in files.iter().flat_map(|file| [&file.path, &file.text]) {
        // With its length, so that no two bundles run together to the same bytes.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    format!("policies-{}", &hex::encode(hash.finalize())[..16])
}

struct FolderReader {
    files: Vec<PolicyFile>,
    bytes: u64,
    problems: Vec<Problem>,
}

impl FolderReader {
    fn refuse(&mut self, path: &str, message: impl Into<String>) {
        self.problems.push(Problem::new(path, 0, message));
    }

    fn folder(&mut self, folder: &Path) {
        for (name, path) in self.entries(folder, "") {
            if !path.is_dir() {
                self.refuse(
                    &name,
                    "lies outside of an account: move it to ACCOUNT/, or give its name a leading dot",
                );
            } else if !is_account(&name) {
                self.refuse(&name, "is no account id: 1 to 64 of A-Z, a-z, 0-9, '_' and '-'");
            } else {
                self.account(&name, &path);
            }
        }
    }

    fn account(&mut self, account_id: &str, folder: &Path) {
        for (name, file) in self.entries(folder, account_id) {
            let path = format!("{account_id}/{name}");
            match self.text(&file).map(|text| PolicyFile::new(account_id, &name, text)) {
                Ok(Some(file)) => self.files.push(file),
                Ok(None) => {
                    self.refuse(
                        &path,
                        "is neither .cedar nor .json: remove it, or give its name a leading dot",
                    );
                }
                Err(message) => self.refuse(&path, message),
            }
        }
    }

    fn text(&mut self, file: &Path) -> Result<String, String> {
        let unreadable = |error: std::io::Error| format!("cannot be read: {error}");
        let found = fs::metadata(file).map_err(unreadable)?;
        if !found.is_file() {
            return Err("is no file".to_owned());
        }
        self.bytes = self.bytes.saturating_add(found.len());
        if found.len() > LARGEST_FILE || self.bytes > LARGEST_FOLDER {
            return Err(format!(
                "is too much: a file may have {LARGEST_FILE} bytes, all together {LARGEST_FOLDER}"
            ));
        }
        let bytes = fs::read(file).map_err(unreadable)?;
        String::from_utf8(bytes)
            .map_err(|error| format!("is not UTF-8 after byte {}", error.utf8_error().valid_up_to()))
    }

    /// Names and paths of what lies in a folder, hidden ones left out, sorted.
    fn entries(&mut self, folder: &Path, relative: &str) -> Vec<(String, std::path::PathBuf)> {
        let listed = fs::read_dir(folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let listed = listed.unwrap_or_else(|error| {
            let message = match relative {
                "" => format!("{} cannot be listed: {error}", folder.display()),
                _ => format!("cannot be listed: {error}"),
            };
            self.refuse(relative, message);
            Vec::new()
        });
        let mut entries = Vec::new();
        for entry in listed {
            match entry.file_name().into_string() {
                Ok(name) if name.starts_with('.') => {}
                Ok(name) => entries.push((name, entry.path())),
                Err(name) => self.refuse(relative, format!("{} is not UTF-8", name.display())),
            }
        }
        entries.sort();
        entries
    }
}

fn is_account(name: &str) -> bool {
    let permitted = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=64).contains(&name.len()) && name.bytes().all(permitted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    #[test]
    fn the_version_is_that_of_names_and_contents() {
        let version =
            |files: &[(&str, &str)]| PolicyBundle::read(folder(files).path()).unwrap().version().to_owned();
        let base = version(&[("1/a.cedar", "x"), ("2/b.json", "y")]);
        assert!(base.starts_with("policies-") && base.len() == 25, "{base}");
        assert_eq!(
            version(&[("2/b.json", "y"), ("1/a.cedar", "x"), ("1/.a.cedar.swp", "z"), ("..data/c", "z")]),
            base
        );
        assert_ne!(version(&[("1/a.cedar", "x"), ("2/b.json", "z")]), base);
        assert_ne!(version(&[("1/a.cedar", "x"), ("2/c.json", "y")]), base);
        assert_ne!(version(&[("1/a.cedar", "x")]), base);
    }

    #[test]
    fn what_is_no_policy_file_is_refused_by_name() {
        let folder = folder(&[
            ("stray.cedar", "x"),
            ("not an account/a.cedar", "x"),
            ("1/notes.txt", "x"),
            ("1/deep/a.cedar", "x"),
            ("1/a.cedar.bak", "x"),
            ("1/large.cedar", &"x".repeat(300 * 1024)),
        ]);
        fs::write(folder.path().join("1/latin.cedar"), b"// \xe9").unwrap();
        let refused = PolicyBundle::read(folder.path()).unwrap_err();
        let paths: Vec<_> = refused.0.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "1/a.cedar.bak",
                "1/deep",
                "1/large.cedar",
                "1/latin.cedar",
                "1/notes.txt",
                "not an account",
                "stray.cedar"
            ]
        );
    }

    #[test]
    fn a_folder_that_is_empty_or_gone_is_refused() {
        let empty = tempfile::tempdir().unwrap();
        let error = PolicyBundle::read(empty.path()).unwrap_err().to_string();
        assert!(error.contains("holds no policy"), "{error}");
        let error = PolicyBundle::read(&empty.path().join("gone")).unwrap_err().to_string();
        assert!(error.contains("gone cannot be listed"), "{error}");
    }
}
