//! The static identities: who may call with which token or certificate, and what.
//!
//! A TOML file of `[[identity]]` tables. It holds the SHA-256 of each token, never the
//! token, so that reading the file does not let anybody in. Tokens MUST be random
//! (32 bytes, as `openssl rand -hex 32` gives): a plain hash protects no guessable word.
//!
//! ```toml
//! [[identity]]
//! principal = "ops-alice"
//! account_id = "1234567890"
//! token_sha256 = "…"                  # or: certificate = "spiffe://example.org/ops"
//! allow = ["mq:*"]
//! resources = ["acs:mq:*:1234567890:*"]
//! operator = false
//! ```
//!
//! A broker's entry names `mqtt_instance_id` and `broker_id` as well; it is good for that broker
//! alone.
//!
//! With `auth.policy_dir` the entries say only who somebody is: without `allow` and
//! `resources`.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use catrust_domain::{AccountId, Sha256};
use serde::Deserialize;
use toml::Spanned;

use crate::BrokerBinding;
use crate::pattern::Pattern;
use crate::secret_toml::{SyntaxError, hidden_text, line_and_column};

/// The identities file cannot be used. `Display` is meant for a person at a terminal; it quotes
/// neither tokens nor hashes.
#[derive(Debug, thiserror::Error)]
pub enum IdentitiesError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error(transparent)]
    Syntax(#[from] SyntaxError),
    /// What is wrong with its entries, each with its line.
    #[error("{}", .0.join("\n"))]
    Entries(Vec<String>),
}

/// Where permission comes from: one place, never two that somebody has to add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PermissionSource {
    /// `allow` and `resources` of each entry.
    Identities,
    /// The folder `auth.policy_dir`.
    Policies,
}

/// What somebody shows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Credential {
    /// A bearer token with this hash.
    Token(Sha256),
    /// A client certificate with this name.
    Certificate(String),
}

/// Somebody who may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityEntry {
    /// What it shows.
    pub credential: Credential,
    /// Name in the audit trail and of the rate limit, 1 to 256 characters. Several
    /// entries may share it, while a token is replaced by a new one.
    pub principal: String,
    /// Account that the caller acts for.
    pub account_id: AccountId,
    /// Actions that it may take; none where policies say so.
    pub allow: Vec<Pattern>,
    /// Resources that it may take them on; none where policies say so.
    pub resources: Vec<Pattern>,
    /// Whether it operates catrust itself: registers and changes instances, of every
    /// account. CA certificates are their owners' all the same.
    pub operator: bool,
    /// The broker that it is for, and for nothing else.
    pub broker: Option<BrokerBinding>,
}

impl IdentityEntry {
    /// Whether the identity may take `action` (`mq:…`) on `resource`
    /// (`acs:mq:REGION:ACCOUNT:INSTANCE`). The owner check is another one.
    #[must_use]
    pub fn allows(&self, action: &str, resource: &str) -> bool {
        self.allow.iter().any(|pattern| pattern.matches(action))
            && self.resources.iter().any(|pattern| pattern.matches(resource))
    }
}

/// Every static identity, by what it shows.
#[derive(Debug, Clone, Default)]
pub struct Identities {
    entries: Vec<IdentityEntry>,
    by_credential: HashMap<Credential, usize>,
}

