//! The broker's configuration, read to find what would defeat the plugin.
//!
//! Both ends look: the plugin when the broker loads it, and stops the start; the agent
//! before it connects, for an operator who wants to know beforehand. Everything here
//! was seen to open a way past the plugin, or to hit bystanders.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::PLUGIN_FILE_NAME;

/// Deepest nesting of `include_dir`.
const MAX_DEPTH: usize = 8;

/// The configuration could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be read")]
pub struct ConfigurationError {
    path: String,
    #[source]
    source: std::io::Error,
}

/// A line of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directive {
    /// File.
    pub file: PathBuf,
    /// Line number in it, from 1.
    pub line: usize,
    /// First word.
    pub key: String,
    /// The rest, without blanks around it.
    pub value: String,
}

/// The directives, in the broker's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    directives: Vec<Directive>,
}

/// Something to change before the broker can be relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where: file and line; `None` where something is missing.
    pub place: Option<(PathBuf, usize)>,
    /// What it is, what it does, and what to write.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some((file, line)) => write!(f, "{}:{line}: {}", file.display(), self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// Settings that must not be on, and why.
const FORBIDDEN: &[(&str, &str)] = &[
    (
        "per_listener_settings",
        "the plugin would see the clients of one listener only; write per_listener_settings false, \
         and the plugin lines before the first listener",
    ),
    (
        "use_identity_as_username",
        "the broker would not ask the plugin at CONNECT, so that resumed sessions get in and live ones \
         stay; remove the line, since the plugin gives devices their common name as user name",
    ),
    (
        "use_subject_as_username",
        "the broker would not ask the plugin at CONNECT, so that resumed sessions get in and live ones \
         stay; remove the line and write plugin_opt_username common-name",
    ),
];

const NO_REVOCATION_LISTS: &str = "the plugin verifies devices in the broker's place, and reads no \
     revocation lists; remove the line, and inactivate the CA certificate instead";
const NOT_FIRST: &str = "the broker would ask this plugin first, and never ask ours where it says yes; move \
     the line behind the one of libcatrust_mosquitto.so";
const NO_CERTIFICATES: &str = "this listener asks devices for no certificate, so that the plugin refuses all \
     of them; write require_certificate true beside it";
const PASSWORDS: &str = "the plugin's yes ends the broker's questions, so that passwords of devices would not \
     be checked any more; write plugin_opt_passwords ignore where the certificate is enough, or check (with \
     plugin_opt_username keep) where both are wanted";
const BYSTANDERS: &str = "with plugin_opt_username keep, SIGHUP would cut every device that gives no user name, \
     whatever its CA; write plugin_opt_username common-name";
const NO_ACL: &str = "there is no acl_file, and without access rules the agent could not be told from devices \
     on $CONTROL topics; write one with `user catrust-agent` and `topic readwrite $CONTROL/ca-trust/v1/#`";

impl Configuration {
    /// Reads a file and what it includes.
    ///
    /// # Errors
    /// [`ConfigurationError`]: a file or directory that cannot be read.
    pub fn read(file: &Path) -> Result<Self, ConfigurationError> {
        let mut configuration = Self::default();
        configuration.include(file, 0)?;
        Ok(configuration)
    }

