//! Why a rule said no. Each rejection names a state, not a procedure.

use serde::{Deserialize, Serialize};

use crate::serial_number::SerialNumber;

/// A command that the rules refuse. Nothing was recorded.
///
/// Callers can mend all of them but [`Rejection::NotOwner`], [`Rejection::EditionNotSupported`]
/// and [`Rejection::StoredRowDamaged`]; none is worth an unchanged retry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    /// No such instance.
    #[error("the instance is not registered")]
    InstanceNotFound,
    /// The instance id is taken, with other values.
    #[error("the instance is registered already with other values")]
    InstanceExists,
    /// The instance belongs to another account than the caller's.
    #[error("the instance belongs to another account")]
    NotOwner,
    /// Only a Platinum instance may change the state of a CA certificate.
    #[error("the instance is not of the Platinum edition")]
    EditionNotSupported,
    /// No such CA certificate in the instance.
    #[error("the CA certificate is not registered")]
    CertificateNotFound,
    /// The serial number, or the very certificate, is registered already.
    #[error("the serial number {0} is registered already")]
    SerialNumberTaken(SerialNumber),
    /// The register code was never issued to the instance, or was dropped.
    #[error("the register code is unknown")]
    RegisterCodeUnknown,
    /// The register code has been used by another registration.
    #[error("the register code is spent")]
    RegisterCodeSpent,
    /// The instance has as many CA certificates as it may.
    #[error("the instance has its {0} CA certificates")]
    TooManyCertificates(u32),
    /// The CA certificate is inactive for its key, and others of the same key are
    /// active: deleting it would lift the distrust of the key and let them in again.
    #[error("the inactive key is still held by active CA certificates")]
    KeyHeldByActive(Vec<SerialNumber>),
    /// The CA certificate was made inactive by a change that the caller has not seen: one
    /// beyond the expected revision, or one of a new log epoch where none was given.
    #[error("the CA certificate was made inactive at revision {revision}")]
    MadeInactiveAgain {
        /// The revision that the change made.
        revision: u64,
    },
    /// The request id belongs to another request of the account.
    #[error("the request id was used for another request")]
    RequestIdReused,
    /// A stored row that the command needs does not fit the others. Callers cannot mend it.
    #[error("a stored row that the command needs is damaged")]
    StoredRowDamaged,
}
