//! How to reach NATS. Secrets come from files, and none is ever printed.

use std::fs;
use std::path::{Path, PathBuf};

use async_nats::{ConnectOptions, ServerAddr};

use super::streams::MAX_STREAMS;
use crate::feed::FeedError;

/// Settings of the connection and the stream. `Debug` shows no secret: there is none
/// in here, only the files that hold them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsSettings {
    /// `nats://host:port` or `tls://host:port`; several, separated by commas, for a
    /// cluster. A user or password in it is refused: it would show in logs.
    pub url: String,
    /// Credentials file as `nsc` writes it (JWT and seed).
    pub credentials_file: Option<PathBuf>,
    /// File of the seed of an nkey, as `nk -gen user` prints it: the first line that begins
    /// with `SU`. Excludes the other ways to log in.
    pub nkey_file: Option<PathBuf>,
    /// User name; needs `password_file`.
    pub user: Option<String>,
    /// File that holds the password, or, where `user` is unset, a token. White space
    /// around it is dropped.
    pub password_file: Option<PathBuf>,
    /// PEM file of the CA certificates that may sign the server's certificate, in
    /// place of the system's.
    pub tls_ca_file: Option<PathBuf>,
    /// PEM file of the client certificate, for mutual TLS; needs `tls_key_file`.
    pub tls_certificate_file: Option<PathBuf>,
    /// PEM file of the client certificate's key.
    pub tls_key_file: Option<PathBuf>,
    /// Copies of the stream in a NATS cluster: 1, 3 or 5.
    pub replicas: usize,
    /// Most streams that there may be, the one in use among them: 1 to 9.
    pub max_streams: u32,
}

impl NatsSettings {
    /// Settings for a server without authentication, one copy of the stream.
    #[must_use]
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            credentials_file: None,
            nkey_file: None,
            user: None,
            password_file: None,
            tls_ca_file: None,
            tls_certificate_file: None,
            tls_key_file: None,
            replicas: 1,
            max_streams: MAX_STREAMS,
        }
    }

    /// The addresses.
    pub(super) fn servers(&self) -> Result<Vec<ServerAddr>, FeedError> {
        let mut servers = Vec::new();
        for (number, url) in (1..).zip(self.url.split(',')) {
            // Neither the text nor the parser's error is shown: both may hold a password.
            let server: ServerAddr = url.trim().parse().map_err(|_| {
                FeedError::Unsuitable(format!("address {number} in the NATS URL is malformed"))
            })?;
            if server.username().is_some() || server.password().is_some() {
                return Err(FeedError::Unsuitable(format!(
                    "address {number} in the NATS URL holds a user or password; use `user` and \
                     `password_file`, or `credentials_file`"
                )));
            }
            servers.push(server);
        }
        Ok(servers)
    }

    /// Adds identity and TLS to `options`.
    pub(super) fn authenticate(&self, options: ConnectOptions) -> Result<ConnectOptions, FeedError> {
        let mut options = self.log_in(options)?;
        if let Some(file) = &self.tls_ca_file {
            readable(file)?;
            options = options.add_root_certificates(file.clone()).require_tls(true);
        }
        match (&self.tls_certificate_file, &self.tls_key_file) {
            (None, None) => Ok(options),
            (Some(certificate), Some(key)) => {
                readable(certificate)?;
                readable(key)?;
                Ok(options.add_client_certificate(certificate.clone(), key.clone()).require_tls(true))
            }
            _ => Err(FeedError::Unsuitable(
                "a NATS client certificate needs both its file and its key file".to_owned(),
            )),
        }
    }

    fn log_in(&self, options: ConnectOptions) -> Result<ConnectOptions, FeedError> {
        match (&self.credentials_file, &self.nkey_file, &self.user, &self.password_file) {
            (None, None, None, None) => Ok(options),
            (Some(file), None, None, None) => options.credentials(&secret(file)?).map_err(|_| {
                // The parser's error may quote the content.
                FeedError::Unsuitable(format!("{} is not a NATS credentials file", file.display()))
            }),
            (None, Some(file), None, None) => Ok(options.nkey(seed(file)?)),
            (None, None, Some(user), Some(file)) => {
                Ok(options.user_and_password(user.clone(), secret(file)?))
            }
            (None, None, None, Some(file)) => Ok(options.token(secret(file)?)),
            _ => Err(FeedError::Unsuitable(
                "give NATS one login: a credentials file, or a file with the seed of an nkey, or a user \
                 with a password file, or a password file alone as a token"
                    .to_owned(),
            )),
        }
    }
}