    fn include(&mut self, file: &Path, depth: usize) -> Result<(), ConfigurationError> {
        let failed = |path: &Path, source| ConfigurationError { path: path.display().to_string(), source };
        let bytes = std::fs::read(file).map_err(|error| failed(file, error))?;
        for (index, line) in String::from_utf8_lossy(&bytes).lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let value = value.trim();
            if key == "include_dir" && depth < MAX_DEPTH {
                let directory = Path::new(value);
                for file in included(directory).map_err(|error| failed(directory, error))? {
                    self.include(&file, depth + 1)?;
                }
                continue;
            }
            self.directives.push(Directive {
                file: file.to_owned(),
                line: index + 1,
                key: key.to_owned(),
                value: value.to_owned(),
            });
        }
        Ok(())
    }

    /// The lines with a key.
    pub fn lines<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a Directive> {
        self.directives.iter().filter(move |directive| directive.key == key)
    }

    /// What has to be changed.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (key, text) in FORBIDDEN {
            findings.extend(self.lines(key).filter(|line| line.is_on()).map(|line| line.finding(text)));
        }
        findings.extend(self.lines("crlfile").map(|line| line.finding(NO_REVOCATION_LISTS)));
        findings.extend(self.plugins_before_ours());
        findings.extend(self.listeners_without_certificates());
        if self.option("passwords").is_none() {
            findings.extend(self.lines("password_file").map(|line| line.finding(PASSWORDS)));
        }
        if self.option("username") == Some("keep") {
            let closed = self.lines("allow_anonymous").filter(|line| line.is_off());
            findings.extend(
                closed
                    .filter(|_| self.option("passwords") != Some("check"))
                    .map(|line| line.finding(BYSTANDERS)),
            );
        }
        if self.lines("acl_file").next().is_none() {
            findings.push(Finding { place: None, text: NO_ACL.to_owned() });
        }
        findings
    }

    /// Value of one of the plugin's options.
    #[must_use]
    pub fn option(&self, name: &str) -> Option<&str> {
        let key = format!("plugin_opt_{name}");
        self.directives.iter().rev().find(|line| line.key == key).map(|line| line.value.as_str())
    }

    /// Whether some line loads the plugin.
    #[must_use]
    pub fn loads_the_plugin(&self) -> bool {
        self.directives.iter().any(Directive::loads_the_plugin)
    }

    /// The broker asks its plugins in the order of their lines, and the first yes counts.
    fn plugins_before_ours(&self) -> Vec<Finding> {
        let before = self.directives.iter().take_while(|line| !line.loads_the_plugin());
        before.filter(|line| line.is_plugin()).map(|line| line.finding(NOT_FIRST)).collect()
    }

    /// Listeners with TLS that ask for no certificate.
    fn listeners_without_certificates(&self) -> Vec<Finding> {
        let is_start = |line: &Directive| line.key == "listener";
        let starts = (0..self.directives.len()).filter(|index| is_start(&self.directives[*index]));
        let mut findings = Vec::new();
        // What stands before the first `listener` belongs to the default one.
        for start in std::iter::once(0).chain(starts) {
            let tail = &self.directives[start..];
            let end = tail.iter().skip(1).position(is_start).map_or(tail.len(), |index| index + 1);
            let lines = &tail[..end];
            let wants = lines.iter().any(|line| line.key == "require_certificate" && line.is_on());
            let certificate = lines.iter().find(|line| line.key == "certfile");
            findings.extend(certificate.filter(|_| !wants).map(|line| line.finding(NO_CERTIFICATES)));
        }
        findings
    }

    /// The paths of the listeners on unix sockets.
    #[must_use]
    pub fn unix_listeners(&self) -> Vec<PathBuf> {
        let path = |line: &Directive| {
            let (port, path) = line.value.split_once(char::is_whitespace)?;
            (port == "0").then(|| PathBuf::from(path.trim()))
        };
        self.lines("listener").filter_map(path).collect()
    }
}

impl Directive {
    fn is_on(&self) -> bool {
        self.value == "1" || self.value.eq_ignore_ascii_case("true")
    }

    fn is_off(&self) -> bool {
        self.value == "0" || self.value.eq_ignore_ascii_case("false")
    }

    fn is_plugin(&self) -> bool {
        matches!(self.key.as_str(), "plugin" | "auth_plugin")
    }

    fn loads_the_plugin(&self) -> bool {
        self.is_plugin() && Path::new(&self.value).file_name().is_some_and(|name| name == PLUGIN_FILE_NAME)
    }

    fn finding(&self, text: &str) -> Finding {
        let text = format!("{} {}: {text}", self.key, self.value);
        Finding { place: Some((self.file.clone(), self.line)), text }
    }
}