impl Identities {
    /// Reads the file.
    ///
    /// # Errors
    /// [`IdentitiesError`] with the line of each problem; tokens and hashes are not quoted.
    pub fn load(path: &Path, permissions: PermissionSource) -> Result<Self, IdentitiesError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| IdentitiesError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text, path, permissions)
    }

    /// Reads the text; `path` is for messages only.
    ///
    /// # Errors
    /// As [`Identities::load`], but for the reading.
    pub fn parse(text: &str, path: &Path, permissions: PermissionSource) -> Result<Self, IdentitiesError> {
        let file: File = toml::from_str(text).map_err(|error| SyntaxError::new(path, text, &error))?;
        let mut reader =
            EntryReader { text, path, permissions, problems: Vec::new(), accounts: HashMap::new() };
        let mut identities = Self::default();
        for entry in file.identity {
            reader.take(&mut identities, entry);
        }
        if identities.entries.is_empty() {
            reader.add(0, "names no usable [[identity]]: nobody could call");
        }
        if reader.problems.is_empty() {
            Ok(identities)
        } else {
            Err(IdentitiesError::Entries(reader.problems))
        }
    }

    /// The entry of somebody who shows this, as an index of [`Identities::entries`]. Tokens
    /// are found by their hash, so that the time of the look-up tells nothing about them. A
    /// certificate MUST have been verified.
    #[must_use]
    pub fn by_credential(&self, credential: &Credential) -> Option<usize> {
        self.by_credential.get(credential).copied()
    }

    /// Every entry, in the order of the file.
    #[must_use]
    pub fn entries(&self) -> &[IdentityEntry] {
        &self.entries
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none, as before any file was read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    identity: Vec<Spanned<EntryTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryTable {
    principal: Spanned<String>,
    account_id: Spanned<String>,
    token_sha256: Option<Spanned<HiddenText>>,
    certificate: Option<Spanned<String>>,
    allow: Option<Spanned<Vec<Spanned<String>>>>,
    resources: Option<Spanned<Vec<Spanned<String>>>>,
    #[serde(default)]
    operator: bool,
    mqtt_instance_id: Option<Spanned<String>>,
    broker_id: Option<Spanned<String>>,
}

/// A text that errors must not quote: somebody will write the token itself there.
#[derive(Deserialize)]
#[serde(transparent)]
struct HiddenText(#[serde(deserialize_with = "hidden_text")] String);

/// Turns entries into identities and collects what is wrong with them, by line.
struct EntryReader<'a> {
    text: &'a str,
    path: &'a Path,
    permissions: PermissionSource,
    problems: Vec<String>,
    accounts: HashMap<String, AccountId>,
}

impl EntryReader<'_> {
    fn add(&mut self, offset: usize, message: impl fmt::Display) {
        let (line, _) = line_and_column(self.text, offset);
        self.problems.push(format!("{}:{line}: {message}", self.path.display()));
    }

    fn take(&mut self, identities: &mut Identities, entry: Spanned<EntryTable>) {
        let start = entry.span().start;
        let entry = entry.into_inner();
        let broker = self.broker_of(start, &entry);
        let EntryTable {
            principal, account_id, token_sha256, certificate, allow, resources, operator, ..
        } = entry;
        let credential = match (&token_sha256, &certificate) {
            (Some(hash), None) => self.token(hash),
            (None, Some(name)) => self.certificate(name),
            _ => {
                self.add(start, "set exactly one of token_sha256 and certificate");
                None
            }
        };
        let allow = self.patterns(start, "allow", allow.as_ref(), &ACTION);
        let resources = self.patterns(start, "resources", resources.as_ref(), &RESOURCE);
        let account_id = self.account_of(&principal, &account_id);
        let (Some((at, credential)), Some(account_id)) = (credential, account_id) else { return };
        if identities.by_credential.insert(credential.clone(), identities.entries.len()).is_some() {
            let message = match credential {
                Credential::Token(_) => {
                    "token_sha256 stands in another entry too: give each identity its own token"
                }
                Credential::Certificate(_) => "certificate stands in another entry too",
            };
            self.add(at, message);
        }
        let principal = principal.into_inner();
        identities.entries.push(IdentityEntry {
            credential,
            principal,
            account_id,
            allow,
            resources,
            operator,
            broker,
        });
    }

    fn token(&mut self, hash: &Spanned<HiddenText>) -> Option<(usize, Credential)> {
        let at = hash.span().start;
        let Ok(sha256) = hash.get_ref().0.parse::<Sha256>() else {
            let message = "token_sha256 must be the 64 hexadecimal digits that \
                           `printf %s \"$TOKEN\" | sha256sum` prints";
            self.add(at, message);
            return None;
        };
        if sha256 == Sha256::of(b"") {
            self.add(at, "token_sha256 is the hash of an empty token");
            return None;
        }
        Some((at, Credential::Token(sha256)))
    }

    fn certificate(&mut self, name: &Spanned<String>) -> Option<(usize, Credential)> {
        let at = name.span().start;
        if !is_name(name.get_ref(), 1_024) {
            self.add(at, "certificate must be a SPIFFE id or a subject of 1 to 1,024 characters");
            return None;
        }
        Some((at, Credential::Certificate(name.get_ref().clone())))
    }

    /// The account, unless the two are malformed, or the name stands for another
    /// account elsewhere: the rate limit and the audit trail know the name alone.
    fn account_of(&mut self, principal: &Spanned<String>, account_id: &Spanned<String>) -> Option<AccountId> {
        if !is_name(principal.get_ref(), 256) {
            self.add(principal.span().start, "principal must have 1 to 256 characters, none of them control");
        }
        let account: AccountId = match account_id.get_ref().parse() {
            Ok(account) => account,
            Err(reason) => {
                self.add(account_id.span().start, format!("account_id {reason}"));
                return None;
            }
        };
        let known = self.accounts.entry(principal.get_ref().clone()).or_insert_with(|| account.clone());
        if *known != account {
            let message = format!("principal {:?} belongs to account {known} above", principal.get_ref());
            self.add(principal.span().start, message);
        }
        Some(account)
    }

    /// The broker that an entry is for. A half of one is a mistake, and would be no limit.
    fn broker_of(&mut self, start: usize, entry: &EntryTable) -> Option<BrokerBinding> {
        let (instance, broker) = match (&entry.mqtt_instance_id, &entry.broker_id) {
            (None, None) => return None,
            (Some(instance), Some(broker)) => (instance, broker),
            _ => {
                self.add(start, "mqtt_instance_id and broker_id go together: set both, or neither");
                return None;
            }
        };
        if entry.operator {
            self.add(start, "operator = true stands beside broker_id: a broker only watches and reports");
        }
        let instance_id = instance.get_ref().parse().map_err(|reason| {
            self.add(instance.span().start, format!("mqtt_instance_id {reason}"));
        });
        let broker_id = broker.get_ref().parse().map_err(|reason| {
            self.add(broker.span().start, format!("broker_id {reason}"));
        });
        Some(BrokerBinding { instance_id: instance_id.ok()?, broker_id: broker_id.ok()? })
    }

    fn patterns(
        &mut self,
        start: usize,
        key: &str,
        texts: Option<&Spanned<Vec<Spanned<String>>>>,
        shape: &PatternShape,
    ) -> Vec<Pattern> {
        if self.permissions == PermissionSource::Policies {
            if let Some(texts) = texts {
                let message = format!(
                    "{key} stands beside auth.policy_dir: permission comes from the policies alone; remove {key} \
                     here, and write a policy for it"
                );
                self.add(texts.span().start, message);
            }
            return Vec::new();
        }
        let texts = texts.map_or(&[][..], |texts| texts.get_ref());
        if texts.is_empty() {
            self.add(start, format!("{key} is missing or empty: nothing would be allowed"));
        }
        let mut patterns = Vec::with_capacity(texts.len());
        for text in texts {
            match text.get_ref().parse::<Pattern>() {
                Ok(pattern) if shape.holds(&pattern, text.get_ref()) => patterns.push(pattern),
                Ok(_) => self.add(text.span().start, format!("{key}: must look like {}", shape.example)),
                Err(reason) => self.add(text.span().start, format!("{key}: {reason}")),
            }
        }
        patterns
    }
}

