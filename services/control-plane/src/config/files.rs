//! The files that the settings name: whether they can be read and used.

use std::path::Path;

use catrust_access::Identities;
use catrust_access::jwt::JwkSet;
use catrust_policy::{Policies, PolicyBundle};

use super::error::Problems;
use super::{Config, ConfigError};
use crate::tls::{ServerTls, TlsFiles};

impl Config {
    /// Checks that every file that the settings name can be read, that certificates and keys fit
    /// together, and that the identities and policies hold. The files may have changed by the time they are used.
    ///
    /// # Errors
    /// [`ConfigError::Settings`] with every problem that was found.
    pub fn check_files(&self) -> Result<(), ConfigError> {
        let mut problems = Problems::default();
        problems.readable("database.password_file", self.database.password_file.as_deref());
        problems.readable("database.root_ca_file", self.database.root_ca_file.as_deref());
        problems.readable("database.client_cert_file", self.database.client_cert_file.as_deref());
        problems.readable("database.client_key_file", self.database.client_key_file.as_deref());
        problems.readable("nats.credentials_file", self.nats.credentials_file.as_deref());
        problems.readable("nats.password_file", self.nats.password_file.as_deref());
        problems.readable("nats.nkey_file", self.nats.nkey_file.as_deref());
        problems.readable("nats.root_ca_file", self.nats.root_ca_file.as_deref());
        problems.readable("nats.client_cert_file", self.nats.client_cert_file.as_deref());
        problems.readable("nats.client_key_file", self.nats.client_key_file.as_deref());
        problems.readable("signing.key_file", self.signing.key_file.as_deref());
        problems.readable("signing.key_set_file", self.signing.key_set_file.as_deref());
        problems.readable("signing.root_key_file", self.signing.root_key_file.as_deref());
        problems.readable("tls.cert_file", self.tls.cert_file.as_deref());
        problems.readable("tls.key_file", self.tls.key_file.as_deref());
        problems.readable("tls.client_ca_file", self.tls.client_ca_file.as_deref());
        problems.tls(self.tls.files());
        if let Some(path) = &self.auth.token_file
            && let Err(error) = Identities::load(path, self.auth.permission_source())
        {
            problems.add("auth.token_file", error.to_string());
        }
        problems.readable("auth.jwt.key_set_ca_file", self.auth.jwt.key_set_ca_file.as_deref());
        if let Some(path) = &self.auth.jwt.key_set_file
            && let Err(error) = JwkSet::load(path)
        {
            problems.add("auth.jwt.key_set_file", error);
        }
        if let Some(path) = &self.auth.policy_dir {
            problems.policies(path);
        }
        problems.into_result()
    }
}

impl Problems {
    /// Adds a problem unless the file can be opened for reading.
    fn readable(&mut self, key: &str, path: Option<&Path>) {
        let Some(path) = path else { return };
        // Opening a directory succeeds, reading it does not.
        let opened = std::fs::File::open(path).and_then(|file| file.metadata());
        match opened {
            Ok(found) if found.is_dir() => self.add(key, format!("{} is a directory", path.display())),
            Ok(_) => {}
            Err(error) => self.add(key, format!("cannot read {}: {error}", path.display())),
        }
    }

    /// Adds a problem when the TLS files can be read and not used. Those that cannot be read
    /// are told one by one.
    fn tls(&mut self, files: Option<TlsFiles>) {
        let Some(files) = files else { return };
        let contents: Result<Vec<_>, _> = files.paths().iter().map(std::fs::read).collect();
        let used = contents.map_or(Ok(()), |contents| ServerTls::new(files).replace(&contents));
        if let Err(error) = used {
            self.add("tls.cert_file", format!("{error:#}"));
        }
    }

    /// Adds every problem of the policy folder, by file and line.
    fn policies(&mut self, folder: &Path) {
        let Err(refused) = PolicyBundle::read(folder).and_then(|bundle| Policies::compile(&bundle)) else {
            return;
        };
        for problem in refused.0 {
            let place = match problem.place() {
                place if place.is_empty() => "auth.policy_dir".to_owned(),
                place => folder.join(place).display().to_string(),
            };
            self.add(place, problem.message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_not_a_readable_file() {
        let mut problems = Problems::default();
        problems.readable("tls.key_file", Some(Path::new(env!("CARGO_MANIFEST_DIR"))));
        let error = problems.into_result().unwrap_err().to_string();
        assert!(error.ends_with("is a directory"), "{error}");
    }
}