fn secret(file: &Path) -> Result<String, FeedError> {
    let text = fs::read_to_string(file).map_err(|error| unreadable(file, &error))?;
    Ok(text.trim().to_owned())
}

/// The seed in a file, which is looked at here: the connection would not say what is wrong.
fn seed(file: &Path) -> Result<String, FeedError> {
    let text = secret(file)?;
    let seed = text.lines().map(str::trim).find(|line| line.starts_with("SU"));
    seed.filter(|seed| nkeys::KeyPair::from_seed(seed).is_ok()).map(str::to_owned).ok_or_else(|| {
        FeedError::Unsuitable(format!("{} does not hold the seed of a user's nkey (SU…)", file.display()))
    })
}

fn readable(file: &Path) -> Result<(), FeedError> {
    fs::File::open(file).map(|_| ()).map_err(|error| unreadable(file, &error))
}

fn unreadable(file: &Path, error: &std::io::Error) -> FeedError {
    FeedError::Unsuitable(format!("cannot read {}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(settings: &NatsSettings) -> String {
        let error = settings
            .servers()
            .err()
            .or_else(|| settings.authenticate(ConnectOptions::new()).err())
            .expect("refused settings");
        error.to_string()
    }

    #[test]
    fn several_addresses_make_a_cluster() {
        let settings = NatsSettings::new("nats://a:4222, tls://b:4223");
        let hosts: Vec<String> =
            settings.servers().unwrap().iter().map(|server| server.host().to_owned()).collect();
        assert_eq!(hosts, ["a", "b"]);
        assert!(settings.authenticate(ConnectOptions::new()).is_ok());
    }

    #[test]
    fn a_password_in_the_address_is_refused_and_not_shown() {
        for url in ["nats://me:hunter2@a:4222", "nats://hunter2@a:4222", "nats://me:hunter2@a:nope"] {
            let refusal = refusal(&NatsSettings::new(url));
            assert!(!refusal.contains("hunter2"), "{refusal}");
        }
    }

    #[test]
    fn a_bad_credentials_file_is_refused_and_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("user.creds");
        fs::write(&file, "hunter2").unwrap();
        let settings = NatsSettings { credentials_file: Some(file), ..NatsSettings::new("nats://a") };
        let refusal = refusal(&settings);
        assert!(refusal.contains("user.creds") && !refusal.contains("hunter2"), "{refusal}");
    }

    #[test]
    fn the_seed_of_an_nkey_is_looked_at_and_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("user.nk");
        let settings = NatsSettings { nkey_file: Some(file.clone()), ..NatsSettings::new("nats://a") };
        let user = nkeys::KeyPair::new_user();
        // As `nk -gen user -pubout` prints both.
        fs::write(&file, format!("{}\n{}\n", user.seed().unwrap(), user.public_key())).unwrap();
        assert!(settings.authenticate(ConnectOptions::new()).is_ok());
        let account = nkeys::KeyPair::new_account().seed().unwrap();
        for text in ["SUHUNTER2", &account, &user.public_key(), ""] {
            fs::write(&file, text).unwrap();
            let refusal = refusal(&settings);
            assert!(refusal.contains("user.nk") && !refusal.contains("HUNTER2"), "{refusal}");
        }
        let two = NatsSettings { user: Some("me".into()), password_file: Some(file), ..settings };
        assert!(refusal(&two).contains("one login"));
    }

    #[test]
    fn half_an_identity_is_refused() {
        let base = NatsSettings::new("nats://a");
        let user = NatsSettings { user: Some("me".into()), ..base.clone() };
        assert!(refusal(&user).contains("password file"));
        let key = NatsSettings { tls_key_file: Some("key.pem".into()), ..base.clone() };
        assert!(refusal(&key).contains("both"));
        let missing = NatsSettings { tls_ca_file: Some("missing.pem".into()), ..base };
        assert!(refusal(&missing).contains("missing.pem"));
    }
}
