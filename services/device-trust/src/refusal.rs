//! Why a device is refused.

/// Why a device is refused. The session MUST NOT be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no trust bundle, or none that may be relied on any more: nobody new is
    /// admitted until the agent has heard from the control plane.
    #[error("the trust is not current: nobody new is admitted until the agent renews it")]
    Stale,
    /// The peer showed no certificate.
    #[error("there is no client certificate")]
    NoCertificate,
    /// More certificates came with it than a path may hold, or more bytes.
    #[error("the certificate chain is too long: at most 4 intermediates, and 16 KiB altogether")]
    ChainTooLong,
    /// The device's certificate is not X.509 as we read it, or holds more than any honest
    /// one does.
    #[error("the certificate is malformed")]
    Malformed,
    /// It is of X.509 version 1, as `openssl x509 -req` makes it without extensions.
    #[error("the certificate is of X.509 version 1: issue one of version 3")]
    OldVersion,
    /// No active CA certificate vouches for it, or only by a key or signature that is too
    /// weak.
    #[error("no active CA certificate vouches for it")]
    UnknownIssuer,
    /// An inactive CA certificate or its key is on its path, or bears its issuer's name.
    #[error("its CA certificate is inactive")]
    Inactive,
    /// Its own certificate, or one that its path needs, is expired or not yet valid.
    #[error("a certificate on its path is expired or not yet valid")]
    Expired,
    /// Its own certificate is for something else: a server's, or a CA's.
    #[error("the certificate is not for client authentication")]
    WrongPurpose,
    /// The work that a device may cause was done before a path was found.
    #[error("finding a path to an active CA certificate costs more work than a device may cause")]
    TooCostly,
}

impl Refusal {
    /// A word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stale => "stale",
            Self::NoCertificate => "no_certificate",
            Self::ChainTooLong => "chain_too_long",
            Self::Malformed => "malformed",
            Self::OldVersion => "old_version",
            Self::UnknownIssuer => "unknown_issuer",
            Self::Inactive => "inactive",
            Self::Expired => "expired",
            Self::WrongPurpose => "wrong_purpose",
            Self::TooCostly => "too_costly",
        }
    }
}
