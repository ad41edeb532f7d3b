//! The rule by which devices are trusted, the same for the SDK, the gate and the plugin:
//! who is admitted, by which CA certificate, under which name, and for how long.
//!
//! ```text
//! TrustSet::verify(chain, now) ─▶ TrustPath { anchor, user name, validity }   or a Refusal
//! TrustSet::holds(path, now)   ─▶ whether a path that was verified before is trusted still
//! ```
//!
//! Nothing here keeps a session, reads a clock or performs I/O: the time is an argument.
//!
//! # The path rule
//!
//! ```text
//! accepted = a path from the device's certificate to an ACTIVE CA certificate,
//!            every certificate on it valid now                             (allow-list)
//!            and none on it, the device's own included, has the key of a CA that is
//!            inactive with scope KEY, or is a CA certificate that is inactive (deny-list)
//! ```
//!
//! The allow-list alone lets through a renewed or cross-signed certificate of an inactive
//! CA, and an inactive intermediate below an active root.
//!
//! The path is built by rustls-webpki, which follows RFC 5280; what comes with it:
//! certificates of X.509 version 1, RSA keys below 2048 bits and SHA-1 signatures are
//! refused. A path holds a subject with the same key at most once, the same subject with
//! another key as often as it likes.
//!
//! # What a device can cost
//!
//! A device shows any chain that it likes before anybody knows it. So nothing is verified
//! unless the names alone lead to a CA certificate that may vouch; a chain holds at most
//! [`MAX_INTERMEDIATES`] certificates besides the device's own and [`MAX_CHAIN_BYTES`]
//! bytes; no signature is checked twice, and at most [`MAX_SIGNATURE_CHECKS`] are. Key
//! identifiers say what is tried first, and decide nothing.

mod anchor;
mod candidates;
mod certificate;
mod effort;
mod path;
mod refusal;
mod trust_set;
mod verify;

pub use anchor::{Anchor, UnusableCertificate};
pub use candidates::MAX_NAMESAKES;
pub use certificate::{Certificate, CertificateId, Validity};
pub use effort::{Effort, MAX_QUESTIONS, MAX_SIGNATURE_CHECKS};
pub use path::{IssuerPath, TrustPath};
pub use refusal::Refusal;
pub use trust_set::TrustSet;
pub use verify::{MAX_CHAIN_BYTES, MAX_INTERMEDIATES, MAX_NAME_COMPARISONS, check_size};
