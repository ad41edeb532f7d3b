//! `[tls]`: the server's certificate and the client certificates that it accepts.

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::Problems;
use crate::tls::TlsFiles;

/// TLS of the gRPC listener. Off where no certificate is set. The files are read again every
/// 2 seconds and on SIGHUP; one with a mistake in it changes nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsConfig {
    /// PEM file of the server's certificate, followed by its intermediates. Needs `key_file`.
    pub cert_file: Option<PathBuf>,
    /// PEM file of the certificate's private key. Needs `cert_file`.
    pub key_file: Option<PathBuf>,
    /// PEM file of the CAs that client certificates are checked against. Where it is set,
    /// clients may show a certificate instead of a token; the two need `cert_file`. These
    /// CAs vouch for callers of catrust, never for devices.
    pub client_ca_file: Option<PathBuf>,
    /// Accept calls without TLS on an address other than loopback. Default false. Only where
    /// something else encrypts (a sidecar, a private container network): bearer tokens cross
    /// that network readable.
    pub allow_plaintext: bool,
}

impl TlsConfig {
    /// The files; `None` without TLS.
    #[must_use]
    pub(crate) fn files(&self) -> Option<TlsFiles> {
        let (certificate, key) = (self.cert_file.clone()?, self.key_file.clone()?);
        Some(TlsFiles { certificate, key, client_cas: self.client_ca_file.clone() })
    }

    pub(crate) fn validate(&self, listen: SocketAddr, problems: &mut Problems) {
        problems.require(
            self.cert_file.is_some() == self.key_file.is_some(),
            "tls.cert_file",
            "certificate and key go together: set both tls.cert_file and tls.key_file, or neither",
        );
        problems.require(
            self.client_ca_file.is_none() || self.cert_file.is_some(),
            "tls.client_ca_file",
            "needs tls.cert_file and tls.key_file: client certificates exist only inside TLS",
        );
        problems.require(
            self.cert_file.is_some() || self.allow_plaintext || listen.ip().is_loopback(),
            "tls.cert_file",
            "is required, because grpc.listen is not loopback and tokens would cross the network \
             readable; set tls.allow_plaintext = true where something else encrypts",
        );
    }
}