/// The `.conf` files of a directory, in the broker's order.
fn included(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "conf") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# a comment\n\nallow_anonymous false\nacl_file acl\nplugin /usr/lib/libcatrust_mosquitto.so\n\
                        plugin /usr/lib/other.so\nlistener 8883\ncertfile c\nkeyfile k\nrequire_certificate true\n\
                        listener 0 /run/admin.sock\n";

    fn read(text: &str) -> Configuration {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("mosquitto.conf");
        std::fs::write(&file, text).unwrap();
        Configuration::read(&file).unwrap()
    }

    fn only_finding(text: &str) -> String {
        let findings = read(text).findings();
        assert_eq!(findings.len(), 1, "{findings:?}");
        findings[0].to_string()
    }

    #[test]
    fn a_good_configuration_has_no_findings() {
        let configuration = read(GOOD);
        assert_eq!(configuration.findings(), []);
        assert!(configuration.loads_the_plugin());
        assert_eq!(configuration.unix_listeners(), [PathBuf::from("/run/admin.sock")]);
    }

    #[test]
    fn each_trap_is_named_with_its_line_and_its_remedy() {
        for (line, remedy) in [
            ("per_listener_settings true", "write per_listener_settings false"),
            ("use_identity_as_username true", "remove the line"),
            ("use_identity_as_username 1", "remove the line"),
            ("use_subject_as_username TRUE", "remove the line"),
            ("crlfile crl.pem", "remove the line"),
            ("password_file passwords", "write plugin_opt_passwords"),
            ("plugin_opt_username keep", "write plugin_opt_username common-name"),
            ("plugin other.so", "move the line"),
            ("auth_plugin other.so", "move the line"),
        ] {
            let finding = only_finding(&format!("{line}\n{GOOD}"));
            assert!(finding.contains(remedy), "{line}: {finding}");
            if !line.starts_with("plugin_opt") {
                assert!(finding.contains("mosquitto.conf:1: "), "{finding}");
            }
        }
    }

    #[test]
    fn settings_that_are_off_or_explained_are_fine() {
        for lines in [
            "per_listener_settings false\nuse_identity_as_username false\nuse_subject_as_username 0",
            "password_file passwords\nplugin_opt_passwords ignore",
            "password_file passwords\nplugin_opt_passwords check\nplugin_opt_username keep",
        ] {
            assert_eq!(read(&format!("{lines}\n{GOOD}")).findings(), [], "{lines}");
        }
    }

    #[test]
    fn a_listener_that_asks_for_no_certificate_is_named() {
        let finding = only_finding(&format!("{GOOD}listener 8884\ncertfile d\nrequire_certificate false\n"));
        assert!(finding.contains("mosquitto.conf:13: certfile d"), "{finding}");
        let finding = only_finding(&format!("port 8884\ncertfile e\n{GOOD}"));
        assert!(finding.contains("mosquitto.conf:2: certfile e"), "{finding}");
    }

    #[test]
    fn missing_access_rules_are_named() {
        let finding = only_finding(&GOOD.replace("acl_file acl\n", ""));
        assert!(finding.contains("topic readwrite $CONTROL/ca-trust/v1/#"), "{finding}");
    }

    #[test]
    fn included_files_are_read_in_order_and_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let included = path.join("conf.d");
        std::fs::create_dir(&included).unwrap();
        std::fs::write(included.join("b.conf"), "use_identity_as_username true\n").unwrap();
        std::fs::write(included.join("a.conf"), "# nothing\ncrlfile x\n").unwrap();
        std::fs::write(included.join("c.txt"), "per_listener_settings true\n").unwrap();
        let file = path.join("mosquitto.conf");
        std::fs::write(&file, format!("include_dir {}\n{GOOD}", included.display())).unwrap();
        let configuration = Configuration::read(&file).unwrap();
        let keys: Vec<_> = configuration.directives.iter().map(|line| line.key.as_str()).take(3).collect();
        assert_eq!(keys, ["crlfile", "use_identity_as_username", "allow_anonymous"]);
        let places: Vec<_> =
            configuration.findings().into_iter().filter_map(|finding| finding.place).collect();
        assert_eq!(places, [(included.join("b.conf"), 1), (included.join("a.conf"), 2)]);
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let error = Configuration::read(&directory.path().join("none.conf")).unwrap_err();
        assert!(error.to_string().contains("none.conf cannot be read"), "{error}");
    }
}
