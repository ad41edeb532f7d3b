//! Where the database is, and how it proves to be the one that was meant.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use super::error::store_error;
use crate::StoreError;

/// The address of a database, with the files of its TLS.
///
/// Beyond this machine the server has to prove that it is the one named: the log and the
/// passwords would else go to whoever sits in between. So a TCP address that is not
/// loopback is refused unless its `sslmode` is `verify-full`, or [`Self::allow_plaintext`]
/// is set.
#[derive(Clone)]
pub struct PgAddress {
    url: String,
    /// PEM file of the CAs that may sign the server's certificate, beside the public ones
    /// of the web, which the driver always takes. With it, `sslmode` is `verify-full` where
    /// nothing is said.
    pub root_ca_file: Option<PathBuf>,
    /// PEM file of the client certificate and its intermediates; needs `client_key_file`.
    pub client_cert_file: Option<PathBuf>,
    /// PEM file of the client certificate's key.
    pub client_key_file: Option<PathBuf>,
    /// Takes any `sslmode` beyond loopback: something else encrypts there.
    pub allow_plaintext: bool,
}

impl PgAddress {
    /// Takes a URL as libpq has it (`postgres://user@host:5432/name?sslmode=verify-full&…`);
    /// what it leaves out comes from the `PG…` environment variables. Several hosts are
    /// separated by commas, each with its port (`postgres://user@one:5432,other:5433/name`): all
    /// are asked, and the one that takes writes is used.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            root_ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            allow_plaintext: false,
        }
    }

    /// Checks what can be checked without connecting and without reading a file.
    ///
    /// # Errors
    /// [`StoreError::Unsuitable`] says what to change.
    pub fn check(&self) -> Result<(), StoreError> {
        self.options().map(drop)
    }

    /// How to connect to each of the hosts, in their order.
    pub(super) fn options(&self) -> Result<Vec<PgConnectOptions>, StoreError> {
        urls_of_hosts(&self.url).iter().map(|url| self.options_of(url)).collect()
    }

    fn options_of(&self, url: &str) -> Result<PgConnectOptions, StoreError> {
        let mut options = PgConnectOptions::from_str(url).map_err(store_error)?;
        if let Some(file) = &self.root_ca_file {
            options = match options.get_ssl_mode() {
                // What the driver takes where nothing is said.
                PgSslMode::Prefer => options.ssl_mode(PgSslMode::VerifyFull),
                PgSslMode::VerifyFull | PgSslMode::VerifyCa => options,
                PgSslMode::Disable | PgSslMode::Allow | PgSslMode::Require => {
                    return Err(unsuitable(
                        "root_ca_file is set, and sslmode does not check against it: write sslmode=verify-full",
                    ));
                }
            };
            options = options.ssl_root_cert(file);
        }
        options = match (&self.client_cert_file, &self.client_key_file) {
            (Some(certificate), Some(key)) => options.ssl_client_cert(certificate).ssl_client_key(key),
            (None, None) => options,
            _ => return Err(unsuitable("a client certificate needs both its file and its key file")),
        };
        self.check_reach(&options)?;
        Ok(match options.get_application_name() {
            Some(_) => options,
            None => options.application_name("catrust"),
        })
    }

    fn check_reach(&self, options: &PgConnectOptions) -> Result<(), StoreError> {
        if self.allow_plaintext || is_local(options) || is_verified(options) {
            return Ok(());
        }
        Err(unsuitable(
            "the database is on another machine, and nothing proves that it is the one: write \
             sslmode=verify-full and give database.root_ca_file; where something else encrypts and \
             proves it, set database.allow_plaintext = true",
        ))
    }
}

/// The address that is a URL and nothing else.
impl<T: AsRef<str> + ?Sized> From<&T> for PgAddress {
    fn from(url: &T) -> Self {
        Self::new(url.as_ref())
    }
}

/// The URL once for each host in it.
fn urls_of_hosts(url: &str) -> Vec<String> {
    let start = url.find("://").map_or(0, |at| at + 3);
    let end = url[start..].find(['/', '?', '#']).map_or(url.len(), |at| start + at);
    let hosts_from = url[start..end].rfind('@').map_or(start, |at| start + at + 1);
    let (before, after) = (&url[..hosts_from], &url[end..]);
    url[hosts_from..end].split(',').map(|host| format!("{before}{host}{after}")).collect()
}

