//! The gate's own certificate and key, replaced without a restart.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// How often the files are looked at: two `stat` calls.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Why the files are no usable identity. At start: refuse to start. Later: go on with
/// the identity from before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A file cannot be read, or is not PEM.
    #[error("{path} cannot be read")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: pem::Error,
    },
    /// The certificate file has no certificate.
    #[error("{path} has no certificate")]
    Empty {
        /// Path of the file.
        path: PathBuf,
    },
    /// The key is of a kind that cannot sign, or belongs to another certificate: a
    /// replacement that is half done, perhaps.
    #[error("the key does not belong to the certificate")]
    Key(#[source] rustls::Error),
}

/// An identity that follows its files.
pub struct FileIdentity {
    certificate: PathBuf,
    key: PathBuf,
    current: ArcSwap<CertifiedKey>,
}

impl FileIdentity {
    /// Reads the certificate chain (PEM, the gate's own first) and the key (PEM,
    /// PKCS #8, PKCS #1 or SEC1).
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, IdentityError> {
        let current = ArcSwap::from_pointee(read(certificate, key)?);
        Ok(Self { certificate: certificate.to_owned(), key: key.to_owned(), current })
    }

    /// Reads the files again. On an error the identity from before stays.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn reload(&self) -> Result<(), IdentityError> {
        self.current.store(Arc::new(read(&self.certificate, &self.key)?));
        Ok(())
    }

    /// What tells one state of the files from another; `None` while one is missing.
    #[must_use]
    pub fn stamp(&self) -> Option<[FileStamp; 2]> {
        Some([FileStamp::of(&self.certificate).ok()?, FileStamp::of(&self.key).ok()?])
    }
}

/// When a file was written, and how long it is. A replaced file has another inode
/// even where a backup tool kept its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp(SystemTime, u64, u64);

impl FileStamp {
    fn of(path: &Path) -> io::Result<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let metadata = std::fs::metadata(path)?;
        Ok(Self(metadata.modified()?, metadata.len(), metadata.ino()))
    }
}

impl ResolvesServerCert for FileIdentity {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

impl fmt::Debug for FileIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileIdentity").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

fn read(certificate: &Path, key: &Path) -> Result<CertifiedKey, IdentityError> {
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source| IdentityError::File { path, source }
    };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect).map_err(file(certificate))?;
    if chain.is_empty() {
        return Err(IdentityError::Empty { path: certificate.to_owned() });
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(file(key))?;
    // `from_der` compares the key with the certificate.
    CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider()).map_err(IdentityError::Key)
}
