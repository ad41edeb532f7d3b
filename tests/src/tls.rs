//! TLS of a deployment: the server's certificate, and the CA of its callers.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use crate::certificates::{Ca, Leaf};
use crate::client::Caller;
use crate::deployment::Plan;
use crate::server::Server;

/// Two CAs, and the files that a server reads.
#[derive(Debug)]
pub struct Tls {
    /// Vouches for the server.
    pub server_ca: Ca,
    /// Vouches for callers.
    pub client_ca: Ca,
    files: TempDir,
}

impl Tls {
    /// Makes CAs, a server certificate and the files.
    ///
    /// # Errors
    /// When something cannot be made or written.
    pub fn new() -> anyhow::Result<Self> {
        let (server_ca, client_ca) = (Ca::root("server CA")?, Ca::root("client CA")?);
        let files = tempfile::Builder::new().prefix("catrust-tls-").tempdir()?;
        let tls = Self { server_ca, client_ca, files };
        tls.write_server(&tls.server_ca.server()?)?;
        tls.write_client_cas(&[&tls.client_ca])?;
        Ok(tls)
    }

    /// The settings.
    #[must_use]
    pub fn plan(&self, plan: Plan) -> Plan {
        plan.set("tls.cert_file", &format!("{:?}", self.at("server.pem")))
            .set("tls.key_file", &format!("{:?}", self.at("server.key")))
            .set("tls.client_ca_file", &format!("{:?}", self.at("clients.pem")))
    }

    /// Where a file lies: `server.pem`, `server.key` or `clients.pem`.
    #[must_use]
    pub fn at(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Puts a server certificate and its key in their places, each whole.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write_server(&self, leaf: &Leaf) -> anyhow::Result<()> {
        self.write("server.key", &leaf.key_pem)?;
        self.write("server.pem", &leaf.pem)
    }

    /// Puts the CAs of callers in their place.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write_client_cas(&self, cas: &[&Ca]) -> anyhow::Result<()> {
        self.write("clients.pem", &cas.iter().map(|ca| ca.pem.as_str()).collect::<String>())
    }

    /// Puts a file in its place, whole.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<()> {
        let temporary = self.at(".new");
        fs::write(&temporary, text)?;
        Ok(fs::rename(temporary, self.at(name))?)
    }

    /// A caller over a connection of its own.
    ///
    /// # Errors
    /// When a certificate or the token is malformed.
    pub fn caller(
        &self,
        server: &Server,
        leaf: Option<&Leaf>,
        token: Option<&str>,
    ) -> anyhow::Result<Caller> {
        Caller::tls(server.address(), &self.server_ca.pem, leaf, token)
    }
}