/// What patterns of one kind look like.
struct PatternShape {
    prefix: &'static str,
    segments: usize,
    example: &'static str,
}

const ACTION: PatternShape =
    PatternShape { prefix: "mq:", segments: 2, example: "mq:GetCaCertificate or mq:*" };
const RESOURCE: PatternShape = PatternShape {
    prefix: "acs:mq:",
    segments: 5,
    example: "acs:mq:REGION:ACCOUNT:INSTANCE, each of the last three may be *",
};

impl PatternShape {
    fn holds(&self, pattern: &Pattern, text: &str) -> bool {
        text.starts_with(self.prefix) && pattern.segments() == self.segments
    }
}

fn is_name(text: &str, longest: usize) -> bool {
    let length = text.chars().count();
    (1..=longest).contains(&length) && !text.chars().any(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = r#"
[[identity]]
principal = "ops-alice"
account_id = "1234567890"
token_sha256 = "HASH"
allow = ["mq:*"]
resources = ["acs:mq:*:1234567890:*"]
"#;

    fn alice() -> String {
        ALICE.replace("HASH", &Sha256::of(b"alice's token").to_string())
    }

    fn by_token(identities: &Identities, token: &str) -> Option<usize> {
        identities.by_credential(&Credential::Token(Sha256::of(token.as_bytes())))
    }

    fn by_certificate(identities: &Identities, name: &str) -> Option<usize> {
        identities.by_credential(&Credential::Certificate(name.to_owned()))
    }

    fn parse(text: &str) -> Result<Identities, IdentitiesError> {
        Identities::parse(text, Path::new("identities.toml"), PermissionSource::Identities)
    }

    #[track_caller]
    fn refused(text: &str, expected: &str) {
        let error = parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn a_token_is_found_by_its_hash_and_no_other_is() {
        let identities = parse(&alice()).unwrap();
        let identity = &identities.entries()[by_token(&identities, "alice's token").unwrap()];
        assert_eq!(identity.principal, "ops-alice");
        assert!(!identity.operator, "nobody is an operator by default");
        assert_eq!(by_token(&identities, "another"), None);
        assert_eq!(by_token(&identities, &Sha256::of(b"alice's token").to_string()), None);
        assert_eq!(by_certificate(&identities, "ops-alice"), None);
    }

    #[test]
    fn a_certificate_is_found_by_its_exact_name() {
        let text = alice().replace(
            &format!("token_sha256 = \"{}\"", Sha256::of(b"alice's token")),
            "certificate = \"spiffe://example.org/ops\"\noperator = true",
        );
        let identities = parse(&text).unwrap();
        assert!(
            identities.entries()[by_certificate(&identities, "spiffe://example.org/ops").unwrap()].operator
        );
        assert_eq!(by_certificate(&identities, "spiffe://example.org/op"), None);
    }

    #[test]
    fn both_action_and_resource_must_be_allowed() {
        let identities = parse(&alice()).unwrap();
        let identity = &identities.entries()[by_token(&identities, "alice's token").unwrap()];
        assert!(identity.allows("mq:RegisterCa", "acs:mq:cn-hangzhou:1234567890:fleet-a"));
        assert!(!identity.allows("mq:RegisterCa", "acs:mq:cn-hangzhou:99:fleet-a"));
        assert!(!identity.allows("oss:PutObject", "acs:mq:cn-hangzhou:1234567890:fleet-a"));
    }

    #[test]
    fn the_same_token_twice_is_refused_with_its_line() {
        let second = alice().replace("ops-alice", "ops-bob");
        refused(&format!("{}{second}", alice()), "identities.toml:12: token_sha256 stands in another entry");
    }

    #[test]
    fn a_principal_may_have_two_tokens_but_not_two_accounts() {
        let next = alice().replace(
            &Sha256::of(b"alice's token").to_string(),
            &Sha256::of(b"alice's next token").to_string(),
        );
        let identities = parse(&format!("{}{next}", alice())).unwrap();
        assert_eq!(identities.len(), 2);
        assert_eq!(by_token(&identities, "alice's next token"), Some(1));
        let [old, new] = identities.entries() else { panic!("two entries") };
        assert_eq!((&old.principal, &old.account_id), (&new.principal, &new.account_id));
        let other = next.replace("account_id = \"1234567890\"", "account_id = \"77\"");
        refused(&format!("{}{other}", alice()), "belongs to account 1234567890");
    }

    #[test]
    fn a_token_in_place_of_its_hash_is_refused_without_quoting_it() {
        for wrong in ["\"s3cr3t-token\"", "90210"] {
            let text = ALICE.replace("\"HASH\"", wrong);
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.starts_with("identities.toml:5"), "{error}");
            assert!(!error.contains(wrong.trim_matches('"')), "{error}");
        }
    }

    #[test]
    fn each_malformed_value_is_named_with_its_line() {
        let hash = Sha256::of(b"alice's token").to_string();
        let cases = [
            ("\"ops-alice\"", "\"\"", "identities.toml:3: principal must have"),
            ("\"1234567890\"\ntoken", "\"a:b\"\ntoken", "identities.toml:4: account_id may contain only"),
            ("\"mq:*\"", "\"*\"", "identities.toml:6: allow: must look like mq:"),
            ("[\"mq:*\"]", "[]", "allow is missing or empty"),
            ("acs:mq:*:1234567890:*", "acs:mq:*", "identities.toml:7: resources: must look like acs:mq:"),
            ("acs:mq:*:1234567890:*", "acs:mq:*: :*", "identities.toml:7: resources: may contain only"),
            ("resources", "resorces", "identities.toml:7:1: unknown field `resorces`"),
            ("allow", "token = \"x\"\nallow", "unknown field `token`"),
            ("allow", "certificate = \"spiffe://x\"\nallow", "exactly one of token_sha256 and certificate"),
        ];
        for (from, to, expected) in cases {
            let text = ALICE.replace("HASH", &hash).replacen(from, to, 1);
            assert_ne!(text, alice(), "{from:?} stands in the sample");
            refused(&text, expected);
        }
    }

    #[test]
    fn an_entry_of_a_broker_names_both_its_instance_and_itself() {
        let entry = |lines: &str| alice() + lines;
        let good = parse(&entry("mqtt_instance_id = \"fleet-a\"\nbroker_id = \"gate-1\"\n")).unwrap();
        let broker = good.entries()[0].broker.as_ref().unwrap();
        assert_eq!((broker.instance_id.as_str(), broker.broker_id.as_str()), ("fleet-a", "gate-1"));
        assert_eq!(parse(&alice()).unwrap().entries()[0].broker, None);
        refused(&entry("broker_id = \"gate-1\"\n"), "mqtt_instance_id and broker_id go together");
        refused(&entry("mqtt_instance_id = \"fleet-a\"\n"), "mqtt_instance_id and broker_id go together");
        let both = "mqtt_instance_id = \"fleet-a\"\nbroker_id = \"gate.1\"\noperator = true\n";
        refused(&entry(both), "identities.toml:9: broker_id");
        refused(&entry(both), "identities.toml:2: operator = true stands beside broker_id");
    }

    #[test]
    fn entries_with_grants_are_refused_beside_policies() {
        let parse = |text: &str| Identities::parse(text, Path::new("i.toml"), PermissionSource::Policies);
        let error = parse(&alice()).unwrap_err().to_string();
        let lines: Vec<_> = error.lines().collect();
        assert!(lines[0].starts_with("i.toml:6: allow stands beside auth.policy_dir"), "{error}");
        assert!(lines[1].starts_with("i.toml:7: resources stands beside auth.policy_dir"), "{error}");
        let without: String = alice().lines().take(5).map(|line| format!("{line}\n")).collect();
        assert!(!parse(&without).unwrap().entries()[0].allows("mq:RegisterCa", "acs:mq:r:1234567890:i"));
        refused(&without, "identities.toml:2: allow is missing or empty");
    }

    #[test]
    fn an_empty_file_and_an_empty_token_are_refused() {
        refused("", "nobody could call");
        let text = ALICE.replace("HASH", &Sha256::of(b"").to_string());
        refused(&text, "identities.toml:5: token_sha256 is the hash of an empty token");
    }
}
