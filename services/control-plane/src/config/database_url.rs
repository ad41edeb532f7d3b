//! The address of the database, which may hold a password.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use catrust_access::secret_toml::hidden_text;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::secret::{REDACTED, Secret};

/// A database, by its URL. `Display`, `Debug` and `Serialize` hide the password.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// Postgres 15 or later.
    Postgres(PostgresUrl),
    /// A SQLite file, which is made where it is absent; its folder is not.
    Sqlite(PathBuf),
}

/// A `postgres://` URL that has been looked at: at most one `@`, so that the password
/// in it can be told from the rest.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl(String);

impl PostgresUrl {
    /// The URL with its password. Callers MUST NOT log it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The URL with `password` in the place of its own, where one is given. Callers
    /// MUST NOT log it.
    #[must_use]
    pub fn with_password(&self, password: Option<&Secret>) -> String {
        let (Some(password), Some((user_info, rest))) = (password, self.0.split_once('@')) else {
            return self.0.clone();
        };
        let start = user_info.find("://").map_or(0, |at| at + 3);
        let user = user_info[start..].split(':').next().unwrap_or_default();
        format!("{}{user}:{}@{rest}", &user_info[..start], percent_encode(password.expose()))
    }

    /// Whether the URL says who logs in, which a password from elsewhere needs.
    pub(crate) fn names_user(&self) -> bool {
        self.0.contains('@')
    }

    /// The user and the rest, without a password.
    fn redacted(&self) -> String {
        let Some((user_info, rest)) = self.0.split_once('@') else { return self.0.clone() };
        let start = user_info.find("://").map_or(0, |at| at + 3);
        match user_info[start..].find(':') {
            Some(colon) => format!("{}:{REDACTED}@{rest}", &user_info[..start + colon]),
            None => self.0.clone(),
        }
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted())
    }
}

/// The text is not the address of a database. Says what to do, never what was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDatabaseUrl {
    /// Neither kind of database.
    #[error("must start with postgres:// or sqlite:")]
    Scheme,
    /// No file named.
    #[error("names no file: write sqlite:PATH")]
    NoFile,
    /// SQLite in memory.
    #[error("the event log cannot be kept in memory: write sqlite:PATH")]
    InMemory,
    /// Options after the path, which would end up in the file's name.
    #[error("takes no options: write sqlite:PATH without '?'")]
    SqliteOptions,
    /// The password cannot be told from the host.
    #[error(
        "has '@' in more places than one: percent-encode user and password ('@' is %40, '/' is %2F, '?' is %3F, '#' is %23)"
    )]
    Ambiguous,
    /// A password among the options.
    #[error("has a password among its options: use database.password_file")]
    PasswordOption,
}

impl FromStr for DatabaseUrl {
    type Err = InvalidDatabaseUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(rest) = text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) {
            return postgres(text, rest);
        }
        let path = text.strip_prefix("sqlite:").ok_or(InvalidDatabaseUrl::Scheme)?;
        // `sqlite://PATH` is what other tools write; three slashes make it absolute.
        sqlite(path.strip_prefix("//").unwrap_or(path))
    }
}

fn postgres(text: &str, rest: &str) -> Result<DatabaseUrl, InvalidDatabaseUrl> {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if rest.matches('@').count() != authority.matches('@').count() || authority.matches('@').count() > 1 {
        return Err(InvalidDatabaseUrl::Ambiguous);
    }
    let options = rest.split_once('?').map_or("", |(_, options)| options);
    if options.to_ascii_lowercase().contains("password") {
        return Err(InvalidDatabaseUrl::PasswordOption);
    }
    Ok(DatabaseUrl::Postgres(PostgresUrl(text.to_owned())))
}

fn sqlite(path: &str) -> Result<DatabaseUrl, InvalidDatabaseUrl> {
    match path {
        "" => Err(InvalidDatabaseUrl::NoFile),
        ":memory:" => Err(InvalidDatabaseUrl::InMemory),
        _ if path.contains('?') => Err(InvalidDatabaseUrl::SqliteOptions),
        _ => Ok(DatabaseUrl::Sqlite(PathBuf::from(path))),
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Postgres(url) => f.write_str(&url.redacted()),
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for DatabaseUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DatabaseUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        hidden_text(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for DatabaseUrl {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DatabaseUrl".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        String::json_schema(generator)
    }
}

/// Everything but unreserved characters (RFC 3986 §2.3) as `%XX`.
fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_hidden_and_the_rest_is_shown() {
        let url: DatabaseUrl = "postgres://app:hunter2@db:5432/catrust?sslmode=verify-full".parse().unwrap();
        let shown = "postgres://app:<redacted>@db:5432/catrust?sslmode=verify-full";
        assert_eq!(url.to_string(), shown);
        assert_eq!(format!("{url:?}"), shown);
        assert_eq!(serde_json::to_value(&url).unwrap(), shown);
        let DatabaseUrl::Postgres(url) = url else { panic!("not Postgres") };
        assert_eq!(url.expose(), "postgres://app:hunter2@db:5432/catrust?sslmode=verify-full");
        assert!(!format!("{url:?}").contains("hunter2"));
    }

    #[test]
    fn a_password_from_a_file_takes_the_place_of_the_urls_own() {
        let Ok(DatabaseUrl::Postgres(url)) = "postgres://catrust:old@db:5432/catrust".parse() else {
            panic!("is a Postgres URL")
        };
        let password = Secret::new("p@ss:w/rd".to_owned());
        assert_eq!(url.with_password(Some(&password)), "postgres://catrust:p%40ss%3Aw%2Frd@db:5432/catrust");
        assert_eq!(url.with_password(None), url.expose());
    }

    #[test]
    fn a_url_without_password_is_shown_whole() {
        for text in ["postgres://app@db:5432/catrust", "postgresql://db:5432/catrust", "postgres:///catrust"]
        {
            assert_eq!(text.parse::<DatabaseUrl>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_password_that_cannot_be_told_from_the_rest_is_refused() {
        for text in [
            "postgres://u:a@b@db/x",
            "postgres://u:a/b@db/x",
            "postgres://u:a?b@db/x",
            "postgres://u:a#b@db/x",
        ] {
            assert_eq!(text.parse::<DatabaseUrl>(), Err(InvalidDatabaseUrl::Ambiguous), "{text}");
        }
        let option = "postgres://db/x?user=u&password=hunter2";
        assert_eq!(option.parse::<DatabaseUrl>(), Err(InvalidDatabaseUrl::PasswordOption));
    }

    #[test]
    fn sqlite_takes_a_path_in_both_spellings() {
        for text in ["sqlite:data/catrust.db", "sqlite://data/catrust.db"] {
            let url: DatabaseUrl = text.parse().unwrap();
            assert_eq!(url, DatabaseUrl::Sqlite(PathBuf::from("data/catrust.db")));
            assert_eq!(url.to_string(), "sqlite:data/catrust.db");
        }
        let absolute: DatabaseUrl = "sqlite:///var/lib/catrust.db".parse().unwrap();
        assert_eq!(absolute, DatabaseUrl::Sqlite(PathBuf::from("/var/lib/catrust.db")));
    }

    #[test]
    fn what_is_no_lasting_database_is_refused() {
        let cases = [
            ("mysql://db/x", InvalidDatabaseUrl::Scheme),
            ("sqlite:", InvalidDatabaseUrl::NoFile),
            ("sqlite::memory:", InvalidDatabaseUrl::InMemory),
            ("sqlite:a.db?mode=rwc", InvalidDatabaseUrl::SqliteOptions),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<DatabaseUrl>(), Err(expected), "{text}");
        }
    }
}