fn unsuitable(text: &str) -> StoreError {
    StoreError::Unsuitable(text.to_owned())
}

fn is_verified(options: &PgConnectOptions) -> bool {
    matches!(options.get_ssl_mode(), PgSslMode::VerifyFull)
}

/// Whether no network is in between: a socket, or loopback.
fn is_local(options: &PgConnectOptions) -> bool {
    let host = options.get_host();
    options.get_socket().is_some()
        || host.starts_with('/')
        || host.eq_ignore_ascii_case("localhost")
        || host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Without the URL, which may hold a password.
impl fmt::Debug for PgAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PgAddress").field("root_ca_file", &self.root_ca_file).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(address: &PgAddress) -> String {
        address.check().expect_err("refused").to_string()
    }

    #[test]
    fn this_machine_needs_no_tls() {
        for host in ["127.0.0.1", "127.8.7.6", "localhost", "[::1]", "%2Frun%2Fpostgresql"] {
            let address = PgAddress::new(format!("postgres://app@{host}:5432/catrust"));
            assert!(address.check().is_ok(), "{host}");
        }
    }

    #[test]
    fn each_host_of_several_has_its_port_and_everything_else_of_the_url() {
        let url = "postgres://app:p%40ss@one:5433,[::1]:5434,other/catrust?sslmode=verify-full";
        let options = PgAddress::new(url).options().unwrap();
        let told: Vec<_> = options.iter().map(|host| (host.get_host(), host.get_port())).collect();
        assert_eq!(told, [("one", 5433), ("[::1]", 5434), ("other", 5432)]);
        for host in &options {
            assert_eq!((host.get_username(), host.get_database()), ("app", Some("catrust")));
            assert!(is_verified(host));
        }
        assert!(
            refusal(&PgAddress::new("postgres://app@127.0.0.1,db.internal/x")).contains("another machine")
        );
    }

    #[test]
    fn another_machine_has_to_prove_who_it_is() {
        let far = "postgres://app@db.internal:5432/catrust";
        for mode in ["", "?sslmode=disable", "?sslmode=prefer", "?sslmode=require", "?sslmode=verify-ca"] {
            let address = PgAddress::new(format!("{far}{mode}"));
            assert!(refusal(&address).contains("verify-full"), "{mode}");
            assert!(PgAddress { allow_plaintext: true, ..address }.check().is_ok(), "{mode}");
        }
        assert!(PgAddress::new(format!("{far}?sslmode=verify-full")).check().is_ok());
        for disguise in ["localhost.example.org", "127.0.0.1.example.org", "10.0.0.1", "[::2]"] {
            assert!(
                PgAddress::new(format!("postgres://app@{disguise}/catrust")).check().is_err(),
                "{disguise}"
            );
        }
        // An option of the URL wins over the host in it.
        let elsewhere = PgAddress::new("postgres://app@127.0.0.1/catrust?host=db.internal");
        assert!(refusal(&elsewhere).contains("another machine"));
    }

    #[test]
    fn a_root_ca_file_means_verify_full_and_nothing_weaker() {
        let with_ca = |url: &str| PgAddress { root_ca_file: Some("ca.pem".into()), ..PgAddress::new(url) };
        let options = with_ca("postgres://app@db.internal/catrust").options().unwrap();
        assert!(is_verified(&options[0]));
        let options = with_ca("postgres://app@127.0.0.1/catrust").options().unwrap();
        assert!(is_verified(&options[0]), "on loopback, too");
        for mode in ["disable", "allow", "require"] {
            let address = with_ca(&format!("postgres://app@127.0.0.1/catrust?sslmode={mode}"));
            assert!(refusal(&address).contains("root_ca_file"), "{mode}");
        }
    }

    #[test]
    fn a_client_certificate_needs_its_key() {
        let address = PgAddress::new("postgres://app@127.0.0.1/catrust");
        let half = PgAddress { client_cert_file: Some("cert.pem".into()), ..address.clone() };
        assert!(refusal(&half).contains("both"));
        let half = PgAddress { client_key_file: Some("key.pem".into()), ..address };
        assert!(refusal(&half).contains("both"));
    }

    #[test]
    fn the_url_is_not_printed() {
        let address = PgAddress::new("postgres://app:hunter2@db/catrust");
        assert!(!format!("{address:?}").contains("hunter2"));
    }
}
